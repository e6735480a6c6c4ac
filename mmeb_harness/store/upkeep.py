"""What lies in a folder of stored vectors: listed, checked, and what is old or broken deleted.

<vectors>/<fingerprint>/    one model's vectors
<vectors>/.media/           hashes of media files
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
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
    chunk_files,
    flat_vectors,
    has_its_checksum,
    hold_alone,
    last_used,
    map_chunk,
    read_description,
)
from mmeb_harness.store.media import MEDIA_FOLDER, media_files

if TYPE_CHECKING:
    import pyarrow as pa

#: A temporary file that no lock holds was left by a killed process if it is older than this.
LEFT_OVER_SECONDS = 3600.0
#: Rows looked at in one go, so that checking doesn't load a chunk.
_ROWS_A_LOOK = 4096


@dataclass(frozen=True)
class ModelStore:
    """One model's vectors, as they lie on disk.

    Attributes:
        items: of all chunks that can be read; `None`: of another store version.
        written: when the latest chunk was written, seconds since the epoch.
        used: when a run last opened the folder.
        broken: names of chunks that can't be opened.
    """

    folder: Path
    description: Description
    chunks: int
    size: int
    items: int | None
    written: float | None
    used: float | None
    broken: tuple[str, ...]

    @property
    def is_current(self) -> bool:
        """Whether this release can use it."""
        return self.description.version == STORE_VERSION


def model_folders(vectors: Path) -> dict[Path, Description]:
    """The folders of vectors below `vectors`, and what each says of itself; others are left alone.

    Raises:
        ResultError: `vectors` is no folder.
    """
    if not vectors.is_dir():
        raise ResultError(f"{vectors} {'is no folder' if vectors.exists() else 'does not exist'}: no vectors are there")
    described: dict[Path, Description] = {}
    for path in sorted(vectors.iterdir()):
        with contextlib.suppress(ResultError):  # not to be read as one: somebody else's folder
            if path.is_dir() and not path.name.startswith(".") and (description := read_description(path)):
                described[path] = description
    return described


def survey(folder: Path, description: Description) -> ModelStore:
    """Count what a model's folder holds."""
    current = description.version == STORE_VERSION
    paths = chunk_files(folder) if current else sorted(folder.glob("chunk-*"))
    keys: set[str] = set()
    broken = []
    for path in paths if current else ():
        try:
            keys.update(map_chunk(path).column("key").to_pylist())
        except ResultError:
            broken.append(path.name)
    return ModelStore(
        folder=folder,
        description=description,
        chunks=len(paths),
        size=_size(_own_files(folder)),
        items=len(keys) if current else None,
        written=max((path.stat().st_mtime for path in paths), default=None),
        used=last_used(folder),
        broken=tuple(broken),
    )


def check(store: ModelStore) -> list[str]:
    """What is wrong with the chunks of a folder of this store version: a chunk's name and why, a line each."""
    paths, width = chunk_files(store.folder), store.description.dimensions
    return [f"{path.name}: {problem}" for path in paths if (problem := _problem(path, width))]


def _problem(path: Path, width: int | None) -> str | None:
    """What is wrong with a chunk of vectors of that width."""
    try:
        table = map_chunk(path)
        vectors = flat_vectors(table)
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
    return [problem for path in media_files(vectors / MEDIA_FOLDER) if (problem := _media_problem(path))]


def _media_problem(path: Path) -> str | None:
    try:
        read_parquet(path, ["identity", "sha256"])
    except ResultError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Pruned:
    """One thing that was pruned, or would be: what, and how many bytes it frees. In use: it was left alone."""

    what: str
    size: int = 0
    in_use: bool = False


def prune(
    folders: Mapping[Path, Description], *, unused_days: float | None, broken: bool, dry_run: bool
) -> Iterator[Pruned]:
    """Delete vectors from models' folders; a folder that a run is using is left alone.

    Args:
        unused_days: all vectors of models that no run opened for so many days; 0: of all.
        broken: chunks with which something is wrong, and what killed processes left.

    Raises:
        ResultError: a folder can't be written.
    """
    for folder, description in folders.items():
        held = None if dry_run else hold_alone(folder)
        with held or contextlib.nullcontext():
            needless = _needless(folder, description, unused_days, broken=broken)
            if needless and not held and not dry_run:
                yield Pruned(f"{folder}: a run is using it", in_use=True)
                continue
            for what, paths in needless.items():
                yield _delete(what, paths, dry_run=dry_run)
            if held and not any(folder.iterdir()):
                folder.rmdir()


def prune_media(vectors: Path, *, dry_run: bool) -> Iterator[Pruned]:
    """Delete broken files of remembered hashes. No lock holds them: what is lost by that is hashed again.

    Raises:
        ResultError: the folder can't be written.
    """
    folder = vectors / MEDIA_FOLDER
    old = [path for path in _left_over(folder) if time.time() - path.stat().st_mtime > LEFT_OVER_SECONDS]
    for what, paths in _litter(old, list(filter(_media_problem, media_files(folder)))).items():
        yield _delete(what, paths, dry_run=dry_run)


def _needless(
    folder: Path, description: Description, unused_days: float | None, *, broken: bool
) -> dict[str, list[Path]]:
    """What goes of a folder, for people → its files, in the order in which they go.

    The description goes last but for the lock: killed in between, it is still a store. What somebody else put into the
    folder stays, and the folder with it.
    """
    used = last_used(folder) or 0.0
    if unused_days is not None and time.time() - used >= 86400 * unused_days:
        old = "" if description.version == STORE_VERSION else f", store version {description.version}"
        files = sorted(_own_files(folder), key=lambda path: (path.name == LOCK, path.name == DESCRIPTION))
        return {f"{folder}: all of {description.name or 'an unnamed model'}{old}": files}
    if not broken or description.version != STORE_VERSION:
        return {}
    return _litter(_left_over(folder), [path for path in chunk_files(folder) if _problem(path, description.dimensions)])


def _litter(left_over: Sequence[Path], broken: Sequence[Path]) -> dict[str, list[Path]]:
    names = dict.fromkeys(left_over, "left by a killed process") | dict.fromkeys(broken, "broken")
    return {f"{path}: {name}": [path] for path, name in names.items()}


def _delete(what: str, paths: Sequence[Path], *, dry_run: bool) -> Pruned:
    size = _size(paths)
    for path in () if dry_run else paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ResultError(f"can't delete {path}: {error.strerror or error}") from error
    return Pruned(what, size)


def _own_files(folder: Path) -> list[Path]:
    chunks = [path for path in folder.glob("chunk-*") if path.suffix in (".arrow", ".parquet")]
    named = [folder / name for name in (DESCRIPTION, LOCK) if (folder / name).exists()]
    return [*chunks, *_left_over(folder), *named]


def _left_over(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(".*.tmp") if path.is_file())


def _size(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
