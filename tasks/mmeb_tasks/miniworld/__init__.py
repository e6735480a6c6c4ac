"""The world in miniature, where it is known when reasoning helps, when it hurts, and what is right.

Seven synthetic tasks of group "miniworld", in `TASKS`; no part of the benchmark, chosen by name or group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mmeb_tasks.miniworld.tasks import TASKS, WORLDS, Split

__all__ = ["TASKS", "VERSION", "WORKERS", "Workers", "make_split"]

VERSION = "1"
Workers = Literal["careful", "fallible"]
#: By what each kind of workers changes the worlds. Of the fallible ones neither a character nor the length tells who is
#: right, and of hopeless sides only the direct path is left.
WORKERS: dict[Workers, dict[str, float]] = {
    "careful": {},
    "fallible": {"err_share": 0.25, "hopeless_share": 0.15},
}


def make_split(
    folder: Path,
    seed: int,
    split: Split,
    num_queries: int,
    tasks: Sequence[str] | None = None,
    workers: Workers = "careful",
    hops: Sequence[int] = (),
) -> None:
    """Make one split, whole or not at all. Splits, seeds and tasks draw from separate random streams.

    Args:
        num_queries: of each task.
        tasks: names; `None`: all that the split has.
        workers: who writes rationales; nothing else depends on it.
        hops: of chains, 0 to 7, equally likely; none: each task's own.

    Raises:
        DataError: if the folder can't be written, or holds something else.
        UnknownNameError: for a task that the split doesn't have.
    """
    from mmeb_tasks.miniworld.write import write_split

    worlds = [dataclasses.replace(world, **WORKERS[workers]) for world in WORLDS]  # type: ignore[arg-type]
    version = VERSION if workers == "careful" else f"{VERSION}-{workers}"
    if hops:
        worlds = [dataclasses.replace(world, hops=tuple(hops)) for world in worlds]
        version += f"-hops-{'-'.join(map(str, hops))}"
    write_split(worlds, version, folder, seed, split, num_queries, tasks)
