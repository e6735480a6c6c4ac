"""Ctrl-C or the termination signal while a batch is under way: it is finished first, unless asked twice."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: What schedulers send before they kill.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether somebody asked to stop. Where nobody defers, a signal interrupts at once, as usual."""

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        self._note = note
        self._requested = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, the first signal is remembered for `check`; the second raises KeyboardInterrupt there and then."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return
        before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested

    def check(self) -> None:
        """Stop here if somebody asked to.

        Raises:
            KeyboardInterrupt: somebody did.
        """
        if self._requested:
            raise KeyboardInterrupt

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        self._note(f"{signal.Signals(number).name}: finishing what is under way (once more: stop at once) …")
