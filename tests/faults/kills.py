"""Runs that are ended at random moments, in every way a run can end, and then called again: no digit may differ from a
run that nobody disturbed, and nothing may be left over.
"""

from __future__ import annotations

import os
import random
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.forked import open_forks
from tests.harness.processes import TASKS, TORCHRUN, Place
from tests.patience import PATIENCE, wait_until

#: How a run is called: what stands before the command, and the options behind it.
LAUNCHES: Mapping[str, tuple[list[str] | None, list[str]]] = {
    "one process": (None, []),
    "two workers": (None, ["--workers", "2"]),
    "torchrun": (TORCHRUN, []),
}


def _signalled(number: signal.Signals) -> Callable[[int, random.Random], None]:
    def end(group: int, rng: random.Random) -> None:
        os.killpg(group, number)

    return end


def _stopped_for_a_while(group: int, rng: random.Random) -> None:
    os.killpg(group, signal.SIGSTOP)
    time.sleep(rng.uniform(0.1, 1.0))
    os.killpg(group, signal.SIGCONT)


def _limited(kind: int, least: int, most: int) -> Callable[[int, random.Random], None]:
    def end(group: int, rng: random.Random) -> None:
        limit = rng.randint(least, most)
        for process in _members(group):
            resource.prlimit(process, kind, (limit, limit))

    return end


#: What ends a run, or disturbs it. Memory and disk run out by a limit that is set while it goes on.
ENDS: Mapping[str, Callable[[int, random.Random], None]] = {
    "KILL": _signalled(signal.SIGKILL),
    "TERM": _signalled(signal.SIGTERM),
    "INT": _signalled(signal.SIGINT),
    "HUP": _signalled(signal.SIGHUP),
    "STOP and CONT": _stopped_for_a_while,
    "no memory": _limited(resource.RLIMIT_AS, 1 << 28, 1 << 30),
    "no disk": _limited(resource.RLIMIT_FSIZE, 0, 4096),
}


HANGS = f"it hung for {PATIENCE:.0f} s"
#: Stored chunks are named by the moment they were written in, and by their bytes.
_NUMBERS = re.compile(r"-\d+-xxh3-[0-9a-f]{32}")


@dataclass(frozen=True)
class Kill:
    """One run that was ended, and what came of it.

    Attributes:
        name: how the run was called and ended, and after how many seconds.
        code: with which it ended; negative for a signal.
        wrong: what must not be, a line each.
    """

    name: str
    code: int
    wrong: tuple[str, ...]


def random_kills(count: int, seed: int, folder: Path, cache: Path) -> Iterator[Kill]:
    """End so many runs at random moments, and compare what the same command makes of them afterwards.

    Args:
        seed: of the moments; the same one draws the same launches, ends and moments.
        folder: an empty one.
        cache: holds the mini suite.
    """
    rng = random.Random(seed)
    with open_forks() as forks:
        place = Place.in_folder(folder, cache, forks)
        undisturbed = {launch: _run(place, launch, f"whole-{number}") for number, launch in enumerate(LAUNCHES)}
        for number in range(count):
            launch = rng.choice(list(LAUNCHES))
            end = list(ENDS)[number % len(ENDS)]
            expected = undisturbed[launch]
            moment = rng.uniform(0.0, expected.seconds)
            code, said = _disturb(place, launch, f"run-{number}", end, moment, rng)
            wrong = [*_badly_ended(launch, end, said), *_differing(_run(place, launch, f"run-{number}"), expected)]
            yield Kill(f"{launch}, {end} after {moment:.2f} s", code, tuple(wrong))


@dataclass(frozen=True)
class _Whole:
    seconds: float
    rankings: dict[str, object]
    files: frozenset[str]  # their names without what chance made of them


def _words(place: Place, launch: str, name: str) -> tuple[list[str] | None, list[str]]:
    launcher, options = LAUNCHES[launch]
    return launcher, place.run(name, "--model-arg", "seconds=0.02", *options, marks=False)


def _run(place: Place, launch: str, name: str) -> _Whole:
    launcher, words = _words(place, launch, name)
    begun = time.monotonic()
    process = place.start(*words, launcher=launcher)
    done = place.end(process)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    paths = (str(path.relative_to(place.folder / name)) for path in (place.folder / name).rglob("*"))
    files = frozenset(_NUMBERS.sub("", path) for path in paths)
    return _Whole(time.monotonic() - begun, place.rankings(name), files)


def _disturb(place: Place, launch: str, name: str, end: str, moment: float, rng: random.Random) -> tuple[int, str]:
    launcher, words = _words(place, launch, name)
    process = place.start(*words, launcher=launcher)
    time.sleep(moment)
    if process.poll() is None:
        ENDS[end](process.pid, rng)
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), HANGS
    wait_until(lambda: not _members(process.pid))  # nobody outlives it
    return process.returncode, out + err


def _badly_ended(launch: str, end: str, said: str) -> Iterator[str]:
    """Complaints about what was said. torchrun shows tracebacks of its own, and memory runs out inside libraries."""
    if said == HANGS:
        yield HANGS
    if (
        launch != "torchrun"
        and end in ("TERM", "INT", "HUP", "no disk")
        and "Traceback (most recent call last)" in said
    ):
        yield f"a traceback: {said[-1500:]}"


def _differing(ended: _Whole, expected: _Whole) -> Iterator[str]:
    for task in TASKS:
        if ended.rankings[task] != expected.rankings[task]:
            yield f"{task} differs"
    if more := ended.files - expected.files:
        yield f"left over: {', '.join(sorted(more))}"
    if less := expected.files - ended.files:
        yield f"missing: {', '.join(sorted(less))}"


def _members(group: int) -> list[int]:
    """Processes of a group that still run."""

    def group_of(process: Path) -> int | None:
        try:
            state, _, number = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            return None
        return None if state == "Z" else int(number)

    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and group_of(path) == group]
