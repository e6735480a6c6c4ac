"""How far some work is: a bar on a terminal, in a log a line now and then. Bars of a run: `core/progress.py`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mmeb_harness.core.terminal import error_console, print_shown

if TYPE_CHECKING:
    from rich.console import Console

#: Longest silence in a log, at the beginning and of work that takes for ever; between them a twentieth of what it took.
SILENT_SECONDS, LONGEST_SILENT_SECONDS = 4.0, 60.0
#: Between two drawings of a bar.
_DRAWN_SECONDS = 0.1


class Advance(Protocol):
    """Told of units that are done, and what else to show of them."""

    def __call__(self, units: int = 1, note: str = "") -> None: ...


@contextmanager
def progress_of(what: str, total: int | None = None, *, done: int = 0, shown: bool = True) -> Iterator[Advance]:
    """Show on standard error how far some work is; nothing of it stays on a terminal, and quick work fills no log.

    Args:
        what: the work, "making the suite"; of counted work with its units, "joint, steps".
        total: units; `None`: they can't be counted, and what is shown is how long it has taken.
        done: units that an earlier call has done.
        shown: false of all processes but one.
    """
    console = error_console()
    if not shown:
        yield lambda units=1, note="": None
    elif console.is_terminal:
        with _bar(console, what, total, done) as advance:
            yield advance
    else:
        lines = _Lines(console, what, total, done)
        with _beats(lines) if total is None else contextlib.nullcontext():
            yield lines.advance


@contextmanager
def _bar(console: Console, what: str, total: int | None, done: int) -> Iterator[Advance]:
    from rich import progress

    name, note = (progress.TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
    times = (
        (progress.MofNCompleteColumn(), progress.TimeRemainingColumn()) if total else (progress.TimeElapsedColumn(),)
    )
    # Counted work may fork, and a thread that draws might hold a lock then: its bar is drawn as it advances.
    bar = progress.Progress(
        *(name, progress.BarColumn(bar_width=30), *times, note),
        console=console,
        transient=True,
        auto_refresh=total is None,
    )
    with bar:
        task = bar.add_task(what, total=total, completed=done, note="")
        bar.refresh()
        drawn = time.monotonic()

        def advance(units: int = 1, note: str = "") -> None:
            nonlocal drawn
            bar.update(task, advance=units, note=note)
            if total is not None and time.monotonic() - drawn > _DRAWN_SECONDS:
                drawn = time.monotonic()
                bar.refresh()

        yield advance


class _Lines:
    """Lines for a log."""

    def __init__(self, console: Console, what: str, total: int | None, done: int) -> None:
        self._console, self._what, self._total, self._before, self._done = console, what, total, done, done
        self._began = self._last = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds that may pass without a line."""
        return min(max(SILENT_SECONDS, (time.monotonic() - self._began) / 20), LONGEST_SILENT_SECONDS)

    def advance(self, units: int = 1, note: str = "") -> None:
        self._done += units
        if time.monotonic() - self._last > self.silence:
            self.tell(note)

    def tell(self, note: str = "") -> None:
        self._last = time.monotonic()
        seconds, fresh = self._last - self._began, self._done - self._before
        said = f"{seconds:.0f} s" if self._total is None else f"{self._done:,} of {self._total:,}"
        left = f"about {seconds / fresh * (self._total - self._done):.0f} s left" if self._total and fresh > 0 else ""
        print_shown(self._console, ", ".join(filter(None, (f"{self._what}: {said}", left, note))))


@contextmanager
def _beats(lines: _Lines) -> Iterator[None]:
    """Lines from a thread, since what can't be counted tells nothing by itself."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(lines.silence):
            lines.tell()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
