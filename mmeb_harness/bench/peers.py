"""Other ways through a run that need no plugin: the official loop, the library's own generate, and bare searches.

Opened by `--beside NAME`, or `--beside NAME=VALUE`; see `core/peer.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import AnyVectors, Embedder, ReferenceEmbedder
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.items import Samples
from mmeb_harness.core.peer import Float32s, Peer, import_peer, read_batch_size
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.metrics import official_gains, query_metrics

#: `per_device_eval_batch_size` of the official evaluation's own commands.
OFFICIAL_BATCH = 16
GENERATE_BATCH = 8


def open_official(embedder: Embedder, value: str | None) -> Peer:
    """The official evaluation's loop: fixed batches in the order of the files, then an argsort for every query.

    Raises:
        OptionError: a model of several vectors an item.
    """
    size = read_batch_size("official", value, OFFICIAL_BATCH)
    if embedder.info.similarity != "dot":
        raise OptionError("--beside official: its argsort is of one vector an item; leave it out for this model")
    return Peer({"batch_size": size}, embedder.encode, at_once=size, score=_argsorted)


def open_generate(embedder: Embedder, value: str | None) -> Peer:
    """`generate` of transformers on padded batches, then a pass for the vectors.

    Raises:
        OptionError: a model that offers no such way.
    """
    size = read_batch_size("generate", value, GENERATE_BATCH)
    if not isinstance(embedder, ReferenceEmbedder):
        raise OptionError(f"--beside generate: model {embedder.info.name!r} offers no plain way of doing the same")
    return Peer({"batch_size": size}, embedder.encode_reference, at_once=size)


def open_faiss(_embedder: Embedder, value: str | None) -> Peer:
    """A bare IndexFlatIP, filled and searched."""
    no_value("faiss", value)
    faiss = import_peer("faiss", "faiss", "pip install faiss-cpu")

    def rank(queries: Float32s, candidates: Float32s, k: int) -> NDArray[np.int64]:
        index = faiss.IndexFlatIP(candidates.shape[1])
        index.add(candidates)
        places: NDArray[np.int64] = index.search(queries, k)[1]
        return places

    return Peer({"index": "IndexFlatIP", "threads": faiss.omp_get_max_threads()}, rank=rank)


def open_usearch(_embedder: Embedder, value: str | None) -> Peer:
    """The exact search of usearch."""
    no_value("usearch", value)
    search = import_peer("usearch", "usearch.index", "pip install 'mmeb-harness[peers]'").search

    def rank(queries: Float32s, candidates: Float32s, k: int) -> NDArray[np.int64]:
        return np.asarray(search(candidates, queries, k, "ip", exact=True).keys, dtype=np.int64)

    return Peer({"exact": True}, rank=rank)


def no_value(name: str, value: str | None) -> None:
    """Nothing may follow the name.

    Raises:
        OptionError: something does.
    """
    if value is not None:
        raise OptionError(f"--beside {name}={value}: nothing follows {name}")


def _argsorted(task: Task, samples: Samples, queries: AnyVectors, candidates: AnyVectors) -> float:
    assert isinstance(queries, np.ndarray)
    assert isinstance(candidates, np.ndarray)
    ids = [candidate.id for candidate in samples.candidates]
    position_of = {candidate: position for position, candidate in enumerate(ids)}
    values = []
    for query, vector in zip(samples.queries, queries, strict=True):
        pool = ids if samples.pools is None else samples.pools[query.id]
        rows = candidates if samples.pools is None else candidates[[position_of[candidate] for candidate in pool]]
        ranked = [pool[place] for place in np.argsort(-(rows @ vector))]
        gains = official_gains(task.edition, task.modality, samples.gains[query.id])
        values.append(query_metrics(ranked, gains)[task.metric])
    return float(np.mean(values))
