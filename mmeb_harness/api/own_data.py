"""A folder of own data, checked: everything that is wrong with it, with file and line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.errors import DataError, HarnessError
from mmeb_harness.core.items import Frames, Samples
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.core.registry import data_sets_in, known_forms
from mmeb_harness.core.tasks import Task

#: Between two lines while pictures are opened.
_LINE_SECONDS = 5.0


@dataclass(frozen=True)
class CheckedData:
    """One data set of a folder.

    Attributes:
        problems: a line each.
        summary: of one without problems: its tasks, and how much they hold.
    """

    problems: Sequence[str]
    summary: str


def check_folder_of_own_data(folder: Path, say: Callable[[str], None]) -> Iterator[CheckedData]:
    """Look at all data sets in a folder, and open every picture of theirs.

    Args:
        say: told how far it is, now and then.

    Raises:
        DataError: the folder is missing, or holds no data of a known form.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"data folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    data_sets = data_sets_in(folder)
    if not data_sets:
        raise DataError(f"{folder} holds no data of a known form: {known_forms(folder)}")
    opened, told = 0, time.monotonic()

    def look(path: Path) -> None:
        nonlocal opened, told
        opened += 1
        if time.monotonic() - told > _LINE_SECONDS:
            told = time.monotonic()
            say(f"{opened:,} pictures opened")

    for path, form, tasks in data_sets:
        within = "" if path == folder else f"{path.relative_to(folder)}/"
        try:
            with plugin_code(f"{path} can't be checked"):
                problems = [f"{within}{problem}" for problem in form.problems(path, look)]
        except HarnessError as error:
            problems = [str(error)]
        yield CheckedData(problems, "" if problems else "; ".join(_summary(task, path) for task in tasks))


def _summary(task: Task, folder: Path) -> str:
    samples: Samples = task.load(folder, Frames())
    relevant = sum(map(len, samples.gains.values()))
    return (
        f"{task.name}: {task.modality}, {len(samples.queries):,} queries, {len(samples.candidates):,} candidates, "
        f"{relevant:,} relevant pairs, {task.metric}"
    )
