"""`mmeb-eval data plan | get | check`: real data, from the hub to one local folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness.cli.options import options, print_table, selection_options
from mmeb_harness.core.errors import DataError, HarnessError, one_line
from mmeb_harness.core.files import readable_size
from mmeb_harness.core.terminal import console, say

if TYPE_CHECKING:
    from mmeb_harness.core.tasks import Task
    from mmeb_harness.data.check import CheckedTask
    from mmeb_harness.data.plan import Plan

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
    selection_options,
    _folder_options,
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
    """Fetch MMEB-V2's or V3's data from the hub into one folder, and check it.

    Evaluations read that folder and never open a connection: `mmeb-eval run --data FOLDER`.
    """


@data.command()
@_source_options
def plan(workers: int, **given: Any) -> None:
    """Show what the chosen tasks need: repositories, files, sizes, what is there, disk space."""
    from mmeb_harness.data.get import check_folder, check_room

    planned = _plan(workers=workers, **given)
    check_folder(planned.root)
    _print_plan(planned, workers)
    _say_failures(planned.failures, "can't be planned")
    check_room(planned, workers)


@data.command()
@_source_options
def get(workers: int, **given: Any) -> None:
    """Fetch annotations, pages and media of the chosen tasks (default: all of the edition) into one folder.

    Goes on where it stopped, fetches nothing twice, and writes a lock file that gives another machine the same bytes.
    """
    from mmeb_harness.data import get as getting

    planned = _plan(workers=workers, **given)
    sizes = {file.digest: file.size for step in planned.open_steps for file in step.files}
    with _bar(sum(sizes.values())) as (advance, note):
        outcome = getting.get(planned, workers, advance, note)
    done = len(planned.steps) - len(planned.open_steps)
    say(
        f"{outcome.steps} steps done, {done} were done before: {outcome.files:,} files, "
        f"{readable_size(outcome.size)} in {planned.root}"
    )
    if outcome.kept:
        names = ", ".join(sorted(outcome.kept))
        say(f"kept in {planned.root / '.work'} for tasks that are not done: {names}")
    if outcome.copies:
        say(f"{outcome.copies:,} pages are stored twice: this file system knows no hard links")
    _say_failures(outcome.failures, "are not done; the rest is. The same command tries again")
    say(f"next: mmeb-eval data check {_same_choice(planned.root, **given)}")
    say(f"      mmeb-eval run {_same_choice(planned.root, **given)}")


def _same_choice(
    root: Path,
    *,
    tasks: Sequence[str],
    groups: Sequence[str],
    modalities: Sequence[str],
    edition: str | None,
    **_: object,
) -> str:
    """The options that choose the same tasks in another command."""
    named = (("--tasks", tasks), ("--groups", groups), ("--modality", modalities), ("--edition", [edition or ""]))
    parts = [f"--data {shlex.quote(str(root))}"]
    parts += [f"{option} {shlex.quote(','.join(names))}" for option, names in named if any(names)]
    return " ".join(parts)


@data.command()
@selection_options
@_folder_options
@click.option("--quick", is_flag=True, help="Compare sizes instead of hashes, and decode no image.")
@click.option(
    "--frames", type=click.IntRange(1), default=8, show_default=True, help="Frames of a video a run will show."
)
def check(folder: Path, workers: int, quick: bool, frames: int, edition: str | None, **choice: Any) -> None:
    """Say for each chosen task that it is ready, or what is wrong and what mends it. Exit code 1 if any is not."""
    from mmeb_harness.core.items import Frames
    from mmeb_harness.core.registry import BENCHMARK, choose_tasks
    from mmeb_harness.data.check import check_tasks
    from mmeb_harness.data.folder import describe

    selected, known = choose_tasks(edition, **choice)
    chosen = [standing.task for standing in selected]
    benchmark = [standing.task for standing in known.values() if standing.collection == BENCHMARK]
    info, outcomes = describe(folder.expanduser()), []
    for outcome in check_tasks(chosen, info, Frames(frames, min(frames, 8)), quick=quick, workers=workers):
        outcomes.append(outcome)
        _print_outcome(outcome)
    wrong = [outcome for outcome in outcomes if not outcome.ready]
    say(f"{len(chosen) - len(wrong)} of {len(chosen)} tasks are ready")
    if len(wrong) > 1:
        for command in _joined_commands(wrong, benchmark):
            say(f"mend: {command}")
    if wrong:
        sys.exit(1)


def _print_outcome(outcome: CheckedTask) -> None:
    summary = ": ".join(part for part in (outcome.summary, "; ".join(outcome.remarks)) if part)
    say(f"{'ready' if outcome.ready else 'WRONG'}  {outcome.task:<20}  {summary}".rstrip())
    for problem in outcome.problems:
        say(f"       {problem}")
    if outcome.mend:
        say(f"       mend: {outcome.mend}")


def _joined_commands(outcomes: Sequence[CheckedTask], benchmark: Sequence[Task]) -> list[str]:
    """The mending commands, those that differ in nothing but the task as one.

    Args:
        benchmark: all of its tasks: modalities of which every one is named are named instead.
    """
    tasks: dict[str, list[str]] = {}
    for outcome in outcomes:
        tasks.setdefault(outcome.mend.removesuffix(f" --tasks {shlex.quote(outcome.task)}"), []).append(outcome.task)
    return [
        f"{command} {_choice(names, benchmark)}" if "data get" in command else command
        for command, names in tasks.items()
    ]


def _choice(names: Sequence[str], benchmark: Sequence[Task]) -> str:
    """Options that choose just these tasks."""
    from mmeb_harness.core.items import MODALITIES

    others = {task.modality for task in benchmark if task.name not in names}
    whole = {task.name: task.modality for task in benchmark if task.modality not in others}
    rest = [name for name in names if name not in whole]
    options = (("--modality", [modality for modality in MODALITIES if modality in whole.values()]), ("--tasks", rest))
    return " ".join(f"{option} {shlex.quote(','.join(given))}" for option, given in options if given)


def _plan(
    *, folder: Path, workers: int, lock_file: Path | None, update: bool, redo: bool, edition: str | None, **choice: Any
) -> Plan:
    from mmeb_harness.core.registry import select_tasks, survey_tasks
    from mmeb_harness.data.lock import LOCK, read_lock
    from mmeb_harness.data.plan import make_plan
    from mmeb_harness.data.revisions import knows_all, lock_repos

    if lock_file and update:
        raise click.UsageError("--lock and --update contradict each other")
    survey = survey_tasks(edition)  # all: tasks share archives
    chosen = [standing.task for standing in select_tasks(survey.tasks, **choice, problems=survey.problems)]
    known = [standing.task for standing in survey.tasks.values()]
    root = folder.expanduser().resolve()
    own, given = read_lock(root / LOCK), read_lock(lock_file) if lock_file else {}
    if given or update or not knows_all(chosen, own):
        say("asking the hub what there is …", err=True)
    locked = lock_repos(chosen, own, given, update=update, workers=workers)
    return make_plan(chosen, known, root, locked, redo=redo)


def _print_plan(planned: Plan, workers: int) -> None:
    from mmeb_harness.data.plan import room

    header = ("repository", "revision", "files", "size", "there", "tasks")
    print_table(header, [_plan_row(planned, repo) for repo in dict.fromkeys(step.repo for step in planned.steps)])
    needed = room(planned, workers)
    sizes = {(file.repo, file.path): file.size for step in planned.steps for file in step.files}
    kept = f", {readable_size(needed.kept)} of it archives kept for other tasks" if needed.kept else ""
    say(f"on the hub:  {len(sizes):,} files, {readable_size(sum(sizes.values()))}")
    say(f"to download: {readable_size(needed.download)}")
    say(f"disk:        up to {readable_size(needed.result)} to stay{kept}, {readable_size(needed.passing)} in passing")
    say(f"free:        {readable_size(needed.free)} in {planned.root}")


def _plan_row(planned: Plan, repo: str) -> tuple[str, ...]:
    from mmeb_harness.data.plan import there
    from mmeb_harness.data.revisions import WORK

    steps = [step for step in planned.steps if step.repo == repo]
    files = {file.path: file.size for step in steps for file in step.files}
    open_files = {file.path: file for step in steps if not step.done for file in step.files}
    tasks = {task for step in steps for task in step.tasks}
    size = sum(files.values())
    missing = sum(file.size - there(file, planned.root / WORK) for file in open_files.values())
    have = readable_size(size - missing) if open_files else "all"
    return repo, planned.locked.lock[repo].revision[:8], str(len(files)), readable_size(size), have, str(len(tasks))


def _say_failures(failures: Sequence[tuple[str, HarnessError]], what_of_them: str) -> None:
    """Every failure in a line of its own; then the way on.

    Raises:
        DataError: if there is any.
    """
    for what, error in failures:
        say(f"not done: {what}: {one_line(error, longest=None)}", err=True)
    if failures:
        raise DataError(f"{len(failures)} of the sources above {what_of_them}")


@contextmanager
def _bar(total: int) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """How to show bytes that came, in a bar on a terminal, and a line for a finished step."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from mmeb_harness.show.tables import print_lines

    stdout = console()
    columns = (TextColumn("fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stdout, disable=not stdout.is_terminal) as bar:
        yield partial(bar.advance, bar.add_task("fetching", total=total)), partial(print_lines, bar.console)
