"""From vectors to ranked candidates, with one tie rule: score down, then candidate position up.

Two correct programs can print different hit@1 when scores tie, since the order FAISS, numpy and torch
leave among equals differs. Here a fast float32 search (FAISS for the whole corpus, a plain product for a
pool; `max_sim` for several vectors an item) only *proposes* candidates; the scores of those that may be among the
best are then recomputed pair by pair in float64, so that equal vectors have equal scores wherever they stand, and
sorted by the one rule. The proposal is widened until nothing outside it can reach the cut.

Of a whole corpus, blocks of queries are ranked at once by what FAISS found. The rest, whose best relevant candidate
or whose ties lie farther down, are ranked one by one by their scores of the whole corpus.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.errors import HarnessError
from mmeb_harness.ranking.nearest import FAISS_GPU_MAX_PLACES, Float32s, Found, Positions, nearest

Floats: TypeAlias = NDArray[np.floating[Any]]
Float64s: TypeAlias = NDArray[np.float64]
#: One query's exact scores (n,) of the candidates at these positions (n,): equal ones of equal candidates.
ExactScores: TypeAlias = Callable[[Positions], Float64s]

#: More than the float32 error of a dot product of unit vectors (about 1e-6 at 4,096 dimensions).
FLOAT32_MARGIN = 1e-5
#: Bounds the float32 scores of a block of queries with the whole corpus. Smaller blocks are slower to multiply.
SCORES_BYTES = 256 << 20
#: Bounds the vectors gathered at a time for a query's own pool.
POOL_BYTES = 16 << 20
#: The float64 products that are added at a time, which should stay in the processor's cache.
EXACT_BLOCK_BYTES = 320 << 10
#: Queries that are ranked at once by what FAISS found.
QUERY_BLOCK = 32
#: Of threads that run Python between their numpy calls, more would wait for the interpreter.
MAX_THREADS = 16
#: Values that numpy buffers. Where two rows fit, it copies what they are multiplied by beside itself, row after row.
NUMPY_BUFFER = 256


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
    scores: Float64s
    first_relevant: int
    tied_decisions: int
    tie_groups: tuple[Positions, ...]


@dataclass(frozen=True)
class Proposal:
    """One query's list, scored fast and in float32.

    Attributes:
        scores: (n,) of the whole list.
        margin: more than any of them is off.
        found: the best few scores and their places, best first, if a search has found them.
    """

    scores: Float32s
    margin: float
    found: Found | None = None

    def best(self, n: int) -> Found:
        """The n best scores and their places in the list, best first, in no order among equals."""
        if self.found is not None and n <= len(self.found[0]):
            return self.found[0][:n], self.found[1][:n]
        best = np.arange(len(self.scores)) if n >= len(self.scores) else np.argpartition(-self.scores, n - 1)[:n]
        best = best[np.argsort(-self.scores[best])].astype(np.int64)
        return self.scores[best], best


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
    corpus = _search_corpus(queries, candidates, relevant, depth, cut)
    with _threads() as threads:
        starts = range(0, len(queries), QUERY_BLOCK)
        blocks = threads.map(lambda start: _rank_block(corpus, start), starts)
        rankings = list(itertools.chain.from_iterable(blocks))
        rest = [i for i, ranking in enumerate(rankings) if ranking is None]
        by_query = dict(_rank_rest(corpus, rest, threads))
    return [ranking or by_query[i] for i, ranking in enumerate(rankings)]


def rank_pools(
    queries: Floats,
    candidates: Floats,
    pools: Sequence[Positions],
    relevant: Sequence[Positions],
    *,
    depth: int,
    cut: int,
) -> list[RankedQuery]:
    """Rank each query's own pool of candidate positions (in official order, repeats kept).

    By plain products: for a query's own list they are faster than FAISS with an id selector.
    """
    fast_queries = np.ascontiguousarray(queries, dtype=np.float32)
    fast_candidates = np.ascontiguousarray(candidates, dtype=np.float32)

    def rank(i: int) -> RankedQuery:
        proposal = Proposal(_products(fast_queries[i], fast_candidates, pools[i]), FLOAT32_MARGIN)
        return rank_list(_exact(queries[i], candidates), pools[i], relevant[i], proposal, depth=depth, cut=cut)

    with _threads() as threads:
        return list(threads.map(rank, range(len(queries))))


def exact_scores(query: Floats, candidates: Floats) -> Float64s:
    """Dot products (n,) of one query (d,) with candidates (n, d), in float64.

    Row by row, not as a matrix product: a BLAS kernel may round equal rows differently depending on where
    they stand in a block, and would break exact ties by chance.
    """
    return _exact(query, candidates)(np.arange(len(candidates)))


def _exact(query: Floats, candidates: Floats) -> ExactScores:
    return partial(_ExactScorer(candidates).scores, query)


class _ExactScorer:
    """Computes exact scores, some rows at a time, in memory that it keeps: fresh pages cost more than the sums."""

    def __init__(self, candidates: Floats) -> None:
        self._candidates = candidates
        width = candidates.shape[1]
        rows = max(1, EXACT_BLOCK_BYTES // max(1, width * np.float64().nbytes))
        self._gathered = np.empty((rows, width), dtype=candidates.dtype)
        self._products = np.empty((rows, width), dtype=np.float64)
        self._query = np.empty(width, dtype=np.float64)

    def scores(self, query: Floats, positions: Positions) -> Float64s:
        np.copyto(self._query, query)
        scores = np.empty(len(positions), dtype=np.float64)
        rows = len(self._products)
        for start in range(0, len(positions), rows):
            chosen = positions[start : start + rows]
            gathered, products = self._gathered[: len(chosen)], self._products[: len(chosen)]
            # All positions are valid; only "raise" would buffer the output.
            self._candidates.take(chosen, axis=0, out=gathered, mode="clip")
            np.copyto(products, gathered)
            np.multiply(products, self._query, out=products)
            np.add.reduce(products, axis=1, out=scores[start : start + rows])
        return scores


def _products(query: Float32s, candidates: Float32s, positions: Positions) -> Float32s:
    scores = np.empty(len(positions), dtype=np.float32)
    step = max(1, POOL_BYTES // max(1, query.nbytes))
    for start in range(0, len(positions), step):
        scores[start : start + step] = candidates[positions[start : start + step]] @ query
    return scores


@dataclass(frozen=True)
class _Corpus:
    """A corpus that was searched for all queries.

    Attributes:
        queries, candidates: (q, d), (c, d), as they were given.
        fast_queries, fast_candidates: in float32; no copies of what is.
        scores, places: (q, w), what FAISS found.
    """

    queries: Floats
    candidates: Floats
    fast_queries: Float32s
    fast_candidates: Float32s
    scores: Float32s
    places: Positions
    relevant: Sequence[Positions]
    depth: int
    cut: int


def _search_corpus(queries: Floats, candidates: Floats, relevant: Sequence[Positions], depth: int, cut: int) -> _Corpus:
    fast_queries = np.ascontiguousarray(queries, dtype=np.float32)
    fast_candidates = np.ascontiguousarray(candidates, dtype=np.float32)
    width = min(_first_width(len(candidates), depth), FAISS_GPU_MAX_PLACES)
    scores, places = nearest(fast_queries, fast_candidates, width)
    return _Corpus(queries, candidates, fast_queries, fast_candidates, scores, places, relevant, depth, cut)


def _rank_block(corpus: _Corpus, start: int) -> list[RankedQuery | None]:
    """Rankings of the `QUERY_BLOCK` queries from `start` on; None where what FAISS found doesn't settle one."""
    relevant = corpus.relevant[start : start + QUERY_BLOCK]
    num_candidates, width = len(corpus.candidates), corpus.places.shape[1]
    wanted = min(num_candidates, corpus.depth + 1)
    if width < wanted:
        return [None] * len(relevant)
    positions, scores, complete = _best_of_block(corpus, start, wanted)
    first = _first_found(positions, relevant, num_candidates)
    # A group that reaches the last place may go on after it.
    whole_groups = (scores[:, min(corpus.cut, wanted) - 1] > scores[:, -1]) | (wanted == num_candidates)
    settled = complete & (first > 0) & whole_groups
    tied = (scores[:, 1 : corpus.cut + 1] == scores[:, : min(corpus.cut, wanted - 1)]).any(axis=1)
    return [
        RankedQuery(
            positions=positions[row, : corpus.depth],
            scores=scores[row, : corpus.depth],
            first_relevant=int(first[row]),
            tied_decisions=_tied_decisions(positions[row], scores[row], corpus.cut) if tied[row] else 0,
            tie_groups=_groups_within(positions[row], scores[row], corpus.cut)
            if tied[row]
            else tuple(positions[row, : corpus.cut, None]),
        )
        if settled[row]
        else None
        for row in range(len(relevant))
    ]


