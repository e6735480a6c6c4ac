"""The files of one model's stored vectors: chunks, `model.json` that says whose they are, and a lock.

A chunk is one uncompressed Arrow table, mapped into memory to be read. Its name begins with the time of the latest row
in it, so that names sort by time, and is nobody else's. Rows say themselves when they were written: release 0.1 joined
chunks of several ages.

Chunks stay as they were written. A run writes one every ten seconds or 4,096 items, and 10,000 of them, 28 hours of
encoding, cost whoever opens the folder 0.5 ms each, and whoever reads all of it 0.6 ms each: not worth a second way of
writing that every reader would have to be held off from.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.environment import __version__
from mmeb_harness.core.errors import ResultError, one_line
from mmeb_harness.core.files import dont_wait, lock_file, map_arrow, read_json, write_arrow, write_json
from mmeb_harness.core.items import Similarity

if TYPE_CHECKING:
    import pyarrow as pa

#: 1: chunks of parquet or Arrow, media named by path and time. 2: all Arrow, media named by their bytes.
STORE_VERSION = 2
DESCRIPTION = "model.json"
COLUMNS = (
    "key",
    "vector",
    "path",
    "gate",
    "rationale",
    "reasoning_tokens",
    "truncated",
    "latency_seconds",
    "share_seconds",
    "written_ns",
)
LOCK = ".lock"
#: Of a checksum among a chunk's schema metadata: over keys and vectors, which decide the scores.
_CHECKSUM = b"mmeb_checksum"


@dataclass(frozen=True)
class Description:
    """Whose vectors a folder holds.

    Attributes:
        version: of the store; 1 is that of folders without `model.json`.
        name, revision: of the model; "" where the folder doesn't say.
        dimensions: `None` where the folder doesn't say.
    """

    version: int
    name: str = ""
    revision: str = ""
    dimensions: int | None = None
    similarity: Similarity | None = None


def read_description(folder: Path) -> Description | None:
    """What a folder says of itself; `None` if it holds no vectors.

    Raises:
        ResultError: its `model.json` is none.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return Description(1) if any(folder.glob("chunk-*")) else None
    values = read_json(path)
    version = values.get("store_version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise ResultError(f"{path} doesn't say of which store version the vectors are; delete {folder}")
    name, revision = str(values.get("model", "")), str(values.get("revision", ""))
    return Description(version, name, revision, values.get("dimensions"), values.get("similarity"))


def check_description(folder: Path, similarity: Similarity) -> None:
    """Refuse a folder of another store version, or of vectors that are compared in another way.

    Raises:
        ResultError: says what to do about it.
    """
    described = read_description(folder)
    if described is None:
        return
    if described.version != STORE_VERSION:
        kind = "older" if described.version < STORE_VERSION else "newer"
        prune = f"mmeb-eval cache prune --model {folder.name} --vectors {folder.parent}"
        way_out = prune if kind == "older" else "upgrade mmeb-harness"
        raise ResultError(
            f"{folder} holds vectors of store version {described.version}, this release reads and writes "
            f"{STORE_VERSION}: {way_out}, choose another --vectors, or use the {kind} release that wrote them"
        )
    if described.similarity != similarity:  # a fingerprint that an adapter's author forgot to change
        raise ResultError(
            f"{folder} holds vectors of similarity {described.similarity!r}, the model declares {similarity!r}; delete "
            "the folder, or give the model another revision"
        )


def write_description(folder: Path, similarity: Similarity, model: ModelInfo | None) -> None:
    """Say whose vectors these are. `None`: a store of nobody in particular.

    Raises:
        ResultError: if it can't be written.
    """

    values: dict[str, Any] = {"store_version": STORE_VERSION, "similarity": similarity}
    values |= {"model": "", "revision": "", "dimensions": None}
    if model is not None:
        values |= {"model": model.name, "revision": model.revision, "dimensions": model.dimensions}
        values |= {"settings": dict(model.settings), "profile": dataclasses.asdict(model.profile)}
    values |= {"created": datetime.now(UTC).isoformat(timespec="seconds"), "harness": __version__}
    write_json(folder / DESCRIPTION, values)


def chunk_files(folder: Path) -> list[Path]:
    """A folder's chunks, by the time of their latest row."""
    return sorted(folder.glob("chunk-*.arrow"))


def chunk_name(nanoseconds: int) -> str:
    """How the name of a chunk begins whose latest row is of that time."""
    return f"chunk-{nanoseconds:020d}"


def write_chunk(folder: Path, table: pa.Table) -> Path:
    """Write rows as one chunk, whole or not at all; the table's columns must be in one piece each.

    Raises:
        ResultError: if it can't be written.
    """
    path = folder / f"{chunk_name(int(written_ns(table).max()))}-{uuid.uuid4().hex}.arrow"
    write_arrow(path, table.replace_schema_metadata({_CHECKSUM: str(_checksum(table)).encode()}))
    return path


def map_chunk(path: Path) -> pa.Table:
    """A chunk, mapped into memory.

    Raises:
        ResultError: if it was deleted or is broken, and what to do about it.
    """
    try:
        table = map_arrow(path)
    except ResultError as error:
        if not path.exists():
            raise ResultError(
                f"{path} was deleted while it was in use; run again: what it held is encoded again"
            ) from error
        raise broken_chunk(path, one_line(error.__cause__ or error)) from error
    if table.schema.names != list(COLUMNS) or len(table) == 0:
        raise broken_chunk(path, "a table of something else")
    return table


def broken_chunk(path: Path, why: str) -> ResultError:
    """What to say of a chunk that can't be used, and what mends it."""
    return ResultError(
        f"{path} is broken ({why}); `mmeb-eval cache prune --broken --vectors {path.parents[1]}` deletes it, and what "
        "it held is encoded again"
    )


def written_ns(table: pa.Table) -> NDArray[np.int64]:
    """When each row was written: nanoseconds since the epoch (n,)."""
    written: NDArray[np.int64] = table.column("written_ns").to_numpy()
    return written


def flat_vectors(table: pa.Table) -> NDArray[np.floating[Any]]:
    """All vectors of a chunk, one after another (t, d); a view."""
    column = table.column("vector").chunk(0)  # combine_chunks would copy even a single one
    lists = column.values if is_several(table) else column
    flat: NDArray[np.floating[Any]] = lists.values.to_numpy(zero_copy_only=True)
    return flat.reshape(-1, lists.type.list_size)


def vector_offsets(table: pa.Table) -> NDArray[np.int64]:
    """Where each item's vectors begin in a chunk of several an item, and where the last one's end (n + 1,)."""
    offsets: NDArray[np.int64] = table.column("vector").chunk(0).offsets.to_numpy()
    return offsets


def is_several(table: pa.Table) -> bool:
    """Whether an item has several vectors."""
    import pyarrow as pa

    return bool(pa.types.is_large_list(table.schema.field("vector").type))


def has_its_checksum(table: pa.Table) -> bool:
    """Whether keys and vectors are what was written."""
    return (table.schema.metadata or {}).get(_CHECKSUM) == str(_checksum(table)).encode()


def _checksum(table: pa.Table) -> int:
    keys = zlib.crc32("\n".join(table.column("key").to_pylist()).encode())
    vectors = zlib.crc32(flat_vectors(table).data, keys)
    return zlib.crc32(vector_offsets(table).tobytes(), vectors) if is_several(table) else vectors


def share(folder: Path) -> BinaryIO | None:
    """Hold a folder against pruning, beside others; waits while somebody prunes it.

    Returns:
        What to close; `None` where no lock can be had: in a folder that may only be read, or a file system without
        locks.
    """
    try:
        held = lock_file(folder / LOCK, shared=True)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # somebody else's
        os.utime(held.fileno())
    return held


def hold_alone(folder: Path) -> BinaryIO | None:
    """Hold a folder against everybody else, until what is returned is closed; `None`: a run is using it.

    Raises:
        ResultError: no lock can be had there.
    """
    is_new = not (folder / LOCK).exists()
    try:
        held = lock_file(folder / LOCK, dont_wait)
    except BlockingIOError:
        return None
    except OSError as error:
        raise ResultError(
            f"can't lock {folder} ({error.strerror or error}), so nothing is pruned; delete it by hand while no run "
            "uses it"
        ) from error
    if is_new:
        os.utime(held.fileno(), (0, 0))  # this is no use of it: see `last_used`
    return held


def last_used(folder: Path) -> float | None:
    """When a run last opened a folder or wrote to it: seconds since the epoch."""
    times = [path.stat().st_mtime for path in (folder / LOCK, *folder.glob("chunk-*")) if path.exists()]
    return max(times, default=None)
