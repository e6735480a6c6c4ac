"""What lies in a folder of stored vectors: listed, checked, and what isn't needed any more deleted.

<vectors>/<fingerprint>/    one model's vectors
<vectors>/.media/           hashes of media files
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmeb_harness.core.embedder import UNIT_TOLERANCE
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import read_parquet
from mmeb_harness.store.chunk_files import (
    DESCRIPTION,
    LOCK,
    STORE_VERSION,
    Description,
    alone,
    chunk_files,
    flat_vectors,
    has_its_checksum,
    join_chunks,
    last_used,
    map_chunk,
    read_description,
)
from mmeb_harness.store.media import MEDIA_FOLDER, media_files, read_media_files, write_media_file

if TYPE_CHECKING:
    import pyarrow as pa

#: Bounds of a chunk that joins others.
JOINED_BYTES = 256 << 20
JOINED_ROWS = 1 << 16
#: A temporary file beside no lock is left over if it is older than this.
LEFT_OVER_SECONDS = 3600.0
#: Rows looked at in one go, so that checking doesn't load a chunk.
_ROWS_A_LOOK = 4096


@dataclass(frozen=True)
class ModelStore:
    """One model's vectors, as they lie on disk.

    Attributes:
        items: rows of all chunks that can be read, repeated keys included; `None`: of another store version.
        duplicates: rows whose key a later row has.
        written: when the latest chunk was written, seconds since the epoch.
        used: when a run last opened the folder.
        broken: names of chunks that can't be opened.
    """

    folder: Path
    description: Description
    chunks: int
    size: int
    items: int | None
    duplicates: int
    written: float | None
    used: float | None
    broken: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether this release can use it."""
        return self.description.version == STORE_VERSION


@dataclass(frozen=True)
class CheckedStore:
    """What is wrong with one model's vectors: a chunk's name and why, each in a line."""

    store: ModelStore
    problems: tuple[str, ...]


def model_folders(vectors: Path) -> list[Path]:
    """The folders of vectors below `vectors`; others are left alone.

    Raises:
        ResultError: `vectors` is no folder.
    """
    if not vectors.is_dir():
        raise ResultError(f"{vectors} {'is no folder' if vectors.exists() else 'does not exist'}: no vectors are there")
    return [path for path in sorted(vectors.iterdir()) if path.is_dir() and _is_store(path)]


