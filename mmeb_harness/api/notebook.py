"""How a run tells of itself in a notebook: one line that is rewritten, and what the user should know below it."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from typing import Any

from mmeb_harness.core.progress import label, rate, readable_seconds
from mmeb_harness.core.terminal import shown

#: Between two drawings.
_DRAWN_SECONDS = 0.5


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and "ipykernel" in sys.modules and ipython.get_ipython() is not None


class NotebookReporter:
    """A `Reporter` that needs no widgets: the front end replaces what it has shown under one id."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._handle: Any = display(HTML(""), display_id=True)
        self._tasks = self._done = self._items = self._encoded = self._media = 0
        self._label = ""
        self._notes: list[str] = []
        self._ends: float | None = None
        self._drawn = self._encoding_started = time.monotonic()

    def start_run(self, tasks: int) -> None:
        self._tasks = tasks
        self._draw(now=True)

    def read_media(self, files: int) -> None:
        self._media += files
        self._draw()

    def start_encoding(self, tasks: Sequence[str], items: int) -> None:
        self._label, self._items, self._encoded = label(tasks), items, 0
        self._encoding_started = time.monotonic()
        self._draw()

    def advance(self, items: int) -> None:
        self._encoded += items
        self._draw()

    def time_left(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def finish_task(self, line: str) -> None:
        self._done += 1
        self._draw()

    def skip_tasks(self, tasks: int) -> None:
        self._done += tasks

    def note(self, line: str) -> None:
        self._notes.append(line)
        self._draw(now=True)

    def stop(self) -> None:
        self._draw(now=True)

    def _draw(self, *, now: bool = False) -> None:
        if not now and time.monotonic() - self._drawn < _DRAWN_SECONDS:
            return
        self._drawn = time.monotonic()
        line = f"{self._done} of {self._tasks} tasks"
        if self._media:
            line += f" · {self._media:,} media files read"
        if self._items and self._done < self._tasks:
            speed = self._encoded / max(self._drawn - self._encoding_started, 1e-9)
            line += f" · {self._label}: {self._encoded:,} of {self._items:,} items, {rate(speed)} items/s"
        if self._ends is not None and self._done < self._tasks:
            line += f" · {readable_seconds(self._ends - self._drawn)} left"
        bar = f'<progress value="{self._done}" max="{max(self._tasks, 1)}"></progress> {html.escape(shown(line))}'
        notes = "".join(f"<br>{html.escape(shown(note))}" for note in self._notes)
        self._handle.update(self._html(bar + notes))
