"""A run's folder: where its files lie, who may write to it, and how it is started over."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import check_writable, lock_file, read_json, write_json


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files lie."""

    root: Path

    @property
    def run_file(self) -> Path:
        """The run's own description and aggregates."""
        return self.root / "run.json"

    def task_file(self, task: str) -> Path:
        """One task's result. It is written last: where it exists, the task's other files do too."""
        return self.root / "tasks" / f"{task}.json"

    def task_names(self) -> set[str]:
        """Of which tasks there are results."""
        return {path.stem for path in (self.root / "tasks").glob("*.json")}

    def queries_file(self, task: str) -> Path:
        """One task's table of a row a query."""
        return self.root / "queries" / f"{task}.parquet"

    def candidates_file(self, task: str) -> Path:
        """One task's table of a row a candidate."""
        return self.root / "candidates" / f"{task}.parquet"

    @property
    def fresh_file(self) -> Path:
        """When the run was last started over (nanoseconds since the epoch): vectors from before don't count."""
        return self.root / ".fresh"


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


def _is_run_file(path: Path) -> bool:
    """Whether a file is a run's, of whatever release: a run that can't be read any more may still be started over."""
    values = read_json(path) if path.is_file() else None
    return isinstance(values, dict) and {"schema_version", "model", "tasks"} <= values.keys()


def clear(folder: RunFolder) -> None:
    """Empty a run's folder. Vectors, which other runs may share, stay, but no longer count for this one.

    Raises:
        ResultError: if it isn't one: what lies there is somebody else's.
    """
    names = ("tasks", "queries", "candidates")
    if not _is_run_file(folder.run_file) and any((folder.root / name).exists() for name in names):
        raise ResultError(f"{folder.root} is not a run's folder (no run.json of one), so --fresh deletes nothing there")
    write_json(folder.fresh_file, time.time_ns())  # first: what is deleted below must not come back from old vectors
    for name in names:
        if (folder.root / name).is_dir():
            shutil.rmtree(folder.root / name)
    folder.run_file.unlink(missing_ok=True)
