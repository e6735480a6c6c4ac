"""What comes out of a run, as values: its results, each task's tables of rows, and sums over these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import STATE, Encoded, shared_column, state_column, trace_columns
from mmeb_harness.core.errors import ResultError, UnknownNameError
from mmeb_harness.core.files import file_checksum, parquet_columns, read_parquet
from mmeb_harness.core.items import Medium, Samples
from mmeb_harness.core.registry import RegisteredTask, benchmark_rows, load_tasks
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.task import ScoredQuery
from mmeb_harness.results.files import (
    OF_QUERIES,
    OF_SEVERAL_MODES,
    EncodeStats,
    RunResult,
    TaskResult,
    aggregate,
    expected_fingerprint,
    load_task_result,
    percentiles,
)
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.recomputed import check_follows
from mmeb_harness.results.scores import read_run_file, stored_task

if TYPE_CHECKING:
    import pandas as pd
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


@dataclass(frozen=True, repr=False)
class Run:
    """What a run has left in its folder."""

    folder: Path
    result: RunResult
    tasks: tuple[FinishedTask, ...]

    @property
    def scores(self) -> dict[str, float]:
        """Task → main metric, in [0, 1]."""
        return {task.result.name: task.result.score for task in self.tasks}

    @property
    def means(self) -> dict[str, float]:
        """Mean → score, in [0, 1], of those over all of their tasks: groups, modalities, overall."""
        return {mean.name: mean.score for mean in self.result.aggregates if mean.complete and mean.score is not None}

    @property
    def unsupported(self) -> dict[str, tuple[Medium, ...]]:
        """Task that was asked for → the media that it needs and the model doesn't take: it has no score."""
        return dict(self.result.unsupported)

    def table(self) -> pd.DataFrame:
        """A row a task, in the run's order; all metrics are in `tasks`. What the model doesn't take comes last, with
        that in a column `unsupported`.
        """
        import pandas as pd

        rows: list[dict[str, object]] = [
            {
                "task": task.result.name,
                "group": task.result.group,
                "modality": task.result.modality,
                "metric": task.result.metric,
                "score": task.result.score,
                "chance": task.result.chance,
                "num_queries": task.result.num_queries,
                "num_candidates": task.result.num_candidates,
                "reasoning_rate": task.result.queries.reasoning_rate,
            }
            for task in self.tasks
        ]
        rows += [{"task": task, "unsupported": ", ".join(media)} for task, media in self.unsupported.items()]
        return pd.DataFrame(rows).set_index("task") if rows else pd.DataFrame()

    def queries(self, task: str) -> pd.DataFrame:
        """One task, a row a query: its score, what was ranked first, what is relevant, and how its vector came about.

        Raises:
            UnknownNameError: the run has no such task.
            ResultError: its table is gone, or was changed.
        """
        if task not in self.scores:
            raise UnknownNameError("task of this run", task, self.scores)
        files = RunFolder(self.folder)
        result = next(each.result for each in self.tasks if each.result.name == task)
        table = read_parquet(files.queries_file(task), None, result.tables.get("queries", ""))
        frame: pd.DataFrame = table.to_pandas().set_index("query_id")
        return frame

    def __repr__(self) -> str:
        name = self.result.overall.name if self.result.overall else ""
        score = f", {name} {100 * self.means[name]:.1f}" if name in self.means else ""
        unsupported = f", {len(self.unsupported)} unsupported" if self.unsupported else ""
        tasks = f"{len(self.tasks)} tasks{unsupported}"
        return f"<Run {self.folder}: {self.result.model} on {self.result.data}, {tasks}{score}>"

    def _repr_html_(self) -> str:
        import html

        shown = self.table()
        fractions = shown.columns.intersection(["score", "chance", "reasoning_rate"])
        shown[fractions] = (100 * shown[fractions]).round(1)
        return f"<p>{html.escape(repr(self))}</p>{shown.to_html()}"


def load_run(folder: str | PathLike[str], *, unfinished: bool = False) -> Run:
    """A finished run, as `evaluate` returned it.

    Args:
        unfinished: also one that isn't finished: its status says so, and it is what its finished tasks come to.

    Raises:
        ResultError: the folder holds no finished run, or files that can't be read, were changed, or are of another run.
    """
    root = Path(folder)
    files, run = RunFolder(root), read_run_file(root, unfinished=unfinished)
    if run.status == "finished":
        return Run(root, run, tuple(kept_task(files, stored_task(run, name, files)) for name in run.tasks))
    results = [load_task_result(files.task_file(name)) for name in run.tasks if files.task_file(name).is_file()]
    own = [result for result in results if result.fingerprint == expected_fingerprint(run, result)]
    tasks = tuple(kept_task(files, result) for result in own)
    return Run(root, summed_up(run, tasks, load_tasks(run.edition or None).values()), tasks)


def summed_up(run: RunResult, tasks: Sequence[FinishedTask], registered: Iterable[RegisteredTask]) -> RunResult:
    """The run with means and sums over these tasks.

    Args:
        registered: tasks, of which those of the benchmark decide which means are complete.
    """
    results = [task.result for task in tasks]
    queries = sum((result.queries for result in results), EncodeStats())
    return dataclasses.replace(
        run,
        aggregates=aggregate(results, benchmark_rows(registered), run.unsupported),
        queries=queries,
        candidates=sum((result.candidates for result in results), EncodeStats()),
        latency_seconds={
            OF_SEVERAL_MODES if queries.shared else OF_QUERIES: percentiles(
                _joined([task.query_seconds for task in tasks])
            ),
            "candidates": percentiles(_joined([task.candidate_seconds for task in tasks])),
        },
    )


