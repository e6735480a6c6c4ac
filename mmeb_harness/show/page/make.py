"""The whole way: run folders in, one HTML file out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mmeb_harness.core.errors import OptionError, ResultError
from mmeb_harness.core.files import check_writable
from mmeb_harness.show.page.collect import open_runs, summary_of
from mmeb_harness.show.page.queries import collect_task
from mmeb_harness.show.page.render import packed, write_page
from mmeb_harness.show.page.values import InlinePicture, Summary, TaskRow


def make_page(
    folders: Sequence[Path],
    output: Path,
    *,
    data: Path | None = None,
    thumbnails: int,
    allow_editions: bool = False,
    labels: Sequence[str] = (),
    pictures: Sequence[InlinePicture] = (),
    progress: Callable[[Sequence[str]], Iterable[str]] = iter,
) -> Summary:
    """Write the page of finished runs; returns what it shows first.

    Args:
        data: the data folder; `None`: the suite's own. Without one the page has no texts and pictures, and says so.
        labels: RUN=NAME each, of runs that are to be shown under another name.
        thumbnails: of how many queries a task pictures are shown.
        pictures: figures to show among the summary.
        progress: hands on the names of the tasks, one by one.

    Raises:
        HarnessError: a folder holds no finished run, files are broken, the runs must not stand in one table, or
            `output` can't be written.
    """
    if thumbnails < 0:
        raise OptionError(f"--thumbnails {thumbnails}: a number of queries, 0 for none")
    source = open_runs(folders, data=data, allow_editions=allow_editions, labels=labels)
    _check_output(output)
    rows: list[TaskRow] = []
    tasks: list[str] = []
    problems: list[str] = []
    for name in progress(source.task_names):
        row, queries = collect_task(source, name, thumbnails)
        rows.append(row)
        tasks.append(packed(queries))
        if queries.note:
            problems.append(f"{name}: {queries.note}")
        if queries.thumbnails is not None and queries.thumbnails.missing:
            missing = queries.thumbnails.missing
            problems.append(f"{name}: {len(missing)} pictures can't be opened, the first is {missing[0]}.")
    summary = summary_of(source, rows, datetime.now(UTC).strftime("%Y-%m-%d"), problems)
    write_page(output, summary, tasks, pictures)
    return summary


def _check_output(output: Path) -> None:
    """Before minutes of work.

    Raises:
        ResultError: it can't be written.
    """
    if output.is_dir():
        raise ResultError(f"--output {output} is a folder; name a file, e.g. {output / 'page.html'}")
    check_writable(output.parent)
