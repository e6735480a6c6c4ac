"""Our ranking beside bare searches, on the vectors that were just encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.bench.sample import Sample
from mmeb_harness.bench.sides import order
from mmeb_harness.bench.values import RankingRatio, Spread
from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.items import Vectors
from mmeb_harness.core.peer import Float32s, Peer, RankAll
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.corpus import rank_corpus
from mmeb_harness.ranking.task import DEPTH, cut_of, relevant_positions

#: Scores in float32 of unit vectors that are as good as equal.
CLOSE = 1e-6


@dataclass(frozen=True)
class Corpus:
    """A task whose queries rank all candidates.

    Attributes:
        queries, candidates: its rows among the vectors of the sample.
    """

    task: Task
    queries: slice
    candidates: slice
    relevant: Sequence[NDArray[np.int64]]


def corpora_for(rankers: Mapping[str, Peer], sample: Sample, info: ModelInfo) -> list[Corpus]:
    """What these peers can rank, before anything is encoded; none where there is no peer.

    Raises:
        OptionError: there is no such task, or an item has several vectors.
    """
    if not rankers:
        return []
    names = ", ".join(rankers)
    if info.similarity != "dot":
        raise OptionError(f"--beside {names} ranks one vector an item; leave it out for this model")
    ends = np.cumsum([0, *(len(block.items) for block in sample.blocks)]).tolist()
    corpora = [
        Corpus(
            task,
            slice(ends[2 * place], ends[2 * place + 1]),
            slice(ends[2 * place + 1], ends[2 * place + 2]),
            relevant_positions(samples),
        )
        for place, (task, samples) in enumerate(sample.tasks)
        if samples.pools is None
    ]
    if not corpora:
        raise OptionError(
            f"--beside {names} ranks whole corpora, and in all of these tasks each query has its own list"
        )
    return corpora


def measure_rankers(
    rankers: Mapping[str, Peer],
    corpora: Sequence[Corpus],
    vectors: Vectors,
    repeats: int,
    note: Callable[[str], None],
) -> Iterator[RankingRatio]:
    """Every peer on every corpus.

    Args:
        vectors: (n, d), of all places of the sample.
    """
    for corpus in corpora:
        note(f"ranking {corpus.task.name} beside {', '.join(rankers)}")
        queries, candidates = (
            np.ascontiguousarray(vectors[rows], dtype=np.float32) for rows in (corpus.queries, corpus.candidates)
        )
        yield from _ratios(rankers, corpus, queries, candidates, repeats)


def _ratios(
    rankers: Mapping[str, Peer], corpus: Corpus, queries: Float32s, candidates: Float32s, repeats: int
) -> Iterator[RankingRatio]:
    depth = min(DEPTH, len(candidates))

    def ours(queries: Float32s, candidates: Float32s, depth: int) -> NDArray[np.int64]:
        ranked = rank_corpus(queries, candidates, corpus.relevant, depth=depth, cut=cut_of(corpus.task))
        return np.stack([ranking.positions for ranking in ranked])

    sides: list[RankAll] = [ours, *(peer.rank for peer in rankers.values() if peer.rank is not None)]
    places = [rank(queries, candidates, depth) for rank in sides]  # also warms them up
    seconds: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats):
        for side in order(len(sides), repeat):
            started = time.perf_counter()
            sides[side](queries, candidates, depth)
            seconds[side].append(time.perf_counter() - started)
    for (name, peer), theirs, their_places in zip(rankers.items(), seconds[1:], places[1:], strict=True):
        yield RankingRatio(
            peer=name,
            settings=peer.settings,
            task=corpus.task.name,
            queries=len(queries),
            candidates=len(candidates),
            dimensions=queries.shape[1],
            depth=depth,
            ours=Spread.of(seconds[0]),
            theirs=Spread.of(theirs),
            times=Spread.of([their / our for our, their in zip(seconds[0], theirs, strict=True)]),
            same_places=_same_places(queries, candidates, places[0], their_places),
        )


def _same_places(queries: Float32s, candidates: Float32s, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    """See `RankingRatio.same_places`."""
    same = 0
    for query, own, other in zip(queries, ours, theirs, strict=True):
        same += int((np.abs(candidates[own] @ query - candidates[other] @ query) <= CLOSE).sum())
    return same / ours.size
