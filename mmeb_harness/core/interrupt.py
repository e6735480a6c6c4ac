"""Ctrl-C, and what schedulers and closed terminals send: what is under way is finished first, unless asked twice.

A handler of Python's runs when the main thread next comes to an instruction of Python's, which may be minutes away in
a library's code. So a thread hears the signals, says what is waited for, and ends the process where it takes too long.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mmeb_harness.core.terminal import say
from mmeb_harness.core.threads import in_background

#: What asks to end; one that is ignored, as by nohup, stays so.
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Seconds that what is under way is given.
PATIENCE_SECONDS = 6.0
#: Seconds from a KeyboardInterrupt to the end of the process. With the patience before it, 10 s, whatever is under way.
WAY_OUT_SECONDS = 4.0
#: Exit code of what somebody interrupted.
INTERRUPTED = 130

#: Whether this process is a command of ours, which may be ended from here. A notebook isn't.
_is_command = False


class Interrupts:
    """Whether somebody asked to stop. Where nobody defers, a signal interrupts at once, as usual.

    Attributes:
        under_way: what would have to be waited for, for the line that says so.
    """

    def __init__(self, note: Callable[[str], None] = lambda _: None) -> None:
        self._note = note
        self._requested = False
        self.under_way = ""

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, the first signal is remembered for `check`; the second raises KeyboardInterrupt there and then.

        So does the end of `PATIENCE_SECONDS` after the first.
        """
        with _heard(self._remember, PATIENCE_SECONDS, self._tell):
            yield

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

    def _tell(self, name: str) -> None:
        named = f", {self.under_way}," if self.under_way else ""
        most = f"{PATIENCE_SECONDS:.0f} s (once more: stop at once)"
        self._note(f"{name}: finishing what is under way{named} for at most {most} …")


@contextmanager
def command_running() -> Iterator[None]:
    """Inside, a command of ours runs: each signal raises KeyboardInterrupt, and if that is to no avail ends it."""
    global _is_command
    _is_command = True
    with _heard(_interrupt, None, lambda _: None):
        yield


def is_command() -> bool:
    """Whether this process is a command of ours, and does nothing besides."""
    return _is_command


def end_now() -> NoReturn:
    """End this process and those that it started: every file is whole or not there, so nobody is waited for."""
    with contextlib.suppress(BaseException):
        say("error: stopped; what is done is kept, the same command goes on from there", err=True)
        if processes := sys.modules.get("multiprocessing"):
            for child in processes.active_children():
                child.kill()
        sys.stdout.flush()
    os._exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _heard(
    handler: Callable[[int, FrameType | None], None], patience: float | None, tell: Callable[[str], None]
) -> Iterator[None]:
    """Handle signals here, and let a thread hear them.

    Args:
        handler: in the main thread, when it comes to it.
        patience: seconds after the first until the signal is sent once more; `None`: the first already interrupts.
        tell: told the name of the first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {
        number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }
    heard: list[int] = []
    ended = threading.Event()

    def listen() -> None:
        try:
            _listen(reader, patience, tell, heard)
        finally:
            ended.set()

    try:
        in_background(listen)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
        signal.set_wakeup_fd(before_writer, warn_on_full_buffer=False)
        with contextlib.suppress(OSError):  # a plugin closed all that was open
            os.write(writer, b"\0")
        if ended.wait(1.0):  # else it may be telling, on a terminal that is stopped
            os.close(reader)
            os.close(writer)
        if heard and before_writer >= 0:  # whoever hears outside of this sees to the rest of the way out
            os.write(before_writer, bytes(heard[:1]))


def _listen(reader: int, patience: float | None, tell: Callable[[str], None], heard: list[int]) -> None:
    """A thread's life: until the byte 0 comes, or the process is ended."""
    until: float | None = None
    main = threading.main_thread().ident or 0
    while True:
        wait = None if until is None else max(0.0, until - time.monotonic())
        if not select.select([reader], [], [], wait)[0]:
            if patience is not None and len(heard) == 1:
                signal.pthread_kill(main, heard[0])  # which is heard here as well, and wakes the main thread
                until = time.monotonic() + WAY_OUT_SECONDS
            elif _is_command:
                end_now()
            else:
                until = None
            continue
        numbers = os.read(reader, 64)
        for number in filter(SIGNALS.__contains__, numbers):
            heard.append(number)
            if len(heard) == 1:
                with contextlib.suppress(Exception):
                    tell(signal.Signals(number).name)
            until = time.monotonic() + (WAY_OUT_SECONDS if patience is None or len(heard) > 1 else patience)
        if 0 in numbers:
            return


# A signal to a forked process is no signal to this one.
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
