"""Ranking by MaxSim, of models that give several vectors an item, in bounded memory.

score(q, c) = sum over the query's vectors of the greatest dot product with one of the candidate's (Khattab and
Zaharia 2020, ColBERT, section 3.3; Faysse et al. 2024, ColPali, equation 1). Candidates may lie on disk and be
larger than memory: they are read block by block, once for all queries that rank the same ones. As in `search`, the
float32 scores only propose, and the exact ones decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import TokenSequence
from mmeb_harness.ranking.corpus import FLOAT32_MARGIN, ExactScores, Floats, Proposal, RankedQuery, rank_list
from mmeb_harness.ranking.nearest import Positions

#: Bounds each of the four arrays that the pass works on: vectors of a block of candidates and of a block of
#: queries, their products, and the scores of a block of queries. One item or one list may be larger by itself.
BLOCK_BYTES = 64 << 20
_FLOAT32_BYTES = 4


def rank_tokens(
    queries: TokenSequence,
    candidates: TokenSequence,
    pools: Sequence[Positions] | None,
    relevant: Sequence[Positions],
    *,
    depth: int,
    cut: int,
) -> list[RankedQuery]:
    """Rank all candidates for every query, or each query's own pool of positions (repeats kept), by MaxSim.

    Args:
        queries, candidates: unit vectors (t_item, d) of every item.
        relevant, depth, cut: as for `search.rank_corpus`.
    """
    listed = pools if pools is not None else [np.arange(len(candidates), dtype=np.int64)] * len(queries)
    ranked: dict[int, RankedQuery] = {}
    for sharing, distinct in _sharing_candidates(listed):
        for block in _query_blocks(queries, sharing, len(distinct)):
            scores = max_sim(queries, block, candidates, distinct)  # (b, distinct)
            for row, i in enumerate(block):
                own = scores[row, np.searchsorted(distinct, listed[i])]
                # The greatest of products that are each off by less than a margin is off by less than it, too;
                # so the sum, of as many as the query has vectors and added in float64, by that many margins.
                proposal = Proposal(own, FLOAT32_MARGIN * len(queries[i]))
                exact = _exact(queries[i], candidates)
                ranked[i] = rank_list(exact, listed[i], relevant[i], proposal, depth=depth, cut=cut)
    return [ranked[i] for i in range(len(queries))]


def max_sim(
    queries: TokenSequence, chosen: Sequence[int], candidates: TokenSequence, positions: Positions
) -> NDArray[np.float32]:
    """Float32 scores (b, n) of the `chosen` queries (b,) with the candidates at `positions` (n,)."""
    tokens = np.concatenate([queries[i] for i in chosen], dtype=np.float32)  # (t, d)
    query_of = np.repeat(np.arange(len(chosen)), [len(queries[i]) for i in chosen])
    scores = np.zeros((len(chosen), len(positions)), dtype=np.float32)
    for start, flat, firsts in _candidate_blocks(candidates, positions):
        stop = start + len(firsts)
        step = max(1, BLOCK_BYTES // (_FLOAT32_BYTES * len(flat)))
        for row in range(0, len(tokens), step):
            best = np.maximum.reduceat(tokens[row : row + step] @ flat.T, firsts, axis=1)  # (step, block)
            rows, first_of = np.unique(query_of[row : row + step], return_index=True)
            scores[rows, start:stop] += np.add.reduceat(best, first_of, axis=0, dtype=np.float64)
        del flat  # before the next block is read
    return scores


def exact_max_sim(query: Floats, candidate: Floats) -> float:
    """MaxSim of one query (t, d) and one candidate (u, d), in float64.

    One product a pair: it depends on nothing but these two, so that equal candidates tie wherever they stand.
    """
    return float((query.astype(np.float64, copy=False) @ candidate.astype(np.float64).T).max(axis=1).sum())


def _exact(query: Floats, candidates: TokenSequence) -> ExactScores:
    tokens = query.astype(np.float64)
    return lambda positions: np.array([exact_max_sim(tokens, candidates[i]) for i in positions.tolist()], np.float64)


def _sharing_candidates(listed: Sequence[Positions]) -> Iterator[tuple[list[int], Positions]]:
    """Queries whose lists hold the same candidates, in whatever order, and these (n,), rising: one pass for all."""
    sharing: dict[bytes, list[int]] = {}
    for i, positions in enumerate(listed):
        sharing.setdefault(np.unique(positions).tobytes(), []).append(i)
    for positions_as_bytes, queries in sharing.items():
        yield queries, np.frombuffer(positions_as_bytes, dtype=np.int64)


def _query_blocks(queries: TokenSequence, chosen: Sequence[int], num_candidates: int) -> Iterator[list[int]]:
    """Consecutive queries whose vectors fit in `BLOCK_BYTES`, and whose scores do."""
    most = max(1, BLOCK_BYTES // (_FLOAT32_BYTES * num_candidates))
    block: list[int] = []
    held = 0
    for i in chosen:
        size = queries[i].size * _FLOAT32_BYTES
        if block and (len(block) == most or held + size > BLOCK_BYTES):
            yield block
            block, held = [], 0
        block.append(i)
        held += size
    yield block


def _candidate_blocks(
    candidates: TokenSequence, positions: Positions
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]]:
    """Blocks of candidates, read as they are used: index of the first, all vectors (t, d), first vector of each."""
    start, held = 0, 0
    parts: list[Floats] = []
    for index, position in enumerate(positions.tolist()):
        part = candidates[position]
        size = part.size * _FLOAT32_BYTES
        if parts and held + size > BLOCK_BYTES:
            yield start, *_joined(parts)
            start, held, parts = index, 0, []
        parts.append(part)
        held += size
    yield start, *_joined(parts)


def _joined(parts: Sequence[Floats]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    firsts = np.cumsum([0, *(len(part) for part in parts[:-1])], dtype=np.int64)
    return np.concatenate(parts, dtype=np.float32), firsts
