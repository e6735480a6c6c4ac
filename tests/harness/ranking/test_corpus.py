"""Ranking against brute force, above all where scores tie."""

import numpy as np
import pytest

from mmeb_harness import HarnessError
from mmeb_harness.ranking.corpus import (
    MAX_THREADS,
    RankedQuery,
    exact_scores,
    rank_corpus,
    rank_pools,
    require_faiss,
    thread_count,
)


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute_force(query: np.ndarray, candidates: np.ndarray, listed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every score in float64, sorted by (score down, place up): the rule, spelled out."""
    scores = [float(np.sum(candidates[one].astype(np.float64) * query.astype(np.float64))) for one in listed]
    order = sorted(range(len(listed)), key=lambda place: (-scores[place], place))
    return listed[order], np.array(scores)[order]


def assert_is_brute_force(
    ranked: RankedQuery, query: np.ndarray, candidates: np.ndarray, listed: np.ndarray, relevant: np.ndarray
) -> None:
    positions, scores = brute_force(query, candidates, listed)
    assert ranked.positions.tolist() == positions[:10].tolist()
    assert ranked.scores.tolist() == scores[:10].tolist()
    first = np.flatnonzero(np.isin(positions, relevant))
    assert ranked.first_relevant == (first[0] + 1 if len(first) else len(listed) + 1)


@pytest.mark.parametrize("duplicates", ["none", "half", "all"])
@pytest.mark.parametrize("size", [3, 11, 400])
def test_corpus_and_pools_equal_brute_force(duplicates: str, size: int) -> None:
    rng = np.random.default_rng(size)
    candidates, queries = unit(rng, size, 24), unit(rng, 12, 24)
    if duplicates == "half":
        candidates[rng.integers(0, size, size // 2)] = candidates[rng.integers(0, size, size // 2)]
    if duplicates == "all":
        candidates[:] = candidates[0]
    relevant = [rng.choice(size, 2, replace=False) for _ in queries]
    pools = [rng.integers(0, size, rng.integers(1, 90)) for _ in queries]  # with repeats, sometimes without the answer
    corpus = rank_corpus(queries, candidates, relevant, depth=10, cut=5)
    pooled = rank_pools(queries, candidates, pools, relevant, depth=10, cut=1)
    for i, query in enumerate(queries):
        assert_is_brute_force(corpus[i], query, candidates, np.arange(size), relevant[i])
        assert_is_brute_force(pooled[i], query, candidates, pools[i], relevant[i])


def test_a_tie_across_the_cut_goes_to_the_earlier_position() -> None:
    rng = np.random.default_rng(0)
    candidates = np.repeat(unit(rng, 1, 8), 5000, axis=0)  # all tie: FAISS alone would name any of them
    ranked = rank_corpus(candidates[:1], candidates, [np.array([4321])], depth=10, cut=5)[0]
    assert ranked.positions.tolist() == list(range(10))
    assert ranked.first_relevant == 4322
    assert ranked.tied_decisions == 5
    assert [len(group) for group in ranked.tie_groups] == [5000] * 5  # the whole group, not what was looked at


def test_tie_groups_hold_who_shares_a_score() -> None:
    rng = np.random.default_rng(3)
    candidates = unit(rng, 300, 16)
    candidates[[5, 100, 299]] = candidates[5]
    ranked = rank_corpus(candidates[5:6], candidates, [np.array([299])], depth=10, cut=5)[0]
    assert sorted(ranked.tie_groups[0].tolist()) == sorted(ranked.tie_groups[2].tolist()) == [5, 100, 299]
    assert len(ranked.tie_groups[3]) == len(ranked.tie_groups[4]) == 1


def test_equal_vectors_have_equal_scores_wherever_they_stand() -> None:
    rng = np.random.default_rng(1)
    candidates, query = unit(rng, 1001, 1536), unit(rng, 1, 1536)[0]
    candidates[[7, 333, 1000]] = candidates[0]
    assert len(set(exact_scores(query, candidates)[[0, 7, 333, 1000]].tolist())) == 1


def test_a_repeated_id_beside_itself_is_no_tied_decision() -> None:
    rng = np.random.default_rng(2)
    candidates = unit(rng, 4, 8)
    ranked = rank_pools(candidates[:1], candidates, [np.array([0, 1, 0, 2])], [np.array([0])], depth=10, cut=5)[0]
    assert ranked.positions.tolist()[:2] == [0, 0]
    assert ranked.tied_decisions == 0


def test_scores_keep_float64_vectors_apart_that_float32_would_merge() -> None:
    query = np.array([1.0, 0.0])
    candidates = np.array([[1 - 2e-9, 0.0], [1 - 1e-9, 0.0]])
    assert rank_corpus(query[None], candidates, [np.array([1])], depth=2, cut=1)[0].positions.tolist() == [1, 0]


def test_a_missing_faiss_is_said_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_faiss()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(HarnessError, match=r"pip install 'mmeb-harness\[cpu\]'"):
        require_faiss()


def test_threads_are_those_of_faiss_up_to_a_bound() -> None:
    import faiss

    assert thread_count() == min(faiss.omp_get_max_threads(), MAX_THREADS) >= 1
