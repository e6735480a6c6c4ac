"""What a choice of tasks needs from the hub, what is there already, and how much room the rest takes."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.tasks import Archive, Files, HubSource, Task
from mmeb_harness.data.folder import repo_of, source_key, table_of
from mmeb_harness.data.hub import as_on_hub, downloaded
from mmeb_harness.data.lock import HubFile, Lock, hub_file
from mmeb_harness.data.records import Record, read_record, record_sample, slug
from mmeb_harness.data.revisions import WORK, Locked

#: Names of archives, whole or in parts; and how many of them a message lists.
_ARCHIVE, _NAMED = r"\.(tar|tar\.gz|tgz|zip)([.-](part-?)?\d+)?$", 12


@dataclass(frozen=True)
class Step:
    """One source to fetch and place.

    Attributes:
        key: names its record; see `mmeb_harness.data.folder.source_key`.
        tasks: that need it; one for an archive, whose members are placed for each task by itself.
        files: on the hub, in order.
        digests: of these files, and of whatever else decides what is placed.
        done: its record says that these very digests were placed.
    """

    key: str
    source: HubSource
    tasks: tuple[str, ...]
    files: tuple[HubFile, ...]
    digests: tuple[str, ...]
    done: bool

    @property
    def repo(self) -> str:
        """The repository that its files are in."""
        return repo_of(self.source)

    @property
    def label(self) -> str:
        """The name of the step, for people."""
        match self.source:
            case Archive():
                return f"{self.files[0].path} for {self.tasks[0]}"
            case Files(folder=folder):
                return f"{folder} for {', '.join(self.tasks)}"
            case _:
                return self.key

    @property
    def size(self) -> int:
        """Bytes of its files on the hub."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Plan:
    """All steps for a choice of tasks.

    Attributes:
        shared: archive, as (repository, file pattern) → keys of the steps of *all* known tasks that use it. An
            archive is dropped once all of them are done, so that nothing has to be fetched twice.
        redo: what was done before is done again.
    """

    root: Path
    locked: Locked
    steps: tuple[Step, ...]
    shared: Mapping[tuple[str, str], frozenset[str]]
    failures: tuple[tuple[str, DataError], ...] = ()
    redo: bool = False

    @property
    def open_steps(self) -> tuple[Step, ...]:
        """What is left to do."""
        return tuple(step for step in self.steps if not step.done)


def make_plan(tasks: Sequence[Task], known: Iterable[Task], root: Path, locked: Locked, *, redo: bool = False) -> Plan:
    """Lay out the steps for `tasks`. What could not be resolved is left out: that has been said.

    Args:
        known: all tasks there are, for what else an archive is used for.
        redo: count nothing as done.
    """
    steps: dict[str, Step] = {}
    missing: dict[str, list[str]] = {}  # what is wrong → tasks
    for task in tasks:
        for source in task.sources:
            key = source_key(task.name, source)
            if key in steps:
                steps[key] = dataclasses.replace(steps[key], tasks=(*steps[key].tasks, task.name))
                continue
            try:
                files = _files_of(source, locked.lock)
            except DataError as error:
                missing.setdefault(str(error), []).append(task.name)
                continue
            if files is not None:
                digests = tuple(file.digest for file in (*files, *_rows_of(task, source, locked.lock)))
                done = not redo and is_done(root, key, digests)
                steps[key] = Step(key, source, (task.name,), files, digests, done)
    failures = (*locked.failures, *((_first_of(names), DataError(why)) for why, names in missing.items()))
    return Plan(root, locked, tuple(steps.values()), _shared_archives(known), failures, redo)


