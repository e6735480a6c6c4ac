"""How a run tells of itself: bars with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from mmeb_harness.core.terminal import print_logged, print_shown
from mmeb_harness.core.waiting import SILENT_SECONDS, beats, silence


class Reporter(Protocol):
    """Told what happens; shows it or not."""

    def start_run(self, tasks: int) -> None:
        """A run over so many tasks starts."""
        ...

    def read_media(self, files: int) -> None:
        """So many media files more were read through, for their hashes."""
        ...

    def start_encoding(self, tasks: Sequence[str], items: int) -> None:
        """So many distinct items of these tasks are going to be encoded."""
        ...

    def advance(self, items: int) -> None:
        """So many items more are encoded; below 0: some have to be encoded again."""
        ...

    def time_left(self, seconds: float) -> None:
        """The run will take so long from now on."""
        ...

    def finish_task(self, line: str) -> None:
        """A task is done; `line` says how it went."""
        ...

    def skip_tasks(self, tasks: int) -> None:
        """So many tasks were finished by an earlier invocation."""
        ...

    def note(self, line: str) -> None:
        """Show a line with something that the user should know."""
        ...

    def stop(self) -> None:
        """End the display: the run is over, well or not."""
        ...


class _Speed(ProgressColumn):
    """How fast items are encoded; tasks are of all sizes."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None or not task.fields.get("items") else f"{rate(task.speed)} items/s")


class _Left(ProgressColumn):
    """Of the run, how long it will still take: as last told, less what has passed since."""

    def render(self, task: Task) -> Text:
        if (ends := task.fields.get("ends")) is None:
            return Text("")
        return Text(f"{readable_seconds(ends - time.monotonic())} left")


