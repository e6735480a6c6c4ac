"""The nearest candidates of many queries by FAISS: exact search in float32, on the GPUs where faiss-gpu finds any.

No index is made, which would copy the corpus.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Float32s: TypeAlias = NDArray[np.float32]
Positions: TypeAlias = NDArray[np.int64]
#: Scores (q, k) of every query's nearest candidates, best first, in no order among equals; and their positions.
Found: TypeAlias = tuple[Float32s, Positions]
#: Searches k candidates of a corpus: (queries, candidates, k).
Search: TypeAlias = Callable[[Float32s, Float32s, int], Found]

#: A search on the GPU finds at most this many places.
FAISS_GPU_MAX_PLACES = 2048
#: Of fewer values of queries FAISS multiplies without BLAS, four times slower (128,000 in its version 1.15).
FAISS_BLAS_VALUES = 1 << 17
#: Searches at once, each of which holds one of OpenBLAS's buffers, whose number is bounded.
FAISS_MAX_SHARES = 16
#: The part of the corpus that is on a GPU at a time, where a model may hold most of the memory.
GPU_BLOCK_BYTES = 2 << 30


def nearest(queries: Float32s, candidates: Float32s, k: int) -> Found:
    """The k candidates (c, d) of the greatest dot products with each of the queries (q, d).

    Args:
        queries, candidates: contiguous.
        k: at most c and, on GPUs, `FAISS_GPU_MAX_PLACES`.
    """
    gpus = gpu_count()
    if gpus == 0:
        return _search_on_cpu(queries, candidates, k)
    rows = max(1, GPU_BLOCK_BYTES // candidates[:1].nbytes)
    return nearest_by_blocks(queries, candidates, k, [partial(_search_on_gpu, gpu) for gpu in range(gpus)], rows)


def nearest_by_blocks(
    queries: Float32s, candidates: Float32s, k: int, searches: Sequence[Search], most_rows: int
) -> Found:
    """As `nearest`, with blocks of at most `most_rows` of the corpus shared out over `searches`, one thread each."""
    rows = min(most_rows, math.ceil(len(candidates) / len(searches)))
    starts = range(0, len(candidates), rows)

    def search_share(number: int) -> Found:
        best: Found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        for start in starts[number :: len(searches)]:
            block = candidates[start : start + rows]
            scores, places = searches[number](queries, block, min(k, len(block)))
            best = _best([best, (scores, places + start)], k)
        return best

    with ThreadPoolExecutor(len(searches)) as threads:
        return _best(list(threads.map(search_share, range(len(searches)))), k)


def gpu_count() -> int:
    """GPUs that FAISS can use: 0 with faiss-cpu, whose module lacks the GPU half."""
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _best(parts: Sequence[Found], k: int) -> Found:
    scores = np.concatenate([scores for scores, _ in parts], axis=1)
    places = np.concatenate([places for _, places in parts], axis=1)
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1)


def _search_on_cpu(queries: Float32s, candidates: Float32s, k: int) -> Found:
    """Of many queries a share a thread: FAISS's own threads wait for each other at every block of the corpus."""
    import faiss

    def search(share: Float32s) -> Found:
        scores, places = faiss.knn(share, candidates, k, faiss.METRIC_INNER_PRODUCT)
        return scores, places

    threads = int(faiss.omp_get_max_threads())
    if not 1 < threads <= min(FAISS_MAX_SHARES, queries.size // FAISS_BLAS_VALUES):
        return search(queries)
    with ThreadPoolExecutor(threads, initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        scores, places = zip(*pool.map(search, np.array_split(queries, threads)), strict=True)
    return np.concatenate(scores), np.concatenate(places)


def _search_on_gpu(gpu: int, queries: Float32s, candidates: Float32s, k: int) -> Found:
    """FAISS has cuBLAS multiply in full float32: no TF32, unless NVIDIA_TF32_OVERRIDE forces it."""
    import faiss

    resources: Any = faiss.StandardGpuResources()
    resources.setPinnedMemory(0)  # 256 MiB by default, for copies of another kind
    metric = faiss.METRIC_INNER_PRODUCT
    scores, places = faiss.knn_gpu(resources, queries, candidates, k, metric=metric, device=gpu)
    return scores, places