def _first_of(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more tasks"


def _shared_archives(known: Iterable[Task]) -> dict[tuple[str, str], frozenset[str]]:
    shared: dict[tuple[str, str], set[str]] = {}
    for task in known:
        for source in task.sources:
            if isinstance(source, Archive):
                shared.setdefault((source.repo, source.file), set()).add(source_key(task.name, source))
    return {archive: frozenset(keys) for archive, keys in shared.items()}


def _files_of(source: HubSource, lock: Lock) -> tuple[HubFile, ...] | None:
    """The source's files on the hub; `None` if its repository or table isn't in the lock."""
    repo = repo_of(source)
    if repo not in lock:
        return None
    if isinstance(source, Archive):
        paths = archive_parts(source.file, lock[repo].files)
        if not paths:
            archives = sorted(path for path in lock[repo].files if re.search(_ARCHIVE, path))
            raise _missing(f"named like {source.file}", repo, lock, archives)
    elif isinstance(source, Files):
        below = [path for path in lock[repo].files if path.startswith(f"{source.folder}/")]
        paths = sorted(path for path in below if re.fullmatch(source.files, path.removeprefix(f"{source.folder}/")))
        if not paths:
            raise _missing(f"{source.folder}/{source.files}", repo, lock, sorted(below))
    else:
        table = table_of(source)
        if table.key not in lock[repo].tables:
            return None
        paths = list(lock[repo].tables[table.key])
    return tuple(hub_file(repo, lock[repo], path) for path in paths)


def _missing(what: str, repo: str, lock: Lock, there: Sequence[str]) -> DataError:
    more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    found = f"{', '.join(there[:_NAMED])}{more}" if there else "none at all"
    return DataError(f"{repo} at {lock[repo].revision[:12]} has no file {what}; of its kind: {found}")


def _rows_of(task: Task, source: HubSource, lock: Lock) -> list[HubFile]:
    """Files of the tables that decide which members of an archive are the task's."""
    if not (isinstance(source, Archive) and source.by_tables):
        return []
    tables = [other for other in task.sources if not isinstance(other, Archive)]
    return [file for table in tables for file in _files_of(table, lock) or ()]


def archive_parts(pattern: str, paths: Iterable[str]) -> list[str]:
    """An archive's files: the one that is whole if there is one, else its parts in the order of their numbers."""
    matching = sorted(path for path in paths if re.fullmatch(pattern, PurePosixPath(path).name))
    numbers = {path: int(found[1]) for path in matching if (found := re.search(r"-(\d+)$", path))}
    whole = [path for path in matching if path not in numbers]
    return whole[:1] or sorted(matching, key=lambda path: numbers[path])


def is_done(root: Path, key: str, digests: Sequence[str]) -> bool:
    """Whether a step is done, by content: a new revision with the same bytes is nothing to do.

    Not while it is being replaced, nor if a look at some of its files shows that they are gone.
    """
    record = _finished(root, key)
    return record is not None and record.digests == tuple(digests) and _are_there(root, key)


def has_served(root: Path, key: str, files: Sequence[HubFile]) -> bool:
    """Whether an archive's files have been placed for a step, by whatever rows."""
    record = _finished(root, key)
    return record is not None and record.digests[: len(files)] == tuple(file.digest for file in files)


def _finished(root: Path, key: str) -> Record | None:
    """A step's record, unless the step is being done again."""
    return None if progress_file(root, key).is_file() else read_record(root, key)


def _are_there(root: Path, key: str) -> bool:
    return all(_is_there(root / path, size) for path, size in record_sample(root, key))


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


@dataclass(frozen=True)
class Room:
    """Bytes: still to download; to be written for good, at most; in passing, at most; and free now.

    Attributes:
        kept: the part of `result` that is archives which further tasks need.
    """

    download: int
    result: int
    kept: int
    passing: int
    free: int

    @property
    def needed(self) -> int:
        """Bytes that are taken at the peak, at most."""
        return self.result + self.passing


def room(plan: Plan, workers: int) -> Room:
    """How much room the open steps take, beyond what they have taken already, and how much there is."""
    folder = plan.root / WORK
    left = {file.digest: file.size - there(file, folder) for step in plan.open_steps for file in step.files}
    passing, result, kept = [], 0, 0
    for key, steps in archive_steps(plan).items():
        fetched = sum(left[file.digest] for file in steps[0].files)
        expansion = max(step.source.expansion for step in steps if isinstance(step.source, Archive))
        placed = sum(placed_bytes(plan.root, step) for step in plan.shared[key])
        result += max(0, int(steps[0].size * expansion) - placed)
        if _will_be_dropped(plan, key, steps[0].files):
            passing.append(fetched)
        else:
            kept += fetched
    tables = [step for step in plan.open_steps if not isinstance(step.source, Archive)]
    result += sum(max(0, step.size - placed_bytes(plan.root, step.key)) for step in tables) + kept
    # Archives are handled two at a time, tables as many as there are workers.
    in_passing = sum(sorted(passing)[-2:])
    in_passing += sum(sorted(sum(left[file.digest] for file in step.files) for step in tables)[-workers:])
    existing = next(parent for parent in (plan.root, *plan.root.absolute().parents) if parent.exists())
    return Room(sum(left.values()), result, kept, in_passing, shutil.disk_usage(existing).free)


def placed_bytes(root: Path, key: str) -> int:
    """What a step has placed: all of it, or how far an interrupted one got."""
    record = read_record(root, key)
    if record is not None:
        return record.size if _are_there(root, key) else 0
    try:
        return int(progress_file(root, key).read_text())
    except (OSError, ValueError):  # there is none; or it was being written
        return 0


def progress_file(root: Path, key: str) -> Path:
    """Where a step that unpacks an archive says how far it is; gone once it is finished."""
    return root / WORK / f"{slug(key)}.placed"


def archive_steps(plan: Plan) -> dict[tuple[str, str], list[Step]]:
    """Open steps by the archive they read: one pass over it serves all of them."""
    by_archive: dict[tuple[str, str], list[Step]] = {}
    for step in plan.open_steps:
        if isinstance(step.source, Archive):
            by_archive.setdefault((step.source.repo, step.source.file), []).append(step)
    return by_archive


def _will_be_dropped(plan: Plan, archive: tuple[str, str], files: Sequence[HubFile]) -> bool:
    """Whether the archive has served every known task once the plan is carried out."""
    planned = {step.key for step in plan.steps}
    return all(key in planned or has_served(plan.root, key, files) for key in plan.shared[archive])


def there(file: HubFile, folder: Path) -> int:
    """Bytes of a file that are here already."""
    if as_on_hub(file, folder) is not None:
        return file.size
    target = downloaded(file, folder)
    for path in (target, target.with_suffix(".part")):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # there is none; or it was just renamed
            return path.stat().st_size
    return 0
