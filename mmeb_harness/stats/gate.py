"""What a model's gate is worth: one model's runs in its three modes, beside what decides without it.

Intervals and tests take every policy's decisions as they are: only queries are drawn, nothing is fitted again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import MODES, REASONING, Mode
from mmeb_harness.core.errors import ResultError
from mmeb_harness.results.files import TaskResult, percentiles
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import has_states
from mmeb_harness.results.scores import read_run, read_run_file
from mmeb_harness.stats.calibration import Bin, calibrate
from mmeb_harness.stats.controls import (
    FOLDS,
    Decisions,
    cross_fitted_gains,
    cross_fitted_mode,
    fit_probe,
    is_always_better,
)
from mmeb_harness.stats.paired import SEED
from mmeb_harness.stats.policies import (
    EVERY_POLICY,
    Outcomes,
    Policy,
    adaptive_minus,
    apart_from,
    head_room_closed,
    outcomes_of,
    routed,
)
from mmeb_harness.stats.queries import QueryTraces, States, joined, read_queries, read_states, read_traces
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


@dataclass(frozen=True)
class PolicyRow:
    """What one way of deciding scores and costs.

    Attributes:
        share: of the queries that reason; mean over tasks.
        reasoning_tokens: of a query, all of them counted; mean over tasks.
        p50, p95: latency of a query in seconds, in its batch; `None` of policies that no run has, and of modes whose
            queries were encoded beside others'.
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
class Gate:
    """What a model's gate is worth.

    Attributes:
        tasks: that all three runs have.
        head_room_closed: share of what the oracle wins over the better of never and always; nan without head-room.
        bins, brier, base_rate_brier, ece: its `Calibration`; empty and `None` of a model without a gate.
        fitted_on: the runs on which fixed and probe were fitted; none: cross-fitted over these runs' own queries.
        no_probe: why there is no probe; "" where there is one.
    """

    model: str
    tasks: tuple[str, ...]
    policies: tuple[PolicyRow, ...]
    against: tuple[Against, ...]
    head_room_closed: Uncertain
    bins: tuple[Bin, ...]
    brier: float | None
    base_rate_brier: float | None
    ece: float | None
    fitted_on: tuple[str, ...]
    no_probe: str


@dataclass(frozen=True)
class _Queries:
    """One task's queries in the modes that were run.

    Attributes:
        states: that the gate reads; `None` where they weren't kept.
    """

    runs: Mapping[Mode, Outcomes]
    traces: Mapping[Mode, QueryTraces]
    clusters: NDArray[np.int64]
    states: States | None

    @property
    def gains(self) -> Floats:
        """Scores of always minus those of never (N,)."""
        return self.runs["always"].scores - self.runs["never"].scores

    @property
    def gates(self) -> Floats:
        """p(reason) in the adaptive run (N,); NaN where the model has no gate."""
        return self.traces["adaptive"].gates


@dataclass(frozen=True)
class _Task:
    """One task's queries under all policies."""

    outcomes: Mapping[Policy, Outcomes]
    clusters: NDArray[np.int64]


_Results: TypeAlias = Mapping[Mode, Mapping[str, TaskResult]]


def judge_gate(runs: Mapping[Mode, Path], fitted_on: Sequence[Path] = ()) -> Gate:
    """Compare the three runs on the tasks that all of them have.

    Args:
        fitted_on: the same model's runs, never and always, on other queries of these tasks, for fixed and probe to be
            fitted on; none: these are cross-fitted.

    Raises:
        ResultError: a run that can't be read, no task in common, or other queries under a task's name; runs to fit on
            that are of another model, of the same queries, or lack a mode or task.
    """
    results = _results(runs)
    names = [name for name in results["adaptive"] if all(name in of_mode for of_mode in results.values())]
    if not names:
        raise ResultError(f"{', '.join(map(str, runs.values()))} have no task in common")
    judged = _read(runs, results, names)
    held_out = _read_held_out(runs, results["adaptive"], names, fitted_on) if fitted_on else None
    forecast, no_probe = _forecast(judged, held_out)
    tasks = _under_policies(judged, _fixed(judged, held_out), forecast)
    gains, gates = (np.concatenate(parts) for parts in zip(*((task.gains, task.gates) for task in judged), strict=True))
    known = ~np.isnan(gates)
    calibration = calibrate(gates[known], gains[known]) if known.any() else None
    seconds = {mode: joined([task.traces[mode] for task in judged]).latency_seconds for mode in runs}
    rows, against, closed = _measured(tasks, seconds)
    return Gate(
        model=read_run_file(runs["adaptive"]).model,
        tasks=tuple(names),
        policies=rows,
        against=against,
        head_room_closed=closed,
        bins=calibration.bins if calibration else (),
        brier=calibration.brier if calibration else None,
        base_rate_brier=calibration.base_rate_brier if calibration else None,
        ece=calibration.ece if calibration else None,
        fitted_on=tuple(map(str, fitted_on)),
        no_probe=no_probe,
    )


