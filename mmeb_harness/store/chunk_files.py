"""The chunks of one model's stored vectors, and the lock of their folder.

A chunk is one uncompressed Arrow table, mapped into memory to be read. Its name begins with the time of the latest row
in it, so that names sort by time, and ends with the hash of its bytes (see `sealed`): what is read back for a score is
what was written, in every column. Chunks of earlier releases have a checksum over keys and vectors among their schema's
metadata instead. A chunk says which folder, and so which model's, it is of. Rows say themselves when they were written:
release 0.1 joined chunks of several ages.

Chunks stay as they were written. A run writes one every ten seconds or 256 items, and 10,000 of them cost whoever opens
the folder 0.5 ms each, and whoever reads all of it 0.6 ms each: not worth a second way of writing that every reader
would have to be held off from.
"""

from __future__ import annotations

import contextlib
import functools
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import SHARED, STATE
from mmeb_harness.core.errors import ResultError, way_out_of
from mmeb_harness.core.files import dont_wait, lock_file, make_folder, regular_file
from mmeb_harness.core.sealed import (
    BrokenFileError,
    changed_at,
    has_seal,
    is_as_written,
    left_over,
    listed,
    reading,
    write_sealed,
)

if TYPE_CHECKING:
    import pyarrow as pa

LOCK = ".lock"
#: Of a checksum among the schema metadata of an earlier release's chunk: over keys and vectors.
_CHECKSUM = b"mmeb_checksum"
#: Among the schema metadata: the name of the folder that a chunk was written to. Keys know nothing of the model.
_FOLDER = b"mmeb_folder"


#: A column that a chunk has only if some item has a value in it: so chunks from before it existed are of equal form.
#: Others such are STATE, which is null of candidates, and SHARED.
LEFT_OUT = "left_out"


@functools.cache
def _schema(vector: pa.DataType) -> pa.Schema | None:
    """The columns that a chunk with vectors of that type has; `None` if it isn't the type of any."""
    import pyarrow as pa

    is_list = pa.types.is_large_list(vector)  # several an item
    lists, numbers = vector.value_type if is_list else vector, [pa.float32()] + [pa.float16()] * is_list
    if not pa.types.is_fixed_size_list(lists) or lists.value_type not in numbers:
        return None
    columns = {
        "key": pa.string(),
        "vector": vector,
        "path": pa.string(),
        "gate": pa.float64(),
        "rationale": pa.string(),
        "reasoning_tokens": pa.int64(),
        "truncated": pa.bool_(),
        "latency_seconds": pa.float64(),
        "share_seconds": pa.float64(),
        "written_ns": pa.int64(),
    }
    return pa.schema(columns)


def chunk_files(folder: Path) -> list[Path]:
    """A folder's chunks, by the time of their latest row."""
    return listed(folder, "chunk-", ".arrow")


def chunk_name(nanoseconds: int) -> str:
    """How the name of a chunk begins whose latest row is of that time."""
    return f"chunk-{nanoseconds:020d}"


def write_chunk(folder: Path, table: pa.Table) -> Path:
    """Write rows as one chunk, whole or not at all; the table's columns must be in one piece each.

    Raises:
        ResultError: if it can't be written.
    """
    import pyarrow as pa

    memory = pa.BufferOutputStream()
    table = table.replace_schema_metadata({_FOLDER: folder.name})
    with pa.ipc.new_file(memory, table.schema) as writer:
        writer.write_table(table)
    return write_sealed(folder, chunk_name(int(written_ns(table).max())), ".arrow", memory.getvalue())


def map_chunk(path: Path, several: bool | None = None, width: int | None = None) -> pa.Table:
    """A chunk, mapped into memory: it has the form of one, its keys are text, and no descriptor stays open.

    Args:
        several: whether an item has several vectors; `None`: either way.
        width: of the vectors; `None`: any.

    Raises:
        FileNotFoundError: it was deleted.
        BrokenFileError: it is damaged, or none for this model.
        ResultError: it can't be read.
    """
    import pyarrow as pa

    with reading(path), pa.memory_map(str(regular_file(path))) as source:
        table = pa.ipc.open_file(source).read_all()
        table.validate()
        if not _has_form(table):
            raise BrokenFileError("a table of something else")
        table.column("key").validate(full=True)
        owner = (table.schema.metadata or {}).get(_FOLDER, path.parent.name.encode())
        if owner != path.parent.name.encode():
            raise BrokenFileError(f"another model's vectors, of the folder {owner.decode(errors='replace')}")
    if several not in (None, is_several(table)):
        raise BrokenFileError(
            f"{'one vector' if several else 'several vectors'} an item, the model gives another number"
        )
    if width not in (None, width_of(table)):
        raise BrokenFileError(f"vectors of width {width_of(table)}, the model's have {width}")
    return table


def verify_chunk(path: Path) -> None:
    """See whether a chunk that `map_chunk` takes holds what was written.

    Raises:
        FileNotFoundError, BrokenFileError, ResultError: as `map_chunk`.
    """
    with reading(path):
        if has_seal(path):
            if not is_as_written(path):
                raise BrokenFileError("its bytes are not what was written (checksum)")
            return
        table = map_chunk(path)
        table.validate(full=True)
        if (table.schema.metadata or {}).get(_CHECKSUM) != str(_checksum(table)).encode():
            raise BrokenFileError("keys or vectors are not what was written (checksum)")