def _best_of_block(corpus: _Corpus, start: int, wanted: int) -> tuple[Positions, Float64s, NDArray[np.bool_]]:
    """Of a block of queries: the best positions (b, wanted), their exact scores, and whether no others can be (b,)."""
    fast = corpus.scores[start : start + QUERY_BLOCK].astype(np.float64)  # (b, w)
    near = _num_near(fast, wanted, FLOAT32_MARGIN).max()
    places = corpus.places[start : start + QUERY_BLOCK, :near]
    scorer = _ExactScorer(corpus.candidates)
    exact = np.stack([scorer.scores(corpus.queries[start + row], places[row]) for row in range(len(places))])
    _check_margin(exact, fast[:, :near])
    order = np.argsort(-exact, axis=1, kind="stable")  # the fastest of what is nearly sorted
    scores = np.take_along_axis(exact, order, axis=1)
    tied = (scores[:, 1:] == scores[:, :-1]).any(axis=1)
    order[tied] = np.lexsort((places[tied], -exact[tied]))
    order, scores = order[:, :wanted], scores[:, :wanted]
    complete = (fast.shape[1] >= len(corpus.candidates)) | (fast[:, -1] + FLOAT32_MARGIN < scores[:, -1])
    return np.take_along_axis(places, order, axis=1), scores, complete


