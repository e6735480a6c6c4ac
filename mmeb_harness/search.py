"""From vectors to ranked candidates, with one tie rule: score down, then candidate position up.

Two correct programs can print different hit@1 when scores tie, since the order FAISS, numpy and torch
leave among equals differs. Here a fast float32 search (FAISS for the whole corpus, a plain product for a
pool; `max_sim` for several vectors an item) only *proposes* candidates; their scores are then recomputed pair by
pair in float64, so that equal vectors have equal scores wherever they stand, and sorted by the one rule. The
proposal is widened until nothing outside it can reach the cut.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.errors import HarnessError

Floats: TypeAlias = NDArray[np.floating[Any]]
Positions: TypeAlias = NDArray[np.int64]
#: One query's exact scores (n,) of the candidates at these positions (n,): equal ones of equal candidates.
ExactScores: TypeAlias = Callable[[Positions], NDArray[np.float64]]

#: More than the float32 error of a dot product of unit vectors (about 1e-6 at 4,096 dimensions).
FLOAT32_MARGIN = 1e-5
#: The GPU index returns at most this many places; a wider look is a plain product.
FAISS_GPU_MAX_PLACES = 2048


@dataclass(frozen=True)
class RankedQuery:
    """One query's ranking down to `depth`.

    Attributes:
        positions: candidate positions, best first (indices into the candidate vectors; repeats possible).
        scores: their exact scores.
        first_relevant: 1-based rank of the best relevant candidate in the full ranking.
        tied_decisions: neighbours among the first `cut` + 1 places that only the tie rule ordered.
        tie_groups: for each of the first `cut` places, the positions of all candidates that share its score.
    """

    positions: Positions
    scores: NDArray[np.float64]
    first_relevant: int
    tied_decisions: int
    tie_groups: tuple[Positions, ...]


class Proposer(Protocol):
    """Finds, fast and in float32, the candidates that may rank first."""

    def propose(self, query: int, n: int) -> tuple[Positions, NDArray[np.float32]]:
        """The about-n best places of a query's list and their float32 scores, best first."""
        ...

    def scores(self, query: int) -> NDArray[np.float32]:
        """The float32 scores of the query's whole list."""
        ...

    def margin(self, query: int) -> float:
        """More than any of these scores is off."""
        ...


def rank_corpus(
    queries: Floats, candidates: Floats, relevant: Sequence[Positions], *, depth: int, cut: int
) -> list[RankedQuery]:
    """Rank all candidates for every query by FAISS (on the GPUs, where faiss-gpu finds any).

    Args:
        queries: (q, d), unit length.
        candidates: (c, d), unit length.
        relevant: for every query, positions of its relevant candidates.
        depth: how many places to return; at most c are.
        cut: the main metric's k, for the count of tied decisions.
    """
    proposer = _CorpusProposer(queries, candidates, min(len(candidates), 2 * depth + 8))
    everything = np.arange(len(candidates), dtype=np.int64)
    return [
        rank_list(_exact(queries[i], candidates), everything, relevant[i], proposer, i, depth=depth, cut=cut)
        for i in range(len(queries))
    ]


def rank_pools(
    queries: Floats,
    candidates: Floats,
    pools: Sequence[Positions],
    relevant: Sequence[Positions],
    *,
    depth: int,
    cut: int,
) -> list[RankedQuery]:
    """Rank each query's own pool of candidate positions (in official order, repeats kept)."""
    proposer = _PoolProposer(queries, candidates, pools)
    return [
        rank_list(_exact(queries[i], candidates), pools[i], relevant[i], proposer, i, depth=depth, cut=cut)
        for i in range(len(queries))
    ]


