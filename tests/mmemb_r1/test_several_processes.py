"""Two processes: gradients, curves, weights and checkpoints as with one, and none waits for ever.

All in one file, whose processes are forked from one that has imported what they need: only once.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from mmemb_r1_model.training.distributed import World, join_world
from mmemb_r1_model.training.loop import TrainingError, within_memory
from tests.mmemb_r1.calls import call, without_a_process
from tests.mmemb_r1.conftest import TEXTS
from tests.mmemb_r1.sharded import ADAPTERS, CACHED, UNCACHED, gradient_of_a_step, run_train
from tests.mmemb_r1.small_training import make_pairs
from tests.mmemb_r1.test_pipeline import SMALL

pytest.importorskip("accelerate")
pytest.importorskip("peft")
pytestmark = pytest.mark.slow


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def assert_same_run(one: Path, other: Path) -> None:
    """Curves to 1 in 10,000 (delta is a difference of two scores), weights to 0.02 of the learning rate."""
    rows, others = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (one, other)
    )
    assert len(rows) == len(others)
    for row, expected in zip(rows, others, strict=True):
        assert row | {"seconds": 0} == pytest.approx(expected | {"seconds": 0}, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(weights_of(one / "final"), weights_of(other / "final"), rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_pairs(folder, 24)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, and four tokens written at most: each token costs a meeting of the processes in every layer."""
    folder, tokenizer = tmp_path_factory.mktemp("checkpoint"), build_tokenizer(TEXTS * 50, 512)
    settings = dataclasses.replace(TINY_SETTINGS, max_new_tokens=4)
    save_tiny(build_model(tokenizer, TinySize(layers=2, hidden=64), seed=0), tokenizer, settings, folder)
    return folder


@pytest.fixture(scope="module")
def runs(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory, torchrun: Callable[..., str]) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    torchrun(2, "tests.mmemb_r1.sharded", str(checkpoint), str(data), str(folder))
    return folder


def test_each_process_keeps_its_part_of_the_weights(runs: Path) -> None:
    parameters = json.loads((runs / "kept.json").read_text())
    assert sum(parameters["kept"]) == parameters["all"]
    assert max(parameters["kept"]) < 0.51 * parameters["all"]


def test_a_step_has_the_gradient_of_one_process(checkpoint: Path, data: Path, runs: Path) -> None:
    """Vectors are gathered, labels too; the gradients add up."""
    one, two = gradient_of_a_step(checkpoint, data, World()), torch.load(runs / "step.pt", weights_only=True)
    assert (one["size"], two["size"]) == (1, 2)
    assert two["values"] == pytest.approx(one["values"], rel=1e-5)
    torch.testing.assert_close(two["gradient"], one["gradient"], rtol=1e-3, atol=1e-5)


def test_stage_1_is_that_of_one_process(checkpoint: Path, data: Path, runs: Path, tmp_path: Path) -> None:
    run_train(CACHED, checkpoint, data, tmp_path, World())
    assert_same_run(runs / "train", tmp_path)
    load(str(runs / "train" / "final"))


def test_stage_1_with_adapters_is_that_of_one_process(checkpoint: Path, data: Path, runs: Path, tmp_path: Path) -> None:
    run_train(UNCACHED, checkpoint, data, tmp_path, World(), **ADAPTERS)
    assert_same_run(runs / "train-lora", tmp_path)
    before, after = weights_of(checkpoint), weights_of(runs / "train-lora" / "final")
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("q_proj" in name for name in changed)
    assert any("embed_tokens" in name for name in changed)
    load(str(runs / "train-lora" / "final"))


@pytest.mark.parametrize("name", ["train", "adapt-lora"])
def test_a_run_that_was_broken_off_is_the_whole_one(runs: Path, name: str) -> None:
    whole, resumed = (runs / one / "final" / "model.safetensors" for one in (name, f"{name}-resumed"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize("name", ["adapt", "adapt-lora"])
def test_stage_2_is_that_of_two_processes_with_all_weights(runs: Path, name: str) -> None:
    assert_same_run(runs / name, runs / f"{name}-replicated")
    load(str(runs / name / "final"))


def test_adapters_for_a_server_are_gathered_whole(runs: Path) -> None:
    one, other = (load_file(runs / name / "adapter_model.safetensors") for name in ("adapter", "adapter-replicated"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(re.search(r"\.lora_[AB]\.weight$", name) for name in one)


def test_one_process_has_nobody_to_share_with() -> None:
    with pytest.raises(OptionError, match=r"student\.shard: true needs several processes: torchrun"):
        join_world("cpu", shard=True)


def test_of_several_processes_one_without_memory_ends_the_run() -> None:
    """It must not try a smaller size: the others are in the middle of the step."""
    sizes = []

    def attempt(size: int) -> dict[str, float]:
        sizes.append(size)
        raise torch.OutOfMemoryError("tried to allocate 2 TiB")

    with pytest.raises(TrainingError, match=r"setting: 8 does not fit in memory on process 1 of 2 .*2 TiB"):
        within_memory(attempt, 8, "setting", World(rank=1, size=2))
    assert sizes == [8]


def test_processes_that_wait_outlast_the_first_ones_work(torchrun: Callable[..., str]) -> None:
    """torch's own limit is a second here; the first process works for three. Then stages one by one, as a dry run."""
    torchrun(2, "tests.mmemb_r1.patient_processes")


def test_two_processes_train_one_student(
    tmp_path: Path, torchrun: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stage 1 with all weights in each, stage 2 with weights that are split."""
    monkeypatch.setattr("mmemb_r1_model.pipeline._command", without_a_process)
    words = ["--config", "miniworld", "--output", str(tmp_path), "--set", "rationales.samples=1"]
    words += [word for one in SMALL for word in ("--set", one)]
    words += ["--set", "judge.lessons[1].training.loop.steps=1"]
    words += ["--set", "select.pairs_at_once=5"]
    call("rationales", *words)
    for stage in ("select", "train", "adapt"):
        shown = torchrun(2, "mmemb_r1_model.cli", stage, *words, "--set", f"student.shard={stage == 'adapt'}")
        assert shown.count(f"{stage}:") == 1
    shares = [
        {(row["dataset"], row["pair"], row["side"]) for row in read_rows(tmp_path / "selected" / name)}
        for name in ("judged.jsonl", "judged-1.jsonl", "selected.jsonl")
    ]
    assert len(shares[0] & shares[1]) == 0 < min(len(shares[0]), len(shares[1]))
    assert shares[0] | shares[1] == shares[2]
    assert len(list(read_rows(tmp_path / "selected" / "selected.jsonl"))) == len(shares[2]) == 5 * 12 + 2 * 12
    assert [row["step"] for row in read_rows(tmp_path / "joint" / "log.jsonl")] == [3]
    assert (tmp_path / "adaptive" / "final" / "model.safetensors").is_file()
    assert json.loads((tmp_path / "adaptive" / "config.json").read_text())["student"]["shard"] is True
