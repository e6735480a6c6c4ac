"""The mini suites: synthetic data in the official file trees and schemas, made in seconds.

`mini` has the 78 tasks of MMEB-V2, `mini-v3` the same 78, file by file, and the 112 that MMEB-V3 adds. Their scores are
called "mini, synthetic" and never stand beside the benchmark's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmeb_harness import Suite, Task, progress_of
from mmeb_tasks.editions import REPOS, V2_EDITIONS, V3, V3_EDITIONS, V3_UNFIXED, other_editions

if TYPE_CHECKING:
    from mmeb_tasks.mini.write import SuiteWriter

NAME, NAME_V3 = "mini", "mini-v3"
VERSION = "1"
TEST_QUERIES = 24

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
#: What scripted workers write of classes: terse: what is seen; naming: that, and then the class.
Workers = Literal["terse", "naming"]
WORKERS: tuple[Workers, ...] = ("terse", "naming")
#: Groups whose answers are classes.
CLASSES = ("I-CLS", "V-CLS")
#: Sets the workers' random stream apart from the one that everything else is drawn from.
_WORKERS = 1


def make_suite(folder: Path, seed: int) -> None:
    """Make the test split of all 78 tasks in `folder`, whole or not at all.

    Raises:
        DataError: if the folder can't be written, or holds something else.
    """
    make_split(folder, seed, "test", TEST_QUERIES)


def make_suite_v3(folder: Path, seed: int, tasks: Sequence[str] | None = None) -> None:
    """Make the 190 tasks of MMEB-V3 in `folder`, in both editions, whole or not at all.

    Args:
        tasks: names; `None`: all 190.

    Raises:
        DataError: as `make_suite`.
        UnknownNameError: for a task that is none of the 190.
    """
    from mmeb_tasks import EDITIONS

    _make(folder, NAME_V3, EDITIONS[V3], seed, "test", TEST_QUERIES, tasks)


def make_split(
    folder: Path,
    seed: int,
    split: Split,
    queries_per_task: int,
    tasks: Sequence[str] | None = None,
    workers: Workers = "terse",
) -> None:
    """Make one split of the 78 tasks. Splits, seeds and tasks draw from separate random streams.

    The training split also has what scripted workers wrote of its queries.

    Args:
        tasks: names; `None`: all 78.
        workers: see `Workers`; they change nothing but what is written of a training split.

    Raises:
        DataError: as `make_suite`.
        UnknownNameError: for a task that is none of the 78.
    """
    from mmeb_tasks import TASKS

    _make(folder, NAME, TASKS, seed, split, queries_per_task, tasks, workers)


def _make(
    folder: Path,
    name: str,
    known: Sequence[Task],
    seed: int,
    split: Split,
    queries_per_task: int,
    tasks: Sequence[str] | None,
    workers: Workers = "terse",
) -> None:
    from mmeb_tasks.mini.write import choose, whole_suite

    chosen = choose("task", {task.name: task for task in known}, tasks)
    with whole_suite(folder) as writer:
        with progress_of(f"making the {name} suite, tasks", len(chosen)) as advance:
            for task in chosen.values():
                _write_task(task, seed, split, writer, queries_per_task, workers)
                advance()
        others = "" if workers == "terse" else f"-{workers}"
        writer.finish(name, f"{name}-{VERSION}-{split}-{seed}-{queries_per_task}{others}", seed)


def _write_task(
    task: Task, seed: int, split: Split, writer: SuiteWriter, queries_per_task: int, workers: Workers
) -> None:
    from mmeb_tasks.mini.audio_tasks import write_audio_task
    from mmeb_tasks.mini.image_tasks import write_image_task
    from mmeb_tasks.mini.memory_tasks import write_memory_task
    from mmeb_tasks.mini.product_tasks import write_product_task
    from mmeb_tasks.mini.screen_tasks import write_screen_task
    from mmeb_tasks.mini.text_tasks import write_text_task
    from mmeb_tasks.mini.tool_tasks import write_tool_task
    from mmeb_tasks.mini.video_tasks import write_video_task
    from mmeb_tasks.mini.visdoc_tasks import write_late_labels, write_visdoc_task
    from mmeb_tasks.mini.workers import work
    from mmeb_tasks.mini.world import stream

    by_modality = {
        "image": write_image_task,
        "video": write_video_task,
        "visdoc": write_visdoc_task,
        "audio": write_audio_task,
        "text": write_text_task,
        "tool": write_tool_task,
        "gui": write_screen_task,
        "memory": write_memory_task,
    }
    streams = functools.partial(stream, seed, SPLITS.index(split))
    write = write_product_task if task.name == "MCMR" else by_modality[task.modality]
    write(task.name, streams, writer, queries_per_task)
    if task.modality == "visdoc" and V3_UNFIXED in other_editions(task.name, task.edition) and task.edition == V3:
        write_late_labels(task.name, REPOS[task.name][V3_UNFIXED], writer)
    if split == "train":
        is_named = workers == "naming" and task.group in CLASSES
        writer.rationales(
            task.name, work(task.name, writer.labels_of(task.name), streams(task.name, _WORKERS), is_named)
        )


SUITE = Suite(NAME, VERSION, make_suite, V2_EDITIONS)
SUITE_V3 = Suite(NAME_V3, VERSION, make_suite_v3, V3_EDITIONS)
