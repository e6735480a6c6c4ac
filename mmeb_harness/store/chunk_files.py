"""The files of one model's stored vectors: chunks, `model.json` that says whose they are, and a lock.

A chunk is one uncompressed Arrow table, mapped into memory to be read. Its name begins with the time of the latest row
in it, so that names sort by time, and is nobody else's. Rows say themselves when they were written: what
`mmeb-eval cache prune --duplicates` joins stays as old as it is.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.environment import __version__
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import map_arrow, read_json, write_arrow, write_json
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
    found = read_description(folder)
    if found is None:
        return
    if found.version != STORE_VERSION:
        kind = "older" if found.version < STORE_VERSION else "newer"
        way_out = "mmeb-eval cache prune --older-versions" if kind == "older" else "upgrade mmeb-harness"
        raise ResultError(
            f"{folder} holds vectors of store version {found.version}, this release reads and writes {STORE_VERSION}: "
            f"{way_out}{f' --vectors {folder.parent}' if kind == 'older' else ''}, choose another --vectors, or use "
            f"the {kind} release that wrote them"
        )
    if found.similarity != similarity:  # a fingerprint that an adapter's author forgot to change
        raise ResultError(
            f"{folder} holds vectors of similarity {found.similarity!r}, the model declares {similarity!r}; delete "
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
        raise broken_chunk(path, " ".join(str(error.__cause__ or error).split())) from error
    if table.schema.names != list(COLUMNS) or len(table) == 0:
        raise broken_chunk(path, "a table of something else")
    return table


def broken_chunk(path: Path, why: str) -> ResultError:
    """Says what mends it."""
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
    """Of a chunk with several vectors an item, where each item's begin, and where the last one's end (n + 1,)."""
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


def share(folder: Path) -> int | None:
    """Hold a folder against pruning, beside others; waits while somebody prunes it.

    Returns:
        A descriptor to close; `None` where no lock can be had: in a folder that may only be read, or a file system
        without locks.
    """
    while (lock := _open_lock(folder)) is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError:
            os.close(lock)
            return None
        if _is_in(folder, lock):
            _touch(lock)
            return lock
        os.close(lock)  # of a folder that was pruned away meanwhile
    return None


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold a folder against everybody else; gives whether that was possible at once.

    Raises:
        ResultError: the folder can't be written.
    """
    is_new = not (folder / LOCK).exists()
    lock = _open_lock(folder)
    if lock is None:
        raise ResultError(f"can't lock {folder}: it can't be written")
    try:
        if is_new:
            os.utime(lock, (0, 0))  # this is no use of it: see `last_used`
        yield _is_free(lock) and _is_in(folder, lock)
    finally:
        os.close(lock)


def last_used(folder: Path) -> float | None:
    """When a run last opened a folder or wrote to it: seconds since the epoch."""
    times = [path.stat().st_mtime for path in (folder / LOCK, *folder.glob("chunk-*")) if path.exists()]
    return max(times, default=None)


def _open_lock(folder: Path) -> int | None:
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            return os.open(folder / LOCK, flags | os.O_CLOEXEC, 0o666)
        except OSError:
            continue
    return None


def _is_free(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResultError(
            f"nothing can be pruned on a file system without locks ({error.strerror or error}); delete folders by hand "
            "while no run uses them"
        ) from error
    return True


def _is_in(folder: Path, lock: int) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False


def _touch(lock: int) -> None:
    try:
        os.utime(lock)
    except OSError:
        return  # somebody else's


def sync_folder(folder: Path) -> None:
    """Make sure that what was renamed into a folder is there after a power cut, before anything else is deleted."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def join_chunks(folder: Path, most_bytes: int, most_rows: int) -> tuple[list[Path], list[Path]]:
    """Write a folder's rows again, the latest of every key, in few chunks; nothing is deleted.

    The folder must be held by `alone`.

    Returns:
        The new chunks, and those that they replace.

    Raises:
        ResultError: a chunk is broken, or there is no room; then the new ones are gone again.
    """
    old = chunk_files(folder)
    new: list[Path] = []
    try:
        for tables in _portions(_latest_rows(old), most_bytes, most_rows):
            new.append(write_chunk(folder, _concatenated(tables)))
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise
    sync_folder(folder)
    return new, old


def _latest_rows(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Chunks, each without the rows whose key a later one has."""
    latest: dict[str, int] = {}
    for number, path in enumerate(paths):
        table = map_chunk(path)
        if not has_its_checksum(table):  # the new chunk's would hide it
            raise broken_chunk(path, "keys or vectors are not what was written")
        latest |= dict.fromkeys(table.column("key").to_pylist(), number)
    for number, path in enumerate(paths):
        table = map_chunk(path)
        rows = {key: row for row, key in enumerate(table.column("key").to_pylist()) if latest[key] == number}
        if rows:
            yield table.take(list(rows.values()))


def _portions(tables: Iterator[pa.Table], most_bytes: int, most_rows: int) -> Iterator[list[pa.Table]]:
    portion: list[pa.Table] = []
    for table in tables:
        together = [*portion, table]
        if portion and (sum(one.nbytes for one in together) > most_bytes or sum(map(len, together)) > most_rows):
            yield portion
            portion = []
        portion.append(table)
    if portion:
        yield portion


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).combine_chunks()
