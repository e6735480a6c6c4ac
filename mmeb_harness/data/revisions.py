"""Which revisions: those of a given lock file, the folder's own, or the hub's newest; and the lock file kept true."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.tasks import Archive, Files, Table, Task
from mmeb_harness.data.folder import repo_of, table_of
from mmeb_harness.data.hub import Failures, UnreachableError, hold, resolve
from mmeb_harness.data.lock import LOCK, Lock, LockedRepo, read_lock, write_lock

#: Fetched files and locks, until what they are for is done.
WORK = ".work"


@dataclass(frozen=True)
class Locked:
    """Repositories at fixed revisions, for a choice of tasks.

    Attributes:
        lock: of the repositories that the tasks need and that could be resolved.
        replaced: those of them whose entry takes the place of the folder's own: asked for by --update or --lock.
        failures: (repository or table, what is wrong) of what can't be resolved.
    """

    lock: Lock
    replaced: frozenset[str] = frozenset()
    failures: tuple[tuple[str, DataError], ...] = ()


def lock_repos(tasks: Sequence[Task], own: Lock, given: Lock, *, update: bool, workers: int) -> Locked:
    """Revisions for `tasks`: those of a given lock file, else the folder's own, else what their sources name, else the
    hub's newest.

    Args:
        own: the folder's lock.
        given: another machine's lock; held against what the hub says of its revisions.
        update: take the newest instead of the folder's own.

    Raises:
        UnreachableError: nobody answers; there is no point in asking 40 times more.
    """
    if given or update or not knows_all(tasks, own):
        # Here, and not first in threads, which would see modules of it half imported.
        import datasets  # noqa: F401
        from fsspec.utils import can_be_local

        for protocol in ("hf", "http", "https"):
            can_be_local(f"{protocol}://")
    lock: Lock = {}
    failures: Failures = []
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="resolve")
    pinned = _pinned(tasks)
    futures = {
        pool.submit(_lock_repo, repo, own.get(repo), given.get(repo), tables, pinned.get(repo), update, stop): repo
        for repo, tables in _wanted_tables(tasks).items()
    }
    try:
        for future in as_completed(futures):
            repo = futures[future]
            try:
                lock[repo], missing = future.result()
                failures += missing
            except UnreachableError:
                raise
            except DataError as error:
                failures.append((repo, error))
    finally:  # also on Ctrl-C: whoever waits for an answer or a further attempt is not waited for
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
    replaced = frozenset(repo for repo in lock if update or repo in given)
    return Locked(lock, replaced, tuple(failures))


def knows_all(tasks: Iterable[Task], own: Lock) -> bool:
    """Whether a folder's lock has everything that the tasks need, so that no hub has to be asked."""
    return all(repo in own and not _unknown(tables, own[repo]) for repo, tables in _wanted_tables(tasks).items())


def _wanted_tables(tasks: Iterable[Task]) -> dict[str, list[Table]]:
    """repository → tables needed of it."""
    wanted: dict[str, list[Table]] = {}
    for task in tasks:
        for source in task.sources:
            tables = wanted.setdefault(repo_of(source), [])
            if not isinstance(source, Archive | Files) and table_of(source) not in tables:
                tables.append(table_of(source))
    return wanted


def _pinned(tasks: Iterable[Task]) -> dict[str, str]:
    """repository → the revision that sources of it name."""
    sources = (source for task in tasks for source in task.sources if isinstance(source, Archive | Files))
    return {source.repo: source.revision for source in sources if source.revision is not None}


def _lock_repo(
    repo: str,
    own: LockedRepo | None,
    given: LockedRepo | None,
    tables: Sequence[Table],
    pinned: str | None,
    update: bool,
    stop: threading.Event,
) -> tuple[LockedRepo, Failures]:
    def wait(seconds: float) -> None:
        if stop.wait(seconds):
            raise DataError("stopped")

    # Tables of other tasks that the folder has are resolved too: its lock file must go on describing all of it.
    known = [_table_of(repo, key) for key in own.tables] if own is not None else []
    everything = [*tables, *(table for table in known if table not in tables)]
    if given is not None:
        on_hub, failures = resolve(repo, given.revision, _unknown(everything, given), wait)
        _check_given(repo, given, on_hub)
        return _with_tables(on_hub, given), _of(tables, repo, failures)
    if own is None or update:
        on_hub, failures = resolve(repo, None if update else pinned, everything, wait)
        return on_hub, _of(tables, repo, failures)
    if unknown := _unknown(tables, own):
        try:
            on_hub, failures = resolve(repo, own.revision, unknown, wait)
        except UnreachableError:
            raise
        except DataError as error:  # what the lock file knows can be had all the same
            return own, [(f"{repo} {table.key}", error) for table in unknown]
        return _with_tables(on_hub, own), failures
    return own, []


def _of(tables: Sequence[Table], repo: str, failures: Failures) -> Failures:
    """Failures of these tables: that others are gone is for those who ask for them."""
    names = {f"{repo} {table.key}" for table in tables}
    return [failure for failure in failures if failure[0] in names]


def _unknown(tables: Sequence[Table], entry: LockedRepo) -> list[Table]:
    return [table for table in tables if table.key not in entry.tables]


def _with_tables(entry: LockedRepo, before: LockedRepo) -> LockedRepo:
    return LockedRepo(entry.revision, entry.files, {**before.tables, **entry.tables})


def _table_of(repo: str, key: str) -> Table:
    config, split = key.rsplit("/", 1)
    return Table(repo, None if config == "default" else config, split)


def _check_given(repo: str, given: LockedRepo, on_hub: LockedRepo) -> None:
    for path in {path for paths in given.tables.values() for path in paths} | set(given.files):
        if given.files.get(path) != on_hub.files.get(path):
            raise DataError(
                f"{repo}: the lock file has {given.files.get(path)} for {path}, the hub {on_hub.files.get(path)} at "
                f"revision {given.revision[:12]}; the lock file is damaged: copy it again"
            )


def _says(there: Lock, wanted: Lock) -> bool:
    """Whether a lock holds all of another one already."""
    return all(repo in there and there[repo] == _with_tables(entry, there[repo]) for repo, entry in wanted.items())


def merge_lock(root: Path, chosen: Locked) -> None:
    """Write the lock file; what another process locked meanwhile stays.

    Raises:
        DataError: it locked another revision of what this one is about to fetch.
    """
    if _says(read_lock(root / LOCK), chosen.lock):
        return  # a finished folder may be read-only
    with hold(root / WORK, "lock-file"):
        before = read_lock(root / LOCK)
        merged = dict(before)
        for repo, entry in chosen.lock.items():
            there = merged.get(repo)
            if there is not None and there.revision == entry.revision:
                entry = _with_tables(entry, there)
            elif there is not None and repo not in chosen.replaced:
                raise DataError(
                    f"{repo} was locked at revision {there.revision[:12]} by another process just now; the same "
                    "command again takes that"
                )
            merged[repo] = entry
        if merged != before:
            write_lock(root / LOCK, merged)