def _results(runs: Mapping[Mode, Path]) -> dict[Mode, dict[str, TaskResult]]:
    return {mode: {result.name: result for result in read_run(folder)[1]} for mode, folder in runs.items()}


def _read(runs: Mapping[Mode, Path], results: _Results, names: Sequence[str]) -> list[_Queries]:
    """The tasks' queries, with the states of a run that has those of all tasks: they are the same in all modes."""
    kept = [
        mode
        for mode, folder in runs.items()
        if all(has_states(RunFolder(folder), results[mode][name]) for name in names)
    ]
    tasks = []
    for name in names:
        queries = {mode: read_queries(folder, results[mode][name]) for mode, folder in runs.items()}
        if len({of_mode.ids for of_mode in queries.values()}) > 1:
            raise ResultError(f"{name}: the runs are of other queries; run all modes on the same data revision")
        traces = {mode: read_traces(folder, results[mode][name]) for mode, folder in runs.items()}
        outcomes = {
            mode: Outcomes(queries[mode].scores, own.reasoned.astype(np.float64), own.reasoning_tokens)
            for mode, own in traces.items()
        }
        states = read_states(runs[kept[0]], results[kept[0]][name]) if kept else None
        tasks.append(_Queries(outcomes, traces, [*queries.values()][-1].clusters, states))
    return tasks


def _read_held_out(
    runs: Mapping[Mode, Path], judged: Mapping[str, TaskResult], names: Sequence[str], folders: Sequence[Path]
) -> list[_Queries]:
    described = {folder: read_run_file(folder) for folder in folders}  # whoever is named twice counts once
    model = apart_from(read_run_file(runs["adaptive"]))
    if other := next((folder for folder, run in described.items() if apart_from(run) != model), None):
        raise ResultError(
            f"{other} is to be fitted on, and differs in more than the mode from the runs that are compared (model, "
            "revision, settings or profile); run the same model on the held-out queries"
        )
    by_mode = {str(run.model_settings.get(REASONING)): folder for folder, run in described.items()}
    if len(by_mode) < len(described):
        raise ResultError(f"{', '.join(map(str, folders))} are to be fitted on: two are of one mode; name one of each")
    if missing := [mode for mode in ("never", "always") if mode not in by_mode]:
        raise ResultError(
            f"{', '.join(map(str, folders))}: to be fitted on, a run with --reasoning {missing[0]} is lacking; name it"
        )
    held_out: dict[Mode, Path] = {mode: by_mode[mode] for mode in MODES if mode in by_mode}
    results = _results(held_out)
    for mode, of_mode in results.items():
        for name in names:
            if name not in of_mode:
                raise ResultError(
                    f"{held_out[mode]} is to be fitted on, and lacks {name}; run it with this task as well"
                )
            if judged[name].content and judged[name].content == of_mode[name].content:
                raise ResultError(
                    f"{held_out[mode]} is to be fitted on, but its {name} has the very items that are compared; name "
                    "runs on others, or none, and the controls are cross-fitted"
                )
    return _read(held_out, results, names)


def _fixed(judged: Sequence[_Queries], held_out: Sequence[_Queries] | None) -> list[Decisions]:
    """Which queries reason under their task's better mode, an array (N,) a task."""
    if held_out is None:
        return [cross_fitted_mode(task.gains, task.clusters) for task in judged]
    return [
        np.full(len(task.clusters), is_always_better(other.gains)) for task, other in zip(judged, held_out, strict=True)
    ]


@dataclass(frozen=True)
class _Joined:
    """All tasks' queries, one after another; a cluster is of one task."""

    states: States
    gains: Floats
    clusters: NDArray[np.int64]


