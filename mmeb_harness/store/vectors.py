"""Vectors on disk, named by what went into them, so that a killed run goes on in the middle of a task.

A store is a folder of chunks (see `chunk_files`), each written whole and mapped into memory to be read. A key hashes an
item's words, the bytes of its media and its role; the folder itself is named by the model's fingerprint. Whatever is
embedded twice, in one task or in two, in one run or in two, is found here the second time.

Several processes may add to one folder: a chunk is whole or absent, and its name is nobody else's. What two of them
encoded alike is there twice; of equal keys the latest chunk's counts. A process holds the folder while it uses it, so
that nothing is pruned under its hands.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import AnyVectors, Encoded, ModelInfo, TokenVectors, Trace, trace_columns
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import check_writable, fingerprint
from mmeb_harness.core.items import Item, Role, Similarity, Vectors
from mmeb_harness.store.chunk_files import (
    DESCRIPTION,
    check_description,
    chunk_files,
    chunk_name,
    flat_vectors,
    map_chunk,
    share,
    vector_offsets,
    write_chunk,
    write_description,
    written_ns,
)
from mmeb_harness.store.media import MediaHashes

if TYPE_CHECKING:
    import pyarrow as pa

#: A killed run loses at most this much encoding.
FLUSH_SECONDS = 10.0
FLUSH_ITEMS = 4096
#: Bounds what waits in memory: the tokens of one page may take a megabyte.
FLUSH_BYTES = 256 << 20

#: A place is a chunk's number and a row in one integer: a million take 100 MB less than as pairs.
_ROW_BITS = 32
#: Of a stored `Trace`, in the order of its fields.
_TRACE_COLUMNS = ("path", "gate", "rationale", "reasoning_tokens", "truncated", "latency_seconds")


def content_keys(items: Sequence[Item], role: Role, hashes: MediaHashes) -> list[str]:
    """What each item's vector depends on, besides the model: words, the bytes of its media, role. Ids don't count.

    Raises:
        DataError: if a media file is missing.
    """
    media = hashes.of([path for item in items for path in item.media])
    return [_content_key(item, role, [media[path] for path in item.media]) for item in items]


def _content_key(item: Item, role: Role, media: Sequence[str]) -> str:
    kind = "frames" if item.frames else "images"
    return fingerprint(role, item.text, item.instruction, item.source.layout, item.source.instruction, kind, media)


class _Row(NamedTuple):
    """What waits to be written of one item; seconds as in `Encoded`."""

    vectors: NDArray[np.floating[Any]]
    trace: Trace
    latency_seconds: float
    share_seconds: float


@dataclass(frozen=True)
class StoredTokens:
    """Token vectors in chunks that are mapped into memory: an item's are read when it is asked for.

    Attributes:
        chunks: those that hold the items, by number.
        places: (n, 2): for each item, the number of its chunk and its row there.
    """

    chunks: Mapping[int, TokenVectors]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int, /) -> NDArray[np.floating[Any]]:
        chunk, row = self.places[item].tolist()
        return self.chunks[chunk][row]


class VectorStore:
    """Append-only store of one model's vectors. Call `flush` when what was added must survive.

    Nothing is written before the first `flush`: a complete store may be read-only.

    Args:
        since: what was written before is ignored (nanoseconds since the epoch).
        model: whose vectors they are, for those who look at the folder later.

    Raises:
        ResultError: a chunk is broken, or the vectors are of the other similarity or of another store version.
    """

    def __init__(
        self, folder: Path, similarity: Similarity = "dot", since: int = 0, model: ModelInfo | None = None
    ) -> None:
        self._folder, self._similarity, self._since, self._model = folder, similarity, since, model
        self._several = similarity == "max_sim"  # vectors an item
        self._is_held = False
        if (folder / DESCRIPTION).is_file():
            self._hold()
        check_description(folder, similarity)
        self._places: dict[str, int] = {}
        self._chunks: list[Path] = []
        self._numbers: dict[str, int] = {}  # name of a chunk → its number
        self._pending: dict[str, _Row] = {}
        self._pending_bytes = 0
        self._last_flush = time.monotonic()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._pending

    def __len__(self) -> int:
        return len(self._places.keys() | self._pending.keys())

    def refresh(self) -> None:
        """Take in what other processes have written since, and forget what is gone."""
        there = {path.name: path for path in chunk_files(self._folder)}
        if gone := [self._numbers.pop(name) for name in self._numbers.keys() - there.keys()]:
            lost = frozenset(gone)
            self._places = {key: place for key, place in self._places.items() if place >> _ROW_BITS not in lost}
        oldest = chunk_name(self._since)
        for name, path in there.items():
            if name not in self._numbers and (not self._since or name >= oldest):
                self._index(path)

    def check_writable(self) -> None:
        """Find out before the first item is encoded whether it can be kept.

        Raises:
            ResultError: it can't.
        """
        try:
            check_writable(self._folder)
        except ResultError as error:
            raise ResultError(f"{error} (--vectors says where vectors are kept)") from error

    def add(self, keys: Sequence[str], encoded: Encoded) -> None:
        """Add one batch; on disk at the latest after `FLUSH_SECONDS` of further batches, or on `flush`."""
        seconds = zip(encoded.latency_seconds.tolist(), encoded.share_seconds.tolist(), strict=True)
        for item, (key, trace, times) in enumerate(zip(keys, encoded.traces, seconds, strict=True)):
            self._pending[key] = _Row(encoded.vectors[item], trace, *times)
            self._pending_bytes += self._pending[key].vectors.nbytes
        overdue = time.monotonic() - self._last_flush > FLUSH_SECONDS
        if overdue or len(self._pending) >= FLUSH_ITEMS or self._pending_bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one chunk. If that fails it stays pending.

        Raises:
            ResultError: the folder can't be written, or is full.
        """
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        try:
            self._describe()
            path = write_chunk(self._folder, _to_table(self._pending, self._several))
        except ResultError as error:
            raise ResultError(
                f"{error}; vectors written before are kept: make room, or name another folder with --vectors, and run "
                "again"
            ) from error
        self._place(path, list(self._pending))
        self._pending, self._pending_bytes = {}, 0

    def get(self, keys: Sequence[str]) -> Encoded:
        """Vectors and traces of `keys`, in that order; every key must be in the store.

        One vector an item is read into one array, chunk by chunk; several stay on disk, as `StoredTokens`.

        Raises:
            ResultError: a chunk is broken, or was deleted meanwhile.
        """
        self.flush()
        places = np.fromiter((self._places[key] for key in keys), dtype=np.int64, count=len(keys))
        chunks, rows = places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
        vectors: Vectors | None = None
        tokens: dict[int, TokenVectors] = {}
        traces = np.empty(len(keys), dtype=object)
        latency, share_of_time = np.empty(len(keys)), np.empty(len(keys))
        for chunk, positions in _groups(chunks):
            table, taken = map_chunk(self._chunks[chunk]), rows[positions]
            if self._several:
                tokens[chunk] = _token_vectors(table)
            else:
                block = flat_vectors(table)
                vectors = np.empty((len(keys), block.shape[1]), dtype=np.float32) if vectors is None else vectors
                vectors[positions] = block[taken]
            columns = table.select([*_TRACE_COLUMNS, "share_seconds"]).take(taken)
            fields = (columns.column(name).to_pylist() for name in _TRACE_COLUMNS)
            traces[positions] = [Trace(*values) for values in zip(*fields, strict=True)]
            latency[positions] = columns.column("latency_seconds").to_numpy()
            share_of_time[positions] = columns.column("share_seconds").to_numpy()
        stored: AnyVectors | None = StoredTokens(tokens, np.stack([chunks, rows], 1)) if self._several else vectors
        if stored is None:
            raise KeyError("vectors of no items were asked for")
        return Encoded(stored, tuple(traces), latency, share_of_time)

    def _hold(self) -> None:
        held = share(self._folder)
        if held is not None:
            weakref.finalize(self, held.close)
        self._is_held = held is not None

    def _describe(self) -> None:
        """Before the first chunk: a folder with chunks and without a description is one of an old release."""
        if not (self._folder / DESCRIPTION).is_file():
            write_description(self._folder, self._similarity, self._model)
        if not self._is_held:
            self._hold()

    def _index(self, path: Path) -> None:
        try:
            table = map_chunk(path)
        except ResultError:
            if path.exists():
                raise
            return  # pruned since it was listed
        self._place(path, table.column("key").to_pylist(), written_ns(table) >= self._since)

    def _place(self, path: Path, keys: Sequence[str], counts: NDArray[np.bool_] | None = None) -> None:
        """Note where a chunk's keys are, unless a later chunk has them."""
        number = len(self._chunks)
        self._chunks.append(path)
        self._numbers[path.name] = number
        for row, key in enumerate(keys):
            earlier = self._places.get(key)
            is_latest = earlier is None or self._chunks[earlier >> _ROW_BITS].name < path.name
            if is_latest and (counts is None or counts[row]):
                self._places[key] = number << _ROW_BITS | row


