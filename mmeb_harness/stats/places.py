"""Which places of a ranking are certain: draws of each model's mean over tasks, and who can't be told apart.

Legend: K models, B resamples.

Runs whose single queries are known are resampled together, whole clusters of queries at a time, so that what is hard
for all of them moves none of their ranks. Of anything else only a bound is known (`resampling.drawn_means`), drawn by
itself.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import ResultError
from mmeb_harness.stats.queries import QueryScores
from mmeb_harness.stats.resampling import (
    RESAMPLES,
    Floats,
    clusters_of,
    drawn_means,
    interval,
    rank_intervals,
    resample,
)

#: A mean over queries and the score that was written down agree to this.
_SAME_SCORE = 1e-9


@dataclass(frozen=True)
class Contender:
    """A model that is to be ranked.

    Attributes:
        overall: mean over all tasks.
        scores: task → main metric; empty where only means were published.
        num_queries: task → over how many queries.
        queries: reads a task's queries; `None` where they are not known.
        unsupported: tasks that it can't take: they count 0, whatever the queries.
    """

    name: str
    overall: float
    scores: Mapping[str, float]
    num_queries: Mapping[str, int]
    queries: Callable[[str], QueryScores] | None = None
    unsupported: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Drawn:
    """What each model's mean over tasks could have been with other queries of the same tasks.

    Attributes:
        draws_BK: the means.
        units: for each model, how many clusters (or, where these aren't known, queries) were drawn from.
        clustered: for each model, whether it is known of all queries which belong together.
    """

    draws_BK: Floats
    units: tuple[int, ...]
    clustered: tuple[bool, ...]


@dataclass(frozen=True)
class Place:
    """How certain a model's place is.

    Attributes:
        interval: best and worst rank that 95 % of the resamples leave.
        ties: letters; models that share one can't be told apart.
        clustered: whether queries that belong together were drawn together.
    """

    interval: tuple[int, int]
    ties: str
    clustered: bool


def places(contenders: Sequence[Contender], tasks: Sequence[str], seed: int = 0) -> list[Place]:
    """The place of each contender, best first or not.

    Args:
        tasks: all tasks that `overall` is the mean of.

    Raises:
        ResultError: queries that can't be read, or aren't those of the score.
    """
    if not contenders:
        return []
    drawn = draw_means(contenders, tasks, np.random.default_rng(seed))
    same_KK = not_told_apart([contender.overall for contender in contenders], drawn)
    marks = letters(same_KK)
    return list(map(Place, rank_intervals(drawn.draws_BK), marks, drawn.clustered))


def draw_means(contenders: Sequence[Contender], tasks: Sequence[str], rng: np.random.Generator) -> Drawn:
    """Draw each contender's mean over `tasks`; those that share a task's queries with the same draws of them.

    Raises:
        ResultError: see `places`.
    """
    sums_BK = np.zeros((RESAMPLES, len(contenders)))
    units = [0] * len(contenders)
    clustered = [contender.queries is not None for contender in contenders]
    for task in tasks:
        able = {place: contender for place, contender in enumerate(contenders) if task not in contender.unsupported}
        read = {place: _read(contender, task) for place, contender in able.items() if contender.queries is not None}
        for together in _sharing_queries(read):
            known = _most_clustered([read[place] for place in together])
            scores_NK = np.stack([read[place].scores for place in together], axis=1)
            drawn = resample(clusters_of(scores_NK, known.clusters), rng)
            sums_BK[:, together] += drawn.draws_BK
            for place in together:
                units[place] += drawn.clusters
                clustered[place] &= known.clustered
        for place, contender in able.items():
            if place not in read:
                sums_BK[:, place] += _bound(contender, task, rng)
                units[place] += contender.num_queries[task]
    return Drawn(sums_BK / len(tasks), tuple(units), tuple(clustered))


def _read(contender: Contender, task: str) -> QueryScores:
    assert contender.queries is not None
    queries = contender.queries(task)
    mean, told = queries.scores.mean(), contender.scores[task]
    if abs(mean - told) > _SAME_SCORE:
        raise ResultError(
            f"{contender.name}: the queries of {task} have a mean of {mean:.6f}, its result says {told:.6f}; "
            "`mmeb-eval verify` says more, the same `run` command mends it"
        )
    return queries


def _sharing_queries(read: Mapping[int, QueryScores]) -> list[list[int]]:
    """Places of those with the same queries; another edition or data revision may have others."""
    together: dict[tuple[str, ...], list[int]] = {}
    for place, queries in read.items():
        together.setdefault(queries.ids, []).append(place)
    return list(together.values())


def _most_clustered(runs: Sequence[QueryScores]) -> QueryScores:
    """Of runs on the same queries the first that says which belong together, if one does."""
    return next((run for run in runs if run.clustered), runs[0])


def _bound(contender: Contender, task: str, rng: np.random.Generator) -> Floats:
    """(B,) a task's score; where it isn't known itself, with the largest variance that any score has."""
    if task in contender.scores:
        return drawn_means(contender.scores[task], contender.num_queries[task], rng)
    return contender.overall + drawn_means(0.5, contender.num_queries[task], rng) - 0.5


def not_told_apart(means: Sequence[float], drawn: Drawn) -> NDArray[np.bool_]:
    """(K, K) whether the 95 % interval of a pair's difference holds zero; each pair by itself."""
    same_KK = np.eye(len(means), dtype=np.bool_)
    for first, second in itertools.combinations(range(len(means)), 2):
        draws_B = drawn.draws_BK[:, first] - drawn.draws_BK[:, second]
        units = min(drawn.units[first], drawn.units[second])
        difference = interval(means[first] - means[second], draws_B, units)
        same_KK[first, second] = same_KK[second, first] = difference.low <= 0 <= difference.high
    return same_KK


def letters(same_KK: NDArray[np.bool_]) -> list[str]:
    """Letters of each model: two share one if, and only if, they can't be told apart; without a tie none.

    "Not told apart" is not transitive, so a model may have several. This is the compact letter display by insertion and
    absorption of Piepho (2004).
    """
    count = len(same_KK)
    groups = [frozenset(range(count))]
    for first, second in itertools.combinations(range(count), 2):
        if not same_KK[first, second]:
            groups = _absorbed([part for group in groups for part in _without_pair(group, first, second)])
    ties = sorted((sorted(group) for group in groups if len(group) > 1), key=lambda group: (group[0], group))
    return ["".join(_letter(number) for number, group in enumerate(ties) if model in group) for model in range(count)]


def _without_pair(group: frozenset[int], first: int, second: int) -> list[frozenset[int]]:
    return [group - {first}, group - {second}] if first in group and second in group else [group]


def _absorbed(groups: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    distinct = list(dict.fromkeys(groups))
    return [group for group in distinct if not any(group < other for other in distinct)]


def _letter(number: int) -> str:
    """a … z, then a1 … z1 and so on: unlike "aa" never to be taken for two letters."""
    turn, place = divmod(number, len(string.ascii_lowercase))
    return string.ascii_lowercase[place] + (str(turn) if turn else "")
