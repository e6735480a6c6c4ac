"""The mini suite: synthetic data in the official file tree and schema, for all 78 tasks, made in seconds.

Its scores are called "mini, synthetic" and never stand beside MMEB-V2 scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmeb_harness import Modality, Suite, UnknownNameError

if TYPE_CHECKING:
    from mmeb_tasks.mini.write import SuiteWriter

NAME = "mini"
VERSION = "1"
TEST_QUERIES = 24

Split = Literal["train", "test"]
_SPLITS: tuple[Split, ...] = ("train", "test")
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
    from mmeb_tasks.mini.write import SuiteWriter, write_whole

    known = {task.name: task.modality for task in TASKS}
    for name in tasks or ():
        if name not in known:
            raise UnknownNameError("task", name, known)
    chosen = [name for name in known if tasks is None or name in tasks]

    def write(temporary: Path) -> None:
        writer = SuiteWriter(temporary)
        for name in chosen:
            _write_task(name, known[name], seed, split, writer, queries_per_task)
        writer.finish(NAME, f"{NAME}-{VERSION}-{split}-{seed}-{queries_per_task}", seed)

    write_whole(folder, write)


def _write_task(
    name: str, modality: Modality, seed: int, split: Split, writer: SuiteWriter, queries_per_task: int
) -> None:
    import zlib

    import numpy as np

    from mmeb_tasks.mini.image_tasks import write_image_task
    from mmeb_tasks.mini.video_tasks import write_video_task
    from mmeb_tasks.mini.visdoc_tasks import write_visdoc_task
    from mmeb_tasks.mini.workers import work

    entropy = (seed, _SPLITS.index(split), zlib.crc32(name.encode()))
    writers = {"image": write_image_task, "video": write_video_task, "visdoc": write_visdoc_task}
    writers[modality](name, np.random.default_rng(np.random.SeedSequence(entropy)), writer, queries_per_task)
    if split == "train":
        of_workers = np.random.default_rng(np.random.SeedSequence((*entropy, _WORKERS)))
        writer.rationales(name, work(name, writer.labels_of(name), of_workers))


SUITE = Suite(NAME, VERSION, make_suite)
