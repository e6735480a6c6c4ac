"""Files that are either whole or not there: everything the harness writes goes through here."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.errors import ResultError

if TYPE_CHECKING:
    import pyarrow as pa

#: Larger annotation files are identified by size, head and tail (a parquet footer indexes every column
#: chunk), so that a run over 100 GB does not start by reading 100 GB.
WHOLE_HASH_LIMIT = 64 << 20
_ENDS = 1 << 20


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it over `path`.

    Raises:
        ResultError: if the folder can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise ResultError(f"can't write {path}: {error.strerror or error}; choose another folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error  # pyarrow words it in a way of its own
        raise ResultError(f"can't write {path}: {why}") from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Find out before hours of work whether `folder` can be written.

    Raises:
        ResultError: it can't.
    """
    write_json(folder / ".writable", {})
    (folder / ".writable").unlink(missing_ok=True)  # another process may have looked at the same time


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ResultError: if it can't be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"can't read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ResultError(f"{path} is not valid JSON ({error}); delete it and run again") from error


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as zstd-compressed parquet."""
    import pyarrow.parquet as pq

    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as one uncompressed Arrow record batch, which `map_arrow` reads without loading it."""
    import pyarrow as pa

    def write(temporary: Path) -> None:
        with pa.ipc.new_file(temporary, table.schema) as writer:
            writer.write_table(table)

    write_atomically(path, write)


def map_arrow(path: Path) -> pa.Table:
    """Map a table that `write_arrow` wrote into memory: what is looked at is read, and no descriptor stays open.

    Raises:
        ResultError: if it can't be read.
    """
    import pyarrow as pa

    with _readable(path), pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a table that the harness wrote.

    Raises:
        ResultError: if it can't be read.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        return pq.read_table(path, columns=columns)


def parquet_columns(path: Path) -> list[str]:
    """Names of a table's columns, without reading them.

    Raises:
        ResultError: if it can't be read.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        names: list[str] = pq.read_schema(path).names
        return names


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise ResultError(f"{path} is missing; run again") from error
    except (OSError, pa.ArrowException) as error:
        raise ResultError(f"can't read {path}: {error}; delete it and run again") from error


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able parts: equal parts, equal fingerprint, on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def hash_files(root: Path, patterns: Iterable[str]) -> str:
    """Hash of what matches the glob patterns below `root`: relative names, and sizes and bytes of files."""
    digest = hashlib.sha256()
    paths = {path for pattern in patterns for path in root.glob(pattern)}
    for path in sorted(paths):
        if path.is_dir():
            digest.update(f"{path.relative_to(root).as_posix()}/\0".encode())
            continue
        digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(_hash_content(path))
    return digest.hexdigest()[:24]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _hash_content(path: Path) -> bytes:
    with path.open("rb") as file:
        if path.stat().st_size <= WHOLE_HASH_LIMIT:
            return hashlib.file_digest(file, "sha256").digest()
        head = file.read(_ENDS)
        file.seek(-_ENDS, os.SEEK_END)
        return hashlib.sha256(head + file.read(_ENDS)).digest()
