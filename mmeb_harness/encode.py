"""Items to vectors: each distinct item once, in batches that fit a token budget, prepared ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.errors import ModelError
from mmeb_harness.media import MediaHashes
from mmeb_harness.store import Encoded, VectorStore, content_keys
from mmeb_harness.types import BudgetedEmbedder, Embedder, EncodeResult, Item, Role, TokenVectors, Trace, Vectors

DEFAULT_BATCH_TOKENS = 16_384
#: Batch size for an embedder that can't say what an item costs.
PLAIN_BATCH_ITEMS = 64
#: Unit length is checked this closely: vectors normalised in bfloat16 pass, unnormalised ones don't.
UNIT_TOLERANCE = 5e-3

Progress = Callable[[int], None]  # called with the number of items just encoded


def encode_items(
    embedder: Embedder,
    items: Sequence[Item],
    role: Role,
    store: VectorStore,
    hashes: MediaHashes,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    on_progress: Progress = lambda _: None,
) -> tuple[Encoded, list[str], set[str]]:
    """Encode what the store lacks, then return all items from the store, in order.

    Args:
        hashes: of the items' media.
        batch_tokens: upper bound of a batch's padded tokens, for an embedder that estimates costs.

    Returns:
        The encoded items, the content key of each (equal keys: encoded once), and the keys that were there before.

    Raises:
        ModelError: if the embedder returns vectors that can't be ranked.
    """
    keys = content_keys(items, role, hashes)
    missing = {key: item for key, item in zip(keys, items, strict=True) if key not in store}
    on_progress(len(items) - len(missing))
    if missing:
        store.check_writable()
    batches = plan_batches(embedder, list(missing.items()), role, batch_tokens)
    with store.flushing():
        for batch, result, seconds in _run_batches(embedder, batches, role):
            check_result(embedder, result, len(batch))
            store.add([key for key, _ in batch], _timed(result, seconds))
            on_progress(len(batch))
    return store.get(keys), keys, set(keys) - missing.keys()


Batch = list[tuple[str, Item]]


def plan_batches(embedder: Embedder, keyed: Sequence[tuple[str, Item]], role: Role, batch_tokens: int) -> list[Batch]:
    """Group items of one media kind and similar cost, so that little of a batch is padding.

    The costliest batch comes first: what doesn't fit in memory fails at once, not after an hour.
    """
    if not isinstance(embedder, BudgetedEmbedder):
        return [list(keyed[start : start + PLAIN_BATCH_ITEMS]) for start in range(0, len(keyed), PLAIN_BATCH_ITEMS)]
    costs = {key: max(1, embedder.cost(item, role)) for key, item in keyed}
    ordered = sorted(keyed, key=lambda pair: (_kind(pair[1]), -costs[pair[0]]))
    batches: list[Batch] = []
    widest = 0
    for key, item in ordered:
        fits = bool(batches) and widest * (len(batches[-1]) + 1) <= batch_tokens
        if fits and _kind(batches[-1][0][1]) == _kind(item):
            batches[-1].append((key, item))
        else:
            batches.append([(key, item)])
            widest = costs[key]
    return sorted(batches, key=lambda batch: -costs[batch[0][0]])


def check_result(embedder: Embedder, result: EncodeResult, expected: int) -> None:
    """Refuse vectors whose ranking would be nonsense.

    Raises:
        ModelError: of the wrong kind, wrong number, wrong width, NaN or infinity, not of unit length, an item
            without a vector, or a wrong number of traces.
    """
    name, width = embedder.info.name, embedder.info.dimensions
    if isinstance(result.vectors, TokenVectors) != (embedder.info.similarity == "max_sim"):
        kind = "several vectors an item" if isinstance(result.vectors, TokenVectors) else "one vector an item"
        raise ModelError(f"model {name!r} returned {kind}, but declares similarity {embedder.info.similarity!r}")
    vectors, item_of = _flat_vectors(name, result.vectors, expected)
    if vectors.shape[1] != width:
        raise ModelError(f"model {name!r} returned vectors of width {vectors.shape[1]}, but declares {width}")
    if not np.isfinite(vectors).all():
        bad = item_of[np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0]]
        raise ModelError(f"model {name!r} returned NaN or infinity for item {bad} of a batch of {expected}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
        worst = float(lengths[np.argmax(np.abs(lengths - 1))])
        raise ModelError(f"model {name!r} returned a vector of length {worst:.4f}; vectors must be of unit length")
    if result.traces is not None and len(result.traces) != expected:
        raise ModelError(f"model {name!r} returned {len(result.traces)} traces for {expected} items")


def _flat_vectors(
    name: str, vectors: Vectors | TokenVectors, expected: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """All vectors of a batch (t, d), and of which item each is (t,)."""
    if not isinstance(vectors, TokenVectors):
        if vectors.ndim != 2 or len(vectors) != expected:
            raise ModelError(f"model {name!r} returned vectors of shape {vectors.shape} for {expected} items")
        return vectors, np.arange(expected, dtype=np.int64)
    if len(vectors) != expected:
        raise ModelError(f"model {name!r} returned token vectors of {len(vectors)} items for {expected} items")
    counts = np.diff(vectors.offsets)
    if not counts.all():
        empty = int(np.flatnonzero(counts == 0)[0])
        raise ModelError(f"model {name!r} returned no vector for item {empty} of a batch of {expected}")
    return vectors.flat, np.repeat(np.arange(expected, dtype=np.int64), counts)


def _kind(item: Item) -> str:
    return "frames" if item.frames else "image" if item.images else "text"


@dataclass(frozen=True)
class _Seconds:
    """What one batch took: its preparation, its encoding, and the wall time it added to the run."""

    prepare: float
    encode: float
    wall: float


def _run_batches(
    embedder: Embedder, batches: Sequence[Batch], role: Role
) -> Iterator[tuple[Batch, EncodeResult, _Seconds]]:
    if isinstance(embedder, BudgetedEmbedder):
        yield from _run_prefetched(embedder, batches, role)
        return
    for batch in batches:
        started = time.perf_counter()
        result = embedder.encode([item for _, item in batch], role)
        seconds = time.perf_counter() - started
        yield batch, result, _Seconds(0.0, seconds, seconds)


def _run_prefetched(
    embedder: BudgetedEmbedder, batches: Sequence[Batch], role: Role
) -> Iterator[tuple[Batch, EncodeResult, _Seconds]]:
    """While one batch is on the accelerator, a thread prepares the next; never more than one ahead."""

    def prepare(batch: Batch) -> tuple[Any, float]:
        started = time.perf_counter()
        prepared = embedder.prepare([item for _, item in batch], role)
        return prepared, time.perf_counter() - started

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        ahead = pool.submit(prepare, batches[0]) if batches else None
        for index, batch in enumerate(batches):
            assert ahead is not None
            waiting = time.perf_counter()
            prepared, prepare_seconds = ahead.result()
            ahead = pool.submit(prepare, batches[index + 1]) if index + 1 < len(batches) else None
            started = time.perf_counter()
            result = embedder.encode_prepared(prepared)
            done = time.perf_counter()
            yield batch, result, _Seconds(prepare_seconds, done - started, done - waiting)


def _timed(result: EncodeResult, seconds: _Seconds) -> Encoded:
    """Latency counts the preparation too: who sends one batch waits for both."""
    n, vectors = len(result.vectors), result.vectors
    traces = result.traces or (Trace(),) * n
    encode = [seconds.encode if trace.seconds is None else trace.seconds for trace in traces]
    return Encoded(
        vectors=vectors if isinstance(vectors, TokenVectors) else vectors.astype(np.float32, copy=False),
        traces=traces,
        latency_seconds=seconds.prepare + np.array(encode, dtype=np.float64),
        share_seconds=np.full(n, seconds.wall / max(1, n)),
    )
