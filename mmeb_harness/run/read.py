"""A run's tasks, read: each once, all before the first item is encoded."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from mmeb_harness.core.errors import DataError, leading
from mmeb_harness.core.items import Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.core.waiting import Advance
from mmeb_harness.data.folder import load_samples
from mmeb_harness.encode.windows import ReadTask
from mmeb_harness.run.plan import Plan
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import KeyedSamples


@dataclass(frozen=True)
class Reading:
    """A task's samples. Those of a finished task are only there for the plan of the others' batches."""

    task: Task
    samples: Samples
    is_finished: bool = False


def read_tasks(
    plan: Plan, finished: Container[str], advance: Advance = lambda units=1, note="": None
) -> deque[Reading]:
    """Every task up to the last unfinished one: what is missing shows now, not after hours of encoding.

    All are held at once, to be read only once: texts and paths, no pixels. Measured: the mini suite takes 12 MB; of
    real data an image task of 1,000 queries with 1,000 candidates each takes 12 MB, a thousand videos of 64 frames
    14 MB, a thousand pages less than 1 MB. The 78 of MMEB-V2 stay below a gigabyte. Of texts, a corpus of 414,000
    documents (260 MB) takes 0.7 GB while it is read: by their 1.9 million documents, all 190 of MMEB-V3 about 3 GB. A
    task's part goes when it is scored.

    Raises:
        DataError: the first task's problem, and the names of the others that have one.
    """
    names = list(plan.tasks)
    while names and names[-1] in finished:
        names.pop()
    readings: deque[Reading] = deque()
    problems: list[tuple[str, DataError]] = []
    for name in names:
        task = plan.tasks[name].task
        try:
            samples = load_samples(task, plan.data, plan.profile, plan.settings.limit)
            readings.append(Reading(task, samples, name in finished))
        except DataError as error:
            problems.append((name, error))
        advance()
    if problems:
        others = leading([name for name, _ in problems[1:]])
        more = f" ({len(problems) - 1} more tasks can't be read: {others})" if len(problems) > 1 else ""
        raise DataError(f"{problems[0][1]}{more}") from problems[0][1]
    return readings


def with_keys(
    readings: deque[Reading],
    hashes: MediaHashes,
    is_unchanged: Callable[[str, str], bool] = lambda task, content: False,
) -> Iterator[ReadTask]:
    """Take the readings one after another, name what each item's vector depends on, and count unusual pictures.

    Args:
        is_unchanged: whether a task has a result, if that is its content.

    Raises:
        DataError: a media file is missing.
    """
    while readings:
        reading = readings.popleft()
        samples = reading.samples
        keyed = KeyedSamples.of(samples, hashes)
        media = (path for item in (*samples.queries, *samples.candidates) for path in item.media)
        if notes := hashes.notes(media):
            samples = dataclasses.replace(samples, notes={**samples.notes, **notes})
        is_finished = reading.is_finished or is_unchanged(reading.task.name, keyed.content)
        yield ReadTask(reading.task, samples, keyed.queries, keyed.candidates, is_finished, keyed.content)
