"""Two runs query by query: how far apart they are, how sure that is, and which queries changed sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import parquet_columns, read_parquet
from mmeb_harness.core.items import Modality
from mmeb_harness.results.files import TaskResult, benchmark_members
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from mmeb_harness.stats.resampling import (
    Clusters,
    Floats,
    Uncertain,
    clusters_of,
    flip_signs,
    holm,
    mean_over_tasks,
    p_of_no_difference,
    resample,
)

if TYPE_CHECKING:
    import pyarrow as pa

SEED = 0


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
class TaskDifference:
    """A task of two runs, the second minus the first.

    Attributes:
        wins, losses, ties: queries on which the second is better, worse, as good.
        gained, lost: ids of queries that it now has wholly right, and no longer.
    """

    task: str
    difference: Clusters
    wins: int
    losses: int
    ties: int
    gained: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class PairedRow:
    """What stands in one row of the table: of a task, a group, a modality or overall.

    Attributes:
        difference: in fractions, with both intervals.
        p: that there is none; of a task adjusted by Holm for all tasks.
        tasks: how many; their queries are counted by `wins`, `losses` and `ties`.
    """

    name: str
    difference: Uncertain
    p: float
    tasks: int
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True)
class Paired:
    """Two runs compared.

    Attributes:
        tasks, means: a row a task; a row a group, modality and overall, of those that both runs have whole.
        single: the tasks' differences, for lists of queries.
        clustered: whether both runs say which queries belong together.
    """

    tasks: tuple[PairedRow, ...]
    means: tuple[PairedRow, ...]
    single: Mapping[str, TaskDifference]
    clustered: bool


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
    table = query_table(folder, result, ["query_id", "score"], may_lack=["cluster"])
    ids = tuple(table.column("query_id").to_pylist())
    clustered = "cluster" in table.column_names
    return QueryScores(
        ids=ids,
        scores=table.column("score").to_numpy().astype(np.float64),
        clusters=table.column("cluster").to_numpy() if clustered else np.arange(len(ids)),
        clustered=clustered,
    )


def query_table(folder: Path, result: TaskResult, columns: Sequence[str], may_lack: Sequence[str] = ()) -> pa.Table:
    """Some columns of a task's table of queries; the long ones, rankings and rationales, are seldom needed.

    Raises:
        ResultError: missing or broken, another table, or not as many queries as the result says.
    """
    path = RunFolder(folder).queries_file(result.name)
    there = parquet_columns(path)
    if missing := sorted(set(columns) - set(there)):
        raise ResultError(f"{path} is no table of queries (no {', '.join(missing)}); run again")
    table = read_parquet(path, [name for name in (*columns, *may_lack) if name in there])
    if table.num_rows != result.num_queries:
        raise ResultError(f"{path} has {table.num_rows} queries, its result is of {result.num_queries}; run again")
    return table


def compare_runs(first: Path, second: Path, benchmark: Sequence[tuple[str, Modality, str]]) -> Paired:
    """Compare two finished runs on the tasks that both have.

    Args:
        benchmark: (task, modality, group) of all tasks that a mean must cover.

    Raises:
        ResultError: a run that can't be read, no task in common, or other queries under a task's name.
    """
    runs = [read_run(folder) for folder in (first, second)]
    results = [{one.name: one for one in found} for _, found in runs]
    common = [name for name in results[0] if name in results[1]]
    if not common:
        raise ResultError(f"{first} and {second} have no task in common")
    pairs = {
        name: [read_queries(folder, of[name]) for folder, of in zip((first, second), results, strict=True)]
        for name in common
    }
    single = {name: _difference(name, *both) for name, both in pairs.items()}
    rng = np.random.default_rng(SEED)
    resampled = {name: resample(one.difference, rng) for name, one in single.items()}
    flipped = {name: flip_signs(one.difference, rng) for name, one in single.items()}

    def row(name: str, tasks: Sequence[str], p: float) -> PairedRow:
        return PairedRow(
            name=name,
            difference=mean_over_tasks([resampled[task] for task in tasks], rng)[0],
            p=p,
            tasks=len(tasks),
            wins=sum(single[task].wins for task in tasks),
            losses=sum(single[task].losses for task in tasks),
            ties=sum(single[task].ties for task in tasks),
        )

    adjusted = holm([p_of_no_difference([one]) for one in flipped.values()])
    covered = {
        name: tasks for name, tasks in benchmark_members(benchmark).items() if all(one in single for one in tasks)
    }
    return Paired(
        tasks=tuple(row(name, [name], p) for name, p in zip(single, adjusted, strict=True)),
        means=tuple(
            row(name, tasks, p_of_no_difference([flipped[task] for task in tasks])) for name, tasks in covered.items()
        ),
        single=single,
        clustered=all(one.clustered for both in pairs.values() for one in both),
    )


def _difference(task: str, first: QueryScores, second: QueryScores) -> TaskDifference:
    if first.ids != second.ids:
        odd = sorted(set(first.ids) ^ set(second.ids))[:3]
        raise ResultError(
            f"{task}: the two runs are of other queries ({', '.join(odd) or 'in another order'}); "
            "run both on the same data revision"
        )
    change = second.scores - first.scores
    return TaskDifference(
        task=task,
        difference=clusters_of(change, second.clusters),
        wins=int((change > 0).sum()),
        losses=int((change < 0).sum()),
        ties=int((change == 0).sum()),
        gained=_ids(second.ids, (second.scores == 1) & (first.scores < 1)),
        lost=_ids(second.ids, (first.scores == 1) & (second.scores < 1)),
    )


def _ids(ids: Sequence[str], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(ids[place] for place in np.flatnonzero(chosen).tolist())
