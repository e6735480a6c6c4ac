"""What holds of every ranking and every metric: against the rule spelled out, with as many ties as chance gives."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmeb_harness import TokenVectors
from mmeb_harness.ranking.corpus import RankedQuery, rank_corpus, rank_pools
from mmeb_harness.ranking.max_sim import rank_tokens
from mmeb_harness.ranking.metrics import CUTOFFS, query_metrics

_IDS = st.text("abcdefgh0123", min_size=1, max_size=3)


@st.composite
def _vectors(draw: st.DrawFn, most: int, width: int) -> np.ndarray:
    """Unit vectors on a coarse grid: many are equal, more have equal scores."""
    rows = draw(st.lists(st.lists(st.integers(-1, 1), min_size=width, max_size=width), min_size=1, max_size=most))
    filled = np.array([row if any(row) else [1, *row[1:]] for row in rows], np.float32)
    return filled / np.linalg.norm(filled, axis=1, keepdims=True)


def _by_the_rule(scores: np.ndarray, listed: np.ndarray) -> list[int]:
    """Positions by score down, place up."""
    return [
        int(listed[place]) for place in sorted(range(len(listed)), key=lambda place: (-scores[listed[place]], place))
    ]


def _check(ranked: RankedQuery, scores: np.ndarray, listed: np.ndarray, relevant: list[int]) -> None:
    order = _by_the_rule(scores, listed)
    assert ranked.positions.tolist() == order[:10]
    places = [place for place, position in enumerate(order, start=1) if position in relevant]
    assert ranked.first_relevant == (places[0] if places else len(listed) + 1)


def _dots(query: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    return np.array([np.sum(candidate.astype(np.float64) * query.astype(np.float64)) for candidate in candidates])


@given(data=st.data(), width=st.integers(1, 9))
def test_corpus_and_pools_are_ranked_by_the_rule(data: st.DataObject, width: int) -> None:
    queries, candidates = data.draw(_vectors(4, width)), data.draw(_vectors(40, width))
    places = st.integers(0, len(candidates) - 1)
    relevant = [data.draw(st.lists(places, min_size=1, max_size=3, unique=True)) for _ in queries]
    pools = [np.array(data.draw(st.lists(places, min_size=1, max_size=30))) for _ in queries]
    answers = [np.array(positions) for positions in relevant]
    corpus = rank_corpus(queries, candidates, answers, depth=10, cut=5)
    pooled = rank_pools(queries, candidates, pools, answers, depth=10, cut=1)
    for place, query in enumerate(queries):
        scores = _dots(query, candidates)
        _check(corpus[place], scores, np.arange(len(candidates)), relevant[place])
        _check(pooled[place], scores, pools[place], relevant[place])


@given(data=st.data())
def test_items_of_several_vectors_are_ranked_by_the_rule(data: st.DataObject) -> None:
    queries, candidates = (
        [data.draw(_vectors(3, 4)) for _ in range(data.draw(st.integers(1, most)))] for most in (3, 15)
    )
    relevant = [[data.draw(st.integers(0, len(candidates) - 1))] for _ in queries]
    ranked = rank_tokens(
        TokenVectors.of_items(queries),
        TokenVectors.of_items(candidates),
        None,
        list(map(np.array, relevant)),
        depth=10,
        cut=5,
    )
    for place, query in enumerate(queries):
        scores = np.array([sum(_dots(token, candidate).max() for token in query) for candidate in candidates])
        _check(ranked[place], scores, np.arange(len(candidates)), relevant[place])


@given(ranked=st.lists(_IDS, unique=True, max_size=30), gains=st.dictionaries(_IDS, st.integers(1, 3), min_size=1))
def test_metrics_are_shares_and_grow_with_the_cut(ranked: list[str], gains: dict[str, int]) -> None:
    metrics = query_metrics(ranked, {candidate: float(gain) for candidate, gain in gains.items()})
    assert all(0 <= value <= 1 for value in metrics.values())
    for name in ("hit", "recall", "mrr"):
        values = [metrics[f"{name}@{cut}"] for cut in CUTOFFS if f"{name}@{cut}" in metrics]
        assert values == sorted(values)
    cut_off = query_metrics(ranked[: max(CUTOFFS)], {candidate: float(gain) for candidate, gain in gains.items()})
    assert cut_off == metrics  # what stands below the last cut doesn't matter


@given(gains=st.dictionaries(_IDS, st.integers(1, 3), min_size=1), more=st.lists(st.integers(0, 99), max_size=9))
def test_the_best_order_has_the_full_gain_and_no_answer_has_none(gains: dict[str, int], more: list[int]) -> None:
    best = sorted(gains, key=lambda candidate: -gains[candidate])
    others = [f"other {number}" for number in dict.fromkeys(more)]
    values = {candidate: float(gain) for candidate, gain in gains.items()}
    full = query_metrics([*best, *others], values)
    for name in (name for name in full if name.startswith(("ndcg", "hit", "mrr"))):
        assert math.isclose(full[name], 1.0)
    assert not any(query_metrics(others, values).values())
