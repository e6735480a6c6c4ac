"""A graded gate: none, a short rationale or a long one; what it decides, what it writes, and how it is learnt."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from mmeb_harness import EncodeResult, Item, ModelError, OptionError, Trace
from mmemb_r1_model.decoding import Row
from mmemb_r1_model.embed.embedder import load
from mmemb_r1_model.embed.served import closed_by_rule
from mmemb_r1_model.model.add_tokens import add_tokens
from mmemb_r1_model.model.settings import Calibration, Short, read_settings, write_settings
from mmemb_r1_model.training import calibration
from mmemb_r1_model.training.batches import Input, WeightedSet
from mmemb_r1_model.training.calibration import CalibrateConfig, calibrate_gate
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.rollouts import Rollout, shortened
from mmemb_r1_model.training.saved import pair_item
from mmemb_r1_model.training.stage2 import BIAS_ITEMS, AdaptConfig, adapt
from mmemb_r1_model.training.student import Student
from tests.mmemb_r1.loopback_chat import serve
from tests.mmemb_r1.small_training import ADAPT, make_pairs, make_student
from tests.mmemb_r1.tiny_vllm import TinyVllm

TOKENS = 3
GRADED = dataclasses.replace(ADAPT, short_tokens=TOKENS)


def told(result: EncodeResult) -> tuple[Trace, ...]:
    assert result.traces is not None
    return result.traces


def levels(checkpoint: Path, items: Sequence[Item]) -> np.ndarray:
    """What would put short level with long, of each item."""
    embedder = load(str(checkpoint))
    engine = embedder.engine
    head = engine.model.lm_head.weight
    with torch.inference_mode():
        states = engine.prefill(engine.batch([embedder.prompt(item) for item in items]), None)[:, -1]
        return (states @ (head[engine.rule.think] - head[engine.rule.end_think])).numpy()


@pytest.fixture(scope="module")
def biases(random_checkpoint: Path, items: list[Item]) -> np.ndarray:
    return levels(random_checkpoint, items)


@pytest.fixture
def graded(random_checkpoint: Path, tmp_path: Path, biases: np.ndarray) -> Path:
    """A checkpoint by which about half of the items that reason do it briefly."""
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "graded"))
    bias = float(np.sort(biases)[4:6].mean())
    write_settings(folder, dataclasses.replace(read_settings(folder), short=Short(TOKENS, bias)))
    return folder


def test_each_row_writes_as_much_as_its_gate_says(graded: Path, items: list[Item], biases: np.ndarray) -> None:
    never, always, short = (
        load(str(graded), reasoning=mode, budget=budget)  # type: ignore[arg-type]
        for mode, budget in (("never", "graded"), ("always", "graded"), ("always", "short"))
    )
    results = {name: one.encode(items, "query") for name, one in (("never", never), ("long", always), ("short", short))}
    gates = np.array([trace.gate for trace in told(results["never"])], dtype=float)
    threshold = float(np.sort(gates)[2:4].mean())
    embedder = load(str(graded), threshold=threshold)
    result = embedder.encode(items, "query")
    bias = read_settings(graded).short.bias  # type: ignore[union-attr]
    expected = [
        "never" if gate <= threshold else "short" if bias >= level else "long"
        for gate, level in zip(gates, biases, strict=True)
    ]
    assert set(expected) == {"never", "short", "long"}
    for row, name in enumerate(expected):
        assert np.abs(result.vectors[row] - results[name].vectors[row]).max() < 1e-5
        trace, forced = told(result)[row], told(results[name])[row]
        assert (trace.path, trace.rationale, trace.reasoning_tokens, trace.truncated) == (
            *(forced.path, forced.rationale, forced.reasoning_tokens, forced.truncated),
        )
    # p(reason) is of both budgets together. A short rationale is the beginning of the long one, and not cut off.
    head, engine = embedder.engine.model.lm_head.weight, embedder.engine
    with torch.inference_mode():
        states = engine.prefill(engine.batch([embedder.prompt(item) for item in items]), None)[:, -1]
        tokens = torch.tensor([engine.rule.think, engine.rule.emb, engine.rule.end_think])
        logits = states @ head[tokens].T + torch.tensor([0.0, 0.0, bias])
    assert gates == pytest.approx(1 - torch.softmax(logits, dim=1)[:, 1].numpy(), abs=1e-5)
    for brief, whole in zip(told(results["short"]), told(results["long"]), strict=True):
        assert brief.reasoning_tokens == TOKENS + 3
        assert whole.truncated  # random weights never come to an end
        assert not brief.truncated
        assert (whole.rationale or "").startswith(brief.rationale or "")
    plain = embedder.encode_reference(items, "query")
    assert np.abs(plain.vectors - result.vectors).max() < 1e-5
    assert [(one.rationale, one.truncated) for one in told(plain)] == [
        (one.rationale, one.truncated) for one in told(result)
    ]


@pytest.mark.parametrize(("mode", "budget"), [("adaptive", "graded"), ("always", "short")])
def test_a_server_writes_as_much_as_the_gate_says(graded: Path, items: list[Item], mode: str, budget: str) -> None:
    own = {"reasoning": mode, "budget": budget}
    expected = load(str(graded), **own).encode(items, "query")  # type: ignore[arg-type]
    vllm = TinyVllm(graded)
    with serve(vllm.chat) as url:
        served = load(str(graded), **own, rationales=url)  # type: ignore[arg-type]
        found = served.encode(items, "query")
    assert np.abs(found.vectors - expected.vectors).max() < 1e-5
    mine, theirs = (
        [(one.rationale, one.reasoning_tokens, one.truncated) for one in told(result)] for result in (found, expected)
    )
    assert mine == theirs
    asked = [body["max_tokens"] for body in (asked.body for asked in vllm.written)]
    assert sorted(set(asked)) == ([TOKENS + 2, 16 + 2] if budget == "graded" else [TOKENS + 2])


def test_a_budget_closes_what_was_asked_for_and_flags_the_rest(graded: Path) -> None:
    rule = load(str(graded)).engine.rule

    def written(*ids: int) -> Row:
        return closed_by_rule(ids, 0, rule, limit=TOKENS)

    for ids, fed, truncated in (
        ((7, 8, 9, 10), (7, 8, 9), False),  # goes on: closed
        ((7, 8, 9, rule.turn_end), (7, 8, 9), False),  # ends the turn where it is closed
        ((7, 8, 9, rule.end_think, 10), (7, 8, 9), False),
        ((7, 8, rule.end_think, rule.emb), (7, 8), False),
        ((7, 8, rule.turn_end), (7, 8), True),
        ((7, 8, rule.end_think, 10), (7, 8), True),
        ((rule.end_think, rule.emb), (), True),
    ):
        row = written(*ids)
        assert (row.fed, row.truncated) == ([rule.think, *fed, rule.end_think, rule.emb], truncated)


def test_results_say_of_which_budget_they_are(graded: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    before, after = load(str(random_checkpoint)), load(str(graded))
    assert {"budget", "short"}.isdisjoint(before.info.settings)
    assert after.info.settings["budget"] == "graded"
    assert "budget" in after.info.query_settings
    assert "short" not in after.info.settings
    with pytest.raises(
        OptionError, match=r"budget 'short' is for a checkpoint with a graded gate.*adapt\.short_tokens"
    ):
        load(str(random_checkpoint), budget="short")
    with pytest.raises(OptionError, match="max_new_tokens must be above the 3 of a short rationale"):
        load(str(graded), max_new_tokens=3)
    settings = read_settings(graded)
    write_settings(tmp_path, dataclasses.replace(settings, short=Short(settings.max_new_tokens, 0.0)))
    with pytest.raises(ModelError, match=r"short\.tokens 16 must be below max_new_tokens 16; mend it"):
        read_settings(tmp_path)


def test_a_calibration_is_of_both_budgets_together(
    graded: Path, items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = np.array([trace.gate for trace in told(load(str(graded)).encode(items, "query"))], dtype=float)
    asked: list[tuple[object, ...]] = []

    def noted(gates: np.ndarray, never: np.ndarray, always: np.ndarray, price: float, threshold: float) -> object:
        asked.append((gates, never, always))
        return calibration.Fit(Calibration(0.5, -0.25, 0.3, 8), *[0.0] * 4, *[None] * 2)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "FEWEST", 4)
    monkeypatch.setattr(calibration, "judged", noted)
    monkeypatch.setattr(calibration, "write_json", lambda *_: None)
    pairs, _ = make_pairs(graded.parent / "data", 12)
    config = CalibrateConfig(pairs_from=0.5, prompts=6, negatives=3, batch_size=4)
    read: list[tuple[str, int]] = []
    encode = calibration.MMEmbR1Embedder.encode_stream

    def counted(embedder: object, prepared: object) -> object:
        for result in encode(embedder, prepared):  # type: ignore[arg-type]
            read.extend((trace.path, trace.reasoning_tokens) for trace in told(result))
            yield result

    monkeypatch.setattr(calibration.MMEmbR1Embedder, "encode_stream", counted)
    calibrate_gate([WeightedSet(pairs, 1.0)], config, graded, "float32", World())
    # What is held against the direct path is as long as the gate has it, and every prompt has one.
    assert {path for path, _ in read[:6]} == {"reasoned"}
    assert TOKENS + 3 in {tokens for _, tokens in read[:6]}
    assert {path for path, _ in read[6:]} == {"direct"}
    assert read_settings(graded).short is not None
    calibrated = load(str(graded)).encode(items, "query")
    assert [trace.gate for trace in told(calibrated)] == pytest.approx(expit(0.5 * logit(raw) - 0.25), abs=1e-5)


def test_a_shortened_rollout_is_the_closed_beginning() -> None:
    whole = Rollout((1, 7, 8, 9, 10, 2, 3), (-0.1, -0.2, -0.3, -0.4, 0.0, 0.0), False, 4)
    assert shortened(whole, 2) == Rollout((1, 7, 8, 2, 3), (-0.1, -0.2, 0.0, 0.0), True, 2)
    assert shortened(whole, 4) == Rollout(whole.ids, whole.log_probs, True, 4)  # closed where the budget would
    assert shortened(whole, 5) is whole


def run_adapt(checkpoint: Path, folder: Path, config: AdaptConfig) -> Path:
    pairs, written = make_pairs(folder.parent / "data", 24)
    return adapt(make_student(checkpoint), [WeightedSet(pairs, 1.0)], written, config, folder, World())


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_adapt_writes_a_graded_checkpoint_that_goes_on_and_stage_1_a_binary_one(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    final = run_adapt(random_checkpoint, tmp_path / "run", GRADED)
    settings = read_settings(final)
    assert settings.short is not None
    assert settings.short.tokens == TOKENS
    assert dataclasses.replace(settings, short=None) == read_settings(random_checkpoint)
    # Short begins as likely as long, on average over queries.
    pairs, _ = make_pairs(tmp_path / "data", 24)
    asked = [pair_item([WeightedSet(pairs, 1.0)], number) for number in range(BIAS_ITEMS)]
    assert settings.short.bias == pytest.approx(levels(random_checkpoint, asked).mean(), abs=1e-4)
    rows = log_of(tmp_path / "run")
    assert {"short", "reward_short"} <= rows[0].keys()
    assert rows[0]["length"] > TOKENS  # rollouts are not what is closed
    # As if it had never been broken off, with the same bias.
    (last,) = (tmp_path / "run").glob("checkpoint-*2")
    shutil.copytree(last, tmp_path / "again" / last.name)
    again = run_adapt(random_checkpoint, tmp_path / "again", GRADED)
    assert read_settings(again) == settings
    assert (again / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()
    student = make_student(final)
    assert len(student.module.gate_tokens) == 3
    student.set_short(None)
    assert len(student.module.gate_tokens) == 2
    student.save(tmp_path / "binary")
    assert read_settings(tmp_path / "binary") == read_settings(random_checkpoint)
    with pytest.raises(OptionError, match=r"adapt\.short_tokens 16 must be below the 16 of a long rationale"):
        run_adapt(random_checkpoint, tmp_path / "no", dataclasses.replace(GRADED, short_tokens=16))
    with pytest.raises(OptionError, match=f"--max-new-tokens {TOKENS} must be above the {TOKENS} of a short rationale"):
        add_tokens(str(final), tmp_path / "no", TOKENS)


class Endless:
    """Writes rationales that are cut off at ten tokens, whatever the weights."""

    def __init__(self, student: Student) -> None:
        self.student = student

    def refresh(self, step: int) -> None: ...

    def release(self) -> None: ...

    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        student = self.student
        ids = (student.think, *range(50, 60), student.end_think, student.emb)
        return [[Rollout(ids, (-1.0,) * 10 + (0.0, 0.0), False, 10)] * count for _ in inputs]


def test_the_gate_learns_which_budget_pays(random_checkpoint: Path, items: list[Item], tmp_path: Path) -> None:
    """Paid for form alone short is as good as direct, paid for length long is best."""
    pairs, written = make_pairs(tmp_path / "data", 24)
    briefly = {}
    for name, reward in {
        "form": dataclasses.replace(ADAPT.reward, fmt=3.0, emb=0.0, ada=0.0),
        "length": dataclasses.replace(ADAPT.reward, emb=0.0, length_cost=-5.0),
    }.items():
        loop = dataclasses.replace(ADAPT.loop, steps=4, learning_rate=8e-3, save_every=0)
        config = dataclasses.replace(GRADED, reward=reward, token_weight=0.0, kl_weight=0.0, loop=loop)
        student = make_student(random_checkpoint)
        sampler = Endless(student)
        final = adapt(student, [WeightedSet(pairs, 1.0)], written, config, tmp_path / name, World(), sampler)
        log = log_of(tmp_path / name)
        expected = [0.0, 3.0, 3.0] if name == "form" else [5 * 10 / 16, 1.0, 1.0 + 5 * 3 / 16]
        gains = [log[0][key] for key in ("reward_reasoned", "reward_direct", "reward_short")]
        assert gains == pytest.approx(expected, abs=0.2)
        engine = load(str(final)).engine
        batch = engine.batch([student.reader.prompt(item) for item in items])
        with torch.inference_mode():
            briefly[name] = np.mean(engine.gates(engine.prefill(batch, None)[:, -1]).short)
    assert briefly == {"form": 1.0, "length": 0.0}
