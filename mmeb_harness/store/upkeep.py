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
from mmeb_harness.core.errors import ResultError, way_out_of
from mmeb_harness.core.files import is_data
from mmeb_harness.core.sealed import (
    SET_ASIDE,
    BrokenFileError,
    changed_at,
    files_set_aside,
    left_over,
    listed,
    size_of,
)
from mmeb_harness.store.chunk_files import (
    LOCK,
    chunk_files,
    flat_vectors,
    hold_alone,
    keys_of,
    last_used,
    map_chunk,
    verify_chunk,
    width_of,
)
from mmeb_harness.store.description import (
    DESCRIPTION,
    STORE_VERSION,
    Description,
    description_problem,
    read_description,
)
from mmeb_harness.store.media import MEDIA_FOLDER, media_files, read_media_file

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows looked at in one go, so that checking doesn't load a chunk.
_ROWS_A_LOOK = 4096


@dataclass(frozen=True)
class ModelStore:
    """One model's vectors, as they lie on disk.

    Attributes:
        items: of all chunks that can be read; `None`: of another store version.
        written: when the latest chunk was written, seconds since the epoch.
        used: when a run last opened the folder.
        broken: names of files that can't be opened.
        set_aside: how many files were found broken by runs.
    """

    folder: Path
    description: Description
    chunks: int
    size: int
    items: int | None
    written: float | None
    used: float | None
    broken: tuple[str, ...]
    set_aside: int

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
    for path in listed(vectors, ""):
        with contextlib.suppress(ResultError):  # not to be read: somebody else's folder
            if path.is_dir() and is_data(path.name) and (description := read_description(path)):
                described[path] = description
    return described


def survey(folder: Path, description: Description) -> ModelStore:
    """Count what a model's folder holds."""
    current = description.version == STORE_VERSION
    paths = chunk_files(folder) if current else listed(folder, "chunk-")
    keys: set[str] = set()
    broken = [DESCRIPTION] if current and description_problem(folder) else []
    for path in paths if current else ():
        with contextlib.suppress(FileNotFoundError):  # pruned since it was listed
            try:
                keys.update(keys_of(map_chunk(path)))
            except BrokenFileError:
                broken.append(path.name)
    return ModelStore(
        folder=folder,
        description=description,
        chunks=len(paths),
        size=sum(map(size_of, _own_files(folder))),
        items=len(keys) if current else None,
        written=max((time for path in paths if (time := changed_at(path)) is not None), default=None),
        used=last_used(folder),
        broken=tuple(broken),
        set_aside=len(files_set_aside(folder)),
    )


def check(store: ModelStore) -> list[str]:
    """What is wrong with the files of a folder of this store version: a file's name and why, a line each."""
    return [f"{path.name}: {problem}" for path, problem in _broken(store.folder, store.description)]


def _broken(folder: Path, description: Description) -> Iterator[tuple[Path, str]]:
    if problem := description_problem(folder):
        yield folder / DESCRIPTION, f"{problem}; the next run writes it anew"
    paths = chunk_files(folder)
    widths = {width for path in paths if (width := _width(path))}
    # Where no chunk is of the width that the description says, the description is wrong.
    width = description.dimensions if description.dimensions in widths else None
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # pruned since it was listed
            if problem := _problem(path, width):
                yield path, problem


def _problem(path: Path, width: int | None) -> str | None:
    try:
        table = map_chunk(path, width=width)
        verify_chunk(path)
    except BrokenFileError as error:
        return str(error)
    return _numeric_problem(table)


def _width(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, BrokenFileError):
        return width_of(map_chunk(path))
    return None


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
        read_media_file(path)
    except BrokenFileError as error:
        return f"{path} is broken ({error})"
    except FileNotFoundError:  # pruned since it was listed
        return None
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
        broken: chunks with which something is wrong, what runs have set aside, and what killed processes left.

    Raises:
        ResultError: a folder can't be written.
    """
    for folder, description in folders.items():
        with contextlib.suppress(FileNotFoundError):  # somebody else prunes as well
            held = None if dry_run else hold_alone(folder)
            with held or contextlib.nullcontext():
                needless = _needless(folder, description, unused_days, broken=broken)
                if needless and not held and not dry_run:
                    yield Pruned(f"{folder}: a run is using it", in_use=True)
                    continue
                for what, paths in needless.items():
                    yield _delete(what, paths, dry_run=dry_run)
                for emptied in (folder / SET_ASIDE, folder) if held else ():
                    with contextlib.suppress(OSError):  # it isn't there, isn't empty, or a run has come meanwhile
                        emptied.rmdir()


def prune_media(vectors: Path, *, dry_run: bool) -> Iterator[Pruned]:
    """Delete broken files of remembered hashes, what runs have set aside, and what killed processes left.

    What a running process is writing looks like that; losing it would only cost hashing it again.

    Raises:
        ResultError: the folder can't be written.
    """
    folder = vectors / MEDIA_FOLDER
    held = None if dry_run or not left_over(folder) else hold_alone(folder)
    with held or contextlib.nullcontext():
        left = left_over(folder) if held or dry_run else []
        for what, paths in _litter(folder, left, list(filter(_media_problem, media_files(folder)))).items():
            yield _delete(what, paths, dry_run=dry_run)


def _needless(
    folder: Path, description: Description, unused_days: float | None, *, broken: bool
) -> dict[str, list[Path]]:
    """What goes of a folder, for people → its files, in the order in which they go.

    The description goes last but for the lock: killed in between, it is still a store. What somebody else put into the
    folder stays, and the folder with it.
    """
    unused_seconds = max(0.0, time.time() - (last_used(folder) or 0.0))  # a use in the future is one now
    if unused_days is not None and unused_seconds >= 86400 * unused_days:
        old = "" if description.version == STORE_VERSION else f", store version {description.version}"
        files = sorted(_own_files(folder), key=lambda path: (path.name == LOCK, path.name == DESCRIPTION))
        return {f"{folder}: all of {description.name or 'an unnamed model'}{old}": files}
    if not broken or description.version != STORE_VERSION:
        return {}
    return _litter(folder, left_over(folder), [path for path, _ in _broken(folder, description) if path.exists()])


def _litter(folder: Path, left: Sequence[Path], broken: Sequence[Path]) -> dict[str, list[Path]]:
    names = dict.fromkeys(left, "left by a killed process") | dict.fromkeys(broken, "broken")
    names |= dict.fromkeys(files_set_aside(folder), "broken, set aside")
    return {f"{path}: {name}": [path] for path, name in names.items()}


def _delete(what: str, paths: Sequence[Path], *, dry_run: bool) -> Pruned:
    size = sum(map(size_of, paths))
    for path in () if dry_run else paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            why = f"{path}: {error.strerror or error}"
            raise ResultError(f"can't delete {why}; {way_out_of(error) or 'delete it by hand'}") from error
    return Pruned(what, size)


def _own_files(folder: Path) -> list[Path]:
    named = [folder / name for name in (DESCRIPTION, LOCK) if (folder / name).exists()]
    return [*listed(folder, "chunk-", ".arrow", ".parquet"), *left_over(folder), *files_set_aside(folder), *named]
