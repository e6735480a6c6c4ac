"""One model run in its three reasoning modes: what its gate is worth.

    never · always · random (reasons as often as the gate, in each task) · adaptive · oracle (each query's better path)

The random gate is an expectation, not a run: with share s of a task it scores s always + (1 - s) never. The oracle
reads the answers: a bound, no method. Where writing a rationale isn't deterministic, adaptive isn't put together from
the other two runs; it is always the run itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import ResultError
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.scores import read_run, read_run_file
from mmeb_harness.stats.paired import SEED, query_table, read_queries
from mmeb_harness.stats.resampling import (
    Floats,
    Uncertain,
    clusters_of,
    flip_signs,
    mean_over_tasks,
    p_of_no_difference,
    resample,
    statistics_over_tasks,
)

Mode = Literal["never", "always", "adaptive"]
Policy = Literal["never", "always", "random", "adaptive", "oracle"]
MODES: tuple[Mode, ...] = get_args(Mode)
POLICIES: tuple[Policy, ...] = get_args(Policy)
#: The setting of a model that tells its modes apart.
REASONING = "reasoning"
BINS = 10


@dataclass(frozen=True)
class PolicyRow:
    """What one way of deciding scores and costs.

    Attributes:
        share: of the queries that reason; mean over tasks.
        tokens: written a query; mean over tasks.
        p50, p95: latency of a query in seconds, in its batch; `None` of policies that no run has.
    """

    policy: Policy
    score: Uncertain
    share: float
    tokens: float
    p50: float | None = None
    p95: float | None = None


@dataclass(frozen=True)
class Against:
    """Adaptive minus another policy; `p` that there is no difference, by sign flips of clusters."""

    policy: Policy
    difference: Uncertain
    p: float


@dataclass(frozen=True)
class Bin:
    """Queries whose gate lies in a tenth.

    Attributes:
        gate: mean probability.
        pays, hurts: share of the queries on which always is better, or worse, than never.
        gap: mean of always minus never.
    """

    low: float
    queries: int
    gate: float
    pays: float
    hurts: float
    gap: float


@dataclass(frozen=True)
class Gate:
    """What a model's gate is worth.

    Attributes:
        tasks: that all three runs have.
        head_room_closed: share of what the oracle wins over the better of never and always; nan without head-room.
        bins: of the gate's probability, those with queries.
        brier: of the gate as a forecast that reasoning pays; `base_rate_brier`: of always saying how often it does.
    """

    model: str
    tasks: tuple[str, ...]
    policies: tuple[PolicyRow, ...]
    against: tuple[Against, ...]
    head_room_closed: Uncertain
    bins: tuple[Bin, ...]
    brier: float | None
    base_rate_brier: float | None


@dataclass(frozen=True)
class _Task:
    """One task's queries in all three runs; arrays of (N,)."""

    scores: Mapping[Policy, Floats]
    shares: Mapping[Policy, Floats]
    tokens: Mapping[Policy, Floats]
    gate: Floats
    clusters: NDArray[np.int64]


def mode_runs(folders: Sequence[Path]) -> dict[Mode, Path] | None:
    """Mode → folder, if these are one model's runs in all three modes; else `None`.

    Raises:
        ResultError: a run that can't be read.
    """
    runs = [read_run_file(folder) for folder in folders]
    found = {str(run.model_settings.get(REASONING)): folder for run, folder in zip(runs, folders, strict=True)}
    one_model = len({apart_from(run) for run in runs}) == 1
    if len(folders) != len(MODES) or set(found) != set(MODES) or not one_model:
        return None
    return {mode: found[mode] for mode in MODES}


def apart_from(run: RunResult, settings: Collection[str] = (REASONING,)) -> tuple[object, ...]:
    """What a run's model is but for some settings: equal of runs that differ in these alone."""
    rest = sorted((name, repr(value)) for name, value in run.model_settings.items() if name not in settings)
    return run.model, run.model_revision, run.model_dimensions, tuple(rest), run.profile


def judge_gate(runs: Mapping[Mode, Path]) -> Gate:
    """Compare the three runs on the tasks that all of them have.

    Raises:
        ResultError: a run that can't be read, no task in common, or other queries under a task's name.
    """
    results = {mode: {one.name: one for one in read_run(folder)[1]} for mode, folder in runs.items()}
    names = [name for name in results["adaptive"] if all(name in one for one in results.values())]
    if not names:
        raise ResultError(f"{', '.join(map(str, runs.values()))} have no task in common")
    tasks = []
    seconds: dict[Mode, list[Floats]] = {mode: [] for mode in MODES}
    for name in names:
        queries = {mode: read_queries(folder, results[mode][name]) for mode, folder in runs.items()}
        if len({one.ids for one in queries.values()}) > 1:
            raise ResultError(f"{name}: the runs are of other queries; run all modes on the same data revision")
        written = {mode: _written(folder, results[mode][name]) for mode, folder in runs.items()}
        for mode, one in written.items():
            seconds[mode].append(one.seconds)
        tasks.append(_task({mode: one.scores for mode, one in queries.items()}, written, queries["adaptive"].clusters))
    whole = {mode: np.concatenate(parts) for mode, parts in seconds.items()}
    return _gate(read_run_file(runs["adaptive"]).model, names, tasks, whole)


