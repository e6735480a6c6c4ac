"""Finished runs, read for pictures: the results, and of each query what it scored and cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.registry import benchmark_rows, load_tasks
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.scores import check_comparable, read_run, scores_of_results
from mmeb_harness.show.compare import distinct_names
from mmeb_harness.stats.queries import QueryScores, QueryTraces, read_queries, read_traces
from mmeb_harness.stats.resampling import Floats


@dataclass(frozen=True)
class ShownRun:
    """One run.

    Attributes:
        name: unlike that of any other run shown.
    """

    name: str
    run: RunResult
    results: Mapping[str, TaskResult]
    queries: Mapping[str, QueryScores]
    traces: Mapping[str, QueryTraces]

    def score(self, tasks: Sequence[str]) -> float:
        """Plain mean over tasks."""
        return float(np.mean([self.results[task].score for task in tasks]))

    def scores(self, tasks: Iterable[str]) -> Floats:
        """(N,) main metric of the queries of these tasks."""
        return np.concatenate([self.queries[task].scores for task in tasks])

    def gates(self, tasks: Iterable[str]) -> Floats:
        """(N,) p(reason) of the queries of these tasks."""
        return np.concatenate([self.traces[task].gates for task in tasks])

    def latency_seconds(self, tasks: Iterable[str]) -> Floats:
        """(N,) latency of the queries of these tasks."""
        return np.concatenate([self.traces[task].latency_seconds for task in tasks])

    def reasoning_tokens(self, tasks: Iterable[str]) -> Floats:
        """(N,) generated tokens of the queries of these tasks."""
        return np.concatenate([self.traces[task].reasoning_tokens for task in tasks])

    def reasoned(self, tasks: Iterable[str]) -> NDArray[np.bool_]:
        """(N,) which queries of these tasks reasoned."""
        return np.concatenate([self.traces[task].reasoned for task in tasks])


@dataclass(frozen=True)
class ShownRuns:
    """Runs that may stand side by side.

    Attributes:
        groups: group → all its tasks: the benchmark's in its order, then groups outside it that a run has.
        benchmark: the benchmark's tasks.
    """

    runs: tuple[ShownRun, ...]
    groups: Mapping[str, tuple[str, ...]]
    benchmark: frozenset[str]

    @cached_property
    def scored(self) -> Mapping[str, tuple[str, ...]]:
        """Group → its tasks that any run has."""
        scored = {
            group: tuple(task for task in tasks if any(task in run.results for run in self.runs))
            for group, tasks in self.groups.items()
        }
        return {group: tasks for group, tasks in scored.items() if tasks}

    @cached_property
    def common(self) -> tuple[str, ...]:
        """What means are over: the benchmark's tasks that all runs have; if none, others that all have."""
        return self.common_to(self.runs)

    def common_to(self, runs: Sequence[ShownRun]) -> tuple[str, ...]:
        """The same for some of the runs."""
        shared = [task for tasks in self.groups.values() for task in tasks if all(task in run.results for run in runs)]
        of_benchmark = tuple(task for task in shared if task in self.benchmark)
        return of_benchmark or tuple(shared)

    def mean_of(self, tasks: Sequence[str]) -> str:
        """What a mean over these tasks is called."""
        if set(tasks) == self.benchmark:
            return f"overall, mean of {len(tasks)} tasks"
        what = "1 task" if len(tasks) == 1 else f"mean of {len(tasks)} tasks"
        scored = {task for of_group in self.scored.values() for task in of_group}
        return f"{what} that all runs have" if set(tasks) != scored else what

    @property
    def data(self) -> str:
        """What the scores are of, for the line under each title."""
        runs = [shown.run for shown in self.runs]
        synthetic = runs[0].data_synthetic
        parts = [" and ".join(dict.fromkeys(run.data for run in runs))]
        parts += ["synthetic: not MMEB-V2 scores"] if synthetic else []
        editions = dict.fromkeys(run.edition for run in runs if run.edition)
        parts += [f"edition{'s' * (len(editions) > 1)} {' and '.join(editions)}"] if editions else []
        parts += [f"first {runs[0].limit} queries of each task only"] if runs[0].limit is not None else []
        parts += ["data revisions differ"] if len({run.data_revision for run in runs}) > 1 else []
        return "; ".join(parts)

    @property
    def machines(self) -> str:
        """A warning where times were taken on several machines, else nothing."""
        keys = ("platform", "processor", "cores", "gpus")
        several = len({tuple(str(shown.run.machine.get(key)) for key in keys) for shown in self.runs}) > 1
        return "; machines differ" if several else ""


def read_runs(folders: Sequence[Path], *, allow_editions: bool) -> ShownRuns:
    """Read finished runs.

    Raises:
        OptionError: none, or one of them twice.
        ResultError: a run that can't be read or isn't finished, or runs that must not stand side by side.
    """
    if not folders:
        raise OptionError("nothing to draw; name the folder of a run")
    if twice := next((path for path, count in Counter(path.resolve() for path in folders).items() if count > 1), None):
        raise OptionError(f"{twice} is named twice")
    read = [read_run(folder) for folder in folders]
    columns = distinct_names([scores_of_results(folder, *both) for folder, both in zip(folders, read, strict=True)])
    check_comparable(columns, allow_editions=allow_editions)
    runs = tuple(
        ShownRun(
            name=scores.name,
            run=run,
            results={result.name: result for result in results},
            traces={result.name: read_traces(folder, result) for result in results},
            queries={result.name: read_queries(folder, result) for result in results},
        )
        for folder, scores, (run, results) in zip(folders, columns, read, strict=True)
    )
    rows = benchmark_rows(load_tasks().values())
    groups: dict[str, list[str]] = {}
    for task, _, group in rows:
        groups.setdefault(group, []).append(task)
    for result in (result for shown in runs for result in shown.results.values()):
        of_group = groups.setdefault(result.group, [])
        if result.name not in of_group:
            of_group.append(result.name)
    return ShownRuns(
        runs=runs,
        groups={group: tuple(tasks) for group, tasks in groups.items()},
        benchmark=frozenset(task for task, _, _ in rows),
    )
