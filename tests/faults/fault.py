"""One hostile input: what is made, which commands meet it, what must be said of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.forked import PROGRAMS
from tests.patience import PATIENCE

#: Name of a program of ours, then its arguments.
Command = Sequence[str]

#: Seconds after which a command counts as hanging, on a machine that does nothing else.
HANGS_AFTER = 15.0


@dataclass(frozen=True)
class World:
    """Where one fault is tried: an empty folder, and the mini suite to take from.

    Attributes:
        folder: the working directory of the commands; nothing else stands in it.
        mini: the mini suite, in a cache that all rows share: what damages it takes `own_suite`.
    """

    folder: Path
    mini: Path

    @property
    def cache(self) -> Path:
        """What the commands get as MMEB_CACHE: a link to the shared one, or a folder with `own_suite`."""
        return self.folder / "cache"

    def own_suite(self) -> Path:
        """The mini suite by links, in a cache of this world's own: files may be deleted there, not changed."""
        self.cache.unlink()
        return linked_suite(self.mini, self.cache / self.mini.name, os.symlink)

    @property
    def environment(self) -> dict[str, str]:
        own = {"MMEB_CACHE": str(self.cache), "HOME": str(self.folder), "OMP_NUM_THREADS": "1", "COLUMNS": "150"}
        return own | {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(self.folder)}

    def copied(self, *parts: str) -> Path:
        """A data folder `data` of its own with these files or folders of the mini suite, as copies: to be damaged."""
        data = self.folder / "data"
        for part in parts:
            source, target = self.mini / part, data / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)
        return data


@dataclass(frozen=True)
class Fault:
    """A row of the table.

    Attributes:
        kind: what sort of thing is wrong: the name of the file that holds the row.
        name: what is wrong, in words; unique within its kind.
        make: writes the input into a world and returns the commands that meet it, one after another.
        says: regular expressions; each is found in what the last command prints, the way out among them.
        code: exit code of the last command: 2 where the input is refused in one line, 0 where it is counted or held.
            Those before it end with 0.
        environment: variables besides those of the world.
        holds: looks at what the commands left behind; raises AssertionError.
        slow: takes some seconds: met by `python -m tests.faults` alone.
    """

    kind: str
    name: str
    make: Callable[[World], Sequence[Command]]
    says: tuple[str, ...]
    code: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    holds: Callable[[World], None] | None = None
    slow: bool = False


#: Of the mini suite, the folders of its media.
_MEDIA = ("image-tasks", "video-tasks")


def linked_suite(
    mini: Path,
    target: Path,
    copy: Callable[[Path, Path], object],
    media: Sequence[str] = ("image-tasks", "video-tasks"),
) -> Path:
    """The mini suite's files by `copy`, but for its media, ten thousand files: their folders are linked to.

    A hard link to a file would count as a change of it, in the tests of another process as well.
    """
    shutil.copytree(mini, target, ignore=shutil.ignore_patterns(*_MEDIA), copy_function=copy)
    for name in _MEDIA:
        (target / name).symlink_to((mini / name).resolve())
    return target


#: Runs words to their end in a folder with an environment.
Caller = Callable[[Sequence[str], Path, Mapping[str, str]], subprocess.CompletedProcess[str]]


def meet(fault: Fault, world: World, call: Caller) -> list[str]:
    """Try one fault; what is wrong with how it was met, a line each, nothing if it was met well."""
    world.folder.mkdir(exist_ok=True)
    world.cache.symlink_to(world.mini.parent)
    environment = world.environment | dict(fault.environment)
    commands = list(fault.make(world))
    for command in commands[:-1]:
        before = call(_words(command), world.folder, environment)
        if before.returncode:
            return [f"{' '.join(command)} ended with {before.returncode}: {before.stderr[-500:]}"]
    done = call(_words(commands[-1]), world.folder, environment)
    wrong = list(_complaints(fault, done))
    if fault.holds is not None and not wrong:
        try:
            fault.holds(world)
        except AssertionError as error:
            wrong.append(f"does not hold: {error}")
    return wrong


def _words(command: Command) -> list[str]:
    program, *arguments = command
    return [str(PROGRAMS / program), *arguments]


def _complaints(fault: Fault, done: subprocess.CompletedProcess[str]) -> Iterator[str]:
    said = done.stdout + done.stderr
    if done.returncode != fault.code:
        yield f"ended with {done.returncode}, not {fault.code}: {said[-1500:]}"
    if "Traceback (most recent call last)" in said:
        yield f"a traceback: {said[-1500:]}"
    if fault.code == 2:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        if len(errors) != 1 or done.stderr.splitlines()[-1:] != errors:
            yield f"not one line that says the error at the end: {done.stderr[-1500:]}"
    for pattern in fault.says:
        if not re.search(pattern, said):
            yield f"does not say {pattern!r}: {said[-1500:]}"


def call_process(words: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run words as a real process; one that takes longer than a hang says so at the end, or is killed."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, -signal.SIGKILL, "", f"killed after {PATIENCE:.0f} s")
    if (seconds := time.monotonic() - begun) > HANGS_AFTER:
        done.stderr += f"error: took {seconds:.0f} s, which counts as hanging\n"
    return done
