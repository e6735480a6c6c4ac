"""Is a data folder what it should be? Per task: ready, or what is wrong and the command that mends it."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.files import is_data, regular_file
from mmeb_harness.core.items import Frames, Profile, Samples
from mmeb_harness.core.pictures import PictureError, opened_picture
from mmeb_harness.core.sounds import SHORTEST_SOUND, SoundError, decode_whole, sound_seconds
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo, RevisionError, load_samples, source_key
from mmeb_harness.data.lock import LOCK, read_lock
from mmeb_harness.data.plan import make_plan
from mmeb_harness.data.records import recorded_files
from mmeb_harness.data.revisions import Locked

#: Problems of one kind that are named; the others are counted.
NAMED = 3
#: Files that threads are given to look at.
AT_ONCE = 10_000

Value = TypeVar("Value")

#: path → what is wrong with the file, `None` if nothing is. Tasks share media.
Seen = dict[str, str | None]


@dataclass(frozen=True)
class CheckedTask:
    """What was found of one task.

    Attributes:
        problems: why it isn't ready.
        remarks: what a reader of its scores should know; doesn't stop a run.
        mend: the command that mends the problems; "" if there are none.
    """

    task: str
    summary: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    mend: str

    @property
    def ready(self) -> bool:
        """Whether a run on it gives the score of the declared data."""
        return not self.problems


def check_tasks(
    tasks: Sequence[Task], info: DataInfo, frames: Frames, *, quick: bool, workers: int
) -> Iterator[CheckedTask]:
    """Check tasks one by one.

    Args:
        frames: how many of a video a run would show: fewer saved ones are counted, the shown ones are opened.
        quick: sizes instead of hashes, and no image is decoded.
    """
    locked = Locked(read_lock(info.root / LOCK))  # empty for a folder without one
    seen: Seen = {}
    for task in tasks:
        stale = [step.label for step in make_plan([task], [], info.root, locked).open_steps]
        yield _check_task(task, info, frames, stale, seen, quick=quick, workers=workers)


def _check_task(
    task: Task, info: DataInfo, frames: Frames, stale: Sequence[str], seen: Seen, *, quick: bool, workers: int
) -> CheckedTask:
    """Check one task, of which `stale` is what the lock file names and isn't done, or is of other bytes."""
    problems = [f"{what} is missing, unfinished, or of another revision than the lock file's" for what in stale]
    remarks: list[str] = []
    samples, summary, outdated = None, "", False
    try:
        samples = load_samples(task, info, Profile(frames=frames))
    except DataError as error:
        problems.append(_without_way_out(task.name, error))
        outdated = isinstance(error, RevisionError)
    recorded = _recorded(task, info.root)
    damaged = _changed(recorded, info.root, workers, quick=quick)
    if samples is not None:
        summary = _summary(samples)
        remarks += [f"{count:,} {name}" for name, count in samples.notes.items() if count]
        remarks += _candidate_counts(task, samples, info)
        unopened = _unopened(samples, info.root, seen, workers, quick=quick)
        damaged += _unrecorded(samples, info.root, recorded)
        # What is as it was fetched and can't be opened comes so: fetched again, it would be the same bytes.
        comes_so = bool(recorded) and not damaged and not quick
        (problems if comes_so else damaged).extend(unopened)
    if not recorded and not info.synthetic:
        remarks.append("not fetched by `mmeb-eval data get`: no hashes to check")
    # What has a record counts as done, and what is locked stays: damage, or another revision, has to be asked for.
    # Something missing that was never there is not in this revision.
    missing = bool(problems) and not stale and not damaged
    how = ("--update " if outdated or (missing and recorded) else "") + ("--redo " if damaged else "")
    problems += damaged
    mend = _mend(task, info, how) if problems else ""
    return CheckedTask(task.name, summary, tuple(problems), tuple(remarks), mend)


def _mend(task: Task, info: DataInfo, how: str) -> str:
    if info.synthetic:
        return f"delete {info.root}; it is made again on the next run"
    edition = f"--edition {task.edition} " if task.edition else ""
    return f"mmeb-eval data get {how}--data {shlex.quote(str(info.root))} {edition}--tasks {shlex.quote(task.name)}"


def _without_way_out(name: str, error: DataError) -> str:
    text = str(error).removeprefix(f"{name}: ")
    for way_out in (". Get it: ", ". Look closer: "):
        text = text.partition(way_out)[0]
    return text


def _summary(samples: Samples) -> str:
    sounds = len(_sounds(samples))
    media = ((len(_media(samples)) - sounds, "images or frames"), (sounds, "sounds"))
    counts = ((len(samples.queries), "queries"), (len(samples.candidates), "candidates"), *media)
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _candidate_counts(task: Task, samples: Samples, info: DataInfo) -> list[str]:
    """Against the declared number: of the corpus, or of each query's list. Published numbers, so only a remark."""
    if task.num_candidates is None or info.synthetic:
        return []
    pools = samples.pools
    counts = {len(samples.candidates)} if pools is None else {len(pool) for pool in pools.values()}
    if counts == {task.num_candidates}:
        return []
    span = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    what = "candidates" if samples.pools is None else "candidates a query"
    return [f"{span} {what}, published as {task.num_candidates:,}"]


