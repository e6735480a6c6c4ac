"""Five policies of when to reason, from one model's runs in its three modes: what its gate is worth.

    never · always · random (reasons as often as the gate, in each task) · adaptive · oracle (each query's better path)

The random gate is an expectation, not a run: with share s of a task it scores s always + (1 - s) never. The oracle
reads the answers: a bound, no method. Where writing a rationale isn't deterministic, adaptive isn't put together from
the other two runs; it is always the run itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import ResultError
from mmeb_harness.results.files import RunResult
from mmeb_harness.results.scores import read_run, read_run_file
from mmeb_harness.stats.paired import SEED
from mmeb_harness.stats.queries import QueryScores, QueryTraces, joined, read_queries, read_traces
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
        reasoning_tokens: of a query, all of them counted; mean over tasks.
        p50, p95: latency of a query in seconds, in its batch; `None` of policies that no run has.
    """

    policy: Policy
    score: Uncertain
    share: float
    reasoning_tokens: float
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
class Calibration:
    """A gate as a forecast that reasoning pays.

    Attributes:
        bins: of the gate's probability, those with queries.
        brier: the forecast's Brier score; `base_rate_brier`: that of always saying how often it does.
    """

    bins: tuple[Bin, ...]
    brier: float
    base_rate_brier: float


@dataclass(frozen=True)
class Gate:
    """What a model's gate is worth.

    Attributes:
        tasks: that all three runs have.
        head_room_closed: share of what the oracle wins over the better of never and always; nan without head-room.
        bins, brier, base_rate_brier: its `Calibration`; empty and `None` of a model without a gate.
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
class Outcomes:
    """What one policy makes of a task's queries; arrays of (N,).

    Attributes:
        scores: main metric.
        reasoned: whether a query reasons, or with which probability.
    """

    scores: Floats
    reasoned: Floats
    reasoning_tokens: Floats


@dataclass(frozen=True)
class _Task:
    """One task's queries under all policies."""

    outcomes: Mapping[Policy, Outcomes]
    gates: Floats
    clusters: NDArray[np.int64]


def outcomes_of(runs: Mapping[Mode, Outcomes], share: float) -> dict[Policy, Outcomes]:
    """All five policies, from the runs of three on the same queries.

    Args:
        share: with which the random gate reasons: that of the whole task in the adaptive run.
    """
    never, always = runs["never"], runs["always"]
    better = (always.scores > never.scores).astype(np.float64)
    return {
        "never": never,
        "always": always,
        "random": Outcomes(
            scores=share * always.scores + (1 - share) * never.scores,
            reasoned=np.full(len(never.scores), share),
            reasoning_tokens=share * always.reasoning_tokens,
        ),
        "adaptive": runs["adaptive"],
        "oracle": Outcomes(np.maximum(never.scores, always.scores), better, better * always.reasoning_tokens),
    }


def mode_runs(folders: Sequence[Path]) -> dict[Mode, Path] | None:
    """Mode → folder, if these are one model's runs in all three modes; else `None`.

    Raises:
        ResultError: a run that can't be read.
    """
    runs = [read_run_file(folder) for folder in folders]
    by_mode = {str(run.model_settings.get(REASONING)): folder for run, folder in zip(runs, folders, strict=True)}
    one_model = len({apart_from(run) for run in runs}) == 1
    if len(folders) != len(MODES) or set(by_mode) != set(MODES) or not one_model:
        return None
    return {mode: by_mode[mode] for mode in MODES}


def apart_from(run: RunResult, settings: Collection[str] = (REASONING,)) -> tuple[object, ...]:
    """What a run's model is but for some settings: equal of runs that differ in these alone."""
    rest = sorted((name, repr(value)) for name, value in run.model_settings.items() if name not in settings)
    return run.model, run.model_revision, run.model_dimensions, tuple(rest), run.profile


def judge_gate(runs: Mapping[Mode, Path]) -> Gate:
    """Compare the three runs on the tasks that all of them have.

    Raises:
        ResultError: a run that can't be read, no task in common, or other queries under a task's name.
    """
    results = {mode: {result.name: result for result in read_run(folder)[1]} for mode, folder in runs.items()}
    names = [name for name in results["adaptive"] if all(name in of_mode for of_mode in results.values())]
    if not names:
        raise ResultError(f"{', '.join(map(str, runs.values()))} have no task in common")
    tasks = []
    traces: dict[Mode, list[QueryTraces]] = {mode: [] for mode in runs}
    for name in names:
        queries = {mode: read_queries(folder, results[mode][name]) for mode, folder in runs.items()}
        if len({of_mode.ids for of_mode in queries.values()}) > 1:
            raise ResultError(f"{name}: the runs are of other queries; run all modes on the same data revision")
        for mode, folder in runs.items():
            traces[mode].append(read_traces(folder, results[mode][name]))
        tasks.append(_task(queries, {mode: of_mode[-1] for mode, of_mode in traces.items()}))
    seconds = {mode: joined(of_mode).latency_seconds for mode, of_mode in traces.items()}
    return _gate(read_run_file(runs["adaptive"]).model, names, tasks, seconds)


