"""What the queries and candidates of a run say and show: read from the data folder, if it is the run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.errors import HarnessError, UnknownNameError
from mmeb_harness.core.items import Item
from mmeb_harness.core.registry import RegisteredTask, load_suite, own_tasks
from mmeb_harness.data.folder import (
    MANIFEST,
    DataInfo,
    data_revision,
    describe,
    is_benchmark_tree,
    load_samples,
    suite_folder,
)
from mmeb_harness.results.files import RunResult, TaskResult


@dataclass(frozen=True)
class Texts:
    """A task's items by id, and the data folder they are of."""

    root: Path
    queries: dict[str, Item]
    candidates: dict[str, Item]


def find_data(runs: Sequence[RunResult], data: Path | None) -> DataInfo | str:
    """The data folder of the runs, or why there is none.

    A run doesn't say where its data lay (a page is sent around, and paths are nobody's business). A suite is looked for
    where `mmeb-eval run` makes it; any other folder has to be named.
    """
    if data is None:
        data = next((folder for run in runs if (folder := _suite_of(run)) is not None), None)
    if data is None:
        return "texts and pictures are not shown: --data FOLDER names the data folder."
    folder = data.expanduser().resolve()
    try:
        return describe(folder)
    except HarnessError as error:
        return f"texts and pictures are not shown: {without_path(error, folder)}."


def tasks_there(info: DataInfo | str) -> Mapping[str, RegisteredTask]:
    """The tasks of a folder of own data, by name; none where the data is the benchmark's, or isn't there.

    Raises:
        HarnessError: the folder's settings can't be read.
    """
    return {} if isinstance(info, str) or is_benchmark_tree(info.root) else own_tasks(info.root)


def _suite_of(run: RunResult) -> Path | None:
    if not run.data_synthetic:
        return None
    try:
        folder = suite_folder(load_suite(run.data), run.seed)
    except UnknownNameError:
        return None
    return folder if (folder / MANIFEST).is_file() else None


def read_texts(
    registered: RegisteredTask | None, run: RunResult, result: TaskResult, info: DataInfo
) -> tuple[Texts | None, str]:
    """A task's items, and what is to be said about them: why there are none, or "".

    Texts of other annotations than the run's would stand beside the wrong queries, so they are not shown.
    """
    if registered is None:
        return None, f"Texts are not shown: no installed package has the task {result.name}."
    try:
        if content_of(data_revision(registered.task, info)) != content_of(result.data_revision):
            return None, f"Texts are not shown: the data folder has other annotations of {result.name} than the run."
        samples = load_samples(registered.task, info, run.profile, run.limit)
    except HarnessError as error:
        return None, f"Texts are not shown: {without_path(error, info.root)}"
    queries = {item.id: item for item in samples.queries}
    return Texts(info.root, queries, {item.id: item for item in samples.candidates}), ""


def without_path(error: HarnessError, root: Path) -> str:
    """An error's text for a page that leaves this machine: the data folder goes by its name."""
    return str(error).replace(str(root), root.name)


def content_of(revision: str) -> str:
    """The part of a task's data revision that hashes its annotations: where they came from doesn't matter here."""
    return revision.rpartition(":")[2]
