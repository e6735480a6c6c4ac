"""Bars on a terminal, plain lines elsewhere; both tell every finished task."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mmeb_harness.core import progress
from mmeb_harness.core.progress import BarReporter, LineReporter, reporter_for


def played(terminal: bool) -> tuple[str, type]:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    reporter = reporter_for(console)
    reporter.start_run(3)
    reporter.skip_tasks(1)
    for name in ("one", "two"):
        reporter.start_encoding([name], 10)
        reporter.advance(4)
        reporter.advance(6)
        reporter.finish_task(f"{name}: hit@1 [50.0 %]")
    reporter.stop()
    return output.getvalue(), type(reporter)


def test_plain_lines_count_what_is_still_to_do() -> None:
    text, kind = played(terminal=False)
    assert kind is LineReporter
    said = ["[1/2] one: hit@1 [50.0 %]", "[2/2] two: hit@1 [50.0 %]"]
    assert [line[9:] for line in text.splitlines()] == said
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d ", line[:9]) for line in text.splitlines())


def test_bars_leave_the_lines_of_finished_tasks() -> None:
    text, kind = played(terminal=True)
    assert kind is BarReporter
    assert "one: hit@1 [50.0 %]" in text
    assert "two: hit@1 [50.0 %]" in text
    assert "3/3" in text


class Clock:
    """The time that a test says it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


def test_a_long_task_says_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    output, clock = io.StringIO(), Clock(monkeypatch)
    reporter = LineReporter(Console(file=output, width=120))
    reporter.start_run(1)
    reporter.start_encoding(["long", "longer", "longest"], 100)
    reporter.time_left(7800)
    clock.now = 20.0
    reporter.advance(25)
    reporter.stop()
    assert "long and 2 more: 25/100 items, 1.2 items/s, about 2 h 10 min left" in output.getvalue()


def test_an_item_that_takes_long_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    output, clock = io.StringIO(), Clock(monkeypatch)
    reporter = LineReporter(Console(file=output, width=120))
    reporter.start_encoding(["long"], 2)
    clock.now = 3.0
    reporter._tell_it_goes_on()
    assert not output.getvalue()
    clock.now = 12.0
    reporter._tell_it_goes_on()
    reporter.advance(1)
    clock.now = 300.0
    reporter._tell_it_goes_on()
    reporter.advance(1)
    clock.now = 310.0
    reporter._tell_it_goes_on()
    reporter.stop()
    said = [line[9:].strip() for line in output.getvalue().splitlines()]
    assert said[0] == "long: 0/2 items, the next for 12 s"
    assert said[1] == "long: 1/2 items, the next for 288 s"
    assert not any("next" in line for line in said[2:])


@pytest.mark.parametrize(
    ("speed", "shown"), [(0, "0"), (0.0137, "0.014"), (1.25, "1.2"), (9.94, "9.9"), (9.96, "10"), (12345.6, "12,346")]
)
def test_a_speed_below_one_is_none_of_0(speed: float, shown: str) -> None:
    assert progress.rate(speed) == shown