def _task(queries: Mapping[Mode, QueryScores], traces: Mapping[Mode, QueryTraces]) -> _Task:
    runs = {
        mode: Outcomes(queries[mode].scores, traces[mode].reasoned.astype(np.float64), traces[mode].reasoning_tokens)
        for mode in MODES
    }
    adaptive = runs["adaptive"]
    outcomes = outcomes_of(runs, share=float(adaptive.reasoned.mean()))
    return _Task(outcomes, traces["adaptive"].gates, queries["adaptive"].clusters)


def _gate(model: str, names: Sequence[str], tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]) -> Gate:
    rng = np.random.default_rng(SEED)
    columns = [np.stack([task.outcomes[policy].scores for policy in POLICIES], axis=1) for task in tasks]
    resampled = [resample(clusters_of(some, task.clusters), rng) for some, task in zip(columns, tasks, strict=True)]
    scores = mean_over_tasks(resampled, rng)
    others: tuple[Policy, ...] = tuple(policy for policy in POLICIES if policy != "adaptive")
    *differences, closed = statistics_over_tasks(resampled, [*map(adaptive_minus, others), head_room_closed], rng)
    gates = np.concatenate([task.gates for task in tasks])
    gaps = np.concatenate([task.outcomes["always"].scores - task.outcomes["never"].scores for task in tasks])
    known = ~np.isnan(gates)
    calibration = calibrate(gates[known], gaps[known]) if known.any() else None
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
        bins=calibration.bins if calibration else (),
        brier=calibration.brier if calibration else None,
        base_rate_brier=calibration.base_rate_brier if calibration else None,
    )


def adaptive_minus(policy: Policy) -> Callable[[Floats], Floats]:
    """A statistic: (..., 5) means of the policies → (...) what adaptive has more than another one."""
    return lambda means: means[..., POLICIES.index("adaptive")] - means[..., POLICIES.index(policy)]


def head_room_closed(means: Floats) -> Floats:
    """(..., 5) means of the policies → (...) share of what the oracle wins over the better of never and always.

    It is nan where the oracle wins nothing.
    """
    never, always, _, adaptive, oracle = np.moveaxis(means, -1, 0)
    best = np.maximum(never, always)
    with np.errstate(divide="ignore", invalid="ignore"):
        closed: Floats = np.where(oracle > best, (adaptive - best) / (oracle - best), np.nan)
    return closed


def _p(tasks: Sequence[_Task], policy: Policy, rng: np.random.Generator) -> float:
    changes = [
        clusters_of(task.outcomes["adaptive"].scores - task.outcomes[policy].scores, task.clusters) for task in tasks
    ]
    return p_of_no_difference([flip_signs(change, rng) for change in changes])


def _policy_row(policy: Policy, score: Uncertain, tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]) -> PolicyRow:
    outcomes = [task.outcomes[policy] for task in tasks]
    p50, p95 = np.percentile(seconds[policy], [50, 95]).tolist() if policy in MODES else (None, None)
    return PolicyRow(
        policy=policy,
        score=score,
        share=float(np.mean([own.reasoned.mean() for own in outcomes])),
        reasoning_tokens=float(np.mean([own.reasoning_tokens.mean() for own in outcomes])),
        p50=p50,
        p95=p95,
    )


def calibrate(gates: Floats, gaps: Floats) -> Calibration:
    """Hold a gate against what reasoning did.

    Args:
        gates: (N,) p(reason), N > 0.
        gaps: (N,) scores of always minus those of never.
    """
    pays = (gaps > 0).astype(np.float64)
    rate = float(pays.mean())
    return Calibration(_bins(gates, gaps), float(np.mean((gates - pays) ** 2)), rate * (1 - rate))


def _bins(gates: Floats, gaps: Floats) -> tuple[Bin, ...]:
    places = np.minimum((BINS * gates).astype(int), BINS - 1)
    return tuple(
        _bin(place / BINS, gates[places == place], gaps[places == place]) for place in sorted(set(places.tolist()))
    )


def _bin(low: float, gates: Floats, gaps: Floats) -> Bin:
    return Bin(low, len(gates), *(float(values.mean()) for values in (gates, gaps > 0, gaps < 0, gaps)))
