"""The part of a report on graded budgets: does a short rationale more beat the binary gate at equal tokens?

Fixed before anything was run:

- What a gate can do is a set of points, one a run: tokens a query, markers included, and the main metric, adaptively.
  Runs of one length cost each (`adapt.reward.length_cost`), alike in all else, are of one set.
- A binary gate is worth at t tokens what a mixture of its points, drawn a query at random, reaches with t at most;
  never to reason, at 0 tokens, is one of its points.
- A graded run is held against that at its own tokens, on the same queries and seeds. The best of noisy points is a
  little better than they are, which is to the binary gate's advantage.
- The answer is the mean over all costs of the runs with `PRIMARY` tokens, no others: a graded budget beats the binary
  gate if it is above 0 in every seed, and its interval over queries is, too. All else is shown to explain it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeb_harness.show.tables import bounds, markdown_table, percent
from mmeb_harness.stats.resampling import Floats
from mmemb_r1_model.study.plan import BASE, COST_KEY, SHORT_KEY, Variant
from mmemb_r1_model.study.policies import Means, Sample, Statistic, estimate, sampled
from mmemb_r1_model.study.results import Results

if TYPE_CHECKING:
    import pandas as pd

#: Of a short rationale, in the runs that answer the question.
PRIMARY = 4


@dataclass(frozen=True)
class Run:
    """One point of a curve.

    Attributes:
        short: tokens of a short rationale; 0: a binary gate.
        cost: c.
        rest: all other settings that it changes.
    """

    name: str
    short: int
    cost: float
    rest: tuple[str, ...] = ()


def runs_of(base_cost: float, variants: Sequence[Variant]) -> list[Run]:
    """The base, and the variants that share its stage 1."""
    runs = [Run(BASE, 0, base_cost)]
    for variant in variants:
        if variant.shares == "train" and variant.checkpoint == "adaptive":
            own = dict(assignment.split("=", 1) for assignment in variant.set)
            short, cost = int(own.pop(SHORT_KEY, 0)), float(own.pop(COST_KEY, base_cost))
            runs.append(Run(variant.name, short, cost, tuple(f"{key}={own[key]}" for key in sorted(own))))
    return runs


def attainable(tokens: Floats, point_tokens: Sequence[Floats], point_scores: Sequence[Floats]) -> Floats:
    """The best score of a mixture of points that takes so many tokens at most.

    Args:
        tokens: of any shape, as all else; one point at least takes no more.
    """
    points = list(zip(point_tokens, point_scores, strict=True))
    best = np.max([np.where(own <= tokens, score, -np.inf) for own, score in points], axis=0)
    for (less, low), (more, high) in itertools.permutations(points, 2):
        with np.errstate(divide="ignore", invalid="ignore"):
            between = low + (high - low) * (tokens - less) / (more - less)
        best = np.where((less <= tokens) & (tokens < more), np.maximum(best, between), best)
    return np.asarray(best)


def graded_section(results: Results, variants: Sequence[Variant], numbers: dict[str, Any]) -> str:
    """Tables of all budgets; empty if no run has a short one."""
    base_cost = float(results.json("config.json")[0]["adapt"]["reward"]["length_cost"])
    every = runs_of(base_cost, variants)
    families = {run.rest: [own for own in every if own.rest == run.rest] for run in every if run.short}
    if not families:
        return ""
    of_points, of_hops, answers = list[list[str]](), list[list[str]](), list[str]()
    for task in results.config.tasks:
        for rest, runs in families.items():
            seeds = [seed for seed in results.seeds if all(seed in results.seeds_of(run.name) for run in runs)]
            if not seeds or all(run.short for run in runs):
                continue
            frames = {run: results.groups(run.name)[task].of(seeds).frames for run in runs}
            samples = [_sample(frames, number) for number in range(len(seeds))]
            own = numbers.setdefault("graded", {}).setdefault(task, {}).setdefault(" ".join(rest), {"seeds": seeds})
            of_points += _point_rows([task, " ".join(rest)], runs, frames, samples, own)
            of_hops += [row for run in runs for row in _hop_rows([task, run.name], frames[run])]
            if not rest and any(run.short == PRIMARY for run in runs):
                answers.append(f"{task}: {_answer(runs, samples, own)}")
    header = ["task", "also set", "run", "short", "c", "direct", "closed", "whole", "tokens", "adaptive"]
    header += ["binary at as many", "graded - binary"]
    hop_header = ["task", "run", "queries", "direct", "closed", "whole", "tokens", "adaptive"]
    return f"""## A graded budget

A short rationale is closed after so many tokens (`{SHORT_KEY}`; 0: the gate is binary). In % of the queries: answered
directly, with a rationale that was closed before its end, with a whole one. The binary gate at as many tokens is the
best mixture of the runs with short 0, never to reason included (`mmemb_r1_model/study/graded.py`, fixed before any
run); the difference is paired by query, and the costs of {PRIMARY} tokens together are the answer:

{chr(10).join(f"- {answer}" for answer in answers) or "No run of it is finished in the seeds of all others."}

