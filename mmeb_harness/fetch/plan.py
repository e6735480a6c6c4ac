"""What a choice of tasks needs from the hub, what is there already, and how much room the rest takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmeb_harness.data import repo_of, source_key
from mmeb_harness.errors import DataError
from mmeb_harness.fetch.hub import downloaded, resolve
from mmeb_harness.fetch.lock import HubFile, Lock, LockedRepo, hub_file, table_key
from mmeb_harness.fetch.records import read_record
from mmeb_harness.types import Archive, HubSource, Pages, Table, Task

#: Fetched files and locks, until what they are for is done.
WORK = ".work"


@dataclass(frozen=True)
class Step:
    """One source to fetch and place.

    Attributes:
        key: names its record; see `mmeb_harness.data.source_key`.
        tasks: that need it; one for an archive, whose members are placed for each task by itself.
        files: on the hub, in order.
        done: its record says that these very files were placed.
    """

    key: str
    source: HubSource
    tasks: tuple[str, ...]
    files: tuple[HubFile, ...]
    done: bool

    @property
    def repo(self) -> str:
        """The repository it is in."""
        return repo_of(self.source)

    @property
    def label(self) -> str:
        """For people."""
        return f"{self.files[0].path} for {self.tasks[0]}" if isinstance(self.source, Archive) else self.key

    @property
    def size(self) -> int:
        """Bytes of its files on the hub."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Plan:
    """All steps for a choice of tasks.

    Attributes:
        failures: (repository or task, what is wrong) of what can't be planned.
        shared: archive, as (repository, file pattern) → keys of the steps of *all* known tasks that use it. An
            archive is dropped once all of them are done, so that nothing has to be fetched twice.
        redo: what was done before is forgotten.
    """

    root: Path
    lock: Lock
    steps: tuple[Step, ...]
    shared: Mapping[tuple[str, str], frozenset[str]]
    failures: tuple[tuple[str, DataError], ...] = ()
    redo: bool = False

    @property
    def open_steps(self) -> tuple[Step, ...]:
        """What is left to do."""
        return tuple(step for step in self.steps if not step.done)


Failures = list[tuple[str, DataError]]


def lock_repos(
    tasks: Iterable[Task], lock: Lock, *, update: bool, workers: int
) -> tuple[Lock, list[tuple[str, DataError]]]:
    """The lock, completed for `tasks` by asking the hub for what it lacks (`update`: for everything).

    Returns:
        The lock, and the repositories that can't be resolved, with the reason.
    """
    wanted: dict[str, list[Table]] = {}
    for task in tasks:
        for source in task.sources:
            tables = wanted.setdefault(repo_of(source), [])
            table = source.table if isinstance(source, Pages) else source
            if isinstance(table, Table) and table not in tables:
                tables.append(table)
    completed = dict(lock)
    failures: Failures = []
    with ThreadPoolExecutor(workers, thread_name_prefix="resolve") as pool:
        futures = {
            repo: pool.submit(_lock_repo, repo, lock.get(repo), tables, update) for repo, tables in wanted.items()
        }
        for repo, future in futures.items():
            try:
                completed[repo] = future.result()
            except DataError as error:
                failures.append((repo, error))
    return completed, failures


def _lock_repo(repo: str, locked: LockedRepo | None, tables: Sequence[Table], update: bool) -> LockedRepo:
    if locked is None or update:
        return resolve(repo, None, tables)
    unknown = [table for table in tables if table_key(table.config, table.split) not in locked.tables]
    if not unknown:
        return locked
    found = resolve(repo, locked.revision, unknown)
    return LockedRepo(found.revision, found.files, {**locked.tables, **found.tables})