@dataclass(frozen=True)
class _Written:
    """What one run wrote for a task's queries; arrays of (N,)."""

    reasoned: Floats
    tokens: Floats
    gate: Floats
    seconds: Floats


def _written(folder: Path, result: TaskResult) -> _Written:
    table = query_table(folder, result, ["path", "reasoning_tokens", "gate", "latency_seconds"])
    paths, tokens, gates, seconds = (column.to_pylist() for column in table.columns)
    return _Written(
        reasoned=np.array([path == "reasoned" for path in paths], dtype=np.float64),
        tokens=np.array(tokens, dtype=np.float64),
        gate=np.array(gates, dtype=np.float64),
        seconds=np.array(seconds, dtype=np.float64),
    )


def _task(scores: Mapping[Mode, Floats], written: Mapping[Mode, _Written], clusters: NDArray[np.int64]) -> _Task:
    never, always, adaptive = (scores[mode] for mode in MODES)
    reasoned, tokens = written["adaptive"].reasoned, written["always"].tokens
    share = np.full(len(never), reasoned.mean())
    better = (always > never).astype(np.float64)
    return _Task(
        scores={
            "never": never,
            "always": always,
            "random": share * always + (1 - share) * never,
            "adaptive": adaptive,
            "oracle": np.maximum(never, always),
        },
        shares={
            "never": written["never"].reasoned,
            "always": written["always"].reasoned,
            "random": share,
            "adaptive": reasoned,
            "oracle": better,
        },
        tokens={
            "never": written["never"].tokens,
            "always": tokens,
            "random": share * tokens,
            "adaptive": written["adaptive"].tokens,
            "oracle": better * tokens,
        },
        gate=written["adaptive"].gate,
        clusters=clusters,
    )


def _gate(model: str, names: Sequence[str], tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]) -> Gate:
    rng = np.random.default_rng(SEED)
    columns = [np.stack([one.scores[policy] for policy in POLICIES], axis=1) for one in tasks]
    resampled = [resample(clusters_of(some, one.clusters), rng) for some, one in zip(columns, tasks, strict=True)]
    scores = mean_over_tasks(resampled, rng)
    others: tuple[Policy, ...] = tuple(policy for policy in POLICIES if policy != "adaptive")
    *differences, closed = statistics_over_tasks(resampled, [*map(_adaptive_minus, others), head_room_closed], rng)
    gate = np.concatenate([one.gate for one in tasks])
    gap = np.concatenate([one.scores["always"] - one.scores["never"] for one in tasks])
    known = ~np.isnan(gate)
    pays = (gap > 0).astype(np.float64)
    return Gate(
        model=model,
        tasks=tuple(names),
        policies=tuple(
            _policy_row(policy, score, tasks, seconds) for policy, score in zip(POLICIES, scores, strict=True)
        ),
        against=tuple(
            Against(policy, difference, _p(tasks, policy, rng))
            for policy, difference in zip(others, differences, strict=True)
        ),
        head_room_closed=closed,
        bins=_bins(gate[known], gap[known]),
        brier=float(np.mean((gate[known] - pays[known]) ** 2)) if known.any() else None,
        base_rate_brier=float(pays[known].var()) if known.any() else None,
    )


def _adaptive_minus(policy: Policy) -> Callable[[Floats], Floats]:
    return lambda means: means[..., POLICIES.index("adaptive")] - means[..., POLICIES.index(policy)]


def head_room_closed(means: Floats) -> Floats:
    """(..., 5) means of the policies → (...); nan where the oracle wins nothing."""
    never, always, _, adaptive, oracle = np.moveaxis(means, -1, 0)
    best = np.maximum(never, always)
    with np.errstate(divide="ignore", invalid="ignore"):
        closed: Floats = np.where(oracle > best, (adaptive - best) / (oracle - best), np.nan)
    return closed


def _p(tasks: Sequence[_Task], policy: Policy, rng: np.random.Generator) -> float:
    changes = [clusters_of(one.scores["adaptive"] - one.scores[policy], one.clusters) for one in tasks]
    return p_of_no_difference([flip_signs(one, rng) for one in changes])


def _policy_row(policy: Policy, score: Uncertain, tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]) -> PolicyRow:
    row = PolicyRow(
        policy=policy,
        score=score,
        share=float(np.mean([one.shares[policy].mean() for one in tasks])),
        tokens=float(np.mean([one.tokens[policy].mean() for one in tasks])),
    )
    if policy not in MODES:
        return row
    p50, p95 = np.percentile(seconds[policy], [50, 95]).tolist()
    return dataclasses.replace(row, p50=p50, p95=p95)


def _bins(gate: Floats, gap: Floats) -> tuple[Bin, ...]:
    places = np.minimum((BINS * gate).astype(int), BINS - 1)
    return tuple(
        Bin(
            low=place / BINS,
            queries=int((places == place).sum()),
            gate=float(gate[places == place].mean()),
            pays=float((gap[places == place] > 0).mean()),
            hurts=float((gap[places == place] < 0).mean()),
            gap=float(gap[places == place].mean()),
        )
        for place in sorted(set(places.tolist()))
    )
