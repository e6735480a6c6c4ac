"""Intervals and tests on scores of queries: which of two numbers is really larger, and how sure is one of them.

Legend: N queries, C clusters, K runs on the same queries, T tasks, B resamples.

Queries that show the same video, page or image are no independent witnesses: whole clusters are resampled, and change
sides together. A score over several tasks is the plain mean of theirs. Two questions can be asked of it: whether other
queries of these tasks would say the same (tasks fixed), and whether other tasks would (tasks resampled as well); the
second interval is the wider one. Everything random is drawn from the seed that is passed in.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

RESAMPLES = 2000
FLIPS = 10_000
CONFIDENCE = 0.95
#: Up to so many clusters that differ, all their sign patterns are gone through.
_EXACT_CLUSTERS = 12
#: Fewer draws at once where there are many clusters: (draws, clusters) numbers are in memory.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Clusters:
    """Scores of one task's queries, added up by cluster.

    Attributes:
        sums_CK: of a cluster's queries, a column a run.
        sizes_C: queries of a cluster.
    """

    sums_CK: Floats
    sizes_C: Floats

    @property
    def means(self) -> Floats:
        """(K,) mean over queries of each run."""
        means: Floats = self.sums_CK.sum(axis=0) / self.sizes_C.sum()
        return means


@dataclass(frozen=True)
class Interval:
    """A value and where it lies with a confidence of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Uncertain:
    """A mean over tasks.

    Attributes:
        queries: tasks fixed, their queries resampled.
        tasks: tasks resampled as well; of a single task the same.
    """

    queries: Interval
    tasks: Interval


def clusters_of(scores: ArrayLike, labels: ArrayLike) -> Clusters:
    """Add scores up by cluster.

    Args:
        scores: (N,), or (N, K) of several runs; N > 0.
        labels: (N,) the cluster of each query.
    """
    scores_NK = np.asarray(scores, dtype=np.float64)
    if scores_NK.ndim == 1:
        scores_NK = scores_NK[:, None]
    _, places_N, sizes_C = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    sums_CK = np.zeros((len(sizes_C), scores_NK.shape[1]))
    np.add.at(sums_CK, places_N, scores_NK)
    return Clusters(sums_CK, sizes_C.astype(np.float64))


@dataclass(frozen=True)
class Resampled:
    """One task's means of K runs.

    Attributes:
        means_K: as observed.
        draws_BK: over clusters that were drawn with replacement, the same for all runs.
        clusters: how many were drawn from.
    """

    means_K: Floats
    draws_BK: Floats
    clusters: int


def resample(task: Clusters, rng: np.random.Generator, resamples: int = RESAMPLES) -> Resampled:
    """Draw a task's clusters with replacement, `resamples` times."""
    count = len(task.sizes_C)
    parts = []
    for drawn in _parts(resamples, count):
        times = rng.multinomial(count, np.full(count, 1 / count), size=drawn).astype(np.float64)  # (drawn, C)
        parts.append(times @ task.sums_CK / (times @ task.sizes_C)[:, None])
    return Resampled(task.means, np.concatenate(parts), count)


