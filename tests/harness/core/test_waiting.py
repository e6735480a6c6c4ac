"""How far work is: lines of a log that come while it is done, and a bar that leaves nothing."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from mmeb_harness.core import waiting
from mmeb_harness.core.waiting import progress_of
from tests.patience import wait_until


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(waiting, "error_console", lambda: Console(file=written, width=200))
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.03)
    monkeypatch.setattr(waiting, "QUICK_SECONDS", 0.0)
    return written


def lines_after(log: io.StringIO, count: int) -> list[str]:
    while log.getvalue().count("\n") < count:
        time.sleep(0.005)
    return [line.split(" ", 1)[1] for line in log.getvalue().splitlines()]  # without the time of day


def test_a_log_tells_what_takes_long(log: io.StringIO) -> None:
    with progress_of("joint, steps", 40, done=10) as advance:
        advance(10, "loss 0.5")
        assert lines_after(log, 2)[1].startswith("joint, steps: 20 of 40, about 0 s left, loss 0.5")
    with progress_of("importing"):
        assert lines_after(log, 5)[-1] == "importing: 0 s"


def test_quick_work_and_other_processes_fill_no_log(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_of("quietly", shown=False) as advance:
        advance()
        time.sleep(0.1)
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 60)
    with progress_of("quickly", 3) as advance:
        advance()
    assert log.getvalue() == ""


@pytest.mark.parametrize("total", [3, None])
def test_a_bar_leaves_nothing(total: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(waiting, "error_console", lambda: Console(file=written, force_terminal=True, width=90))
    with progress_of("making", total) as advance:
        advance(2, "loss 0.5")
    assert ("2/3" in written.getvalue()) == (total is not None)
    assert written.getvalue().endswith("\x1b[2K")


def test_of_work_inside_work_one_bar_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(waiting, "error_console", lambda: Console(file=written, force_terminal=True, width=90))
    with progress_of("outer", 7) as advance:
        with progress_of("inner", 3) as advance_inner:
            written.truncate(written.seek(0))
            advance_inner()
            waiting._bars[-1].refresh()
            assert "inner" in written.getvalue()
            assert "outer" not in written.getvalue()
        written.truncate(written.seek(0))
        advance()
        waiting._bars[-1].refresh()
        assert "1/7" in written.getvalue()
    assert waiting._bars == []


def test_nothing_is_shown_inside_of_what_is_not_shown(log: io.StringIO) -> None:
    with progress_of("outer", shown=False), progress_of("inner"):
        time.sleep(0.1)
    with waiting.silently(), progress_of("reading"):
        time.sleep(0.1)
    assert log.getvalue() == ""
    with progress_of("afterwards"):
        assert lines_after(log, 1)


def test_work_that_nobody_counts_says_that_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "silence", lambda seconds: 0.001)
    notes: list[str] = []
    with waiting.heartbeat("loading weights", notes.append):
        wait_until(lambda: bool(notes))
    assert notes[0] == "loading weights: 0 s"
    said = len(notes)
    time.sleep(0.01)
    assert len(notes) == said  # nothing after its end
