"""The script for a GPU, tiny and on the CPU: all of its parts run, and each can fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from mmeb_harness.core import environment
from mmeb_harness.ranking.nearest import gpu_count
from mmemb_r1_model.decoding.slots import SlotCache
from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.training import stage1
from mmemb_r1_model.training.joint import ContrastConfig
from tests.benchmarks import gpu_check
from tests.benchmarks.gpu_check import PARTS, SIZES, Clock, exit_status, run_part

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> gpu_check.Bench:
    return gpu_check.Bench(SIZES["tiny"], CPU, tmp_path_factory.mktemp("gpu_check"))


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(gpu_check.main, ["--seconds", "1e6", "--output", str(tmp_path)], standalone_mode=False)
    assert done.exception is None, done.output
    assert done.return_value == 3
    written = json.loads((tmp_path / "gpu_check.json").read_text())
    statuses = {part["name"]: part["status"] for part in written["parts"]}
    skipped = {"graphs", "predicted", *([] if gpu_count() else ["faiss"])}
    assert statuses == {name: "skipped" if name in skipped else "passed" for name in PARTS}
    assert all(part["allocated"] > 0 and not part["cut"] for part in written["parts"])
    assert all(f"{name:9} {status}" in done.output for name, status in statuses.items())


def failure(name: str, bench: gpu_check.Bench) -> str:
    """Why a part failed."""
    result = run_part(name, bench, 1e6)
    assert result.status == "failed", result
    assert result.traceback
    assert exit_status([result]) == 1
    return result.reason


def test_a_cache_that_is_off_by_one_column_is_found(bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = SlotCache.begin
    monkeypatch.setattr(SlotCache, "begin", lambda self, lengths, width: right(self, (lengths - 1).clamp(0), width))
    assert "reasoned vectors apart is" in failure("engine", bench)


def test_a_gate_that_reads_another_token_is_found(bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Engine._open

    def opened(self: Engine, *given: Any) -> Any:
        own = yield from right(self, *given)
        own.extra.gates[0] += 0.01
        return own

    monkeypatch.setattr(Engine, "_open", opened)
    assert "direct gates apart is" in failure("engine", bench)


def test_replayed_steps_that_keep_their_first_inputs_are_found(
    bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stale(gpu_check.Rerun):
        """A recording that doesn't look at what it is given later."""

        def replay(self, key: tuple[int, ...], step: Callable[[], None]) -> bool:
            return key in self._keys or super().replay(key, step)

    monkeypatch.setattr(gpu_check, "Rerun", Stale)
    assert "states after replayed steps are 1 apart" in failure("graphs", bench)


def test_ranks_and_ties_that_are_not_numpys_are_found(bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = gpu_check.rank_corpus

    def ranked(*given: Any, **options: Any) -> list[Any]:
        own = right(*given, **options)
        own[-1].positions[[1, 2]] = own[-1].positions[[2, 1]]
        return own

    monkeypatch.setattr(gpu_check, "rank_corpus", ranked)
    assert "other candidates than by numpy" in failure("faiss", bench)


def test_a_gpu_that_torch_does_not_see_is_told(bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "visible_gpus", lambda _: ("NVIDIA H200",))
    assert "the driver lists NVIDIA H200, and torch" in failure("device", bench)


def test_a_micro_batch_that_fits_is_found(bench: gpu_check.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    right = stage1.joint_backward

    def backward(student: Any, batch: Any, config: ContrastConfig, *given: Any) -> dict[str, float]:
        if config.micro_batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(student, batch, config, *given)

    monkeypatch.setattr(stage1, "joint_backward", backward)
    result = run_part("stage1", bench, 1e6)
    assert result.status == "passed", result
    assert result.figures["micro-batch"] == "1, for 2 doesn't fit"


def test_a_part_without_time_is_not_begun(bench: gpu_check.Bench) -> None:
    result = run_part("device", bench, 0.0)
    assert (result.status, "all the time" in result.reason) == ("failed", True)
    assert exit_status([run_part("device", bench, 1.0)]) == 0


def test_what_takes_long_is_done_less_often() -> None:
    clock = Clock(100.0)
    assert clock.affordable(5, 1.0, "steps") == 5
    assert clock.affordable(5, 1e6, "steps") == 1
    assert clock.affordable(5, 1e6, "further steps", least=0) == 0
    assert clock.cut == ["1 of 5 steps", "0 of 5 further steps"]
