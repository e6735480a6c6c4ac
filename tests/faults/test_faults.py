"""Every hostile input ends in one line with the way out, or in a counted result."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.faults.fault import Fault, World, call_process, meet
from tests.faults.table import all_faults
from tests.forked import Forks

FAULTS = all_faults()


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=f"{fault.kind}: {fault.name}") for fault in FAULTS if not fault.slow]
)
def test_a_fault_is_met(fault: Fault, forks: Forks, cache: Path, tmp_path: Path) -> None:
    def call(words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return forks.call(words, cwd=cwd, env=env)

    assert not meet(fault, World(tmp_path, cache / "mini-v1-seed0"), call)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted({fault.kind for fault in FAULTS if not fault.slow}))
def test_one_of_a_kind_is_met_by_a_real_process(kind: str, cache: Path, tmp_path: Path) -> None:
    fault = next(fault for fault in FAULTS if fault.kind == kind and not fault.slow)
    assert not meet(fault, World(tmp_path, cache / "mini-v1-seed0"), call_process)


def test_names_tell_rows_apart() -> None:
    assert not [name for name, rows in Counter((fault.kind, fault.name) for fault in FAULTS).items() if rows > 1]