def _joined(seconds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(seconds) if seconds else np.empty(0)


def finished_task(result: TaskResult, queries: pa.Table, candidates: pa.Table) -> FinishedTask:
    """A task whose tables are at hand: those of `query_table` and `candidate_table`."""
    scores, labels = queries.column("score").to_pylist(), queries.column("difficulty").to_pylist()

    def mean_of(kind: str) -> float | None:
        return _mean([score for score, label in zip(scores, labels, strict=True) if label == kind])

    query_seconds, candidate_seconds = (table.column("latency_seconds").to_numpy() for table in (queries, candidates))
    return FinishedTask(result, query_seconds, candidate_seconds, mean_of("easy"), mean_of("hard"))


def kept_task(folder: RunFolder, result: TaskResult) -> FinishedTask:
    """A task that an earlier invocation finished, its tables read. That of a release without checksums is recomputed
    from them.

    Raises:
        ResultError: a table can't be read, was changed, or is not what the result says.
    """
    if not result.checksum:
        check_follows(folder, result)
    columns = ["latency_seconds", "score", "difficulty"]
    queries = read_parquet(folder.queries_file(result.name), columns, result.tables.get("queries", ""))
    seconds = read_parquet(
        folder.candidates_file(result.name), ["latency_seconds"], result.tables.get("candidates", "")
    )
    return finished_task(result, queries, seconds)


def has_states(folder: RunFolder, result: TaskResult) -> bool:
    """Whether a task's table of queries is there, and has the states that the gate reads.

    Raises:
        ResultError: it can't be read.
    """
    path = folder.queries_file(result.name)
    return path.is_file() and STATE in parquet_columns(path)


def table_checksums(folder: RunFolder, task: str) -> dict[str, str]:
    """Of a task's two tables, as they lie there.

    Raises:
        ResultError: one can't be read.
    """
    paths = {"queries": folder.queries_file(task), "candidates": folder.candidates_file(task)}
    try:
        return {side: file_checksum(path) for side, path in paths.items()}
    except OSError as error:
        raise ResultError(f"can't read {error.filename}: {error.strerror}; run the same command again") from error


def check_tables(folder: RunFolder, result: TaskResult) -> None:
    """Hold a result's tables against its checksums of them.

    Raises:
        ResultError: one was changed.
    """
    now = table_checksums(folder, result.name)
    if changed := [f"{side}/{result.name}.parquet" for side in result.tables if result.tables[side] != now.get(side)]:
        raise ResultError(
            f"{folder.root / changed[0]} was changed since it was written (its checksum differs); run the same command "
            "again: that task is computed again"
        )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def query_table(
    task: Task,
    samples: Samples,
    scored: Sequence[ScoredQuery],
    encoded: Encoded,
    difficulty: Mapping[str, str],
) -> pa.Table:
    """One row a query: everything needed to recompute its score, and how its vector came about."""
    import pyarrow as pa

    gains = [samples.gains[query.query_id] for query in scored]
    columns: dict[str, Any] = {
        "query_id": pa.array([query.query_id for query in scored], pa.string()),
        "cluster": pa.array(query_clusters(samples), pa.int64()),
        "difficulty": pa.array([difficulty.get(query.query_id) for query in scored], pa.string()),
        "score": pa.array([query.metrics[task.metric] for query in scored], pa.float64()),
        "corrected_score": pa.array([query.corrected for query in scored], pa.float64()),
        "random_ties_score": pa.array([query.random_ties for query in scored], pa.float64()),
        "chance": pa.array([query.chance for query in scored], pa.float64()),
        "first_relevant_rank": pa.array([query.first_relevant for query in scored], pa.int64()),
        "num_ranked": pa.array([query.num_ranked for query in scored], pa.int64()),
        "tied_decisions": pa.array([query.tied_decisions for query in scored], pa.int64()),
        "top_ids": pa.array([query.top_ids for query in scored], pa.list_(pa.string())),
        "top_scores": pa.array([query.top_scores for query in scored], pa.list_(pa.float64())),
        "relevant_ids": pa.array([list(gain) for gain in gains], pa.list_(pa.string())),
        "relevant_gains": pa.array([list(gain.values()) for gain in gains], pa.list_(pa.float64())),
    }
    states = [trace.state for trace in encoded.traces]
    kept = {STATE: state_column(states)} if any(state is not None for state in states) else {}
    return pa.table(columns | _encoding_columns(encoded) | kept)


def query_clusters(samples: Samples) -> list[int]:
    """Of each query, the number of its cluster: queries about the same picture, video or page are no independent ones.

    The same is: of queries with media, those; else the media of the first among the most relevant candidates (the
    image that several captions describe, the page or the document that several questions are about).
    """
    media_of = {candidate.id: candidate.media for candidate in samples.candidates}
    numbers: dict[object, int] = {}
    clusters = []
    for query in samples.queries:
        gains = samples.gains[query.id]
        best = max(gains, key=lambda candidate: gains[candidate], default="")
        shared = query.media or media_of.get(best) or query.id
        clusters.append(numbers.setdefault(shared, len(numbers)))
    return clusters


def candidate_table(samples: Samples, encoded: Encoded) -> pa.Table:
    """One row a candidate: how its vector came about."""
    import pyarrow as pa

    ids = pa.array([candidate.id for candidate in samples.candidates], pa.string())
    return pa.table({"candidate_id": ids} | _encoding_columns(encoded))


def _encoding_columns(encoded: Encoded) -> dict[str, Any]:
    import pyarrow as pa

    seconds = {"latency_seconds": pa.array(encoded.latency_seconds, pa.float64())}
    return {**trace_columns(encoded.traces), **seconds, **shared_column(encoded.traces)}
