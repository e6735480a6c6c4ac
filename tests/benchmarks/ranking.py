"""How fast a corpus is ranked, against an argsort of every query's scores, and in how much memory.

python -m tests.benchmarks.ranking [--queries N] [--candidates N] [--dimensions N] [--sample N] [--missed SHARE]
python -m tests.benchmarks.ranking --memory      1,000,000 candidates, 100 queries, no argsort
python -m tests.benchmarks.ranking --faiss N     beside a bare IndexFlatIP instead, N times in turn

Made-up unit vectors: a query is its relevant candidate and noise, which its ranking finds; of a share of the queries
another candidate is the relevant one, whose rank has to be counted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.ranking.corpus import RankedQuery, rank_corpus, thread_count
from mmeb_harness.ranking.nearest import gpu_count

Made = TypeVar("Made")

DEPTH, CUT = 100, 1
#: The noise of a query, of length 1 as its relevant candidate is.
NOISE = 1.0
#: Unlike exact scores, those of the argsort are float32: neighbours closer than this may change places.
CLOSE = 1e-6
BLOCK = 10_000


def unit_vectors(number: int, dimensions: int, seed: int) -> NDArray[np.float32]:
    """Made block by block, so that there is never more than the result."""
    draw = np.random.default_rng(seed)
    vectors = np.empty((number, dimensions), dtype=np.float32)
    for start in range(0, number, BLOCK):
        block = vectors[start : start + BLOCK]
        draw.standard_normal(out=block, dtype=np.float32)
        normalise(block)
    return vectors


def normalise(vectors: NDArray[np.float32]) -> None:
    vectors /= np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]


def queries_for(
    candidates: NDArray[np.float32], number: int, missed: float
) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
    """Queries (number, d) and the position of the relevant candidate of each."""
    draw = np.random.default_rng(1)
    relevant = draw.integers(0, len(candidates), number)
    queries = unit_vectors(number, candidates.shape[1], seed=2) * np.float32(NOISE) + candidates[relevant]
    normalise(queries)
    elsewhere = draw.random(number) < missed
    relevant[elsewhere] = draw.integers(0, len(candidates), int(elsewhere.sum()))
    return queries, list(relevant[:, None])


def check_agreement(ranked: Sequence[RankedQuery], orders: Sequence[NDArray[np.int64]]) -> int:
    """Places at which the two differ; an error if by more than float32 rounding."""
    different = 0
    for one, order in zip(ranked, orders, strict=True):
        places = np.flatnonzero(one.positions != order)
        different += len(places)
        known = dict(zip(one.positions.tolist(), one.scores.tolist(), strict=True))
        for place in places:
            score = known.get(int(order[place]), one.scores[-1])
            assert abs(score - one.scores[place]) < CLOSE, f"{order[place]} at place {place}"
    return different


@dataclass(frozen=True)
class Duration:
    """Seconds by the clock, and of all processors."""

    seconds: float
    processor: float

    def __add__(self, other: Duration) -> Duration:
        return Duration(self.seconds + other.seconds, self.processor + other.processor)

    def times(self, factor: float) -> Duration:
        return Duration(self.seconds * factor, self.processor * factor)

    def __str__(self) -> str:
        return f"{self.seconds:.1f} s ({self.processor:.1f} s of processor time)"


def timed(work: Callable[[], Made]) -> tuple[Made, Duration]:
    started, processor = time.perf_counter(), time.process_time()
    made = work()
    return made, Duration(time.perf_counter() - started, time.process_time() - processor)


def peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--sample", type=int, help="argsort of so many queries only, times what they stand for")
    parser.add_argument(
        "--missed", type=float, default=0.1, help="share of queries whose relevant candidate is far off"
    )
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--faiss", type=int, metavar="N")
    options = parser.parse_args()
    if options.memory:
        options.candidates, options.queries = 1_000_000, 100
    candidates = unit_vectors(options.candidates, options.dimensions, seed=0)
    queries, relevant = queries_for(candidates, options.queries, options.missed)
    rank_corpus(queries[:100], candidates[:1000], [np.array([0])] * len(queries[:100]), depth=DEPTH, cut=CUT)
    if options.faiss:
        compare_with_faiss(queries, candidates, relevant, options.faiss)
        return
    # Half of the argsorts before and half after: other programs may come and go meanwhile.
    chosen = np.unique(np.linspace(0, len(queries) - 1, options.sample or len(queries)).astype(int))
    if options.memory:
        chosen = chosen[:0]
    orders, argsort = timed(lambda: argsort_each(queries[chosen[::2]], candidates))
    before = peak_gigabytes()
    ranked, ranking = timed(lambda: rank_corpus(queries, candidates, relevant, depth=DEPTH, cut=CUT))
    peak = peak_gigabytes()
    more_orders, more_argsort = timed(lambda: argsort_each(queries[chosen[1::2]], candidates))
    found = sum(one.first_relevant <= DEPTH for one in ranked)
    print(
        f"{options.queries:,} queries x {options.candidates:,} candidates x {options.dimensions:,} dimensions, "
        f"{thread_count()} threads, {gpu_count()} GPUs\n"
        f"ranked in {ranking}; {found:,} relevant candidates found in the first {DEPTH}\n"
        f"peak memory {peak:.2f} GB, {before:.2f} before; the candidates are {candidates.nbytes / 1e9:.2f}"
    )
    if len(chosen):
        whole = (argsort + more_argsort).times(len(queries) / len(chosen))
        said = "" if len(chosen) == len(queries) else f", extrapolated from {len(chosen):,} queries"
        print(f"argsort {whole}{said}: {whole.seconds / ranking.seconds:.1f} times as long")
        sampled = [ranked[i] for i in [*chosen[::2], *chosen[1::2]]]
        different = check_agreement(sampled, orders + more_orders)
        print(f"ranks agree; {different:,} of {len(chosen) * DEPTH:,} places differ, by less than {CLOSE:g} in score")


def compare_with_faiss(
    queries: NDArray[np.float32], candidates: NDArray[np.float32], relevant: Sequence[NDArray[np.int64]], repeats: int
) -> None:
    """Both are timed in every repeat, in an order that alternates, after one that isn't counted."""
    import faiss

    def bare() -> None:
        index = faiss.IndexFlatIP(candidates.shape[1])
        index.add(candidates)
        index.search(queries, DEPTH)

    def ours() -> None:
        rank_corpus(queries, candidates, relevant, depth=DEPTH, cut=CUT)

    durations: dict[Callable[[], None], list[Duration]] = {ours: [], bare: []}
    for repeat in range(repeats + 1):
        for side in (ours, bare) if repeat % 2 else (bare, ours):
            durations[side].append(timed(side)[1])
    print(
        f"{len(queries):,} queries x {len(candidates):,} candidates x {candidates.shape[1]:,} dimensions, "
        f"{thread_count()} threads, medians of {repeats}"
    )
    for measure in ("seconds", "processor"):
        own, theirs = ([getattr(duration, measure) for duration in durations[side][1:]] for side in (ours, bare))
        ratios = [our / their for our, their in zip(own, theirs, strict=True)]
        our, their = statistics.median(own), statistics.median(theirs)
        print(f"{measure}: ours {our:.3f}, FAISS {their:.3f}: {our / their:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


def argsort_each(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    return [np.argsort(-(candidates @ query))[:DEPTH] for query in queries]


if __name__ == "__main__":
    main()
