"""Threads for which nobody waits at the end."""

from __future__ import annotations

import _thread
from collections.abc import Callable

#: Seconds, one by one: a process that was stopped for a while has its time afterwards.
_BEGINS_WITHIN = 10


def in_background(work: Callable[[], None]) -> None:
    """Let a thread do something; the process may end before it has.

    Raises:
        MemoryError: it didn't begin. Where memory has run out, a thread may die before it says that it runs, and
            `threading.Thread.start` would wait for that for ever.
    """
    begins = _thread.allocate_lock()
    begins.acquire()

    def run() -> None:
        begins.release()
        work()

    _thread.start_new_thread(run, ())
    if not any(begins.acquire(timeout=1) for _ in range(_BEGINS_WITHIN)):
        raise MemoryError("a thread didn't begin")
