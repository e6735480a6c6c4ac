"""Two runs compared query by query: how far apart they are, how sure that is, and which queries changed sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.benchmark import BenchmarkRow, means_of
from mmeb_harness.core.errors import ResultError
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.scores import read_run
from mmeb_harness.stats.queries import QueryScores, read_queries
from mmeb_harness.stats.resampling import (
    Clusters,
    Uncertain,
    clusters_of,
    flip_signs,
    holm,
    mean_over_tasks,
    p_of_no_difference,
    resample,
)

SEED = 0


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
        tasks: how many; their queries are counted by `wins`, `losses` and `ties`, where both models take the task.
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
        tasks, means: a row a task; a row a group, modality and overall, of those that both runs have whole. In those of
            MMEB-V3 what a model can't take counts 0.
        single: the tasks' differences, for lists of queries.
        clustered: whether both runs say which queries belong together.
    """

    tasks: tuple[PairedRow, ...]
    means: tuple[PairedRow, ...]
    single: Mapping[str, TaskDifference]
    clustered: bool


def compare_runs(first: Path, second: Path, benchmark: Sequence[BenchmarkRow]) -> Paired:
    """Compare two finished runs on the tasks that both have.

    Args:
        benchmark: all tasks that a mean must cover.

    Raises:
        ResultError: a run that can't be read, no task in common, or other queries under a task's name.
    """
    folders = (first, second)
    runs = [read_run(folder) for folder in folders]
    results = [{result.name: result for result in listed} for _, listed in runs]
    common = [name for name in results[0] if name in results[1]]
    if not common:
        raise ResultError(f"{first} and {second} have no task in common")
    pairs = {
        name: [read_queries(folder, of[name]) for folder, of in zip(folders, results, strict=True)] for name in common
    }
    single = {name: _difference(name, *pair) for name, pair in pairs.items()}
    rng = np.random.default_rng(SEED)
    unsupported = [run.unsupported for run, _ in runs]
    one_sided = {
        row.task: _one_sided(folders, [of.get(row.task) for of in results])
        for row in benchmark
        if row.task not in single
        and all(row.task in {*of, *lacks} for of, lacks in zip(results, unsupported, strict=True))
    }
    differences = {name: task.difference for name, task in single.items()} | one_sided
    resampled = {name: resample(difference, rng) for name, difference in differences.items()}
    flipped = {name: flip_signs(difference, rng) for name, difference in differences.items()}

    def row(name: str, tasks: Sequence[str], p: float) -> PairedRow:
        return PairedRow(
            name=name,
            difference=mean_over_tasks([resampled[task] for task in tasks], rng)[0],
            p=p,
            tasks=len(tasks),
            wins=sum(single[task].wins for task in tasks if task in single),
            losses=sum(single[task].losses for task in tasks if task in single),
            ties=sum(single[task].ties for task in tasks if task in single),
        )

    adjusted = holm([p_of_no_difference([flipped[name]]) for name in single])
    covered = {
        over.name: list(over.metrics)
        for over in means_of(benchmark)
        if over.of_main_metrics
        and (differences if over.unsupported_count else single).keys() >= over.metrics.keys()
        and not single.keys().isdisjoint(over.metrics)
    }
    return Paired(
        tasks=tuple(row(name, [name], p) for name, p in zip(single, adjusted, strict=True)),
        means=tuple(
            row(name, tasks, p_of_no_difference([flipped[task] for task in tasks])) for name, tasks in covered.items()
        ),
        single=single,
        clustered=all(queries.clustered for pair in pairs.values() for queries in pair),
    )


def _one_sided(folders: Sequence[Path], results: Sequence[TaskResult | None]) -> Clusters:
    """The difference on a task that one run's model can't take, or neither's: there it counts 0."""
    for sign, folder, result in zip((-1, 1), folders, results, strict=True):
        if result is not None:
            queries = read_queries(folder, result)
            return clusters_of(sign * queries.scores, queries.clusters)
    return clusters_of([0.0], [0])


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
