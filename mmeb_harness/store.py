"""Vectors on disk, named by what went into them, so that a killed run goes on in the middle of a task.

A store is a folder of chunks, each written whole: parquet where an item has one vector; uncompressed Arrow,
mapped into memory, where it has several, since those of a task may be larger than memory. A key hashes an
item's words, its media (path, size, time of change) and its role; the folder itself is named by the model's
fingerprint. Whatever is embedded twice, in one task or in two, in one run or in two, is found here the second time.

Several processes may add to one folder: a chunk is whole or absent, its name is nobody else's and begins with the
time it was written. What two of them encoded alike is there twice; of equal keys the latest chunk's counts.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.errors import DataError, ResultError
from mmeb_harness.files import fingerprint, map_arrow, read_parquet, write_arrow, write_parquet
from mmeb_harness.types import AnyVectors, Item, Role, Similarity, TokenVectors, Trace, Vectors

if TYPE_CHECKING:
    import pyarrow as pa

#: A killed run loses at most this much encoding.
FLUSH_SECONDS = 10.0
FLUSH_ITEMS = 4096
#: Bounds what waits in memory: the tokens of one page may take a megabyte.
FLUSH_BYTES = 256 << 20

_SUFFIXES: dict[Similarity, str] = {"dot": ".parquet", "max_sim": ".arrow"}


def content_key(item: Item, role: Role, root: Path) -> str:
    """What an item's vector depends on, besides the model; ids don't count.

    Raises:
        DataError: if a media file is missing.
    """
    media = [_media_identity(path, root) for path in item.media]
    kind = "frames" if item.frames else "images"
    return fingerprint(role, item.text, item.instruction, item.source.layout, item.source.instruction, kind, media)


def _media_identity(path: Path, root: Path) -> list[Any]:
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"item's media file {path} can't be read: {error.strerror or error}") from error
    relative = path.relative_to(root) if path.is_relative_to(root) else path
    return [relative.as_posix(), stat.st_size, stat.st_mtime_ns]


@dataclass(frozen=True)
class Encoded:
    """Encoded items, in order: their vectors, how each came about, and what each took.

    Attributes:
        vectors: (n, d); or several an item.
        latency_seconds: (n,) preparing an item's batch, and encoding until its vector was ready.
        share_seconds: (n,) an item's share of the wall time its batch added; sums to the time spent encoding.
    """

    vectors: AnyVectors
    traces: tuple[Trace, ...]
    latency_seconds: np.ndarray[Any, np.dtype[np.float64]]
    share_seconds: np.ndarray[Any, np.dtype[np.float64]]


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

    Args:
        since: chunks written before are ignored (nanoseconds since the epoch).

    Raises:
        ResultError: a chunk can't be read, or the vectors are of the other similarity.
    """

    def __init__(self, folder: Path, similarity: Similarity = "dot", since: int = 0) -> None:
        self._folder, self._since = folder, since
        self._several = similarity == "max_sim"  # vectors an item
        self._suffix = _SUFFIXES[similarity]
        _check_kind(folder, similarity)
        self._places: dict[str, tuple[int, int]] = {}  # key → chunk, row
        self._chunks: list[Path] = []
        self._open_chunk: tuple[int, pa.Table] | None = None
        self._pending: list[dict[str, Any]] = []
        self._pending_bytes = 0
        self._last_flush = time.monotonic()
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def add(self, keys: Sequence[str], encoded: Encoded) -> None:
        """Add one batch; on disk at the latest after `FLUSH_SECONDS` of further batches, or on `flush`."""
        for row, key in enumerate(keys):
            self._places[key] = (len(self._chunks), len(self._pending))
            self._pending.append(_to_row(key, encoded, row))
            self._pending_bytes += self._pending[-1]["vector"].nbytes
        overdue = time.monotonic() - self._last_flush > FLUSH_SECONDS
        if overdue or len(self._pending) >= FLUSH_ITEMS or self._pending_bytes >= FLUSH_BYTES:
            self.flush()

    def refresh(self) -> None:
        """Take notice of chunks that other processes have written."""
        known = set(self._chunks)
        for path in sorted(self._folder.glob(f"chunk-*{self._suffix}")):
            if path not in known and (not self._since or path.name >= _chunk_name(self._since)):
                self._index_chunk(path)

    def flush(self) -> None:
        """Write what is pending as one chunk."""
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        path = self._folder / f"{_chunk_name(time.time_ns())}-{uuid.uuid4().hex}{self._suffix}"
        vectors = [row["vector"] for row in self._pending]
        if self._several:
            write_arrow(path, _to_table(self._pending, _token_column(vectors)))
        else:
            write_parquet(path, _to_table(self._pending, _vector_column(vectors)))
        self._chunks.append(path)
        self._pending, self._pending_bytes = [], 0

    def get(self, keys: Sequence[str]) -> Encoded:
        """Vectors and traces of `keys`, in that order; every key must be in the store.

        Several vectors an item stay on disk, as `StoredTokens`.
        """
        self.flush()
        rows: list[dict[str, Any] | None] = [None] * len(keys)
        vectors: Vectors | StoredTokens | None = self._tokens(keys) if self._several else None
        for chunk, wanted in self._by_chunk(keys):
            table = self._read(chunk)
            positions = [position for position, _ in wanted]
            taken = [row for _, row in wanted]
            if not isinstance(vectors, StoredTokens):
                block = _vectors(table)
                if vectors is None:
                    vectors = np.empty((len(keys), block.shape[1]), dtype=np.float32)
                vectors[positions] = block[taken]
            for position, row in zip(positions, table.drop(["vector"]).take(taken).to_pylist(), strict=True):
                rows[position] = row
        complete = [row for row in rows if row is not None]
        if vectors is None or len(complete) != len(keys):
            raise KeyError("a vector that was asked for is not in the store")
        return Encoded(
            vectors=vectors,
            traces=tuple(_to_trace(row) for row in complete),
            latency_seconds=np.array([row["latency_seconds"] for row in complete], dtype=np.float64),
            share_seconds=np.array([row["share_seconds"] for row in complete], dtype=np.float64),
        )

    def _tokens(self, keys: Sequence[str]) -> StoredTokens:
        places = np.array([self._places[key] for key in keys], dtype=np.int64).reshape(-1, 2)
        chunks = sorted(set(places[:, 0].tolist()))
        return StoredTokens({chunk: _token_vectors(map_arrow(self._chunks[chunk])) for chunk in chunks}, places)

    def _index_chunk(self, path: Path) -> None:
        table = map_arrow(path) if self._several else read_parquet(path, ["key"])
        for row, key in enumerate(table.column("key").to_pylist()):
            self._places[key] = (len(self._chunks), row)
        self._chunks.append(path)

    def _by_chunk(self, keys: Sequence[str]) -> list[tuple[int, list[tuple[int, int]]]]:
        groups: dict[int, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            chunk, row = self._places[key]
            groups.setdefault(chunk, []).append((position, row))
        return sorted(groups.items())

    def _read(self, chunk: int) -> pa.Table:
        """One chunk is kept, since a task's items mostly lie in the chunk written last."""
        if self._open_chunk is None or self._open_chunk[0] != chunk:
            read = map_arrow if self._several else read_parquet
            self._open_chunk = (chunk, read(self._chunks[chunk]))
        return self._open_chunk[1]


def _chunk_name(nanoseconds: int) -> str:
    """How the name of a chunk of that time begins; names sort by time."""
    return f"chunk-{nanoseconds:020d}"


def _check_kind(folder: Path, similarity: Similarity) -> None:
    """A folder is named by a fingerprint that an adapter's author may forget to change."""
    other = _SUFFIXES["dot" if similarity == "max_sim" else "max_sim"]
    if stray := next(folder.glob(f"chunk-*{other}"), None):
        raise ResultError(
            f"{stray} holds vectors of another similarity than {similarity!r}; delete {folder}, or give the model "
            "another revision"
        )


def _to_row(key: str, encoded: Encoded, row: int) -> dict[str, Any]:
    trace = encoded.traces[row]
    return {
        "key": key,
        "vector": encoded.vectors[row],
        "path": trace.path,
        "gate": trace.gate,
        "rationale": trace.rationale,
        "reasoning_tokens": trace.reasoning_tokens,
        "truncated": trace.truncated,
        "latency_seconds": float(encoded.latency_seconds[row]),
        "share_seconds": float(encoded.share_seconds[row]),
    }


def _to_trace(row: dict[str, Any]) -> Trace:
    return Trace(
        path=row["path"],
        gate=row["gate"],
        rationale=row["rationale"],
        reasoning_tokens=row["reasoning_tokens"],
        truncated=row["truncated"],
        seconds=row["latency_seconds"],
    )


def _to_table(rows: list[dict[str, Any]], vectors: pa.Array) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {"key": pa.array([row["key"] for row in rows], pa.string()), "vector": vectors}
    types = {
        "path": pa.string(),
        "gate": pa.float64(),
        "rationale": pa.string(),
        "reasoning_tokens": pa.int64(),
        "truncated": pa.bool_(),
        "latency_seconds": pa.float64(),
        "share_seconds": pa.float64(),
    }
    for name, kind in types.items():
        columns[name] = pa.array([row[name] for row in rows], kind)
    return pa.table(columns)


def _vector_column(vectors: Sequence[Vectors]) -> pa.Array:
    import pyarrow as pa

    flat = np.concatenate(vectors).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), len(vectors[0]))


def _token_column(vectors: Sequence[NDArray[np.floating[Any]]]) -> pa.Array:
    import pyarrow as pa

    tokens = TokenVectors.of_items(vectors)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(tokens.flat.reshape(-1)), tokens.flat.shape[1])
    return pa.LargeListArray.from_arrays(pa.array(tokens.offsets), flat)


def _token_vectors(table: pa.Table) -> TokenVectors:
    """Views of the mapped file, not copies."""
    column = table.column("vector").chunk(0)
    flat = column.values.values.to_numpy(zero_copy_only=True)
    return TokenVectors(flat.reshape(-1, column.type.value_type.list_size), column.offsets.to_numpy())


def _vectors(table: pa.Table) -> Vectors:
    column = table.column("vector").combine_chunks()
    flat: Vectors = column.values.to_numpy(zero_copy_only=False)
    return flat.reshape(len(table), -1)
