"""Finished runs, read to be shown side by side: the results, and of each query what it scored and cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmeb_harness.core.errors import ResultError
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import Scores, check_comparable, read_run, scores_of_results
from mmeb_harness.show.names import distinct_names, labelled
from mmeb_harness.stats.queries import QueryScores, QueryTraces, joined, read_queries, read_traces
from mmeb_harness.stats.resampling import Floats


@dataclass(frozen=True)
class ShownRun:
    """One run.

    Attributes:
        scores: under a name unlike that of any other run shown.
        results: of its tasks, in the run's order.
        label: the name that somebody wants for it; else "".
    """

    folder: Path
    scores: Scores
    run: RunResult
    results: Mapping[str, TaskResult]
    label: str = ""

    @property
    def name(self) -> str:
        """What it goes by."""
        return self.scores.name

    @property
    def files(self) -> RunFolder:
        """Where its files lie."""
        return RunFolder(self.folder)

    @cached_property
    def queries(self) -> Mapping[str, QueryScores]:
        """What the queries of each task scored, read when first asked for."""
        return {task: read_queries(self.folder, result) for task, result in self.results.items()}

    @cached_property
    def traces(self) -> Mapping[str, QueryTraces]:
        """How the vectors of the same queries came about."""
        return {task: read_traces(self.folder, result) for task, result in self.results.items()}

    def score(self, tasks: Sequence[str]) -> float:
        """Plain mean over tasks."""
        return float(np.mean([self.results[task].score for task in tasks]))

    def query_scores(self, tasks: Sequence[str]) -> Floats:
        """(N,) main metric of the queries of these tasks, task after task."""
        return np.concatenate([self.queries[task].scores for task in tasks])

    def query_traces(self, tasks: Sequence[str]) -> QueryTraces:
        """The same of how their vectors came about."""
        return joined([self.traces[task] for task in tasks])


def read_runs(folders: Sequence[Path], *, allow_editions: bool, labels: Sequence[str] = ()) -> tuple[ShownRun, ...]:
    """Read finished runs that may stand side by side.

    Args:
        labels: RUN=NAME each; see `names.labelled`.

    Raises:
        OptionError, UnknownNameError: of labels.
        ResultError: one of them twice, a run that can't be read or isn't finished, a score that is no fraction, or runs
            that must not stand in one table.
    """
    places = [folder.resolve() for folder in folders]
    if twice := next((folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1), None):
        raise ResultError(f"{twice} is named twice; name every run once")
    runs = [_read_run(folder) for folder in folders]
    named = distinct_names([run.scores for run in runs])
    check_comparable(named, allow_editions=allow_editions)
    shown = zip(runs, named, labelled(named, folders, labels), strict=True)
    return tuple(
        dataclasses.replace(run, scores=own, label=own.name if own.name != before.name else "")
        for run, before, own in shown
    )


def _read_run(folder: Path) -> ShownRun:
    run, results = read_run(folder)
    return ShownRun(folder, scores_of_results(folder, run, results), run, {result.name: result for result in results})
