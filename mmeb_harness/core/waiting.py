"""How far some work is: a bar on a terminal, in a log a line now and then. Bars of a run: `core/progress.py`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol, TypeVar

from mmeb_harness.core.terminal import error_console, print_logged
from mmeb_harness.core.threads import in_background

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

#: Longest silence in a log, at the beginning and of work that takes for ever; between them a twentieth of what it took.
SILENT_SECONDS, LONGEST_SILENT_SECONDS = 4.0, 60.0
#: What is done by then is told of by nobody.
QUICK_SECONDS = 1.0

#: The bars that were begun, one inside another: the last one is shown.
_bars: list[Progress] = []
_silenced = ContextVar("_silenced", default=False)

T = TypeVar("T")


class Advance(Protocol):
    """Told of units that are done, and what else to show of them."""

    def __call__(self, units: int = 1, note: str = "") -> None: ...


@contextmanager
def progress_of(what: str, total: int | None = None, *, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show on standard error how far some work is; nothing of it stays on a terminal, and quick work fills no log.

    A thread shows it: start processes by forking before, not inside. Work inside other work is shown instead of that.

    Args:
        what: the work, "making the suite"; of counted work with its units, "joint, steps".
        total: units; `None`: they can't be counted, and what is shown is how long it has taken.
        done: units that an earlier call has done.
        shown: false of all processes but one; nor is what is done inside, then.
    """
    console = error_console()
    if not shown or _silenced.get():
        with silently():
            yield lambda units=1, note="": None
    elif console.is_terminal:
        with _bar(console, what, total, done) as advance:
            yield advance
    else:
        lines = _Lines(console, what, total, done)
        with beats(lambda: lines.wait, lines.tell_if_due):
            yield lines.advance


@contextmanager
def silently() -> Iterator[None]:
    """Nothing is shown of how far work inside is."""
    before = _silenced.set(True)
    try:
        yield
    finally:
        _silenced.reset(before)


def each_of(what: str, values: Sequence[T]) -> Iterator[T]:
    """The same, one after another, and how many of them are done; see `progress_of`."""
    with progress_of(what, len(values)) as advance:
        for value in values:
            yield value
            advance()


@contextmanager
def _bar(console: Console, what: str, total: int | None, done: int) -> Iterator[Advance]:
    from rich import progress

    name, note = (progress.TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
    counted = progress.MofNCompleteColumn(), progress.TimeRemainingColumn()
    times = counted if total is not None else (progress.TimeElapsedColumn(),)
    bar = progress.Progress(name, progress.BarColumn(bar_width=30), *times, note, console=console, transient=True)
    with _instead_of_others(bar):
        task = bar.add_task(what, total=total, completed=done, note="")
        yield lambda units=1, note="": bar.update(task, advance=units, note=note)


@contextmanager
def _instead_of_others(bar: Progress) -> Iterator[None]:
    """A terminal has one place for them: the bar of the work that this is a part of comes back afterwards."""
    if _bars:
        _bars[-1].stop()
    _bars.append(bar)
    try:
        with bar:
            yield
    finally:
        _bars.remove(bar)
        if _bars:
            _bars[-1].start()


class _Lines:
    """Lines for a log."""

    #: When the last one was written, of whatever work: many short ones after another aren't silent either.
    told_at = time.monotonic()

    def __init__(self, console: Console, what: str, total: int | None, done: int) -> None:
        self._console, self._what, self._total, self._before, self._done = console, what, total, done, done
        self._began = self._advanced = time.monotonic()
        self._note = ""

    @property
    def wait(self) -> float:
        """Seconds until the next one is due."""
        now = time.monotonic()
        return max(_Lines.told_at + silence(now - self._began), self._began + QUICK_SECONDS) - now

    def advance(self, units: int = 1, note: str = "") -> None:
        self._done, self._note, self._advanced = self._done + units, note, time.monotonic()

    def tell_if_due(self) -> None:
        if self.wait > 0:  # other work has told meanwhile
            return
        _Lines.told_at = time.monotonic()
        now, fresh, left = _Lines.told_at, self._done - self._before, ""
        said = f"{now - self._began:.0f} s" if self._total is None else f"{self._done:,} of {self._total:,}"
        if self._total and fresh > 0:
            each = (self._advanced - self._began) / fresh
            left = f"about {max(0.0, each * (self._total - self._done) - (now - self._advanced)):.0f} s left"
        print_logged(self._console, ", ".join(filter(None, (f"{self._what}: {said}", left, self._note))))


def silence(seconds: float) -> float:
    """How long some work may say nothing that has taken so long."""
    return min(max(SILENT_SECONDS, seconds / 20), LONGEST_SILENT_SECONDS)


@contextmanager
def heartbeat(what: str, note: Callable[[str], None]) -> Iterator[None]:
    """Have it noted now and then that some work is under way, and for how long."""
    began = time.monotonic()

    def passed() -> float:
        return time.monotonic() - began

    with beats(lambda: silence(passed()), lambda: note(f"{what}: {passed():.0f} s")):
        yield


@contextmanager
def beats(wait: Callable[[], float], tell: Callable[[], None]) -> Iterator[None]:
    """A thread that waits, for as long as it is told each time, and tells; until the end of the context."""
    ended, over = threading.Event(), threading.Event()

    def beat() -> None:
        while not ended.wait(max(0.0, wait())):
            tell()
        over.set()

    in_background(beat)
    try:
        yield
    finally:
        ended.set()
        over.wait()