def _is_store(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    try:
        return read_description(folder) is not None
    except ResultError:
        return False


def survey(folder: Path) -> ModelStore:
    """Count what a model's folder holds."""
    description = read_description(folder)
    assert description is not None
    current = description.version == STORE_VERSION
    paths = chunk_files(folder) if current else sorted(folder.glob("chunk-*"))
    keys: set[str] = set()
    items, broken = 0, []
    for path in paths if current else ():
        try:
            found = map_chunk(path).column("key").to_pylist()
        except ResultError:
            broken.append(path.name)
            continue
        keys.update(found)
        items += len(found)
    return ModelStore(
        folder=folder,
        description=description,
        chunks=len(paths),
        size=_size(_own_files(folder)),
        items=items if current else None,
        duplicates=items - len(keys),
        written=max((path.stat().st_mtime for path in paths), default=None),
        used=last_used(folder),
        broken=tuple(broken),
    )


def check(folder: Path) -> CheckedStore:
    """Read every chunk of a folder of this store version."""
    store = survey(folder)
    problems = [f"{path.name}: {problem}" for path in chunk_files(folder) if (problem := _problem(path, store))]
    return CheckedStore(store, tuple(problems))


def _problem(path: Path, store: ModelStore) -> str | None:
    try:
        table = map_chunk(path)
        width, vectors = store.description.dimensions, flat_vectors(table)
        if width is not None and vectors.shape[1] != width:
            return f"vectors of width {vectors.shape[1]}, the model's have {width}"
        if not has_its_checksum(table):
            return "keys or vectors are not what was written (checksum)"
        return _numeric_problem(table)
    except ResultError as error:
        return str(error).removeprefix(f"{path} ")


def _numeric_problem(table: pa.Table) -> str | None:
    vectors = flat_vectors(table)
    for start in range(0, len(vectors), _ROWS_A_LOOK):
        lengths = np.linalg.norm(vectors[start : start + _ROWS_A_LOOK].astype(np.float64), axis=1)
        if not np.isfinite(lengths).all():
            return "NaN or infinity among the vectors"
        if (np.abs(lengths - 1) > UNIT_TOLERANCE).any():
            return f"a vector of length {lengths[np.argmax(np.abs(lengths - 1))]:.4f}; they must be of unit length"
    return None


def check_media(vectors: Path) -> list[str]:
    """What is wrong with the remembered hashes, a line a file."""
    problems = []
    for path in media_files(vectors / MEDIA_FOLDER):
        try:
            read_parquet(path, ["identity", "sha256"])
        except ResultError as error:
            problems.append(str(error))
    return problems


@dataclass(frozen=True)
class Wanted:
    """What to prune.

    Attributes:
        whole: all of a model's vectors.
        unused_days: all vectors of models that no run opened for so many days.
        broken: chunks with which something is wrong.
        duplicates: rows whose key a later row has; many small chunks become few.
        temporary: what killed processes left.
        older_versions: folders that older releases wrote.
    """

    whole: bool = False
    unused_days: float | None = None
    broken: bool = False
    duplicates: bool = False
    temporary: bool = False
    older_versions: bool = False


@dataclass(frozen=True)
class Pruned:
    """One thing that was pruned, or would be: what, and how many bytes it frees. In use: it was left alone."""

    what: str
    size: int = 0
    in_use: bool = False


def prune(folders: Sequence[Path], wanted: Wanted, *, dry_run: bool) -> Iterator[Pruned]:
    """Delete from models' folders what is wanted; a folder that a run is using is left alone.

    Raises:
        ResultError: a folder can't be written, or there is no room to join chunks.
    """
    for folder in folders:
        if dry_run:
            yield from _prune_folder(folder, wanted, dry_run=True)
            continue
        with alone(folder) as is_alone:
            if is_alone:
                yield from _prune_folder(folder, wanted, dry_run=False)
            elif next(_prune_folder(folder, wanted, dry_run=True), None):
                yield Pruned(f"{folder}: a run is using it", in_use=True)


def _prune_folder(folder: Path, wanted: Wanted, *, dry_run: bool) -> Iterator[Pruned]:
    store = survey(folder)
    is_older = store.description.version < STORE_VERSION
    days = (time.time() - (store.used or 0.0)) / 86400
    is_unused = wanted.unused_days is not None and days > wanted.unused_days
    if wanted.whole or is_unused or (wanted.older_versions and is_older):
        why = f", store version {store.description.version}" if is_older else ""
        if not dry_run:
            _delete_store(folder)
        yield Pruned(f"{folder}: all of {store.description.name or 'an unnamed model'}{why}", store.size)
        return
    if not store.is_current:
        return
    if wanted.temporary:
        yield from _delete(_left_over(folder), "left by a killed process", dry_run=dry_run)
    broken = [path for path in chunk_files(folder) if _problem(path, store)] if wanted.broken else []
    yield from _delete(broken, "broken", dry_run=dry_run)
    if wanted.duplicates:
        yield from _join(folder, frozenset(broken), dry_run=dry_run)


def _delete(paths: Sequence[Path], why: str, *, dry_run: bool) -> Iterator[Pruned]:
    for path in paths:
        size = path.stat().st_size
        if not dry_run:
            _unlink([path])
        yield Pruned(f"{path}: {why}", size)


def _join(folder: Path, broken: frozenset[Path], *, dry_run: bool) -> Iterator[Pruned]:
    """Write the chunks' rows again in few, and only then delete the old ones."""
    paths = [path for path in chunk_files(folder) if path not in broken]
    seen, rows, doubled = set[str](), 0, 0
    for path in paths:
        table = map_chunk(path)
        keys = table.column("key").to_pylist()
        rows += len(keys)
        doubled += table.nbytes * len(seen.intersection(keys)) // max(1, len(keys))
        seen.update(keys)
    duplicates = rows - len(seen)
    if not duplicates and len(paths) <= _fewest(paths, rows):
        return
    size = doubled
    if not dry_run:
        new, old = join_chunks(folder, JOINED_BYTES, JOINED_ROWS)
        size = _size(old) - _size(new)
        _unlink(old)
    yield Pruned(f"{folder}: {duplicates:,} repeated items, {len(paths):,} chunks made few", size)


def _fewest(paths: Sequence[Path], rows: int) -> int:
    """Into how many chunks these would be joined, at most: whole ones are joined, so that each may be half full."""
    return 2 * max(_size(paths) // JOINED_BYTES, rows // JOINED_ROWS) + 1


def prune_media(vectors: Path, wanted: Wanted, *, dry_run: bool) -> Iterator[Pruned]:
    """The same of the remembered hashes. No lock holds them: what is lost by that is hashed again.

    Raises:
        ResultError: the folder can't be written.
    """
    folder = vectors / MEDIA_FOLDER
    if wanted.temporary:
        old = [path for path in _left_over(folder) if time.time() - path.stat().st_mtime > LEFT_OVER_SECONDS]
        yield from _delete(old, "left by a killed process", dry_run=dry_run)
    broken = [path for path in media_files(folder) if not _is_parquet(path)] if wanted.broken else []
    yield from _delete(broken, "broken", dry_run=dry_run)
    paths = [path for path in media_files(folder) if path not in broken]
    if wanted.duplicates and len(paths) > 1 and all(_is_parquet(path) for path in paths):
        size = 0
        if not dry_run:
            new = write_media_file(folder, read_media_files(folder))
            size = _size(paths) - _size([new])
            _unlink(paths)
        yield Pruned(f"{folder}: {len(paths):,} files of hashes made one", size)


def _is_parquet(path: Path) -> bool:
    try:
        read_parquet(path, ["identity", "sha256"])
    except ResultError:
        return False
    return True


def _delete_store(folder: Path) -> None:
    """Delete what the harness wrote; what somebody else put there stays, and the folder with it.

    The description goes last but for the lock: killed in between, it is still a store.
    """
    files = _own_files(folder)
    _unlink(sorted(files, key=lambda path: (path.name == LOCK, path.name == DESCRIPTION)))
    if not any(folder.iterdir()):
        folder.rmdir()


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(f"can't delete {path}: {error.strerror or error}") from error


def _own_files(folder: Path) -> list[Path]:
    chunks = [path for path in folder.glob("chunk-*") if path.suffix in (".arrow", ".parquet")]
    named = [folder / name for name in (DESCRIPTION, LOCK) if (folder / name).exists()]
    return [*chunks, *_left_over(folder), *named]


def _left_over(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(".*.tmp") if path.is_file())


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