def _parts(draws: int, width: int) -> list[int]:
    size = max(1, min(draws, _AT_ONCE // width))
    return [min(size, draws - first) for first in range(0, draws, size)]


def interval(value: float, draws_B: Floats, units: int) -> Interval:
    """The percentiles of resampled values, set a little further apart where there were few units to draw from.

    With few clusters the plain percentiles lie too close: they are those of a normal distribution with a variance of
    (n - 1) / n. They are widened to those of Student's t with n - 1 degrees of freedom (Hesterberg 2015, "expanded
    percentile interval").

    Args:
        units: clusters, or tasks, that were drawn from; one alone says nothing about its spread: (-inf, inf).
    """
    from scipy import special  # of scipy.stats the same, six times as long to import

    if units < 2:
        return Interval(value, -np.inf, np.inf)
    quantile = special.stdtrit(units - 1, (1 + CONFIDENCE) / 2) * np.sqrt(units / (units - 1))
    return Interval(value, *percentile_interval(draws_B, float(special.ndtr(-quantile))))


def percentile_interval(draws_B: Floats, tail: float = (1 - CONFIDENCE) / 2) -> tuple[float, float]:
    """(low, high) between which all but a share `tail` on either side lie; nan values don't count."""
    known = draws_B[~np.isnan(draws_B)]
    if not len(known):
        return np.nan, np.nan
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def mean_over_tasks(tasks: Sequence[Resampled], rng: np.random.Generator) -> list[Uncertain]:
    """The mean over tasks of each run, with both intervals.

    Args:
        tasks: of the same K runs and as many resamples; one or more.
    """
    of = [operator.itemgetter((..., run)) for run in range(len(tasks[0].means_K))]
    return statistics_over_tasks(tasks, of, rng)


def statistics_over_tasks(
    tasks: Sequence[Resampled], statistics: Sequence[Callable[[Floats], Floats]], rng: np.random.Generator
) -> list[Uncertain]:
    """Any functions of the runs' means over tasks, with both intervals.

    Args:
        tasks: of the same K runs and as many resamples; one or more.
        statistics: (..., K) → (...); where they are nan in a resample, it is left out of their interval.
    """
    draws_TBK = np.stack([task.draws_BK for task in tasks])
    means_K = np.mean([task.means_K for task in tasks], axis=0)
    over_queries_BK, over_tasks_BK = draws_TBK.mean(axis=0), _tasks_resampled(draws_TBK, rng)
    clusters = sum(task.clusters for task in tasks)
    values = []
    for statistic in statistics:
        value = float(statistic(means_K))
        fixed = interval(value, statistic(over_queries_BK), clusters)
        free = fixed if len(tasks) == 1 else interval(value, statistic(over_tasks_BK), len(tasks))
        values.append(Uncertain(fixed, free))
    return values


def _tasks_resampled(draws_TBK: Floats, rng: np.random.Generator) -> Floats:
    """(B, K): tasks drawn with replacement, each with a resample of its own of that task's queries."""
    tasks, resamples, _ = draws_TBK.shape
    chosen_BT = rng.integers(tasks, size=(resamples, tasks))
    rows_BT = rng.integers(resamples, size=(resamples, tasks))
    means: Floats = draws_TBK[chosen_BT, rows_BT].mean(axis=1)
    return means


@dataclass(frozen=True)
class Flipped:
    """One task's paired difference, and what it would be if each cluster's had another sign.

    Attributes:
        effects: what each cluster that differs adds to the mean difference.
        draws_B: means under signs drawn at random.
    """

    effects: Floats
    draws_B: Floats


def flip_signs(difference: Clusters, rng: np.random.Generator, draws: int = FLIPS) -> Flipped:
    """Under the hypothesis that two runs are exchangeable within a cluster, its difference has either sign.

    Args:
        difference: K = 1.
    """
    effects = difference.sums_CK[:, 0] / difference.sizes_C.sum()
    effects = effects[effects != 0]
    parts = [
        (rng.integers(0, 2, size=(drawn, len(effects)), dtype=np.int8) * 2.0 - 1) @ effects
        for drawn in _parts(draws, max(1, len(effects)))
    ]
    return Flipped(effects, np.concatenate(parts))


def p_of_no_difference(tasks: Sequence[Flipped]) -> float:
    """Two-sided permutation test that the mean over tasks of a paired difference is zero.

    With few clusters that differ all their signs are gone through and the p-value is exact; otherwise it is (1 + as
    extreme draws) / (1 + draws), never zero.
    """
    effects = np.concatenate([task.effects for task in tasks]) / len(tasks)
    if len(effects) <= _EXACT_CLUSTERS:
        patterns = np.array(list(itertools.product([-1.0, 1.0], repeat=len(effects))))
        return float(np.mean(_as_extreme(patterns @ effects, effects)))
    draws_B = np.mean([task.draws_B for task in tasks], axis=0)
    return float((1 + _as_extreme(draws_B, effects).sum()) / (1 + len(draws_B)))


def _as_extreme(means: Floats, effects: Floats) -> NDArray[np.bool_]:
    """Equal patterns must count, in whatever order they were added up."""
    extreme: NDArray[np.bool_] = np.abs(means) >= abs(effects.sum()) * (1 - 1e-9) - 1e-15
    return extreme


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those under 0.05 are false with a chance of 5 % in all, however many tests there were."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def rank_intervals(draws_BK: Floats) -> list[tuple[int, int]]:
    """Best and worst rank of each model that 95 % of the resamples leave, 1 the best; equal ones share the better."""
    ranks_BK = 1 + (draws_BK[:, None, :] > draws_BK[:, :, None]).sum(axis=2)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(ranks_BK, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return [(int(best), int(worst)) for best, worst in zip(low, high, strict=True)]


def drawn_means(mean: float, queries: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> Floats:
    """(B,) what a published mean could have been, where the scores of its queries are not known.

    Of values between 0 and 1 none have more variance than mean (1 - mean), which hit@1 has; so for nDCG, and for
    models that err on the same queries, this is too wide rather than too narrow. Queries of a cluster can't be told.
    """
    return rng.normal(mean, np.sqrt(mean * (1 - mean) / queries), size=resamples)
