"""Terminals and pipes that take nothing, little or other letters; names that a terminal would obey."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.fault import Command, Fault, World
from tests.faults.under import under

#: Characters that a terminal obeys or hides.
_RAW = "\x1b\x07\x9b\u202e\u200b"
_NOTHING_RAW = rf"\A[^{_RAW}]*\Z"
_HOSTILE = "a[/b]\x1b]0;title\x07\x9b31m\u202e[link=http://x]"


@dataclass(frozen=True)
class Condition:
    """What is wrong with the streams.

    Attributes:
        lines: of Python, that arrange it.
        is_lost: whether what a command prints is lost, which is an error if it was to print only.
    """

    name: str
    lines: str
    is_lost: bool = False


def _encoded(name: str) -> Condition:
    streams = "; ".join(
        f"sys.{stream}.reconfigure(encoding={name!r}, errors='strict')" for stream in ("stdout", "stderr")
    )
    return Condition(f"{name} output", streams)


CONDITIONS = (
    _encoded("latin-1"),
    _encoded("koi8-r"),
    _encoded("ascii"),
    Condition("standard output that is full", "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)", is_lost=True),
    Condition("standard output that is closed", "os.close(1)"),
    Condition("standard error that is closed", "os.close(2)"),
    Condition("standard error that is full", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"),
    Condition("a reader that has left", "r, w = os.pipe(); os.dup2(w, 1); os.close(w); os.close(r)"),
    Condition("40 columns", "os.environ['COLUMNS'] = '40'"),
)

_RUN = ("run", "--model", "random", "--tasks", "SUN397,DocVQA", "--output", "run")
#: Commands, and whether they leave something besides what they print.
COMMANDS: tuple[tuple[Sequence[str], bool], ...] = (
    (_RUN, True),
    (("tasks",), False),
    (("models",), False),
    (("check", "random"), False),
    (("leaderboard", "run"), False),
    (("leaderboard", "run", "--format", "md"), False),
    (("leaderboard", "run", "--output", "board.html"), True),
    (("compare", "run", "run"), False),
    (("verify", "run"), False),
    (("report", "run", "--output", "page.html"), True),
    (("export", "run", "--trec", "trec"), True),
    (("cache", "show", "--vectors", ".vectors"), False),
    (("cache", "check", "--vectors", ".vectors"), False),
    (("data", "check", "--data", "cache/mini-v1-seed0", "--tasks", "SUN397", "--quick"), False),
    (("run", "--help"), False),
)


def _row(words: Sequence[str], leaves: bool, condition: Condition, slow: bool) -> Fault:
    def make(world: World) -> list[Command]:
        before = [] if words in (_RUN, ("tasks",), ("models",)) else [("mmeb-eval", *_RUN)]
        return [*before, under(world, condition.lines, words)]

    def holds(world: World) -> None:
        if words == _RUN:
            assert (world.folder / "run" / "run.json").is_file()

    code = 2 if condition.is_lost and not leaves else 0
    says = (r"standard output can't be written \(No space",) if condition.is_lost else (_NOTHING_RAW,)
    name = f"{' '.join(words[:2] if words[0] in ('cache', 'data') else words[:1] + words[2:3])}: {condition.name}"
    return Fault("terminal", name, make, says, code, holds=holds, slow=slow)


def _hostile(name: str, *words: str, code: int = 2, says: str = r"(u001b|x1b)") -> Fault:
    """A name that would be obeyed, somewhere on the command line."""

    def make(world: World) -> list[Command]:
        return [("mmeb-eval", *words)]

    return Fault("terminal", name, make, (_NOTHING_RAW, says), code)


FAULTS = (
    *(
        _row(words, leaves, condition, slow=place % len(CONDITIONS) != number)
        for (place, (words, leaves)), (number, condition) in itertools.product(enumerate(COMMANDS), enumerate(CONDITIONS))
    ),
    _hostile("a folder's name", "run", "--model", "random", "--tasks", "SUN397", "--output", _HOSTILE, code=0, says=r"results: a\[/b\]\\u001b"),
    _hostile("a model's name", "run", "--model", f"random{_HOSTILE}"),
    _hostile("a model's argument", "run", "--model", "random", "--model-arg", f"{_HOSTILE}=1"),
    _hostile("a task's name", "run", "--model", "random", "--tasks", _HOSTILE),
    _hostile("a configuration's name", "run", "--config", f"{_HOSTILE}.yaml"),
    _hostile("a data folder's name", "run", "--model", "random", "--data", _HOSTILE),
    _hostile("an option's name", "run", f"--{_HOSTILE}"),
    _hostile("a command's name", _HOSTILE),
    _hostile("a run's name", "leaderboard", _HOSTILE),
    _hostile("bytes that are no letters", "leaderboard", "run\udcff", says=r"\\udcff"),
)  # fmt: skip
