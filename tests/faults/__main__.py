"""All hostile inputs as real processes: `python -m tests.faults [KIND …]`. Exits with 1 where one is met badly."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmeb_tasks.mini import make_suite

from tests.faults.fault import HANGS_AFTER, World, meet
from tests.faults.table import all_faults
from tests.patience import PATIENCE


def _call(words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    begun = time.monotonic()
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, -signal.SIGKILL, "", f"killed after {PATIENCE:.0f} s")
    if (seconds := time.monotonic() - begun) > HANGS_AFTER:
        done.stderr += f"error: took {seconds:.0f} s, which counts as hanging\n"
    return done


def main() -> int:
    """Meet every row of the kinds that are asked for, or of all, and say what came of each."""
    kinds = sys.argv[1:]
    chosen = [fault for fault in all_faults() if not kinds or fault.kind in kinds]
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        make_suite(Path(folder) / "mini", 0)
        for number, fault in enumerate(chosen):
            wrong = meet(fault, World(Path(folder) / str(number), Path(folder) / "mini"), _call)
            failed += bool(wrong)
            print(f"{'FAIL' if wrong else 'ok':<4}  {fault.kind:<12} {fault.name}", *wrong, sep="\n      ", flush=True)
    print(f"{len(chosen)} inputs, {failed} met badly")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
