"""The selection rule in closed form; a judge that learns to tell; what can't be a judge."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch

from mmeb_harness import ModelError, OptionError
from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from mmemb_r1_model.selection.judge import NO, YES, JudgeConfig, Shown, open_judge
from mmemb_r1_model.selection.judge_training import JudgeTrainingConfig, train_judge
from mmemb_r1_model.selection.rule import Judged, RuleConfig, chances
from mmemb_r1_model.training.batches import WeightedSet
from mmemb_r1_model.training.loop import LoopConfig
from tests.mmemb_r1.conftest import TEXTS
from tests.mmemb_r1.small_training import make_pairs


def judged(worker: str, delta: float, margin: float, text: str = "") -> Judged:
    return Judged(worker, 0, text or worker, 0.0, delta, margin)


THREE = [judged("a", 3.0, 0.5), judged("b", 1.0, 2.0, "the longest one"), judged("c", -1.0, -4.0)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RuleConfig(margin=True), [0, 1, 0]),
        (RuleConfig(margin=False), [1, 0, 0]),
        (RuleConfig(minimum=2.0), [0, 0, 0]),  # direct-only: above, not at
        (RuleConfig(minimum=-9, workers=("c",)), [0, 0, 1]),
        (RuleConfig(workers=("c",)), [0, 0, 0]),
        (RuleConfig(workers=("nobody",), rule="longest"), [0, 0, 0]),
        (RuleConfig(rule="longest"), [0, 1, 0]),
        (
            RuleConfig(rule="sampled", margin=False, temperature=2.0),
            [1 / (1 + math.exp(-1)), 1 - 1 / (1 + math.exp(-1)), 0],
        ),
    ],
)
def test_the_rule(config: RuleConfig, expected: list[float]) -> None:
    assert chances(THREE, config, "key") == pytest.approx(expected)


def test_the_random_rule_depends_on_the_pair_alone_and_takes_all_in_turn() -> None:
    config = RuleConfig(rule="random")
    drawn = [chances(THREE, config, str(number)) for number in range(300)]
    assert drawn == [chances(THREE, config, str(number)) for number in range(300)]
    for place in range(3):
        assert 60 < sum(one[place] for one in drawn) < 140


@pytest.fixture(scope="module")
def blank_judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    tokenizer = build_tokenizer([*TEXTS, YES, NO, "red green blue yellow circle square"] * 50, 512)
    save_tiny(build_model(tokenizer, TinySize(layers=2, hidden=64), seed=1), tokenizer, TINY_SETTINGS, folder)
    return folder


@torch.no_grad()
def test_questions_asked_together_have_the_answers_of_questions_asked_alone(
    blank_judge: Path, items: list[Item]
) -> None:
    judge = open_judge(JudgeConfig(checkpoint=str(blank_judge), batch_size=3), torch.device("cpu"))
    questions = [
        (Shown(query, rationale), Shown(candidate))
        for query in items
        for candidate in items[:3]
        for rationale in (None, "a red circle")
    ]
    together = judge.confidences(questions)
    assert together == pytest.approx([judge.confidences([one])[0] for one in questions], abs=1e-5)
    assert len(set(together)) > len(items)  # a rationale and a candidate make a difference
    prompt = judge.query(Shown(dataclasses.replace(items[-1], instruction="find"), "because"))
    text = re.sub(r"(<\|image_pad\|>)+", "*", judge.checkpoint.tokenizer.decode(prompt.ids.tolist()))
    see = "<|vision_start|>*<|vision_end|>"
    assert text.endswith(f"Query: find first {see} then {see} there\nat the end {see}\nReasoning: because\n")


@pytest.mark.slow
def test_a_judge_learns_which_candidate_is_right(blank_judge: Path, tmp_path: Path) -> None:
    pairs, written = make_pairs(tmp_path / "data", 24)
    judge = open_judge(JudgeConfig(checkpoint=str(blank_judge)), torch.device("cpu"))
    loop = LoopConfig(steps=20, learning_rate=3e-3, warmup=2, log_every=1, save_every=0)
    config = JudgeTrainingConfig(batch_size=12, negatives=4, loop=loop)
    folder = train_judge(judge, [WeightedSet(pairs, 1.0)], written, config, tmp_path / "run")
    import json

    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["yes_no"] < rows[0]["yes_no"]
    again = open_judge(JudgeConfig(checkpoint=str(folder)), torch.device("cpu"))
    question = [(Shown(pairs[0].query, "red"), Shown(pairs[0].positive))]
    assert again.confidences(question) == pytest.approx(judge.confidences(question), abs=1e-6)


def test_what_cant_be_a_judge(random_checkpoint: Path) -> None:
    with pytest.raises(ModelError, match="'Yes' is 2 tokens in its vocabulary"):
        open_judge(JudgeConfig(checkpoint=str(random_checkpoint)), torch.device("cpu"))
    with pytest.raises(OptionError, match=r"select.judge.checkpoint is empty"):
        open_judge(JudgeConfig(), torch.device("cpu"))
