"""Threads of their own: they begin, or it is said that they don't."""

from __future__ import annotations

import _thread
import threading

import pytest

from mmeb_harness.core import threads
from mmeb_harness.core.threads import in_background
from tests.patience import PATIENCE


def test_work_is_done_beside() -> None:
    done = threading.Event()
    in_background(done.set)
    assert done.wait(PATIENCE)


def test_a_thread_that_dies_before_it_begins_isnt_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", lambda work, arguments: None)
    monkeypatch.setattr(threads, "_BEGINS_WITHIN", 1)
    with pytest.raises(MemoryError, match="didn't begin"):
        in_background(lambda: None)