def _has_form(table: pa.Table) -> bool:
    import pyarrow as pa

    place = table.schema.get_field_index("vector")
    expected = _schema(table.schema.types[place]) if place >= 0 else None
    if expected is None or len(table) == 0:
        return False
    if LEFT_OUT in table.schema.names:
        expected = expected.append(pa.field(LEFT_OUT, pa.string()))
    if STATE in table.schema.names:
        kind = table.schema.field(STATE).type
        if not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float16():
            return False
        expected = expected.append(pa.field(STATE, kind))
    if SHARED in table.schema.names:
        expected = expected.append(pa.field(SHARED, pa.bool_()))
    if not table.schema.equals(expected):
        return False
    keys = table.column("key")
    return keys.num_chunks == 1 and not any(
        column.null_count for column in (keys, table.column(place), table.column("written_ns"))
    )


def has_checksum(path: Path) -> bool:
    """Whether a chunk says what its contents should be; none of store version 1 does."""
    with contextlib.suppress(BrokenFileError, FileNotFoundError):
        return has_seal(path) or _CHECKSUM in (map_chunk(path).schema.metadata or {})
    return False


def keys_of(table: pa.Table) -> list[str]:
    """Content keys of a chunk's items."""
    keys: list[str] = table.column("key").to_pylist()
    return keys


def written_ns(table: pa.Table) -> NDArray[np.int64]:
    """When each row was written: nanoseconds since the epoch (n,)."""
    written: NDArray[np.int64] = table.column("written_ns").to_numpy()
    return written


def flat_vectors(table: pa.Table) -> NDArray[np.floating[Any]]:
    """All vectors of a chunk, one after another (t, d); a view."""
    column = table.column("vector").chunk(0)  # combine_chunks would copy even a single one
    lists = column.values if is_several(table) else column
    flat: NDArray[np.floating[Any]] = lists.values.to_numpy(zero_copy_only=True)
    return flat.reshape(-1, width_of(table))


def vector_offsets(table: pa.Table) -> NDArray[np.int64]:
    """Where each item's vectors begin in a chunk of several an item, and where the last one's end (n + 1,)."""
    offsets: NDArray[np.int64] = table.column("vector").chunk(0).offsets.to_numpy()
    return offsets


def states_of(table: pa.Table) -> list[NDArray[np.float16] | None]:
    """Of each row the state that the gate reads, a copy; `None` where it has none."""
    if STATE not in table.schema.names:
        return [None] * len(table)
    column = table.column(STATE).combine_chunks()
    rows = iter(column.flatten().to_numpy().reshape(-1, column.type.list_size))  # of nulls there is nothing
    return [next(rows) if there else None for there in column.is_valid().to_pylist()]


def is_several(table: pa.Table) -> bool:
    """Whether an item has several vectors."""
    import pyarrow as pa

    return bool(pa.types.is_large_list(table.schema.field("vector").type))


def width_of(table: pa.Table) -> int:
    """How many numbers a vector has."""
    vector = table.schema.field("vector").type
    return int((vector.value_type if is_several(table) else vector).list_size)


def _checksum(table: pa.Table) -> int:
    keys = zlib.crc32("\n".join(keys_of(table)).encode())
    vectors = zlib.crc32(flat_vectors(table).data, keys)
    return zlib.crc32(vector_offsets(table).tobytes(), vectors) if is_several(table) else vectors


def share(folder: Path) -> BinaryIO | None:
    """Hold a folder against pruning, beside others; waits while somebody prunes it. Made where it isn't there.

    Returns:
        What to close; `None` where no lock can be had: in a folder that may only be read, or a file system without
        locks.
    """
    try:
        make_folder(folder)
        held = lock_file(folder / LOCK, shared=True)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # somebody else's
        os.utime(held.fileno())
    return held


def hold_alone(folder: Path) -> BinaryIO | None:
    """Hold a folder against everybody else, until what is returned is closed; `None`: a run is using it.

    Raises:
        FileNotFoundError: the folder is gone.
        ResultError: no lock can be had there.
    """
    is_new = not (folder / LOCK).exists()
    try:
        held = lock_file(folder / LOCK, dont_wait)
    except BlockingIOError:
        return None
    except FileNotFoundError:
        raise
    except OSError as error:
        way_out = way_out_of(error) or "delete the folder by hand while no run uses it"
        raise ResultError(
            f"can't lock {folder / LOCK} ({error.strerror or error}), so nothing is pruned; {way_out}"
        ) from error
    if is_new:
        os.utime(held.fileno(), (0, 0))  # this is no use of it: see `last_used`
    return held


def sweep(folder: Path) -> None:
    """Delete what killed processes left, if nobody uses the folder now: what is being written looks the same."""
    if not left_over(folder):
        return
    with contextlib.suppress(OSError, ResultError):  # not ours, or gone: it costs room only
        if held := hold_alone(folder):
            with held:
                for path in left_over(folder):
                    path.unlink(missing_ok=True)


def last_used(folder: Path) -> float | None:
    """When a run last opened a folder or wrote to it: seconds since the epoch."""
    times = [changed_at(path) for path in (folder / LOCK, *listed(folder, "chunk-"))]
    return max((time for time in times if time is not None), default=None)
