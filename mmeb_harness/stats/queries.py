"""The single queries of a run, read back: what each scored, which belong together, how each vector came about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import SHARED, STATE
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import parquet_columns, read_parquet
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from mmeb_harness.stats.resampling import Floats

if TYPE_CHECKING:
    import pyarrow as pa

States: TypeAlias = NDArray[np.float16]


@dataclass(frozen=True)
class QueryScores:
    """One run's queries of one task, in the data's order.

    Attributes:
        scores: (N,) main metric.
        clusters: (N,) number of the cluster of each.
        clustered: false in results of earlier releases, which don't say: there each query is its own.
    """

    ids: tuple[str, ...]
    scores: Floats
    clusters: NDArray[np.int64]
    clustered: bool


@dataclass(frozen=True)
class QueryTraces:
    """The `Trace`s of the same queries, as columns of (N,).

    Attributes:
        reasoned: whether the vector came from a rationale.
        gates: p(reason); NaN where the model has no gate.
        latency_seconds: of a query in its batch; NaN of one that was encoded in several modes at once.
    """

    reasoned: NDArray[np.bool_]
    gates: Floats
    reasoning_tokens: Floats
    latency_seconds: Floats


def joined(tasks: Sequence[QueryTraces]) -> QueryTraces:
    """The queries of several tasks, one after another."""
    columns = (field.name for field in dataclasses.fields(QueryTraces))
    return QueryTraces(*(np.concatenate([getattr(task, column) for task in tasks]) for column in columns))


def has_queries(folder: Path) -> bool:
    """Whether a run's single queries are there; its scores alone may have been handed on."""
    return RunFolder(folder).queries_file("").parent.is_dir()


def read_queries(folder: Path, result: TaskResult) -> QueryScores:
    """One task's queries, as `mmeb-eval run` wrote them.

    Raises:
        ResultError: no such file, another table, or not as many queries as the result says.
    """
    path = RunFolder(folder).queries_file(result.name)
    if not path.is_file():
        raise ResultError(f"{path} is missing: single queries can't be compared; run the same command again")
    table = _query_table(folder, result, ["query_id", "score"], may_lack=["cluster"])
    ids = tuple(table.column("query_id").to_pylist())
    clustered = "cluster" in table.column_names
    return QueryScores(
        ids=ids,
        scores=table.column("score").to_numpy().astype(np.float64),
        clusters=table.column("cluster").to_numpy() if clustered else np.arange(len(ids)),
        clustered=clustered,
    )


def read_traces(folder: Path, result: TaskResult) -> QueryTraces:
    """How the vectors of one task's queries came about.

    Raises:
        ResultError: see `read_queries`.
    """
    table = _query_table(folder, result, ["path", "gate", "reasoning_tokens", "latency_seconds"], may_lack=[SHARED])
    paths, gates, tokens, seconds, *rare = (column.to_pylist() for column in table.columns)
    latency_seconds = np.array(seconds, dtype=np.float64)
    for shared in rare:
        latency_seconds[np.array(shared)] = np.nan
    return QueryTraces(
        reasoned=np.array([path == "reasoned" for path in paths], dtype=np.bool_),
        gates=np.array(gates, dtype=np.float64),
        reasoning_tokens=np.array(tokens, dtype=np.float64),
        latency_seconds=latency_seconds,
    )


def read_states(folder: Path, result: TaskResult) -> States:
    """(N, D) states that the gate reads, of a task that has them.

    Raises:
        ResultError: see `read_queries`.
    """
    column = _query_table(folder, result, [STATE]).column(STATE).combine_chunks()
    states: States = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return states


def read_run_queries(folder: Path, task: str) -> tuple[QueryScores, QueryTraces]:
    """One task's queries of a finished run, for who knows nothing of it but its folder.

    Raises:
        ResultError: a run that can't be read or was changed, or that hasn't the task.
    """
    results = {result.name: result for result in read_run(folder)[1]}
    if task not in results:
        raise ResultError(f"{folder} has no task {task!r}; run it with this task")
    return read_queries(folder, results[task]), read_traces(folder, results[task])


def _query_table(folder: Path, result: TaskResult, columns: Sequence[str], may_lack: Sequence[str] = ()) -> pa.Table:
    """Some columns of a task's table of queries; the long ones, rankings and rationales, are seldom needed."""
    path = RunFolder(folder).queries_file(result.name)
    there = parquet_columns(path)
    if missing := sorted(set(columns) - set(there)):
        raise ResultError(f"{path} is no table of queries (no {', '.join(missing)}); run again with --fresh")
    wanted = [name for name in (*columns, *may_lack) if name in there]
    table = read_parquet(path, wanted, result.tables.get("queries", ""))
    if table.num_rows != result.num_queries:
        raise ResultError(
            f"{path} has {table.num_rows} queries, its result is of {result.num_queries}; run again with --fresh"
        )
    return table
