"""A folder of own data, checked: everything that is wrong with it, with file and line."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmeb_harness.core.errors import DataError, HarnessError
from mmeb_harness.core.items import Samples
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.core.registry import data_sets_in, known_forms
from mmeb_harness.core.tasks import Task
from mmeb_harness.core.waiting import Advance, progress_of


@dataclass(frozen=True)
class CheckedData:
    """One data set of a folder.

    Attributes:
        problems: a line each.
        summary: of one without problems: its tasks, and how much they hold.
    """

    problems: Sequence[str]
    summary: str


def check_folder_of_own_data(folder: Path) -> Iterator[CheckedData]:
    """Look at all data sets in a folder, and open every picture of theirs; on standard error, how far it is.

    Raises:
        DataError: the folder is missing, or holds no data of a known form.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"data folder {folder} {'is a file' if folder.exists() else 'does not exist'}")
    data_sets = data_sets_in(folder)
    if not data_sets:
        raise DataError(f"{folder} holds no data of a known form: {known_forms(folder)}")
    for path, form, tasks in data_sets:
        within = "" if path == folder else f"{path.relative_to(folder)}/"
        opened = itertools.count(1)
        try:
            with plugin_code(f"{path} can't be checked"), progress_of(f"checking {path.name}") as advance:
                look = partial(_tell, advance, opened)
                found, samples = form.check(path, look)
                problems = [f"{within}{problem}" for problem in found]
        except HarnessError as error:
            problems, samples = [str(error)], ()
        summaries = () if problems else (_summary(*pair) for pair in zip(tasks, samples, strict=True))
        yield CheckedData(problems, "; ".join(summaries))


def _tell(advance: Advance, opened: Iterator[int], path: Path) -> None:
    advance(note=f"{next(opened):,} pictures opened")


def _summary(task: Task, samples: Samples) -> str:
    relevant = sum(map(len, samples.gains.values()))
    return (
        f"{task.name}: {task.modality}, {len(samples.queries):,} queries, {len(samples.candidates):,} candidates, "
        f"{relevant:,} relevant pairs, {task.metric}"
    )
