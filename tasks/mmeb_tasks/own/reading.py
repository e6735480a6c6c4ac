"""How every form reads a folder: everything that is wrong is noted, and a run is told the first of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from mmeb_harness import Frames, Samples
from mmeb_tasks.own.rows import Problems

#: Told of each picture once, before it is opened; `None`: none is.
Look: TypeAlias = Callable[[Path], None] | None
#: The folder's samples; `None` if anything is wrong with it, which is noted.
Read: TypeAlias = Callable[[Path, Frames, Problems, Look], Samples | None]


def load(read: Read, folder: Path, data: Path, frames: Frames) -> Samples:
    """A task's `load`.

    Raises:
        DataError: anything that is wrong with the folder.
    """
    problems = Problems(folder)
    samples = read(folder, frames, problems, None)
    problems.refuse()
    assert samples is not None
    return samples


def find_problems(read: Read, folder: Path, look: Look) -> list[str]:
    """Everything that is wrong with the folder's files, a line each, pictures among it."""
    problems = Problems(folder)
    read(folder, Frames(), problems, look)
    return problems.lines