def _joined_states(tasks: Sequence[_Queries]) -> _Joined | None:
    kept = [task.states for task in tasks if task.states is not None]
    if not kept:
        return None
    firsts = np.cumsum([0, *(task.clusters.max(initial=-1) + 1 for task in tasks)])
    clusters = [task.clusters + first for task, first in zip(tasks, firsts[:-1], strict=True)]
    return _Joined(np.concatenate(kept), np.concatenate([task.gains for task in tasks]), np.concatenate(clusters))


def _forecast(judged: Sequence[_Queries], held_out: Sequence[_Queries] | None) -> tuple[Floats | None, str]:
    """What the probe says that reasoning gains (N,), of all tasks' queries; or `None`, and why."""
    own = _joined_states(judged)
    known = own if held_out is None else _joined_states(held_out)
    if own is None or known is None:
        where = "these runs" if own is None else "the runs to fit on"
        return None, f"none of {where} has kept what the gate reads of all these queries (run --keep-states)"
    if own.states.shape[1] != known.states.shape[1]:
        widths = f"{own.states.shape[1]} and {known.states.shape[1]}"
        return None, f"states of {widths} numbers are not of one model"
    if len(np.unique(known.clusters)) < FOLDS:
        return None, f"there are fewer than {FOLDS} queries to fit on, or clusters of them"
    if held_out is None:
        return cross_fitted_gains(own.states, own.gains, own.clusters), ""
    return fit_probe(known.states, known.gains, known.clusters).gains(own.states), ""


def _under_policies(judged: Sequence[_Queries], fixed: Sequence[Decisions], forecast: Floats | None) -> list[_Task]:
    tasks, first = [], 0
    for task, of_task in zip(judged, fixed, strict=True):
        outcomes = outcomes_of(task.runs, float(task.runs["adaptive"].reasoned.mean()), of_task)
        if forecast is not None:
            outcomes["probe"] = routed(task.runs, forecast[first : first + len(of_task)] > 0)
        first += len(of_task)
        tasks.append(_Task(outcomes, task.clusters))
    return tasks


def _measured(
    tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]
) -> tuple[tuple[PolicyRow, ...], tuple[Against, ...], Uncertain]:
    """Every policy, adaptive against each of the others, and the head-room that it closes."""
    rng = np.random.default_rng(SEED)
    policies = [policy for policy in EVERY_POLICY if policy in tasks[0].outcomes]
    others = [policy for policy in policies if policy != "adaptive"]
    columns = [np.stack([task.outcomes[policy].scores for policy in policies], axis=1) for task in tasks]
    resampled = [resample(clusters_of(some, task.clusters), rng) for some, task in zip(columns, tasks, strict=True)]
    scores = mean_over_tasks(resampled, rng)
    statistics = [adaptive_minus(policy, policies) for policy in others]
    *differences, closed = statistics_over_tasks(
        resampled, [*statistics, lambda means: head_room_closed(means, policies)], rng
    )
    rows = [_policy_row(policy, score, tasks, seconds) for policy, score in zip(policies, scores, strict=True)]
    against = [
        Against(policy, difference, _p(tasks, policy, rng))
        for policy, difference in zip(others, differences, strict=True)
    ]
    return tuple(rows), tuple(against), closed


def _p(tasks: Sequence[_Task], policy: Policy, rng: np.random.Generator) -> float:
    changes = [
        clusters_of(task.outcomes["adaptive"].scores - task.outcomes[policy].scores, task.clusters) for task in tasks
    ]
    return p_of_no_difference([flip_signs(change, rng) for change in changes])


def _policy_row(policy: Policy, score: Uncertain, tasks: Sequence[_Task], seconds: Mapping[Mode, Floats]) -> PolicyRow:
    outcomes = [task.outcomes[policy] for task in tasks]
    measured = percentiles(seconds[policy]) if policy in MODES and not np.isnan(seconds[policy]).any() else {}
    return PolicyRow(
        policy=policy,
        score=score,
        share=float(np.mean([own.reasoned.mean() for own in outcomes])),
        reasoning_tokens=float(np.mean([own.reasoning_tokens.mean() for own in outcomes])),
        p50=measured.get("p50"),
        p95=measured.get("p95"),
    )