class BarReporter:
    """Two live bars: tasks, and items being encoded."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),  # which moves while an item takes long
            _Speed(),
            _Left(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._run: TaskID | None = None
        self._items: TaskID | None = None
        self._media: TaskID | None = None

    def start_run(self, tasks: int) -> None:
        self._run = self._progress.add_task("tasks", total=tasks)
        self._progress.start()

    def read_media(self, files: int) -> None:
        if files and self._media is None:
            self._media = self._progress.add_task("  media files read", total=None)
        if self._media is not None:
            self._progress.advance(self._media, files)

    def time_left(self, seconds: float) -> None:
        if self._run is not None:
            self._progress.update(self._run, ends=time.monotonic() + seconds)

    def start_encoding(self, tasks: Sequence[str], items: int) -> None:
        if self._items is not None:
            self._progress.remove_task(self._items)
        self._items = self._progress.add_task(f"  {label(tasks)}", total=items, items=True)

    def advance(self, items: int) -> None:
        if self._items is not None:
            self._progress.advance(self._items, items)

    def finish_task(self, line: str) -> None:
        if self._run is not None:
            self._progress.advance(self._run)
        self.note(line)

    def skip_tasks(self, tasks: int) -> None:
        if self._run is not None:
            self._progress.advance(self._run, tasks)

    def note(self, line: str) -> None:
        print_shown(self._progress.console, line)

    def stop(self) -> None:
        self._progress.stop()


class LineReporter:
    """Plain lines for logs: one a task, and one now and then while much is encoded, with the time left.

    While an item takes long a thread says so.
    """

    def __init__(self, console: Console, prefix: str = "") -> None:
        self._console, self._prefix = console, prefix
        self._tasks = self._done = self._items = self._encoded = 0
        self._label = ""
        self._media = 0
        self._ends: float | None = None
        self._began = self._encoding_started = self._last = self._last_media = time.monotonic()
        self._beats = ExitStack()

    def start_run(self, tasks: int) -> None:
        self._tasks = tasks

    def time_left(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def _left(self) -> str:
        return "" if self._ends is None else f"{readable_seconds(self._ends - time.monotonic())} left"

    def read_media(self, files: int) -> None:
        self._media += files
        now = time.monotonic()
        if files and now - self._last_media > silence(now - self._began):
            self._last_media = now
            self.note(f"        {self._media:,} media files read")

    def start_encoding(self, tasks: Sequence[str], items: int) -> None:
        self._label, self._items, self._encoded = label(tasks), items, 0
        self._encoding_started = self._last = self._advanced = time.monotonic()
        self._beats.close()
        self._beats.enter_context(beats(lambda: SILENT_SECONDS, self._tell_it_goes_on))

    def _tell_it_goes_on(self) -> None:
        now = time.monotonic()
        if self._encoded < self._items and now - self._advanced >= SILENT_SECONDS:
            self._last = now
            done = f"{self._label}: {self._encoded}/{self._items} items"
            self.note(f"        {done}, the next for {now - self._advanced:.0f} s")

    def advance(self, items: int) -> None:
        self._encoded += items
        self._advanced = now = time.monotonic()
        if self._encoded > 0 and now - self._last > silence(now - self._began):
            self._last = now
            speed = self._encoded / (now - self._encoding_started)
            parts = [f"{self._label}: {self._encoded}/{self._items} items", f"{rate(speed)} items/s", self._left()]
            self.note(f"        {', '.join(filter(None, parts))}")

    def skip_tasks(self, tasks: int) -> None:
        self._tasks -= tasks  # time left counts what is still to do

    def finish_task(self, line: str) -> None:
        self._done += 1
        left = self._left() if self._done < self._tasks else ""
        self.note(f"[{self._done}/{self._tasks}] {line}" + (f"  ({left})" if left else ""))

    def note(self, line: str) -> None:
        print_logged(self._console, f"{self._prefix}{line}")

    def stop(self) -> None:
        self._beats.close()


class Prefixed:
    """Tells another one, and in lines whose they are."""

    def __init__(self, reporter: Reporter, prefix: str) -> None:
        self._reporter, self._prefix = reporter, prefix
        self.start_run, self.read_media = reporter.start_run, reporter.read_media
        self.start_encoding, self.advance = reporter.start_encoding, reporter.advance
        self.time_left, self.skip_tasks, self.stop = reporter.time_left, reporter.skip_tasks, reporter.stop

    def finish_task(self, line: str) -> None:
        self._reporter.finish_task(f"{self._prefix}{line}")

    def note(self, line: str) -> None:
        self._reporter.note(f"{self._prefix}{line}")


class SilentReporter:
    """Shows nothing of what it is told."""

    def start_run(self, tasks: int) -> None: ...
    def read_media(self, files: int) -> None: ...
    def start_encoding(self, tasks: Sequence[str], items: int) -> None: ...
    def advance(self, items: int) -> None: ...
    def time_left(self, seconds: float) -> None: ...
    def finish_task(self, line: str) -> None: ...
    def skip_tasks(self, tasks: int) -> None: ...
    def note(self, line: str) -> None: ...
    def stop(self) -> None: ...


def readable_seconds(seconds: float) -> str:
    """About how long, to two digits at most: "about 12 s", "about 3 min", "about 2 h 10 min"."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"about {whole} s"
    minutes = round(whole / 60)
    return f"about {minutes} min" if minutes < 100 else f"about {minutes // 60} h {minutes % 60 // 10 * 10:02d} min"


def rate(items_a_second: float) -> str:
    """A speed as it is shown: pages that take ten seconds each aren't 0."""
    return f"{items_a_second:.2g}" if items_a_second < 9.95 else f"{items_a_second:,.0f}"


def label(tasks: Sequence[str]) -> str:
    """The first of the tasks, and how many more there are."""
    return f"{tasks[0]} and {len(tasks) - 1} more" if len(tasks) > 1 else "".join(tasks)


def reporter_for(console: Console) -> Reporter:
    """Bars if `console` is a terminal, lines if not."""
    return BarReporter(console) if console.is_terminal else LineReporter(console)
