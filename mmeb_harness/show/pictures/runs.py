"""Runs that may stand side by side in a picture: which tasks they share, and what is said of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.registry import benchmark_rows, load_tasks
from mmeb_harness.show.runs import ShownRun, read_runs


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
        parts += [f"synthetic: not {benchmark_of(runs[0].edition).name} scores"] if synthetic else []
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


def shown_runs(folders: Sequence[Path], *, allow_editions: bool, labels: Sequence[str] = ()) -> ShownRuns:
    """Read finished runs.

    Raises:
        OptionError: there are none.
        ResultError: see `read_runs`.
    """
    if not folders:
        raise OptionError("nothing to draw; name the folder of a run")
    runs = read_runs(folders, allow_editions=allow_editions, labels=labels)
    rows = benchmark_rows(load_tasks(runs[0].run.edition or None).values())
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row.task)
    for result in (result for shown in runs for result in shown.results.values()):
        of_group = groups.setdefault(result.group, [])
        if result.name not in of_group:
            of_group.append(result.name)
    return ShownRuns(
        runs=runs,
        groups={group: tuple(tasks) for group, tasks in groups.items()},
        benchmark=frozenset(row.task for row in rows),
    )
