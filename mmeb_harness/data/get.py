"""Carries a plan out: in parallel, as far as it gets. What is done stays done; the same command goes on."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mmeb_harness.core.errors import DataError, HarnessError
from mmeb_harness.core.files import NO_ROOM, readable_size
from mmeb_harness.core.tasks import Archive, Files, Pages, Table
from mmeb_harness.data.folder import describe
from mmeb_harness.data.hub import OnBytes, UnreachableError, discard, download, held, hold
from mmeb_harness.data.lock import LOCK, HubFile, read_lock
from mmeb_harness.data.place import CONVERTING, Place, place_files, place_pages, place_table, unpack
from mmeb_harness.data.plan import Plan, Step, archive_steps, has_served, is_done, progress_file, room
from mmeb_harness.data.records import FOLDER, RecordWriter, record_path, recorded_files, slug, write_manifest
from mmeb_harness.data.revisions import WORK, merge_lock

#: Archives fetched and unpacked side by side.
ARCHIVES_AT_ONCE = 2
#: Members between two notes of how far an archive is unpacked.
PROGRESS_MEMBERS = 1000
#: No table takes so long to convert.
CONVERTED_SECONDS = 3600.0


@dataclass
class Fetched:
    """What one `get` did, and what it left undone.

    Attributes:
        steps: done by this invocation.
        files, size: written, and their bytes.
        failures: (what, why) of steps that could not be done.
        kept: archives that stay, since further tasks need them.
        copies: pages stored again, where the file system knows no hard links.
    """

    steps: int = 0
    files: int = 0
    size: int = 0
    copies: int = 0
    failures: list[tuple[str, HarnessError]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


def check_room(plan: Plan, workers: int) -> None:
    """Say before starting if the disk is too small.

    Raises:
        DataError: how much is needed, free and missing.
    """
    needed = room(plan, workers)
    if needed.needed > needed.free:
        raise DataError(
            f"{plan.root} has {readable_size(needed.free)} free, but up to {readable_size(needed.needed)} are needed "
            f"({readable_size(needed.result)} to stay, {readable_size(needed.passing)} in passing): "
            f"{readable_size(needed.needed - needed.free)} are missing; free them, choose another --data, or fewer "
            "tasks"
        )


def get(plan: Plan, workers: int, on_bytes: OnBytes, note: Callable[[str], None]) -> Fetched:
    """Fetch and place all open steps, then write the manifest.

    A step that fails doesn't stop the others, except for want of room or of a network.

    Args:
        on_bytes: told of bytes that arrived; negative if some have to come again.
        note: told what a finished step wrote.

    Raises:
        DataError: no room left, no network, the folder can't be written, or holds something else.
        KeyboardInterrupt: at once; threads that still run end by themselves, and leave no file half-written.
    """
    check_folder(plan.root)
    check_room(plan, workers)
    job = _Job(plan, on_bytes, note)
    try:
        merge_lock(plan.root, plan.locked)
        if plan.open_steps:
            with _pool(workers, "get", job.stop) as pool:
                job.tables(pool)
                job.archives(pool)
        write_manifest(plan.root)
        remove_leftovers(plan)
    except BaseException as error:
        with contextlib.suppress(HarnessError, OSError):  # the error that is under way says more
            write_manifest(plan.root)
        if isinstance(error, OSError) and not isinstance(error, HarnessError):
            raise _written(plan.root, error) from error
        raise
    return job.outcome


def remove_leftovers(plan: Plan) -> None:
    """Delete fetched files that nobody needs any more.

    Those are: archives that have served every task, files of finished tables, whatever the lock file doesn't name, and
    what killed processes were converting.
    """
    folder = plan.root / WORK
    if not folder.is_dir():
        return
    named = {digest for entry in read_lock(plan.root / LOCK).values() for _, digest in entry.files.values()}
    fetched = {path.stem.replace("-", ":", 1) for path in folder.glob("*-*") if path.suffix in ("", ".part")}
    needless = fetched - named
    for step in plan.steps:
        if isinstance(step.source, Archive):
            keys = plan.shared[(step.source.repo, step.source.file)]
            done = not fetched.isdisjoint(file.digest for file in step.files) and all(
                has_served(plan.root, key, step.files) for key in keys
            )
        else:
            done = is_done(plan.root, step.key, step.digests)
        needless |= {file.digest for file in step.files if done} & fetched
    for digest in needless:
        discard(digest, folder)
    for path in folder.glob(f"{CONVERTING}*"):
        if path.stat().st_mtime < time.time() - CONVERTED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def check_folder(root: Path) -> None:
    """Refuse a folder that a suite made: its rows would mix with real ones.

    Raises:
        DataError: if it is one, or doesn't say.
    """
    try:
        is_synthetic = root.is_dir() and describe(root).synthetic
    except DataError:
        if not any((root / FOLDER).glob("*.parquet")):
            raise
        is_synthetic = False  # fetched before: a damaged manifest is summed up again from its records
    if is_synthetic:
        raise DataError(f"{root} holds a synthetic suite; choose another folder with --data")


@contextmanager
def _pool(workers: int, name: str, stop: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for if all goes well. On any other way out they end at their next chunk, by themselves.

    Nobody waits for 12 GB, or for a server that has stopped answering, after Ctrl-C.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix=name)
    try:
        yield pool
    except BaseException:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown(wait=True)


class _StoppedError(Exception):
    """Another step ended the whole; this one is not to blame."""


class _Job:
    """One `get`: what its threads share."""

    def __init__(self, plan: Plan, on_bytes: OnBytes, note: Callable[[str], None]) -> None:
        self.plan, self._on_bytes, self._note = plan, on_bytes, note
        self.stop = threading.Event()
        self.outcome = Fetched(failures=list(plan.failures))
        self._lock = threading.Lock()
        self._folder = plan.root / WORK
        self._users: Counter[str] = Counter()  # digest → steps that still need the file
        self._counted: set[str] = set()  # digests whose bytes were told of
        self._cut_off: set[str] = set()  # keys of steps that a killed process had begun
        self._begun = time.time()

    def tables(self, pool: ThreadPoolExecutor) -> None:
        """All tables and pages: archives of images are placed by what the tables name."""
        steps = [step for step in self.plan.open_steps if not isinstance(step.source, Archive)]
        self._users = Counter(file.digest for step in steps for file in step.files)
        futures = {pool.submit(self._table, step): step for step in sorted(steps, key=lambda step: -step.size)}
        for future in as_completed(futures):
            self._collect(future, futures[future].label)

    def archives(self, pool: ThreadPoolExecutor) -> None:
        """Two at a time: one is unpacked while the next is fetched."""
        with _pool(ARCHIVES_AT_ONCE, "archive", self.stop) as jobs:
            futures = {
                jobs.submit(self._archive, archive, steps, pool): steps[0].files[0].path
                for archive, steps in archive_steps(self.plan).items()
            }
            for future in as_completed(futures):
                self._collect(future, futures[future])

    def _collect(self, future: Future[None], what: str) -> None:
        """Want of room, or of a network, ends everything; anything else ends this step only."""
        try:
            future.result()
        except UnreachableError:
            self.stop.set()
            raise
        except HarnessError as error:
            self.outcome.failures.append((what, error))
        except OSError as error:
            if error.errno in (*NO_ROOM, errno.EROFS):
                self.stop.set()
                raise
            self.outcome.failures.append((what, _written(self.plan.root, error)))

    def _table(self, step: Step) -> None:
        with self._locked(step.key):
            if self._is_done(step):  # by another process, while this one waited
                self._drop(step)
                return
            record = RecordWriter(self.plan.root, step.key)
            with contextlib.ExitStack() as stack:
                for file in step.files:
                    self._fetch(file)
                parts = [(file.path, stack.enter_context(self._held(file))) for file in step.files]
                self._begin(step)
                if isinstance(step.source, Pages):
                    copies = place_pages(parts, step.source, self.plan.root, record)
                    with self._lock:
                        self.outcome.copies += copies
                elif isinstance(step.source, Table):
                    place_table(parts, step.source, self.plan.root, record)
                elif isinstance(step.source, Files):
                    place_files(parts, step.source, self.plan.root, record)
            if isinstance(step.source, Pages):
                os.sync()  # thousands of files, before the record that says they are there
            self._finish(record, step)
            self._drop(step)

    def _archive(self, archive: tuple[str, str], steps: Sequence[Step], pool: ThreadPoolExecutor) -> None:
        files, root = steps[0].files, self.plan.root
        with self._locked("/".join(archive)):
            places = self._places([step for step in steps if not self._is_done(step)])
            if not places:  # another process was faster, or there are no annotations to place anything by
                return
            for future in [pool.submit(self._fetch, file) for file in files]:
                future.result()
            with contextlib.ExitStack() as stack:
                parts = [stack.enter_context(self._held(file)) for file in files]
                self._unpack(files[0].path, parts, places)
            if all(has_served(root, key, files) for key in self.plan.shared[archive]):
                for file in files:
                    discard(file.digest, self._folder)
            else:
                self.outcome.kept.append(files[0].path)

    def _unpack(self, name: str, parts: Sequence[Path], places: Mapping[Step, Place]) -> None:
        root = self.plan.root
        records = {step: RecordWriter(root, step.key) for step in places}
        former = {step: former_files(root, step.key) for step in records}
        # Of these, files may lie about that no record names.
        interrupted = {
            step
            for step, paths in former.items()
            if progress_file(root, step.key).is_file() or (record_path(root, step.key).is_file() and not paths)
        }
        for step in records:
            self._begin(step)
        into = [(place, records[step]) for step, place in places.items()]
        first = unpack(parts, name, root, into, on_member=self._progress_of(records), nested=nested_in(places))
        os.sync()  # a million small files, before the records that say they are there
        empty = [step for step, record in records.items() if not record.files]
        for step in empty:
            error = DataError(
                f"archive {name} holds nothing for {step.tasks[0]}: its layout is not a known one (it begins with "
                f"{', '.join(first) or 'no file'})"
            )
            self.outcome.failures.append((step.label, error))
        full = {step: record for step, record in records.items() if record.files}
        self._remove_former(full, former, interrupted)
        for step, record in full.items():
            self._finish(record, step)

    def _progress_of(self, records: Mapping[Step, RecordWriter]) -> Callable[[], None]:
        """Called before each member; now and then it notes how far the steps are, for whoever asks how much is left."""
        members = itertools.count(1)

        def on_member() -> None:
            self._check_stop()
            if next(members) % PROGRESS_MEMBERS == 0:
                for step, record in records.items():
                    progress_file(self.plan.root, step.key).write_text(str(record.size))

        return on_member

    def _remove_former(
        self, records: Mapping[Step, RecordWriter], former: Mapping[Step, set[str]], interrupted: set[Step]
    ) -> None:
        """Delete what an older revision placed and this one doesn't: frames are found by listing their folder.

        What an interrupted pass placed stands in no record; it lies in the folder that is listed.
        """
        root = self.plan.root
        gone: set[str] = set().union(*(former[step] for step in records))
        for step in interrupted & records.keys():
            if isinstance(step.source, Archive) and step.source.folder:
                gone |= files_below(root, step.source.folder)
        if not gone:
            return
        for record in records.values():
            gone -= record.paths()
        archives = {(step.source.repo, step.source.file) for step in records if isinstance(step.source, Archive)}
        users = {key for archive in archives for key in self.plan.shared[archive]}
        for key in users - {step.key for step in records}:
            gone -= former_files(root, key)
        for path in gone:
            (root / path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty: other files are still there
                (root / path).parent.rmdir()

    def _places(self, steps: Sequence[Step]) -> dict[Step, Place]:
        """Where members go, by step; a task whose annotations aren't there is left out, and fails alone."""
        places: dict[Step, Place] = {}
        for step in steps:
            assert isinstance(step.source, Archive)
            try:
                places[step] = step.source.place_in(self.plan.root)
            except DataError as error:
                self.outcome.failures.append((step.label, error))
        return places

    def _locked(self, key: str) -> BinaryIO:
        """One process at a time does a step; the others wait, then find it done."""
        self._check_stop()
        return hold(self._folder, slug(key), self._check_stop)

    def _is_done(self, step: Step) -> bool:
        return not self.plan.redo and is_done(self.plan.root, step.key, step.digests)

    def _held(self, file: HubFile) -> contextlib.AbstractContextManager[Path]:
        return held(file, self._folder, self._bytes)

    def _fetch(self, file: HubFile) -> None:
        """Download a file; what several steps read is counted once."""
        with self._lock:
            is_first = file.digest not in self._counted
            self._counted.add(file.digest)
        on_bytes = self._bytes if is_first else lambda _: self._check_stop()
        download(file, self._folder, on_bytes, verify=self.plan.redo)

    def _bytes(self, number: int) -> None:
        self._check_stop()
        with self._lock:
            self._on_bytes(number)

    def _check_stop(self) -> None:
        if self.stop.is_set():
            raise _StoppedError

    def _begin(self, step: Step) -> None:
        """From here on no record of an older revision counts."""
        progress = progress_file(self.plan.root, step.key)
        if progress.is_file():
            self._cut_off.add(step.key)
        progress.write_text("0")

    def _finish(self, record: RecordWriter, step: Step) -> None:
        if step.key in self._cut_off:
            own = record_path(self.plan.root, step.key).relative_to(self.plan.root).as_posix()
            remove_half_written(self.plan.root, {own, *record.paths()}, self._begun)
        finished = record.finish(step.repo, step.files[0].revision, step.digests)
        progress_file(self.plan.root, step.key).unlink(missing_ok=True)
        with self._lock:
            self.outcome.steps += 1
            self.outcome.files += finished.files
            self.outcome.size += finished.size
            self._note(f"{step.label}: {finished.files:,} files, {readable_size(finished.size)}")

    def _drop(self, step: Step) -> None:
        """Delete fetched files that no other step of this plan still needs."""
        for file in step.files:
            with self._lock:
                self._users[file.digest] -= 1
                last = not self._users[file.digest]
            if last:
                discard(file.digest, self._folder)


def former_files(root: Path, key: str) -> set[str]:
    """Paths that a step's record names; none without one, or if it is damaged."""
    recorded = recorded_files(root, key, "path")
    return set() if recorded is None else set(recorded.column("path").to_pylist())


def remove_half_written(root: Path, paths: Iterable[str], before: float) -> None:
    """Delete what a killed process left beside files of its step; what is written now is younger than `before`."""
    for folder in {(root / path).parent for path in paths}:
        for path in folder.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()


def nested_in(steps: Iterable[Step]) -> str:
    """Which members are archives themselves, for any of the steps."""
    nested = {step.source.nested for step in steps if isinstance(step.source, Archive)}
    return "|".join(sorted(nested - {""}))


def files_below(root: Path, folder: str) -> set[str]:
    """Paths of all files below a folder of the data folder."""
    return {path.relative_to(root).as_posix() for path in (root / folder).rglob("*") if path.is_file()}


def _written(root: Path, error: OSError) -> DataError:
    if error.errno in NO_ROOM:
        return DataError(
            f"no room left to write {error.filename or root} ({error.strerror or error}); what is complete is kept: "
            "free some space, then the same command goes on"
        )
    return DataError(f"can't write to {error.filename or root}: {error.strerror or error}; what is done is kept")
