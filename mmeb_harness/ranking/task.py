"""From vectors to one task's scores and a row per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmeb_harness.core.embedder import AnyVectors
from mmeb_harness.core.items import Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.corpus import RankedQuery, rank_corpus, rank_pools
from mmeb_harness.ranking.max_sim import rank_tokens
from mmeb_harness.ranking.metrics import chance_among, edition_metrics, ndcg_of_gains, official_gains, query_metric
from mmeb_harness.ranking.nearest import Positions

#: Places of each ranking that are kept on disk. The metrics need 10.
DEPTH = 100


@dataclass(frozen=True)
class ScoredQuery:
    """One query's ranking and metrics.

    Attributes:
        metrics: of a benchmark's task as the official code computes them (see `set_order_gains`).
        corrected: the main metric with every grade on its own label.
        random_ties: `corrected`, expected if ties fell at random. The image tasks list every answer first, so
            that the tie rule, and officially a stable sort, favours it: equal vectors would score 100 %.
        chance: expected main metric of a random ranking of this query's list.
    """

    query_id: str
    top_ids: tuple[str, ...]
    top_scores: tuple[float, ...]
    first_relevant: int
    tied_decisions: int
    num_ranked: int
    metrics: Mapping[str, float]
    corrected: float
    random_ties: float
    chance: float


def score_queries(task: Task, samples: Samples, queries: AnyVectors, candidates: AnyVectors) -> list[ScoredQuery]:
    """Rank every query's list, by dot product or, of several vectors an item, by MaxSim; compute its metrics.

    Args:
        queries: q items, in the order of `samples.queries`.
        candidates: c items, in the order of `samples.candidates`.
    """
    ids = [candidate.id for candidate in samples.candidates]
    position_of = {candidate: position for position, candidate in enumerate(ids)}
    ranked = _rank(task, samples, queries, candidates, position_of)
    scored = []
    for query, ranking in zip(samples.queries, ranked, strict=True):
        relevant, num_ranked = _relevant_in_list(samples, query.id, position_of)
        scored.append(_score(task, query.id, ranking, samples.gains[query.id], ids, relevant, num_ranked))
    return scored


def mean_metrics(scored: Sequence[ScoredQuery]) -> dict[str, float]:
    """Plain means over queries, in the official order of keys."""
    return {name: float(np.mean([query.metrics[name] for query in scored])) for name in scored[0].metrics}


def _rank(
    task: Task,
    samples: Samples,
    queries: AnyVectors,
    candidates: AnyVectors,
    position_of: Mapping[str, int],
) -> list[RankedQuery]:
    relevant = relevant_positions(samples, position_of)
    cut = cut_of(task)
    pools = None
    if samples.pools is not None:
        pools = [_positions(samples.pools[query.id], position_of) for query in samples.queries]
    if not (isinstance(queries, np.ndarray) and isinstance(candidates, np.ndarray)):
        return rank_tokens(queries, candidates, pools, relevant, depth=DEPTH, cut=cut)
    if pools is None:
        return rank_corpus(queries, candidates, relevant, depth=DEPTH, cut=cut)
    return rank_pools(queries, candidates, pools, relevant, depth=DEPTH, cut=cut)


def relevant_positions(samples: Samples, position_of: Mapping[str, int] | None = None) -> list[Positions]:
    """Of every query, the positions of its relevant candidates among all candidates.

    Args:
        position_of: of each candidate's id; `None`: made here.
    """
    known = position_of or {candidate.id: position for position, candidate in enumerate(samples.candidates)}
    return [_positions(list(samples.gains[query.id]), known) for query in samples.queries]


def cut_of(task: Task) -> int:
    """The k of a task's main metric."""
    return int(task.metric.split("@")[1])


def _relevant_in_list(samples: Samples, query_id: str, position_of: Mapping[str, int]) -> tuple[list[str], int]:
    """Relevant candidates in a query's list, in its order and repeats kept; and the length of the list."""
    gains = samples.gains[query_id]
    if samples.pools is not None:
        pool = samples.pools[query_id]
        return [candidate for candidate in pool if candidate in gains], len(pool)
    return sorted(gains.keys() & position_of.keys(), key=position_of.__getitem__), len(position_of)


def _positions(ids: Sequence[str], position_of: Mapping[str, int]) -> Positions:
    """Ids outside the candidate set (answers that the data leaves out) have no position."""
    return np.array([position_of[candidate] for candidate in ids if candidate in position_of], dtype=np.int64)


def _expected_over_ties(task: Task, ranking: RankedQuery, gains: Mapping[str, float], ids: Sequence[str]) -> float:
    """Both main metrics are linear in the gain at each place: its mean over the tied candidates is exact."""
    binary = task.metric.startswith("hit")
    expected = [
        float(
            np.mean(
                [(gains.get(ids[position], 0.0) > 0) if binary else gains.get(ids[position], 0.0) for position in group]
            )
        )
        for group in ranking.tie_groups
    ]
    return expected[0] if binary else ndcg_of_gains(expected, gains, cut_of(task))


def _score(
    task: Task,
    query_id: str,
    ranking: RankedQuery,
    gains: Mapping[str, float],
    ids: Sequence[str],
    relevant: Sequence[str],
    num_ranked: int,
) -> ScoredQuery:
    top_ids = tuple(ids[position] for position in ranking.positions)
    official = official_gains(task.edition, task.modality, gains)
    rank = ranking.first_relevant if ranking.first_relevant <= num_ranked else None
    return ScoredQuery(
        query_id=query_id,
        top_ids=top_ids,
        top_scores=tuple(ranking.scores.tolist()),
        first_relevant=ranking.first_relevant,
        tied_decisions=ranking.tied_decisions,
        num_ranked=num_ranked,
        metrics=edition_metrics(task.edition, top_ids, official, rank),
        corrected=query_metric(task.metric, top_ids, gains),
        random_ties=_expected_over_ties(task, ranking, gains, ids),
        chance=chance_among(task.metric, gains, relevant, num_ranked),
    )
