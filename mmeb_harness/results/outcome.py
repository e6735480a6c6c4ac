"""What comes out of a run, as values: its results, and of each task what the run's own figures are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.files import read_parquet
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, eq=False)
class FinishedTask:
    """A task's result, and what of its rows the run as a whole sums up.

    Attributes:
        query_seconds, candidate_seconds: latency of each item, duplicates included.
        easy, hard: mean main metric of the queries that the data labels so; `None` where there are none.
    """

    result: TaskResult
    query_seconds: NDArray[np.float64]
    candidate_seconds: NDArray[np.float64]
    easy: float | None
    hard: float | None


@dataclass(frozen=True)
class Run:
    """What a run has left in its folder."""

    folder: Path
    result: RunResult
    tasks: tuple[FinishedTask, ...]


def finished_task(result: TaskResult, queries: pa.Table, candidates: pa.Table) -> FinishedTask:
    """A task whose tables are at hand: those of `query_table` and `candidate_table`."""
    scores, labels = queries.column("score").to_pylist(), queries.column("difficulty").to_pylist()

    def mean_of(kind: str) -> float | None:
        return _mean([score for score, label in zip(scores, labels, strict=True) if label == kind])

    query_seconds, candidate_seconds = (table.column("latency_seconds").to_numpy() for table in (queries, candidates))
    return FinishedTask(result, query_seconds, candidate_seconds, mean_of("easy"), mean_of("hard"))


def kept_task(folder: RunFolder, result: TaskResult) -> FinishedTask:
    """A task that an earlier invocation finished, its tables read.

    Raises:
        ResultError: a table can't be read.
    """
    queries = read_parquet(folder.queries_file(result.name), ["latency_seconds", "score", "difficulty"])
    return finished_task(result, queries, read_parquet(folder.candidates_file(result.name), ["latency_seconds"]))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
