"""The part of a report on look-ups: in how many seeds they formed, and what becomes of long chains in stage 2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mmeb_harness.show.tables import bounds, markdown_table, percent
from mmeb_harness.stats.resampling import CONFIDENCE
from mmemb_r1_model.study.look_ups import FORMED
from mmemb_r1_model.study.plan import Checkpoint
from mmemb_r1_model.study.results import Results

#: Stage → what its model wrote of a task's chains, a seed each.
_Stages: TypeAlias = dict[Checkpoint, list[dict[str, Any]]]


@dataclass(frozen=True)
class Share:
    """k of n, and where its probability lies with a confidence of 95 %: exact, after Clopper and Pearson (1934)."""

    count: int
    of: int
    low: float
    high: float


def share_of(outcomes: Sequence[bool]) -> Share:
    """Of independent outcomes, one at least."""
    from scipy import special

    count, of, tail = sum(outcomes), len(outcomes), (1 - CONFIDENCE) / 2
    low = special.betaincinv(count, of - count + 1, tail) if count else 0.0
    high = special.betaincinv(count + 1, of - count, 1 - tail) if count < of else 1.0
    return Share(count, of, float(low), float(high))


def look_ups_section(results: Results, runs: Iterable[str], numbers: dict[str, Any]) -> str:
    """Tables of all runs; empty if the study has no validation split."""
    if results.config.valid is None:
        return ""
    formed_rows, hop_rows = list[list[str]](), list[list[str]]()
    for run in runs:
        for task in results.config.tasks:
            stages = _measured(results, run, task)
            if not stages["joint"]:
                continue
            formed = results.formed(run, task)
            share = share_of(list(formed.values()))
            right = [" / ".join(percent(of["right"]) for of in stages.get(name, ())) for name in ("joint", "adaptive")]
            interval = bounds(share.low, share.high)
            formed_rows.append([task, run, f"{share.count} of {share.of}", interval, *right])
            own = numbers.setdefault("look_ups", {}).setdefault(run, {})
            own[task] = {"stages": stages, "formed": formed, "share": dataclasses.asdict(share)}
            if "adaptive" in stages:
                hop_rows += [[task, run, *cells] for cells in _by_hops(stages)]
    formed_header = ["task", "run", "formed", "P(formed), %", "right after stage 1, each seed", "after stage 2"]
    hop_header = ["task", "run", "hops", "right: stage 1", "stage 2", "whole: stage 1", "stage 2", "tokens: 1", "2"]
    return f"""## Look-ups

Of chains with a hop at least, on a validation split that nothing was trained on: the model's own greedy rationale is
right if it leads to the answer. Look-ups have formed where that is so in {100 * FORMED:.0f} % or more when stage 1 is
over; that was fixed before any run. In brackets: 95 % interval of the probability that they form (Clopper-Pearson).

{markdown_table(formed_header, formed_rows)}

What stage 2 makes of long chains, means over seeds: rationales that are right, those in which every step stands, and
their tokens, markers included.

{markdown_table(hop_header, hop_rows)}
"""


def _measured(results: Results, run: str, task: str) -> _Stages:
    """Of a task that the validation split hasn't, no seeds."""
    stages: tuple[Checkpoint, ...] = ("joint", "adaptive")
    chosen = stages[: 1 + stages.index(results.checkpoint(run))]
    measured = {stage: [results.look_ups(seed, run, stage) for seed in results.seeds_of(run)] for stage in chosen}
    return {stage: [of[task] for of in seeds if task in of] for stage, seeds in measured.items()}


def _by_hops(stages: _Stages) -> list[list[str]]:
    rows = []
    for hops in sorted({hops for of in stages["joint"] for hops in of["by_hops"]}, key=int):
        cells = [hops]
        for name in ("right", "whole", "tokens"):
            parts = [[of["by_hops"][hops][name] for of in seeds if hops in of["by_hops"]] for seeds in stages.values()]
            means = [float(np.mean(part)) for part in parts]
            cells += [f"{mean:.1f}" if name == "tokens" else percent(mean) for mean in means]
        rows.append(cells)
    return rows
