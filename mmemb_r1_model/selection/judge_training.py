"""Training a tiny evaluator for the synthetic suites, where none can be downloaded. Real runs take a ready VLM.

It learns from pairs that the student never sees, with rationales that are right: it is a judge that knows the
world, as a strong VLM knows ours. How well it then tells right rationales from wrong ones is measured, not given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmemb_r1_model.data.pairs import Pair, Side, item_of
from mmemb_r1_model.disk.config import Least1, Share
from mmemb_r1_model.disk.trackers import OpenCurves, log_alone
from mmemb_r1_model.selection.judge import Judge, Shown
from mmemb_r1_model.training.batches import Plan, PlanConfig, Rationales, WeightedSet, described_pairs, labels_of
from mmemb_r1_model.training.distributed import World, seed_draws
from mmemb_r1_model.training.loop import FINAL, Loop, LoopConfig, is_finished


@dataclass(frozen=True)
class JudgeTrainingConfig:
    """How the evaluator is trained.

    Attributes:
        batch_size: queries of a step, of one data set.
        negatives: wrong candidates shown with each.
        rationale_share: how often a side is shown with its rationale.
    """

    batch_size: Least1 = 32
    negatives: Least1 = 8
    rationale_share: Share = 0.5
    loop: LoopConfig = field(default_factory=LoopConfig)


def train_judge(
    judge: Judge,
    sets: Sequence[WeightedSet],
    rationales: Rationales,
    config: JudgeTrainingConfig,
    folder: Path,
    open_curves: OpenCurves = log_alone,
) -> Path:
    """Train on one process; the folder of the trained checkpoint. Goes on where a run was broken off."""
    described = {
        "judge_training": dataclasses.asdict(config),
        "judge": dataclasses.asdict(judge.config),
        "rationales": rationales.fingerprint,
        **described_pairs(sets),
    }
    loop = Loop(judge, config.loop, World(device=judge.device), folder, described, open_curves)
    if is_finished(folder):
        return folder / FINAL
    start = loop.restore()
    plan = Plan(sets, PlanConfig(batch_size=config.batch_size), config.loop.steps, config.loop.seed)
    lessons = _Lessons(judge, sets, rationales, config, plan)
    loop.run(start, lessons.step, lessons.describe)
    return folder / FINAL


@dataclass(frozen=True)
class _Lessons:
    """What the evaluator is taught in each step."""

    judge: Judge
    sets: Sequence[WeightedSet]
    rationales: Rationales
    config: JudgeTrainingConfig
    plan: Plan

    def pairs(self, number: int) -> list[Pair]:
        return [self.sets[chosen].pairs[i] for chosen, places in self.plan.blocks(number) for i in places]

    def describe(self, number: int) -> str:
        return ", ".join(f"{pair.dataset}/{pair.id}" for pair in self.pairs(number)[:8]) + " …"

    def step(self, number: int) -> dict[str, float]:
        """Yes for the pair's own candidate, No for others; and the own one above the others."""
        judge, config = self.judge, self.config
        rng = np.random.default_rng((config.loop.seed, 5, number))
        pairs = self.pairs(number)
        seed_draws(config.loop.seed + number, judge.device)
        judge.module.train()
        queries = [judge.query(self._shown(pair, "query", rng)) for pair in pairs]
        # Wrong candidates carry their rationales as often as right ones: else a rationale alone would mean Yes.
        candidates = [judge.candidate(self._shown(pair, "positive", rng)) for pair in pairs]
        asked = [[place, *self._wrong(pairs, place, rng)] for place in range(len(pairs))]
        flat = judge.module(judge.pack(queries, [[candidates[place] for place in places] for places in asked]))
        rows = torch.split(flat, [len(places) for places in asked])
        yes_no, ranking, right = _losses(rows)
        torch.autograd.backward(yes_no + ranking)
        return {"yes_no": yes_no.item(), "ranking": ranking.item(), "accuracy": right}

    def _shown(self, pair: Pair, side: Side, rng: np.random.Generator) -> Shown:
        wanted = rng.random() < self.config.rationale_share
        return Shown(item_of(pair, side), self.rationales.draw(pair, side, lambda: rng) if wanted else None)

    def _wrong(self, pairs: Sequence[Pair], place: int, rng: np.random.Generator) -> list[int]:
        """Places of pairs whose positives are wrong for this one's query."""
        right = labels_of(pairs[place]).right
        others = [other for other, pair in enumerate(pairs) if right.isdisjoint(labels_of(pair).has)]
        count = min(self.config.negatives, len(others))
        return [others[int(index)] for index in rng.choice(len(others), count, replace=False)]


def _losses(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor, float]:
    """(Yes/No loss with both answers weighing the same, ranking loss, share of queries whose own is on top)."""
    yes = -functional.logsigmoid(torch.stack([row[0] for row in rows])).mean()
    no = -functional.logsigmoid(-torch.cat([row[1:] for row in rows])).mean()
    ranking = torch.stack([-functional.log_softmax(row, dim=0)[0] for row in rows]).mean()
    right = sum(bool(row[0] >= row.max()) for row in rows) / len(rows)
    return (yes + no) / 2, ranking, right
