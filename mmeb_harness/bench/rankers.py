"""Our ranking beside bare searches, on the vectors that were just encoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.bench.sample import Sample
from mmeb_harness.bench.values import RankingRatio, Spread
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.peer import Float32s, Peer, RankAll
from mmeb_harness.ranking.corpus import rank_corpus
from mmeb_harness.ranking.task import DEPTH

#: Scores in float32 of unit vectors that are as good as equal.
CLOSE = 1e-6
#: Of the benchmark's page and passage tasks, for the count of decisions that only ties made.
CUT = 5


def measure_rankers(
    rankers: Mapping[str, Peer], sample: Sample, encoded: Encoded | None, repeats: int, note: Callable[[str], None]
) -> Iterator[RankingRatio]:
    """Every peer that ranks, on every task whose queries rank all candidates.

    Args:
        encoded: of all places of the sample, in order.

    Raises:
        OptionError: there is no such task, or an item has several vectors.
    """
    if not rankers:
        return
    vectors = encoded.vectors if encoded else None
    corpora = [(place, task) for place, (task, samples) in enumerate(sample.tasks) if samples.pools is None]
    names = ", ".join(rankers)
    if not isinstance(vectors, np.ndarray):
        raise OptionError(f"--beside {names} ranks one vector an item; leave it out for this model")
    if not corpora:
        raise OptionError(
            f"--beside {names} ranks whole corpora, and in all of these tasks each query has its own list"
        )
    ends = np.cumsum([0, *(len(block.items) for block in sample.blocks)])
    for place, task in corpora:
        queries, candidates = (
            np.ascontiguousarray(vectors[ends[side] : ends[side + 1]], dtype=np.float32)
            for side in (2 * place, 2 * place + 1)
        )
        samples = sample.tasks[place][1]
        position_of = {candidate.id: position for position, candidate in enumerate(samples.candidates)}
        relevant = [
            np.array(
                [position_of[wanted] for wanted in samples.gains[query.id] if wanted in position_of], dtype=np.int64
            )
            for query in samples.queries
        ]
        for name, peer in rankers.items():
            note(f"ranking {task.name} beside {name}")
            assert peer.rank is not None
            yield _ratio(name, peer, peer.rank, task.name, queries, candidates, relevant, repeats)


def _ratio(
    name: str,
    peer: Peer,
    rank: RankAll,
    task: str,
    queries: Float32s,
    candidates: Float32s,
    relevant: Sequence[NDArray[np.int64]],
    repeats: int,
) -> RankingRatio:
    depth = min(DEPTH, len(candidates))

    def ours() -> NDArray[np.int64]:
        ranked = rank_corpus(queries, candidates, relevant, depth=depth, cut=CUT)
        return np.stack([ranking.positions for ranking in ranked])

    def theirs() -> NDArray[np.int64]:
        return rank(queries, candidates, depth)

    sides = (ours, theirs)
    places = [side() for side in sides]  # also warms them up
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            started = time.perf_counter()
            sides[side]()
            seconds[side].append(time.perf_counter() - started)
    return RankingRatio(
        peer=name,
        settings=peer.settings,
        task=task,
        queries=len(queries),
        candidates=len(candidates),
        dimensions=queries.shape[1],
        depth=depth,
        ours=Spread.of(seconds[0]),
        theirs=Spread.of(seconds[1]),
        times=Spread.of([their / our for our, their in zip(*seconds, strict=True)]),
        same_places=_same_places(queries, candidates, *places),
    )


def _same_places(queries: Float32s, candidates: Float32s, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> float:
    """See `RankingRatio.same_places`."""
    same = 0
    for query, own, other in zip(queries, ours, theirs, strict=True):
        same += int((np.abs(candidates[own] @ query - candidates[other] @ query) <= CLOSE).sum())
    return same / ours.size
