"""Ranking many queries at once is ranking each alone: by the one rule, whatever the blocks; and in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import HarnessError
from mmeb_harness.ranking import corpus as search
from mmeb_harness.ranking.corpus import RankedQuery, rank_corpus

ROOT = Path(__file__).parents[3]


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_the_rule(query: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All positions by score down, then position up; and all scores by position."""
    scores = np.array([np.sum(one.astype(np.float64) * query.astype(np.float64)) for one in candidates])
    return np.lexsort((np.arange(len(candidates)), -scores)), scores


def assert_by_the_rule(
    ranked: RankedQuery, query: np.ndarray, candidates: np.ndarray, relevant: np.ndarray, depth: int, cut: int
) -> None:
    order, scores = by_the_rule(query, candidates)
    assert ranked.positions.tolist() == order[:depth].tolist()
    assert ranked.scores.tolist() == scores[order[:depth]].tolist()
    assert ranked.first_relevant == np.flatnonzero(np.isin(order, relevant))[0] + 1
    top = scores[order[: cut + 1]]
    assert ranked.tied_decisions == np.count_nonzero(top[1:] == top[:-1])
    groups = [np.flatnonzero(scores == scores[place]).tolist() for place in order[:cut]]
    assert [sorted(group.tolist()) for group in ranked.tie_groups] == groups


DIMENSIONS = 384


def near_ties(rng: np.random.Generator) -> np.ndarray:
    """Groups of 60, more than a search finds at first, a third copies and the others off by one unit in the last
    place of some values: float32 scores tell them apart in another order than they are in."""
    candidates = np.repeat(unit(rng, 10, DIMENSIONS), 60, axis=0)[rng.permutation(600)]
    off = rng.random(candidates.shape) < rng.choice([0, 0.01, 0.1], (600, 1))
    up = np.where(rng.random(candidates.shape) < 0.5, np.float32(2), np.float32(-2))
    return np.where(off, np.nextafter(candidates, up), candidates)


@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("kind", ["spread", "copies", "near ties"])
def test_many_queries_are_ranked_by_the_rule(kind: str, small_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """70 queries are three blocks; half have their relevant candidate on top, half anywhere."""
    if small_blocks:
        monkeypatch.setattr(search, "SCORES_BYTES", 5 * 600 * 4)  # five queries
        monkeypatch.setattr(search, "EXACT_BLOCK_BYTES", 3 * DIMENSIONS * 8)  # three candidates
        monkeypatch.setattr(search, "QUERY_BLOCK", 3)
    rng = np.random.default_rng(5)
    candidates = near_ties(rng) if kind == "near ties" else unit(rng, 600, DIMENSIONS)
    if kind == "copies":
        candidates[rng.integers(0, 600, 300)] = candidates[rng.integers(0, 600, 300)]
    relevant = [rng.choice(600, 2, replace=False) for _ in range(70)]
    queries = unit(rng, 70, DIMENSIONS)
    queries[::2] = candidates[[one[0] for one in relevant[::2]]]
    ranked = rank_corpus(queries, candidates, relevant, depth=12, cut=5)
    for query, one, found in zip(queries, ranked, relevant, strict=True):
        assert_by_the_rule(one, query, candidates, found, depth=12, cut=5)
    if kind == "copies":
        assert sum(one.tied_decisions for one in ranked) > 0


def test_a_search_less_exact_than_float32_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorFloat-32 would be: 10 bits of each value."""
    rng = np.random.default_rng(0)
    queries, candidates = unit(rng, 5, 64), unit(rng, 300, 64)
    exact = search.nearest

    def rounded(vectors: np.ndarray) -> np.ndarray:
        return (vectors.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)

    monkeypatch.setattr(search, "nearest", lambda q, c, k: exact(rounded(q), rounded(c), k))
    with pytest.raises(HarnessError, match=r"off by .*: unset NVIDIA_TF32_OVERRIDE"):
        rank_corpus(queries, candidates, [np.array([0])] * 5, depth=10, cut=1)


RANK_LARGE = """
    import numpy as np
    from mmeb_harness.ranking.corpus import rank_corpus

    def peak() -> int:
        return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

    def rank(number: int) -> list[int]:
        ranked = rank_corpus(queries, candidates[:number], [np.array([i]) for i in range(20)], depth=100, cut=5)
        return [one.first_relevant for one in ranked]

    draw = np.random.default_rng(0)
    candidates = np.empty((200_000, 256), np.float32)
    for start in range(0, len(candidates), 10_000):
        draw.standard_normal(out=candidates[start : start + 10_000], dtype=np.float32)
        candidates[start : start + 10_000] /= 16
    candidates[100_000:] = candidates[0]
    queries = candidates[:20] + np.float32(0)
    queries[10:] *= -1
    rank(1000)
    before, ranks = peak(), rank(200_000)
    print(ranks[0], ranks[1], ranks[19], (peak() - before) / candidates.nbytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_large_corpus_is_not_copied() -> None:
    """205 MB, half of it copies of one vector, so that one query's ties are half of the corpus; half of the queries
    have their relevant candidate last, so that its rank is counted."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RANK_LARGE)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    on_top, also, last, copies = done.stdout.split()
    assert (on_top, also) == ("1", "1")
    assert int(last) > 190_000
    assert float(copies) < 0.5