def _unopened(samples: Samples, root: Path, seen: Seen, workers: int, *, quick: bool) -> list[str]:
    paths = sorted(_media(samples))
    new = [path for path in paths if str(path) not in seen]
    sounds = _sounds(samples)
    problems = _mapped(
        lambda path: (sound_problem if path in sounds else picture_problem)(path, quick=quick), new, workers
    )
    seen.update((str(path), problem) for path, problem in zip(new, problems, strict=True))
    return _shortened([f"{path.relative_to(root)} {seen[str(path)]}" for path in paths if seen[str(path)]])


def _media(samples: Samples) -> set[Path]:
    return {path for item in (*samples.queries, *samples.candidates) for path in item.media}


def _sounds(samples: Samples) -> set[Path]:
    return {item.sound.path for item in (*samples.queries, *samples.candidates) if item.sound is not None}


def _unrecorded(samples: Samples, root: Path, recorded: Mapping[str, tuple[int, bytes]]) -> list[str]:
    """Pictures in folders that were fetched and are shown from, that were not fetched themselves: they shift frames."""
    fetched = {PurePosixPath(path).parent for path in recorded}
    frames = {frame for item in (*samples.queries, *samples.candidates) for frame in item.frames}
    shown = {PurePosixPath(frame.relative_to(root).as_posix()).parent for frame in frames}
    strange = [
        f"{folder}/{name}"
        for folder in sorted(shown & fetched)
        for name in sorted(os.listdir(root / folder))
        if f"{folder}/{name}" not in recorded and is_data(name)
    ]
    return _shortened([f"{path} was not fetched: remove it" for path in strange])


def _mapped(work: Callable[[Value], str | None], values: Sequence[Value], workers: int) -> list[str | None]:
    """In threads, slice by slice: a pool makes a future for everything at once, a GB for two million files."""
    with ThreadPoolExecutor(workers) as pool:
        starts = range(0, len(values), AT_ONCE)
        return [problem for start in starts for problem in pool.map(work, values[start : start + AT_ONCE])]


def picture_problem(path: Path, *, quick: bool) -> str | None:
    """What is wrong with a picture; `None` if it opens (`quick`: if its header can be read)."""
    try:
        with opened_picture(path) as image:
            if not quick:
                image.load()
    except PictureError as error:
        return f"can't be opened ({error.why})"
    return None


def sound_problem(path: Path, *, quick: bool) -> str | None:
    """What is wrong with a sound; `None` if it can be heard (`quick`: if its header can be read)."""
    try:
        if sound_seconds(path) < SHORTEST_SOUND:
            return f"is shorter than {1000 * SHORTEST_SOUND:g} ms, of which models hear nothing"
        if not quick:
            decode_whole(path)
    except SoundError as error:
        return f"can't be opened ({error.why})"
    return None


def _recorded(task: Task, root: Path) -> dict[str, tuple[int, bytes]]:
    """path → (size, sha256) of everything that was fetched for a task."""
    recorded: dict[str, tuple[int, bytes]] = {}
    for source in task.sources:
        columns = ("path", "size", "sha256")
        if (files := recorded_files(root, source_key(task.name, source), *columns)) is not None:
            paths, sizes, hashes = (files.column(name).to_pylist() for name in columns)
            recorded.update(zip(paths, zip(sizes, hashes, strict=True), strict=True))
    return recorded


def _changed(recorded: Mapping[str, tuple[int, bytes]], root: Path, workers: int, *, quick: bool) -> list[str]:
    def problem(entry: tuple[str, tuple[int, bytes]]) -> str | None:
        path, (size, sha256) = entry
        return _difference(root / path, size, None if quick else sha256)

    problems = _mapped(problem, list(recorded.items()), workers)
    return _shortened([f"{path} {what}" for path, what in zip(recorded, problems, strict=True) if what])


def _difference(path: Path, size: int, sha256: bytes | None) -> str | None:
    try:
        if path.stat().st_size != size:
            return f"has {path.stat().st_size:,} bytes, {size:,} were fetched"
        if sha256 is None:
            return None
        with regular_file(path).open("rb") as file:
            return None if hashlib.file_digest(file, "sha256").digest() == sha256 else "isn't what was fetched (hash)"
    except FileNotFoundError:
        return "is gone"
    except OSError as error:
        return f"can't be read ({error.strerror or error})"


def _shortened(problems: list[str]) -> list[str]:
    more = [f"and {len(problems) - NAMED:,} more files like it"] if len(problems) > NAMED else []
    return problems[:NAMED] + more