def make_plan(tasks: Sequence[Task], known: Iterable[Task], root: Path, lock: Lock, *, redo: bool = False) -> Plan:
    """Lay out the steps for `tasks` on a lock that covers them.

    Args:
        known: all tasks there are, for what else an archive is used for.
        redo: count nothing as done.
    """
    steps: dict[str, Step] = {}
    failures: Failures = []
    for task in tasks:
        for source in task.sources:
            if repo_of(source) not in lock:
                continue  # it could not be resolved, and that has been said
            key = source_key(task.name, source)
            if key in steps:
                steps[key] = _with_task(steps[key], task.name)
                continue
            try:
                files = _files_of(source, lock[repo_of(source)])
                steps[key] = Step(key, source, (task.name,), files, not redo and is_done(root, key, files))
            except DataError as error:
                failures.append((task.name, error))
    shared: dict[tuple[str, str], set[str]] = {}
    for task in known:
        for source in task.sources:
            if isinstance(source, Archive):
                shared.setdefault((source.repo, source.file), set()).add(source_key(task.name, source))
    frozen = {archive: frozenset(keys) for archive, keys in shared.items()}
    return Plan(root, lock, tuple(steps.values()), frozen, tuple(failures), redo)


def _with_task(step: Step, task: str) -> Step:
    return Step(step.key, step.source, (*step.tasks, task), step.files, step.done)


def _files_of(source: HubSource, locked: LockedRepo) -> tuple[HubFile, ...]:
    repo = repo_of(source)
    if isinstance(source, Archive):
        paths = archive_parts(source.file, locked.files)
        if not paths:
            raise DataError(f"{repo} at {locked.revision[:12]} has no file named like {source.file}")
    else:
        table = source.table if isinstance(source, Pages) else source
        paths = list(locked.tables[table_key(table.config, table.split)])
    return tuple(hub_file(repo, locked, path) for path in paths)


def archive_parts(pattern: str, paths: Iterable[str]) -> list[str]:
    """An archive's files: the one that is whole if there is one, else its parts in order."""
    matching = sorted(path for path in paths if re.fullmatch(pattern, PurePosixPath(path).name))
    whole = [path for path in matching if not re.search(r"-\d+$", path)]
    return whole[:1] or matching


def is_done(root: Path, key: str, files: Sequence[HubFile]) -> bool:
    """By content: a new revision with the same bytes is nothing to do."""
    record = read_record(root, key)
    return record is not None and record.digests == tuple(file.digest for file in files)


@dataclass(frozen=True)
class Room:
    """Bytes: still to download, to be written for good at most, in passing at most, and free now."""

    download: int
    result: int
    passing: int
    free: int

    @property
    def needed(self) -> int:
        """At the peak."""
        return self.result + self.passing


def room(plan: Plan, free: int, workers: int) -> Room:
    """How much room the open steps take. Archives are fetched one ahead of the one being unpacked."""
    folder = plan.root / WORK
    archives = archive_steps(plan)
    tables = [step for step in plan.open_steps if not isinstance(step.source, Archive)]
    sizes = {key: sum(file.size for file in steps[0].files) for key, steps in archives.items()}
    kept = {key: size for key, size in sizes.items() if not drops(plan, key)}
    passing = sum(sorted((size for key, size in sizes.items() if key not in kept), reverse=True)[:2])
    passing += sum(sorted((step.size for step in tables), reverse=True)[:workers])
    result = sum(step.size for step in tables) + sum(kept.values())
    for key, steps in archives.items():
        result += int(sizes[key] * max(step.source.expansion for step in steps if isinstance(step.source, Archive)))
    files = {file.digest: file for step in plan.open_steps for file in step.files}
    there = sum(_there(file, folder) for file in files.values())
    return Room(sum(file.size for file in files.values()) - there, result, max(0, passing - there), free)


def archive_steps(plan: Plan) -> dict[tuple[str, str], list[Step]]:
    """Open steps by the archive they read: one pass over it serves all of them."""
    found: dict[tuple[str, str], list[Step]] = {}
    for step in plan.open_steps:
        if isinstance(step.source, Archive):
            found.setdefault((step.source.repo, step.source.file), []).append(step)
    return found


def drops(plan: Plan, archive: tuple[str, str]) -> bool:
    """Whether the archive has served every known task once the plan is carried out."""
    planned = {step.key for step in plan.steps}
    return all(key in planned or read_record(plan.root, key) is not None for key in plan.shared[archive])


def _there(file: HubFile, folder: Path) -> int:
    target = downloaded(file, folder)
    return next((path.stat().st_size for path in (target, target.with_suffix(".part")) if path.is_file()), 0)