def _groups(chunks: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Chunks, and the positions that are in each."""
    order = np.argsort(chunks, kind="stable")
    for positions in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1):
        if len(positions):
            yield int(chunks[positions[0]]), positions


def _to_table(rows: Mapping[str, _Row], several: bool) -> pa.Table:
    import pyarrow as pa

    vectors = [row.vectors for row in rows.values()]
    columns = {
        "key": pa.array(list(rows), pa.string()),
        "vector": _token_column(vectors) if several else _vector_column(vectors),
        **trace_columns([row.trace for row in rows.values()]),
        "latency_seconds": pa.array([row.latency_seconds for row in rows.values()], pa.float64()),
        "share_seconds": pa.array([row.share_seconds for row in rows.values()], pa.float64()),
        "written_ns": pa.array(np.full(len(rows), time.time_ns(), dtype=np.int64)),
    }
    return pa.table(columns)


def _vector_column(vectors: Sequence[Vectors]) -> pa.Array:
    import pyarrow as pa

    flat = np.concatenate(vectors).astype(np.float32, copy=False)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), len(vectors[0]))


def _token_column(vectors: Sequence[NDArray[np.floating[Any]]]) -> pa.Array:
    import pyarrow as pa

    tokens = TokenVectors.of_items(vectors)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(tokens.flat.reshape(-1)), tokens.flat.shape[1])
    return pa.LargeListArray.from_arrays(pa.array(tokens.offsets), flat)


def _token_vectors(table: pa.Table) -> TokenVectors:
    """Views of the mapped file, not copies."""
    return TokenVectors(flat_vectors(table), vector_offsets(table))
