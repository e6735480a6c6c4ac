"""A run's folder: where its files lie, who may write to it, and how it is started over."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import check_writable, lock_file, matching, read_json
from mmeb_harness.core.reading import JsonFile

#: What a run's folder holds besides run.json, and how the names of the files in it end.
_PARTS = {"tasks": ".json", "queries": ".parquet", "candidates": ".parquet"}


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files lie."""

    root: Path

    @property
    def run_file(self) -> Path:
        """The run's own description and aggregates."""
        return self.root / "run.json"

    def task_file(self, task: str) -> Path:
        """One task's result; a / in the task's name is a folder. It is written last: where it exists, the task's other
        files do too.
        """
        return self.root / "tasks" / f"{task}.json"

    def task_names(self) -> set[str]:
        """Of which tasks there are results."""
        folder = self.root / "tasks"
        files = matching(folder, "**/*.json")
        return {path.relative_to(folder).as_posix().removesuffix(".json") for path in files if path.is_file()}

    def queries_file(self, task: str) -> Path:
        """One task's table of a row a query."""
        return self.root / "queries" / f"{task}.parquet"

    def candidates_file(self, task: str) -> Path:
        """One task's table of a row a candidate."""
        return self.root / "candidates" / f"{task}.parquet"

    @property
    def fresh_file(self) -> Path:
        """What the store held when the run was last started over: see `StartedOver`."""
        return self.root / ".fresh"


@dataclass(frozen=True)
class StartedOver:
    """Which stored vectors don't count for a run, since they are from before it was last started over.

    Attributes:
        chunks: names of those that were there: clocks differ, and are set.
        nanoseconds: what was written before this time, of folders that release 0.1 started over.
        checksum: of the rest: a chunk that isn't named would count.
    """

    chunks: tuple[str, ...] = ()
    nanoseconds: int = 0
    schema_version: int = 1
    checksum: str = field(default="", compare=False)


_START_AGAIN = "run again with --fresh"
_FRESH_FILE = JsonFile(StartedOver, "a record of a start over", 1, _START_AGAIN, _START_AGAIN)


def started_over(folder: RunFolder) -> StartedOver:
    """What is remembered of the last start over; nothing of a run that never was.

    Raises:
        ResultError: it can't be read.
    """
    if not folder.fresh_file.is_file():
        return StartedOver()
    said = read_json(folder.fresh_file, way_out=_START_AGAIN)
    return StartedOver(nanoseconds=said) if type(said) is int else _FRESH_FILE.read(folder.fresh_file)


def start_over(folder: RunFolder, chunks: Sequence[str]) -> None:
    """Remember which stored vectors don't count from now on: those of chunks with these names."""
    _FRESH_FILE.write(folder.fresh_file, StartedOver(tuple(chunks)))


@contextmanager
def locked(folder: RunFolder, name: str = ".lock") -> Iterator[None]:
    """Hold the run folder; a second run on it stops at once instead of mixing with the first.

    Args:
        name: of the lock; shards of one run have one each.
    """

    def refuse() -> NoReturn:
        raise ResultError(f"another run is writing to {folder.root}; wait for it or choose another --output")

    check_writable(folder.root)
    with lock_file(folder.root / name, refuse):
        yield


def _is_of_a_run(folder: RunFolder) -> bool:
    """Whether a folder is a run's, of whatever release and in whatever state: run.json says so, or is broken and stands
    beside files that a run names so. One that says something else is somebody else's.
    """
    if not os.path.lexists(folder.run_file):
        return False
    try:
        values = read_json(folder.run_file)
    except ResultError:
        values = None
    if isinstance(values, dict) and values:
        return {"schema_version", "model", "tasks"} <= values.keys()
    parts = [(folder.root / name, suffix) for name, suffix in _PARTS.items()]
    return all(
        path.is_dir() or path.suffix in (suffix, ".tmp") for part, suffix in parts for path in matching(part, "**/*")
    )


def clear(folder: RunFolder, chunks: Sequence[str]) -> None:
    """Empty a run's folder. Vectors, which other runs may share, stay, but no longer count for this one.

    Args:
        chunks: names of those that hold them.

    Raises:
        ResultError: if it isn't one: what lies there is somebody else's; or something can't be deleted.
    """
    if any((folder.root / name).exists() for name in _PARTS) and not _is_of_a_run(folder):
        raise ResultError(
            f"{folder.root} is not a run's folder (no run.json of one), so --fresh deletes nothing there; choose "
            "another --output"
        )
    start_over(folder, chunks)  # first: what is deleted below must not come back from old vectors
    try:
        for name in _PARTS:
            if (folder.root / name).is_symlink():
                (folder.root / name).unlink()
            elif (folder.root / name).is_dir():
                shutil.rmtree(folder.root / name)
            elif (folder.root / name).exists():
                raise FileExistsError(errno.EEXIST, "it is no folder of a run", str(folder.root / name))
        if folder.run_file.is_dir() and not folder.run_file.is_symlink():
            folder.run_file.rmdir()  # not with what lies in it, which is no run's
        folder.run_file.unlink(missing_ok=True)
    except OSError as error:
        why = f"can't delete {error.filename}: {error.strerror}"
        raise ResultError(f"{why}; move it away, or choose another --output") from error
