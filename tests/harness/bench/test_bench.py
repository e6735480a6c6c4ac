"""The bench: what it measures is what a run does, the references really are plain, and the arithmetic is closed."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmeb_harness import (
    Embedder,
    EncodeResult,
    HarnessError,
    Item,
    MemoryEmbedder,
    OptionError,
    Peer,
    Profile,
    ReferenceEmbedder,
    Role,
    Samples,
    Task,
    Work,
    import_peer,
)
from mmeb_harness.adapter.memory import forget_peak, held_memory, peak_device_memory, peak_memory
from mmeb_harness.bench import measure
from mmeb_harness.bench.make import open_encoders
from mmeb_harness.bench.measure import Plan, measure_mode, order
from mmeb_harness.bench.sample import Sample, read_sample
from mmeb_harness.bench.speed import efficiency_of, floor_seconds, known_gpu, measure_cpu, speed_of
from mmeb_harness.bench.tables import as_markdown
from mmeb_harness.bench.values import BenchResult, ModeResult, Pass, Speed, Spread
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.registry import ModelSpec
from mmemb_r1_model.embed.embedder import load
from tests.toy import HashEmbedder, WordsEmbedder, info_of, toy_task


class Counting(HashEmbedder):
    """Notes what came in which batch, and by which door."""

    def __init__(self, reference_vectors: float = 1.0) -> None:
        super().__init__()
        self.calls: list[tuple[str, Role, list[str]]] = []
        self._sign = reference_vectors

    def cost(self, item: Item, role: Role) -> int:
        return 1

    def prepare(self, items: Sequence[Item], role: Role) -> Any:
        return list(items), role

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        items, role = prepared
        self.calls.append(("prepared", role, [item.text for item in items]))
        work = Work({"prefill": 1e-6}, prompt_tokens=len(items), prefill_flops=2.0 * len(items))
        result = super().encode(items, role)
        return EncodeResult(result.vectors, result.traces, work)

    def encode_reference(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self.calls.append(("reference", role, [item.text for item in items]))
        result = super().encode(items, role)
        return EncodeResult(self._sign * result.vectors, result.traces)

    def of(self, door: str) -> list[tuple[Role, list[str]]]:
        return [(role, texts) for name, role, texts in self.calls if name == door]


@pytest.fixture
def sample(data: Path) -> Sample:
    """Two tasks; four queries of the second are asked twice, one of which reasons."""
    stored = json.loads((data / "two.json").read_text())
    stored["queries"] += [*stored["queries"][:3], *[["why", "two answer 0"]] * 2]
    (data / "two.json").write_text(json.dumps(stored))
    return read_sample([toy_task("one"), toy_task("two")], info_of(data), Profile(), None)


def measured(embedder: Embedder, sample: Sample, mode: str = "adaptive", **plan: Any) -> ModeResult:
    chosen = Plan(**{"batch_tokens": (8,), "repeats": 3} | plan)
    with open_encoders(embedder, ModelSpec("toy"), 0, print) as make_encoder:
        return measure_mode(embedder, mode, sample, chosen, make_encoder, Speed(1e9, 1e9, "given"), print)


def test_the_references_get_every_item_in_the_order_of_the_files(sample: Sample) -> None:
    embedder = Counting()
    result = measured(embedder, sample, "never", repeats=1)
    warmed = sum(-(-len(block.items) // 4) for block in sample.part(64).blocks)
    plain = embedder.of("reference")[warmed:]
    assert [text for _, texts in plain for text in texts] == [place.item.text for place in sample.places]
    assert [len(texts) for _, texts in plain] == [4, 2, 4, 4, 4, 4, 4, 3, 4, 4, 4]  # 6 + 12 and 11 + 12
    # Ours, then batches of 16: both through the two halves of `encode`.
    fixed = [len(texts) for _, texts in embedder.of("prepared")][-4:]
    assert fixed == [6, 12, 11, 12]
    assert [(side.side, side.batch_items, side.items, side.encoded) for side in result.sides] == [
        ("ours", None, 41, 37),
        ("plain loop", 4, 41, 41),
        ("fixed batches", 16, 41, 41),
    ]


@pytest.mark.slow
def test_only_direct_modes_have_fixed_batches(sample: Sample) -> None:
    def sides(mode: str, references: bool = True) -> list[str]:
        return [side.side for side in measured(HashEmbedder(), sample, mode, references=references).sides]

    assert sides("direct") == sides("never") == ["ours", "plain loop", "fixed batches"]
    assert sides("always") == ["ours", "plain loop"]
    assert sides("never", references=False) == ["ours"]


def test_the_order_alternates_and_ratios_are_of_one_repeat(sample: Sample) -> None:
    assert (order(3, 0), order(3, 1), order(3, 2)) == ([0, 1, 2], [2, 1, 0], [0, 1, 2])
    result = measured(Counting(), sample, batch_tokens=(4, 8))
    turns = [[one.turn for one in side.passes] for side in result.sides]
    assert turns == [[0, 2, 0], [1, 1, 1], [2, 0, 2]]
    ours, _, plain = result.sides
    ratios = [theirs.seconds / mine.seconds for mine, theirs in zip(ours.passes, plain.passes, strict=True)]
    assert result.ratios[0].times == Spread(float(np.median(ratios)), min(ratios), max(ratios))
    assert [ratio.batch_tokens for ratio in result.ratios] == [4, 8]


def test_all_time_is_accounted_for(sample: Sample) -> None:
    result = measured(Counting(), sample, "never")
    for side in result.sides:
        for one in side.passes:
            assert sum(one.stages.values()) == pytest.approx(one.seconds)
            assert min(one.seconds, one.cpu_seconds) > 0
            assert min(one.stages["rank"], one.latency_seconds["p50"]) > 0
    ours, plain, fixed = result.sides
    assert "prefill" in ours.stages
    assert "encode" in plain.stages
    assert (ours.prepare_seconds is None, plain.prepare_seconds) == (False, None)
    assert ours.passes[0].work == Work({"prefill": pytest.approx(5e-6)}, prompt_tokens=37, prefill_flops=74.0)
    assert ours.prompt_tokens_per_second is not None
    assert fixed.efficiency is not None
    assert fixed.efficiency.floor_seconds == pytest.approx(2.0 * 41 / 1e9)
    assert plain.efficiency is None


def test_what_is_measured_scores_as_a_run_would(sample: Sample) -> None:
    result = measured(Counting(), sample, "never")
    assert len({side.score for side in result.sides}) == 1
    assert [ratio.agreement.lowest_cosine for ratio in result.ratios] == pytest.approx([1.0, 1.0])
    assert [ratio.agreement.same_rationales for ratio in result.ratios] == [1.0, 1.0]
    written = [side.passes[0].written_tokens for side in result.sides]
    assert written[1] == written[2] == written[0] + 4  # equal items are written about once


def test_several_vectors_an_item(sample: Sample) -> None:
    result = measured(WordsEmbedder(), sample, "direct")
    assert len({side.score for side in result.sides}) == 1
    assert [ratio.agreement.lowest_cosine for ratio in result.ratios] == pytest.approx([1.0, 1.0])
    assert [ratio.agreement.largest_difference for ratio in result.ratios] == [0.0, 0.0]


def test_two_sides_that_disagree_are_told(sample: Sample) -> None:
    result = measured(Counting(reference_vectors=-1.0), sample)
    assert result.ratios[0].agreement.lowest_cosine == pytest.approx(-1.0)
    text = as_markdown(bench_of(result))
    assert "NOT THE SAME: adaptive, ours with 8 tokens and the plain loop disagree (lowest cosine -1.0000)" in text
    assert "NOT THE SAME" not in as_markdown(bench_of(measured(Counting(), sample)))


def test_a_part_for_slow_references(sample: Sample) -> None:
    result = measured(Counting(), sample, reference_items=10)
    assert [(side.side, side.sample, side.items) for side in result.sides] == [
        ("ours", "whole", 41),
        ("ours", "part", 10),
        ("plain loop", "part", 10),
    ]
    assert result.part_items == 10
    assert result.sides[1].score is None
    assert result.ratios[0].agreement.items == 10
    assert sample.part(41) is sample
    part = sample.part(10)
    places = [sample.places.index(place) for place in part.places]
    assert [place.item.text for place in part.places] == [sample.places[i * 41 // 10].item.text for i in range(10)]
    assert places == sorted(places)


def bench_of(*modes: ModeResult) -> BenchResult:
    return BenchResult(
        *("toy", "1", {}, "toy", True, ("one", "two"), None, None, 3, 0, None, modes, 1.0, "", {}, 1, {}, None)
    )


def test_the_floor_is_the_longer_of_computing_and_moving_bytes() -> None:
    speed = Speed(flops=100.0, bandwidth=10.0, source="given")
    work = Work(prefill_flops=500.0, prefill_bytes=20.0, decode_flops=100.0, decode_bytes=30.0)
    assert floor_seconds(work, speed) == 5.0 + 3.0
    work += Work({"prefill": 10.0})
    taken = Pass(0, 25.0, 25.0, {"rank": 5.0}, None, 0, {}, work, None, None)
    found = efficiency_of((taken,), speed)
    assert found is not None
    assert (found.flops_utilisation, found.share_of_encoding, found.share_of_accelerator) == (0.3, 0.4, 0.8)
    assert efficiency_of((taken,), None) is None


@pytest.mark.parametrize(
    ("name", "teraflops", "gigabytes"),
    [
        ("NVIDIA A100-SXM4-40GB", 312, 1555),
        ("NVIDIA A100-SXM4-80GB", 312, 2039),
        ("NVIDIA A100 80GB PCIe", 312, 1935),
        ("NVIDIA H100 80GB HBM3", 989, 3350),
        ("NVIDIA H100 PCIe", 756, 2000),
        ("NVIDIA H100 NVL", 835, 3900),
        ("NVIDIA H200", 989, 4800),
        ("NVIDIA L40S", 362, 864),
        ("NVIDIA A10G", 70, 600),
        ("NVIDIA GeForce RTX 4090", 165, 1008),
        ("NVIDIA B200", 2250, 8000),
    ],
)
def test_known_gpus(name: str, teraflops: float, gigabytes: float) -> None:
    speed = known_gpu([name, name])
    assert speed is not None
    assert (speed.flops, speed.bandwidth) == (teraflops * 1e12, gigabytes * 1e9)
    assert "data sheet" in speed.source


@pytest.mark.slow
def test_a_machine_nobody_knows_has_no_floor() -> None:
    assert known_gpu(["NVIDIA GeForce GTX 285"]) is None
    assert known_gpu(["NVIDIA H200", "NVIDIA L40S"]) is None
    assert known_gpu([]) is None
    assert known_gpu(["NVIDIA GeForce RTX 4090 Laptop GPU"]) is None
    assert speed_of({"device": "cuda", "dtype": "float32"}, None, None) is None
    assert speed_of({}, None, None) is None
    assert speed_of({}, 2.0, 3.0) == Speed(2e12, 3e9, "given")
    cpu = measure_cpu()
    assert min(cpu.flops, cpu.bandwidth) > 1e8
    with pytest.raises(OptionError, match="belong together"):
        speed_of({}, 2.0, None)
    with pytest.raises(OptionError, match="above 0"):
        speed_of({}, 2.0, 0.0)


def test_the_peak_of_memory_is_of_this_pass() -> None:
    block = np.ones(96 << 20, dtype=np.uint8)
    held = peak_memory()
    del block
    forget_peak()
    after = peak_memory()
    assert held is not None
    assert after is not None
    assert held - after > 64 << 20


def test_what_processes_share_is_held_once() -> None:
    before, (reader, writer) = held_memory(), os.pipe()
    if (child := os.fork()) == 0:
        os.read(reader, 1)
        os._exit(0)
    try:
        assert abs(held_memory() - before) < before // 4
    finally:
        os.write(writer, b"1")
        os.waitpid(child, 0)


def test_the_peak_of_a_devices_memory() -> None:
    assert peak_device_memory(torch, "cpu") is None
    assert isinstance(tiny := load(device="cpu"), MemoryEmbedder)
    assert isinstance(tiny, ReferenceEmbedder)
    assert tiny.peak_device_memory() is None
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    held = torch.zeros(1 << 26, dtype=torch.uint8, device="cuda:0")
    assert (peak_device_memory(torch, "cuda:0") or 0) >= held.numel()
    del held
    peak_device_memory(torch, "cuda:0")  # of when it was still there
    assert (peak_device_memory(torch, "cuda:0") or 0) < 1 << 26


def invoke(*arguments: str) -> None:
    cli(["bench", *arguments], standalone_mode=False)


@pytest.mark.slow
def test_the_command_with_the_tiny_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(cache))
    chosen = ("--tasks", "OK-VQA", "--limit", "2", "--repeats", "2", "--reasoning", "never,always")
    invoke(*chosen, "--batch-tokens", "2048", "--output", str(tmp_path / "out"))
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert (found["schema_version"], found["model"], found["tasks"], found["limit"]) == (
        *(1, "mmemb_r1", ["OK-VQA"], 2),
    )
    assert found["speed"]["source"].startswith("measured here")
    assert [mode["mode"] for mode in found["modes"]] == ["never", "always"]
    assert [mode["model_settings"]["reasoning"] for mode in found["modes"]] == ["never", "always"]
    never, always = found["modes"]
    assert [side["side"] for side in never["sides"]] == ["ours", "plain loop", "fixed batches"]
    assert [side["batch_tokens"] for side in always["sides"]] == [2048, None]
    assert {"prefill", "rank"} <= set(never["sides"][0]["stages"])
    assert {"prefill", "generate"} <= set(always["sides"][0]["stages"])
    assert never["sides"][0]["efficiency"]["floor_seconds"] > 0
    for mode in found["modes"]:
        assert all(ratio["times"]["median"] > 0 for ratio in mode["ratios"])
        assert all(ratio["agreement"]["lowest_cosine"] > 0.9999 for ratio in mode["ratios"])
        for side in mode["sides"]:
            assert set(side["latency_seconds"]) == {"p50", "p95", "p99"}
            assert len(side["passes"]) == 2
            assert side["memory"] > 1 << 28
    assert always["sides"][0]["written_tokens_per_second"]["median"] > 0
    assert {ratio["agreement"]["same_rationales"] for ratio in always["ratios"]} == {1.0}
    title = "bench of mmemb_r1 on mini, synthetic: 1 task, first 2 queries of each"
    assert title in printed
    assert (tmp_path / "out" / "bench.md").read_text().startswith(f"# {title}")


def test_a_model_that_cannot_reason_has_one_mode(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(cache))
    chosen = ("--model", "random", "--tasks", "HMDB51", "--limit", "2", "--repeats", "1", "--output", str(tmp_path))
    invoke(*chosen)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [mode["mode"] for mode in found["modes"]] == ["direct"]
    assert found["speed"] is None
    with pytest.raises(HarnessError, match="no option --reasoning"):
        invoke(*chosen, "--reasoning", "never")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reasoning", "never,alwys"), "no mode named 'alwys'. Did you mean 'always'"),
        (("--no-references", "--reference-items", "4"), "--reference-items has no meaning"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--model", "randm"), "no model named 'randm'"),
        (("--beside", "faisss"), "no peer named 'faisss'. Did you mean 'faiss'"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: tuple[str, ...], message: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(cache))
    with pytest.raises(HarnessError) as raised:
        invoke(*arguments)
    assert message in str(raised.value)


def test_peers_do_the_same_with_the_same_weights(sample: Sample) -> None:
    embedder = HashEmbedder()
    result = measured(embedder, sample, "direct", references=False, beside=("official=5", "faiss", "torch"))
    ours, official = result.sides
    assert (official.side, official.settings, official.batch_items) == ("official", {"batch_size": 5}, 5)
    assert official.score == ours.score
    (ratio,) = result.ratios
    assert (ratio.score_difference, ratio.agreement and ratio.agreement.largest_difference) == (0, 0)
    assert [(ranking.peer, ranking.task, ranking.same_places) for ranking in result.ranking] == [
        ("faiss", "two", 1.0),
        ("torch", "two", 1.0),
    ]


def test_a_peer_of_a_plugin_evaluates_whole_tasks(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def evaluate(task: Task, samples: Samples) -> float:
        asked.append((task.name, len(samples.queries)))
        return 0.5

    monkeypatch.setattr(measure, "open_peer", lambda embedder, wanted: Peer({"own": True}, evaluate=evaluate))
    result = measured(HashEmbedder(), sample, "direct", references=False, repeats=1, beside=("another",))
    assert set(asked) == {("one", 6), ("two", 11)}
    (ratio,) = result.ratios
    assert (result.sides[1].score, ratio.agreement) == (0.5, None)
    with pytest.raises(OptionError, match="evaluates whole tasks; leave --reference-items out"):
        measured(HashEmbedder(), sample, "direct", reference_items=8, beside=("another",))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("official=none", "--beside official=none: what follows is the size of a batch, a number above 0"),
        ("faiss=3", "nothing follows faiss"),
        ("generate", "'hash' offers no plain way of doing the same"),
        ("mteb", "takes a model of st:, not 'hash'"),
        ("vllm=http://localhost:1/v1", "writes rationales of mmemb_r1, not of 'hash'"),
    ],
)
def test_a_peer_that_cannot_do_it_says_so(wanted: str, message: str, sample: Sample) -> None:
    with pytest.raises(OptionError, match=message):
        measured(HashEmbedder(), sample, "direct", beside=(wanted,))


def test_a_peer_that_is_not_installed_is_named_with_its_install_line() -> None:
    with pytest.raises(OptionError, match="--beside other: No module named 'other'; pip install other"):
        import_peer("other", "other", "pip install other")