def exact_scores(query: Floats, candidates: Floats) -> NDArray[np.float64]:
    """Dot products (n,) of one query (d,) with candidates (n, d), in float64.

    Row by row, not as a matrix product: a BLAS kernel may round equal rows differently depending on where
    they stand in a block, and would break exact ties by chance.
    """
    scores: NDArray[np.float64] = (candidates.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return scores


def _exact(query: Floats, candidates: Floats) -> ExactScores:
    return lambda positions: exact_scores(query, candidates[positions])


def rank_list(
    exact: ExactScores,
    listed: Positions,
    relevant: Positions,
    proposer: Proposer,
    index: int,
    *,
    depth: int,
    cut: int,
) -> RankedQuery:
    """Rank one query's list of candidate positions (repeats possible); `index`: the query's, for the proposer."""
    places, scores = _top(exact, listed, proposer, index, depth)
    positions = listed[places]
    return RankedQuery(
        positions=positions[:depth],
        scores=scores[:depth],
        first_relevant=_first_relevant(exact, listed, relevant, positions, proposer, index),
        tied_decisions=_tied_decisions(positions, scores, cut),
        tie_groups=_tie_groups(exact, listed, positions, scores, proposer, index, cut),
    )


def _top(
    exact: ExactScores, listed: Positions, proposer: Proposer, index: int, depth: int
) -> tuple[Positions, NDArray[np.float64]]:
    """Places in `listed` and exact scores of the best `depth` + 1, by the tie rule."""
    wanted = min(len(listed), depth + 1)  # one more, to see a tie across the cut
    width = min(len(listed), 2 * depth + 8)
    while True:
        places, proposed = proposer.propose(index, width)
        scores = exact(listed[places])
        order = np.lexsort((places, -scores))
        complete = width >= len(listed) or float(proposed[-1]) + proposer.margin(index) < scores[order[wanted - 1]]
        if complete:
            return places[order][:wanted], scores[order][:wanted]
        width = min(len(listed), 4 * width)


def _first_relevant(
    exact: ExactScores, listed: Positions, relevant: Positions, top: Positions, proposer: Proposer, index: int
) -> int:
    found = np.flatnonzero(np.isin(top, relevant))
    if len(found):
        return int(found[0]) + 1
    return _rank_by_counting(exact, listed, relevant, proposer.scores(index), proposer.margin(index))


def _rank_by_counting(
    exact: ExactScores, listed: Positions, relevant: Positions, scores: NDArray[np.float32], margin: float
) -> int:
    """Rank of the best relevant candidate: 1 + the places ahead of it; only near ties are exact."""
    places = np.flatnonzero(np.isin(listed, relevant))
    if len(places) == 0:
        return len(listed) + 1  # a relevant candidate outside the query's own pool can't be found
    relevant_scores = exact(listed[places])
    best = int(np.lexsort((places, -relevant_scores))[0])
    best_place, best_score = places[best], relevant_scores[best]
    ahead = int(np.count_nonzero(scores > best_score + margin))
    near = np.flatnonzero(np.abs(scores - best_score) <= margin)
    near_scores = exact(listed[near])
    ahead += int(np.count_nonzero((near_scores > best_score) | ((near_scores == best_score) & (near < best_place))))
    return ahead + 1


def _tied_decisions(positions: Positions, scores: NDArray[np.float64], cut: int) -> int:
    """A repeated id beside itself is no decision."""
    upper, lower = slice(0, cut), slice(1, cut + 1)
    pairs = min(len(positions) - 1, cut)
    if pairs <= 0:
        return 0
    same_score = scores[upper][:pairs] == scores[lower][:pairs]
    return int(np.count_nonzero(same_score & (positions[upper][:pairs] != positions[lower][:pairs])))


def _tie_groups(
    exact: ExactScores,
    listed: Positions,
    positions: Positions,
    scores: NDArray[np.float64],
    proposer: Proposer,
    index: int,
    cut: int,
) -> tuple[Positions, ...]:
    groups: list[Positions] = []
    for place in range(min(cut, len(positions))):
        shared = np.flatnonzero(scores == scores[place])
        if shared[-1] + 1 < len(positions) or len(positions) == len(listed):
            groups.append(positions[shared])
            continue
        # The group reaches the end of what was looked at: find the rest of it among near scores.
        near = np.flatnonzero(np.abs(proposer.scores(index) - scores[place]) <= proposer.margin(index))
        groups.append(listed[near[exact(listed[near]) == scores[place]]])
    return tuple(groups)


class _CorpusProposer:
    """One FAISS search for all queries; the few that need a wider look get a plain product."""

    def __init__(self, queries: Floats, candidates: Floats, width: int) -> None:
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._candidates = np.ascontiguousarray(candidates, dtype=np.float32)
        self._width = min(width, FAISS_GPU_MAX_PLACES)
        self._scores, self._places = _faiss_index(self._candidates).search(self._queries, self._width)

    def propose(self, query: int, n: int) -> tuple[Positions, NDArray[np.float32]]:
        if n <= self._width:
            return self._places[query], self._scores[query]
        return best_places(self.scores(query), n)

    def margin(self, query: int) -> float:
        return FLOAT32_MARGIN

    def scores(self, query: int) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = self._candidates @ self._queries[query]
        return scores


class _PoolProposer:
    """Plain products: for a query's own list faster than FAISS with an id selector."""

    def __init__(self, queries: Floats, candidates: Floats, pools: Sequence[Positions]) -> None:
        self._queries = np.ascontiguousarray(queries, dtype=np.float32)
        self._candidates = np.ascontiguousarray(candidates, dtype=np.float32)
        self._pools = pools
        self._last: tuple[int, NDArray[np.float32]] | None = None

    def propose(self, query: int, n: int) -> tuple[Positions, NDArray[np.float32]]:
        return best_places(self.scores(query), n)

    def margin(self, query: int) -> float:
        return FLOAT32_MARGIN

    def scores(self, query: int) -> NDArray[np.float32]:
        if self._last is None or self._last[0] != query:
            self._last = (query, self._candidates[self._pools[query]] @ self._queries[query])
        return self._last[1]


def best_places(scores: NDArray[np.float32], n: int) -> tuple[Positions, NDArray[np.float32]]:
    """Places of the best `n` scores, best first, in no order among equals; and these scores."""
    best = np.arange(len(scores)) if n >= len(scores) else np.argpartition(-scores, n - 1)[:n]
    best = best[np.argsort(-scores[best])].astype(np.int64)
    return best, scores[best]


def require_faiss() -> None:
    """Say at the start of a run, not after hours of encoding, that FAISS is missing.

    Raises:
        HarnessError: with the line that installs it.
    """
    if importlib.util.find_spec("faiss") is None:
        raise HarnessError("FAISS is not installed: pip install 'mmeb-harness[cpu]', or [gpu] beside an NVIDIA driver")


def _faiss_index(candidates: NDArray[np.float32]) -> Any:
    import faiss

    index: Any = faiss.IndexFlatIP(candidates.shape[1])
    if gpu_count() > 0:
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True  # each GPU holds a part of the corpus: room for large corpora
        index = faiss.index_cpu_to_all_gpus(index, co=options)
    index.add(candidates)
    return index


def gpu_count() -> int:
    """GPUs that FAISS can use: 0 with faiss-cpu, whose module lacks the GPU half."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