def _check_margin(exact: Float64s, proposed: Float64s) -> None:
    off = float(np.abs(exact - proposed).max())
    if off > FLOAT32_MARGIN:
        raise HarnessError(
            f"FAISS's scores are off by {off:.1g}, more than float32 of unit vectors ever is: "
            "unset NVIDIA_TF32_OVERRIDE, or install another build of FAISS"
        )


def _first_found(positions: Positions, relevant: Sequence[Positions], num_candidates: int) -> NDArray[np.int64]:
    """1-based rank (b,) of the first relevant one among each query's best (b, n); 0 where none is.

    Where no candidate is relevant, the rank after the last one.
    """
    rows, counts = np.arange(len(positions)), np.array([len(places) for places in relevant])
    wanted = np.repeat(rows, counts) * num_candidates + np.concatenate(relevant)
    wanted.sort()
    listed = positions + rows[:, None] * num_candidates  # (b, n)
    is_relevant = np.append(wanted, -1)[np.searchsorted(wanted, listed)] == listed
    absent = np.where(counts, 0, num_candidates + 1)
    return np.where(is_relevant.any(axis=1), is_relevant.argmax(axis=1) + 1, absent)


def _rank_rest(corpus: _Corpus, rest: Sequence[int], threads: ThreadPoolExecutor) -> Iterator[tuple[int, RankedQuery]]:
    everything = np.arange(len(corpus.candidates), dtype=np.int64)

    def rank(i: int, scores: Float32s) -> tuple[int, RankedQuery]:
        proposal = Proposal(scores, FLOAT32_MARGIN, (corpus.scores[i], corpus.places[i]))
        exact = _exact(corpus.queries[i], corpus.candidates)
        return i, rank_list(exact, everything, corpus.relevant[i], proposal, depth=corpus.depth, cut=corpus.cut)

    most = max(1, SCORES_BYTES // (np.float32().nbytes * len(everything)))
    scores = np.empty((min(most, len(rest)), len(everything)), dtype=np.float32)  # (b, c), of one block after another
    for start in range(0, len(rest), most):
        block = rest[start : start + most]
        np.matmul(corpus.fast_queries[block], corpus.fast_candidates.T, out=scores[: len(block)])
        yield from threads.map(rank, block, scores)


def rank_list(
    exact: ExactScores, listed: Positions, relevant: Positions, proposal: Proposal, *, depth: int, cut: int
) -> RankedQuery:
    """Rank one query's list of candidate positions (repeats possible)."""
    places, scores = _top(exact, listed, proposal, depth)
    positions = listed[places]
    return RankedQuery(
        positions=positions[:depth],
        scores=scores[:depth],
        first_relevant=_first_relevant(exact, listed, relevant, positions, proposal),
        tied_decisions=_tied_decisions(positions, scores, cut),
        tie_groups=_tie_groups(exact, listed, positions, scores, proposal, cut),
    )


def _first_width(num_listed: int, depth: int) -> int:
    """More places than are wanted, so that a tie across the cut seldom needs a second look."""
    return min(num_listed, depth + 16)


def _top(exact: ExactScores, listed: Positions, proposal: Proposal, depth: int) -> tuple[Positions, Float64s]:
    """Places in `listed` and exact scores of the best `depth` + 1, by the tie rule."""
    wanted = min(len(listed), depth + 1)  # one more, to see a tie across the cut
    width = _first_width(len(listed), depth)
    while True:
        proposed, places = proposal.best(width)
        near = places[: _num_near(proposed[None].astype(np.float64), wanted, proposal.margin)[0]]
        scores = exact(listed[near])
        order = np.lexsort((near, -scores))[:wanted]
        complete = width >= len(listed) or float(proposed[-1]) + proposal.margin < scores[order[-1]]
        if complete:
            return near[order], scores[order]
        width = min(len(listed), 4 * width)


def _num_near(proposed: Float64s, wanted: int, margin: float) -> NDArray[np.int64]:
    """How many (b,) of the proposed scores (b, n), best first, may be among the `wanted` best.

    Each of the first `wanted` is at least the last of these less the margin; what is proposed two margins lower is
    less than that.
    """
    near: NDArray[np.int64] = (proposed >= proposed[:, wanted - 1 : wanted] - 2 * margin).sum(axis=1)
    return near


def _first_relevant(
    exact: ExactScores, listed: Positions, relevant: Positions, top: Positions, proposal: Proposal
) -> int:
    places = np.flatnonzero(np.isin(top, relevant))
    if len(places):
        return int(places[0]) + 1
    return _rank_by_counting(exact, listed, relevant, proposal)


def _rank_by_counting(exact: ExactScores, listed: Positions, relevant: Positions, proposal: Proposal) -> int:
    """Rank of the best relevant candidate: 1 + the places ahead of it; only near ties are exact."""
    places = np.flatnonzero(np.isin(listed, relevant))
    if len(places) == 0:
        return len(listed) + 1  # a relevant candidate outside the query's own pool can't be found
    relevant_scores = exact(listed[places])
    best = int(np.lexsort((places, -relevant_scores))[0])
    best_place, best_score = places[best], relevant_scores[best]
    # Limits in float32, ten times faster to compare with: their rounding is a small part of the margin.
    low, high = np.float32(best_score - proposal.margin), np.float32(best_score + proposal.margin)
    surely_ahead = proposal.scores > high
    ahead = int(np.count_nonzero(surely_ahead))
    near = np.flatnonzero((proposal.scores >= low) & ~surely_ahead)
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


def _groups_within(positions: Positions, scores: Float64s, cut: int) -> tuple[Positions, ...]:
    """For each of the first `cut` places, the positions among `positions` that share its score."""
    return tuple(positions[scores == scores[place]] for place in range(min(cut, len(positions))))


def _tie_groups(
    exact: ExactScores,
    listed: Positions,
    positions: Positions,
    scores: Float64s,
    proposal: Proposal,
    cut: int,
) -> tuple[Positions, ...]:
    groups: list[Positions] = []
    for place, group in enumerate(_groups_within(positions, scores, cut)):
        if scores[place] > scores[-1] or len(positions) == len(listed):
            groups.append(group)
            continue
        # The group reaches the end of what was looked at: find the rest of it among near scores.
        near = np.flatnonzero(np.abs(proposal.scores - scores[place]) <= proposal.margin)
        groups.append(listed[near[exact(listed[near]) == scores[place]]])
    return tuple(groups)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_count(), initializer=np.setbufsize, initargs=(NUMPY_BUFFER,))


def thread_count() -> int:
    """As many as FAISS uses (the cores this process may run on, or OMP_NUM_THREADS), up to `MAX_THREADS`."""
    import faiss

    return min(int(faiss.omp_get_max_threads()), MAX_THREADS)


def require_faiss() -> None:
    """Say at the start of a run, not after hours of encoding, that FAISS is missing.

    Raises:
        HarnessError: with the line that installs it.
    """
    if importlib.util.find_spec("faiss") is None:
        raise HarnessError("FAISS is not installed: pip install 'mmeb-harness[cpu]', or [gpu] beside an NVIDIA driver")
