"""`mmeb-eval data plan | get | check`: real data, from the hub to one local folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli_options import options, print_table, selection_options
from mmeb_harness.errors import DataError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mmeb_harness.fetch.plan import Plan
    from mmeb_harness.types import Task

DEFAULT_FOLDER = "data"
DEFAULT_WORKERS = 8

_folder_options = options(
    click.option(
        "--data",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_FOLDER,
        show_default=True,
        help="The data folder.",
    ),
    click.option("--workers", type=click.IntRange(1), default=DEFAULT_WORKERS, show_default=True, metavar="N"),
)

_source_options = options(
    click.option(
        "--lock",
        "lock_file",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="A lock file of another machine: fetch the same bytes.",
    ),
    click.option("--update", is_flag=True, help="Take the newest revisions instead of the locked ones."),
    click.option("--redo", is_flag=True, help="Fetch again what is done, e.g. after a failed check."),
)


@click.group()
def data() -> None:
    """Fetch MMEB-V2's data from the hub into one folder, and check it.

    Evaluations read that folder and never open a connection: `mmeb-eval run --data FOLDER`.
    """


@data.command()
@selection_options
@_folder_options
@_source_options
def plan(**chosen: Any) -> None:
    """Show what the chosen tasks need: repositories, files, sizes, what is there, disk space."""
    from mmeb_harness.fetch.get import check_folder, free_bytes

    planned = _plan(**chosen)
    check_folder(planned.root)
    _print_plan(planned, free_bytes(planned.root), chosen["workers"])
    _say_failures(planned.failures)


@data.command()
@selection_options
@_folder_options
@_source_options
def get(**chosen: Any) -> None:
    """Fetch annotations, pages and media of the chosen tasks (default: all 78) into one folder.

    Goes on where it stopped, fetches nothing twice, and writes a lock file that gives another machine the same bytes.
    """
    from mmeb_harness.fetch import get as getting

    planned = _plan(**chosen)
    sizes = {file.digest: file.size for step in planned.open_steps for file in step.files}
    with _progress(sum(sizes.values())) as reporter:
        outcome = getting.get(planned, chosen["workers"], reporter)
    done = len(planned.steps) - len(planned.open_steps)
    click.echo(
        f"{outcome.steps} steps done, {done} were done before: {outcome.files:,} files, "
        f"{getting.gigabytes(outcome.size)} in {planned.root}"
    )
    if outcome.kept:
        click.echo(
            f"kept in {planned.root / '.work'} for tasks that were not chosen: {', '.join(sorted(outcome.kept))}"
        )
    if outcome.copies:
        click.echo(f"{outcome.copies:,} pages are stored twice: this file system knows no hard links")
    _say_failures(outcome.failures)
    click.echo(f"next: mmeb-eval data check --data {planned.root}, then mmeb-eval run --data {planned.root}")


@data.command()
@selection_options
@_folder_options
@click.option("--quick", is_flag=True, help="Compare sizes instead of hashes, and decode no image.")
@click.option(
    "--frames", type=click.IntRange(1), default=8, show_default=True, help="Frames of a video a run will show."
)
def check(
    tasks: Sequence[str],
    groups: Sequence[str],
    modalities: Sequence[str],
    edition: str | None,
    folder: Path,
    workers: int,
    quick: bool,
    frames: int,
) -> None:
    """Say for each chosen task that it is ready, or what is wrong and what mends it. Exit code 1 if any is not."""
    from mmeb_harness.data import describe
    from mmeb_harness.fetch.check import check_tasks
    from mmeb_harness.types import Frames

    chosen, _ = _tasks(tasks, groups, modalities, edition)
    info, wrong = describe(folder.expanduser()), 0
    for outcome in check_tasks(chosen, info, Frames(frames, min(frames, 8)), quick=quick, workers=workers):
        wrong += not outcome.ready
        remarks = "; ".join(outcome.remarks)
        summary = ": ".join(part for part in (outcome.summary, remarks) if part)
        click.echo(f"{'ready' if outcome.ready else 'WRONG'}  {outcome.task:<20}  {summary}".rstrip())
        for problem in outcome.problems:
            click.echo(f"       {problem}")
        if outcome.mend:
            click.echo(f"       mend: {outcome.mend}")
    click.echo(f"{len(chosen) - wrong} of {len(chosen)} tasks are ready")
    if wrong:
        sys.exit(1)


def _tasks(
    tasks: Sequence[str], groups: Sequence[str], modalities: Sequence[str], edition: str | None
) -> tuple[list[Task], list[Task]]:
    """The chosen tasks, and all there are."""
    from mmeb_harness.registry import load_tasks, select_tasks

    registered = load_tasks(edition)
    chosen = select_tasks(registered, tasks, groups, modalities)
    return [one.task for one in chosen], [one.task for one in registered.values()]


def _plan(
    *,
    tasks: Sequence[str],
    groups: Sequence[str],
    modalities: Sequence[str],
    edition: str | None,
    folder: Path,
    workers: int,
    lock_file: Path | None,
    update: bool,
    redo: bool,
) -> Plan:
    import dataclasses

    from mmeb_harness.fetch.lock import LOCK, read_lock
    from mmeb_harness.fetch.plan import lock_repos, make_plan

    if lock_file and update:
        raise click.UsageError("--lock and --update contradict each other")
    chosen, known = _tasks(tasks, groups, modalities, edition)
    root = folder.expanduser().resolve()
    lock = {**read_lock(root / LOCK), **(read_lock(lock_file) if lock_file else {})}
    lock, failures = lock_repos(chosen, lock, update=update, workers=workers)
    planned = make_plan(chosen, known, root, lock, redo=redo)
    return dataclasses.replace(planned, failures=(*failures, *planned.failures))


def _print_plan(planned: Plan, free: int, workers: int) -> None:
    from mmeb_harness.fetch.get import gigabytes
    from mmeb_harness.fetch.plan import room

    header = ("repository", "revision", "files", "size", "there", "tasks")
    print_table(header, [_plan_row(planned, repo) for repo in dict.fromkeys(step.repo for step in planned.steps)])
    needed = room(planned, free, workers)
    sizes = {(file.repo, file.path): file.size for step in planned.steps for file in step.files}
    click.echo(
        f"{len(sizes):,} files, {gigabytes(sum(sizes.values()))} on the hub; to download: "
        f"{gigabytes(needed.download)}; disk: up to {gigabytes(needed.needed)} ({gigabytes(needed.passing)} of it in "
        f"passing), {gigabytes(needed.free)} free in {planned.root}"
    )
    if needed.needed > needed.free:
        click.echo(f"not enough room: {gigabytes(needed.needed - needed.free)} are missing")


def _plan_row(planned: Plan, repo: str) -> tuple[str, ...]:
    from mmeb_harness.fetch.get import gigabytes

    steps = [step for step in planned.steps if step.repo == repo]
    files = {file.path: file.size for step in steps for file in step.files}
    left = {file.path: file.size for step in steps if not step.done for file in step.files}
    tasks = {task for step in steps for task in step.tasks}
    there = "all" if not left else gigabytes(sum(files.values()) - sum(left.values()))
    size = gigabytes(sum(files.values()))
    return repo, planned.lock[repo].revision[:12], str(len(files)), size, there, str(len(tasks))


def _say_failures(failures: Sequence[tuple[str, DataError]]) -> None:
    """Every failure in a line of its own; then the way on.

    Raises:
        DataError: if there is any.
    """
    for what, error in failures:
        click.echo(f"not done: {what}: {' '.join(str(error).split())}", err=True)
    if failures:
        raise DataError(f"{len(failures)} steps are not done (see above); the rest is. The same command tries again")


@contextmanager
def _progress(total: int) -> Iterator[_Reporter]:
    """A bar in a terminal, a line a step elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console()
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield _Reporter(bar, bar.add_task("fetching", total=total))


class _Reporter:
    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task

    def bytes_came(self, number: int) -> None:
        self._bar.update(self._task, advance=number)

    def step_done(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, soft_wrap=True, markup=False)