{markdown_table(header, of_points)}

{markdown_table(hop_header, of_hops)}
"""


def _sample(frames: Mapping[Run, Sequence[pd.DataFrame]], number: int) -> Sample:
    """One seed's queries: every run's score and tokens, and the score of never."""
    columns: dict[str, Floats] = {}
    order = frames[next(iter(frames))][number].query_id
    for run, of_seed in frames.items():
        frame = of_seed[number].set_index("query_id").loc[order]
        columns[f"score {run.name}"] = frame.adaptive.to_numpy(float)
        columns[f"tokens {run.name}"] = frame.tokens_adaptive.to_numpy(float)
        if not run.short and "never" not in columns:
            columns["never"] = frame.never.to_numpy(float)
    return sampled(columns, number)


def _binary(run: Run, runs: Sequence[Run]) -> Statistic:
    """What the binary gate reaches with the tokens of a graded run."""
    binary = [own for own in runs if not own.short]

    def statistic(means: Means) -> Floats:
        tokens = [np.zeros_like(means["never"]), *(means[f"tokens {own.name}"] for own in binary)]
        scores = [means["never"], *(means[f"score {own.name}"] for own in binary)]
        return attainable(means[f"tokens {run.name}"], tokens, scores)

    return statistic


def _gain(graded: Sequence[Run], runs: Sequence[Run]) -> Statistic:
    """By how much graded runs are better, on average."""

    def statistic(means: Means) -> Floats:
        gains = [means[f"score {run.name}"] - _binary(run, runs)(means) for run in graded]
        return np.asarray(np.mean(gains, axis=0))

    return statistic


def _answer(runs: Sequence[Run], samples: Sequence[Sample], numbers: dict[str, Any]) -> str:
    gain = _gain([run for run in runs if run.short == PRIMARY], runs)
    whole, each = estimate(samples, gain), [float(gain(sample.means)) for sample in samples]
    beats = min(each) > 0 and whole.queries[0] > 0
    numbers["answer"] = {**dataclasses.asdict(whole), "each": each, "beats": beats}
    intervals = f"{bounds(*whole.queries)} over queries, {bounds(*whole.seeds)} over seeds"
    return (
        f"{percent(whole.value)} points ({intervals}; each seed {' / '.join(map(percent, each))}): a graded budget "
        f"{'beats' if beats else 'does not beat'} the binary gate at equal tokens"
    )


def _point_rows(
    first: list[str],
    runs: Sequence[Run],
    frames: Mapping[Run, Sequence[pd.DataFrame]],
    samples: Sequence[Sample],
    numbers: dict[str, Any],
) -> list[list[str]]:
    rows = []
    for run in sorted(runs, key=lambda run: (run.short, run.cost)):
        shares = _shares(frames[run])
        score, tokens = (estimate(samples, itemgetter(f"{name} {run.name}")) for name in ("score", "tokens"))
        row = [*first, run.name, str(run.short), f"{run.cost:g}", *map(percent, shares.values())]
        row += [f"{tokens.value:.1f}", percent(score.value)]
        own = numbers[run.name] = {"short": run.short, "cost": run.cost, **shares}
        own |= {"tokens": dataclasses.asdict(tokens), "score": dataclasses.asdict(score)}
        if run.short:
            binary, gain = estimate(samples, _binary(run, runs)), estimate(samples, _gain([run], runs))
            own |= {"binary": dataclasses.asdict(binary), "gain": dataclasses.asdict(gain)}
            intervals = f"{bounds(*gain.queries)} {bounds(*gain.seeds)}" if len(samples) > 1 else bounds(*gain.queries)
            row += [percent(binary.value), f"{percent(gain.value)} {intervals}"]
        rows.append([*row, *[""] * (12 - len(row))])
    return rows


def _hop_rows(first: list[str], frames: Sequence[pd.DataFrame]) -> list[list[str]]:
    rows = []
    kinds = [("caption", "kind == 'look'")] + [
        (f"chain of {hops}", f"kind == 'chain' and hops == {hops}")
        for hops in sorted({hops for frame in frames for hops in frame[frame.kind == "chain"].hops})
    ]
    for name, chosen in kinds:
        parts = [part for frame in frames if len(part := frame.query(chosen))]
        if parts:
            names = ("tokens_adaptive", "adaptive")
            tokens, score = (float(np.mean([part[column].mean() for part in parts])) for column in names)
            rows.append([*first, name, *map(percent, _shares(parts).values()), f"{tokens:.1f}", percent(score)])
    return rows


def _shares(frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """Means over seeds. Closed: what always reasoning would write goes on."""
    direct = float(np.mean([(frame.reasoned_adaptive == 0).mean() for frame in frames]))
    shorter = [(frame.reasoned_adaptive == 1) & (frame.tokens_adaptive < frame.tokens_always) for frame in frames]
    closed = float(np.mean([rows.mean() for rows in shorter]))
    return {"direct": direct, "closed": closed, "whole": 1 - direct - closed}
