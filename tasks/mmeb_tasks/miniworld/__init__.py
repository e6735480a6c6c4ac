"""The world in miniature, where it is known when reasoning helps, when it hurts, and what is right.

Seven synthetic tasks of group "miniworld", in `TASKS`; no part of the benchmark, chosen by name or group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmeb_tasks.miniworld.tasks import TASKS, WORLDS, Split

__all__ = ["TASKS", "VERSION", "make_split"]

VERSION = "1"


def make_split(folder: Path, seed: int, split: Split, num_queries: int, tasks: Sequence[str] | None = None) -> None:
    """Make one split, whole or not at all. Splits, seeds and tasks draw from separate random streams.

    Args:
        num_queries: of each task.
        tasks: names; `None`: all that the split has.

    Raises:
        DataError: if the folder can't be written, or holds something else.
        UnknownNameError: for a task that the split doesn't have.
    """
    from mmeb_tasks.miniworld.write import write_split

    write_split(WORLDS, VERSION, folder, seed, split, num_queries, tasks)
