"""The selection rule in closed form; a judge that learns to tell; what can't be a judge."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from mmeb_harness import ModelError, OptionError
from mmemb_r1_model.data.pairs import Item, Pair, side_content
from mmemb_r1_model.data.rationales import RationaleRow
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from mmemb_r1_model.selection.judge import NO, YES, Judge, JudgeConfig, Shown, open_judge
from mmemb_r1_model.selection.judge_training import JudgeTrainingConfig, train_judge
from mmemb_r1_model.selection.rule import Judged, RuleConfig, chances
from mmemb_r1_model.selection.stage import SelectConfig, all_judged, judge_rationales
from mmemb_r1_model.training.batches import WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import LoopConfig
from tests.mmemb_r1.conftest import TEXTS
from tests.mmemb_r1.small_pairs import Pairs, pair
from tests.mmemb_r1.small_training import make_pairs


def judged(worker: str, delta: float, margin: float, text: str = "") -> Judged:
    return Judged(worker, 0, text or worker, 0.0, delta, margin)


THREE = [judged("a", 3.0, 0.5), judged("b", 1.0, 2.0, "the longest one"), judged("c", -1.0, -4.0)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RuleConfig(margin=True), [0, 1, 0]),
        (RuleConfig(margin=False), [1, 0, 0]),
        (RuleConfig(within=1.4), [0, 1, 0]),
        (RuleConfig(within=1.5), [1, 0, 0]),  # the shorter one is near enough
        (RuleConfig(within=99.0), [1, 0, 0]),  # what harms stays dropped, however short
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


class Counting:
    """An evaluator that says something of everything, and counts what it is asked."""

    checkpoint = SimpleNamespace(name="counting", revision=None)

    def __init__(self) -> None:
        self.asked = 0

    def confidences(self, questions: Sequence[tuple[Shown, Shown]]) -> list[float]:
        self.asked += len(questions)
        return [float(len(shown.item.text) + len(shown.rationale or "")) for shown, _ in questions]


def test_what_changed_since_is_judged_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judge, file = Counting(), tmp_path / "rationales.jsonl"

    def row(of: Pair, text: str, worker: str = "a") -> RationaleRow:
        content = side_content(of, "query")
        return RationaleRow("shapes", of.id, "query", worker, 0, text, None, None, "stop", content=content)

    def judged_again(some: Sequence[Pair], *written: RationaleRow) -> int:
        """How many sides: an evaluator without negatives is asked of each alone, and with each of its rationales."""
        file.write_text("".join(json.dumps(dataclasses.asdict(row)) + "\n" for row in written))
        before, config = judge.asked, SelectConfig(negatives=0)
        sets = [Pairs("shapes", tuple(some))]
        judge_rationales(cast(Judge, judge), sets, file, config, tmp_path, World(), lambda: None, lambda *_: None)
        return judge.asked - before

    first, second = pair(0), pair(1)
    assert judged_again([first, second], row(first, "one"), row(second, "two")) == 4
    assert judged_again([first, second], row(first, "one"), row(second, "two")) == 0
    assert judged_again([first, second], row(first, "one"), row(second, "other words")) == 2
    assert judged_again([first, second], row(first, "one"), row(first, "more", "b"), row(second, "other words")) == 3
    assert "1 sides of pairs that changed since, or their rationales, are judged again" in capfd.readouterr().out
    # Of another answer the rationale may help less. Nobody asks for the second pair now: it stays.
    renamed = dataclasses.replace(first, positive=Item("t", text="another answer"))
    assert judged_again([renamed], row(first, "one"), row(first, "more", "b")) == 3
    assert len(list(all_judged(tmp_path))) == 2
    # A rationale of what the side was before isn't shown to anybody.
    edited = dataclasses.replace(renamed, query=Item("q", text="another question"))
    assert judged_again([edited, second], row(renamed, "one"), row(second, "other words")) == 0
    assert "1 rationales of pairs that changed since are left out; `mmemb-r1 rationales`" in capfd.readouterr().out
    assert [side.pair for side in all_judged(tmp_path)] == ["p1"]
    # What an earlier release judged doesn't say of which pair, and counts for the same rationales.
    (old,) = (dataclasses.asdict(side) for side in all_judged(tmp_path))
    (tmp_path / "judged.jsonl").write_text(json.dumps({k: v for k, v in old.items() if k != "content"}) + "\n")
    assert judged_again([second], row(second, "other words")) == 0
    assert judged_again([second], row(second, "their rationale now")) == 2


@pytest.mark.slow
def test_a_judge_learns_which_candidate_is_right(blank_judge: Path, tmp_path: Path) -> None:
    pairs, written = make_pairs(tmp_path / "data", 24)
    judge = open_judge(JudgeConfig(checkpoint=str(blank_judge)), torch.device("cpu"))
    loop = LoopConfig(steps=20, learning_rate=3e-3, warmup=2, log_every=1, save_every=0)
    config = JudgeTrainingConfig(batch_size=12, negatives=4, loop=loop)
    folder = train_judge(judge, [WeightedSet(pairs, 1.0)], written, config, tmp_path / "run")
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
