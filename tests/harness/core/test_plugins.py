"""Whatever code of a plugin raises ends as one line with its name, file and line."""

from __future__ import annotations

import functools
import json
import signal
import sys
from collections.abc import Callable

import pytest

from mmeb_harness import DataError
from mmeb_harness.core.errors import PluginError
from mmeb_harness.core.plugins import TRACEBACK, plugin_code


def called(function: Callable[[], object]) -> None:
    with plugin_code("model 'odd'", lambda: " over query 'q0'"):
        function()


def fails() -> None:
    raise ValueError("two\nlines")


class PanicError(BaseException):
    """As compiled extensions raise."""


def panics() -> None:
    raise PanicError("unreachable")


def interrupts() -> None:
    raise KeyboardInterrupt


def stops() -> None:
    next(iter(()))


def closes() -> None:
    raise GeneratorExit


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError


def fails_to_say_it() -> None:
    raise MuteError


def exits() -> None:
    sys.exit(0)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            fails,
            r"^model 'odd': ValueError: two lines \(test_plugins\.py:\d+, in fails; called in test_plugins\.py:\d+, in "
            r"called\) over query 'q0'; MMEB_TRACEBACK=1",
        ),
        (panics, r"PanicError: unreachable \(.*in panics; called in .*in called\)"),
        (interrupts, r"model 'odd': KeyboardInterrupt \(.*in interrupts; called in .*in called\)"),
        (stops, r"model 'odd': StopIteration \(.*in stops; called in .*in called\)"),
        (closes, r"model 'odd': GeneratorExit \(.*in closes; called in .*in called\)"),
        (fails_to_say_it, r"model 'odd': MuteError \(.*in fails_to_say_it; called in .*in called\)"),
        (exits, r"model 'odd': called sys\.exit\(0\) \(.*in exits; called in .*in called\)"),
    ],
)
def test_what_a_plugin_raises_is_said_in_one_line(function: Callable[[], object], message: str) -> None:
    with pytest.raises(PluginError, match=message) as raised:
        called(function)
    assert raised.value.__cause__ is not None
    assert "\n" not in str(raised.value)


@functools.singledispatch
def embeds(items: list[str]) -> list[str]:
    return [looks_at(item) for item in items]


def looks_at(item: str) -> str:
    return "".join(sees(letter) for letter in item)


def sees(letter: str) -> str:
    return {"a": "b"}[letter]


def test_the_two_frames_that_matter_are_the_plugins_own_last_ones() -> None:
    """A decorator, comprehensions, and what the plugin calls of others are not among them."""
    with pytest.raises(PluginError, match=r"KeyError: 'c' \(test_plugins.py:\d+, in sees; called in .*, in looks_at\)"):
        called(lambda: embeds(["ac"]))
    with pytest.raises(PluginError, match=r"\(test_plugins.py:\d+, in <lambda>; called in .*, in called\)"):
        called(lambda: json.loads("{"))


def test_a_signal_is_the_users_and_not_the_plugins() -> None:
    with pytest.raises(KeyboardInterrupt):
        called(lambda: signal.raise_signal(signal.SIGINT))


@pytest.mark.parametrize("error", [DataError("image x.png is cut"), MemoryError("all gone")])
def test_what_a_user_can_mend_and_memory_come_as_they_are(error: Exception) -> None:
    def raises() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        called(raises)
    assert raised.value is error


def test_the_traceback_is_printed_where_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked, count in (("", 0), ("1", 1)):
        monkeypatch.setenv(TRACEBACK, asked)
        with pytest.raises(PluginError):
            called(fails)
        assert capsys.readouterr().err.count("Traceback (most recent call last)") == count
