"""The mini suite: synthetic data in the official file tree and schema, for all 78 tasks, made in seconds.

Its scores are called "mini, synthetic" and never stand beside MMEB-V2 scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmeb_harness import Modality, Suite

if TYPE_CHECKING:
    from mmeb_tasks.mini.write import SuiteWriter

NAME = "mini"
VERSION = "1"
TEST_QUERIES = 24

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
#: Sets the workers' random stream apart from the one that everything else is drawn from.
_WORKERS = 1


def make_suite(folder: Path, seed: int) -> None:
    """Make the test split of all 78 tasks in `folder`, whole or not at all.

    Raises:
        DataError: if the folder can't be written, or holds something else.
    """
    make_split(folder, seed, "test", TEST_QUERIES)


def make_split(
    folder: Path, seed: int, split: Split, queries_per_task: int, tasks: Sequence[str] | None = None
) -> None:
    """Make one split. Splits, seeds and tasks draw from separate random streams.

    The training split also has what scripted workers wrote of its queries.

    Args:
        tasks: names; `None`: all 78.

    Raises:
        DataError: as `make_suite`.
        UnknownNameError: for a task that is none of the 78.
    """
    from mmeb_tasks import TASKS
    from mmeb_tasks.mini.write import choose, whole_suite

    chosen = choose("task", {task.name: task.modality for task in TASKS}, tasks)
    with whole_suite(folder) as writer:
        for name, modality in chosen.items():
            _write_task(name, modality, seed, split, writer, queries_per_task)
        writer.finish(NAME, f"{NAME}-{VERSION}-{split}-{seed}-{queries_per_task}", seed)


def _write_task(
    name: str, modality: Modality, seed: int, split: Split, writer: SuiteWriter, queries_per_task: int
) -> None:
    from mmeb_tasks.mini.image_tasks import write_image_task
    from mmeb_tasks.mini.video_tasks import write_video_task
    from mmeb_tasks.mini.visdoc_tasks import write_visdoc_task
    from mmeb_tasks.mini.workers import work
    from mmeb_tasks.mini.world import stream

    index = SPLITS.index(split)
    write = {"image": write_image_task, "video": write_video_task, "visdoc": write_visdoc_task}[modality]
    write(name, stream(seed, index, name), writer, queries_per_task)
    if split == "train":
        writer.rationales(name, work(name, writer.labels_of(name), stream(seed, index, name, _WORKERS)))


SUITE = Suite(NAME, VERSION, make_suite)
