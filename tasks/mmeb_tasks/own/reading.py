"""How every form reads a folder: everything that is wrong is noted, and a run is told the first of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from mmeb_harness import Frames, Samples
from mmeb_tasks.own.rows import Problems

#: Told of each picture once, before it is opened; `None`: none is.
Look: TypeAlias = Callable[[Path], None] | None
#: The samples of the folder's tasks, in their order; none if anything is wrong with it, which is noted.
Read: TypeAlias = Callable[[Path, Frames, Problems, Look], tuple[Samples, ...]]


def load(read: Read, place: int, folder: Path, data: Path, frames: Frames) -> Samples:
    """A task's `load`.

    Args:
        place: of the task among the folder's.

    Raises:
        DataError: anything that is wrong with the folder.
    """
    problems = Problems(folder)
    samples = read(folder, frames, problems, None)
    problems.refuse()
    return samples[place]


def check(read: Read, folder: Path, look: Look) -> tuple[list[str], tuple[Samples, ...]]:
    """Everything that is wrong with the folder's files, a line each, pictures among it; the samples, if nothing is."""
    problems = Problems(folder)
    samples = read(folder, Frames(), problems, look)
    return problems.lines, () if problems.lines else samples
