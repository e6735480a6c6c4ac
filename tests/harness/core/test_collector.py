from __future__ import annotations

import gc
import sys
from types import ModuleType

import pytest

from mmeb_harness.core import collector, interrupt
from mmeb_harness.core.collector import collector_paused


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often all that there is was put out of the collector's sight."""
    times: list[int] = []
    monkeypatch.setattr(gc, "freeze", lambda: times.append(1))
    return times


def import_modules(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    for i in range(number):
        monkeypatch.setitem(sys.modules, f"made_up_{i}", ModuleType(f"made_up_{i}"))


def test_the_collector_is_as_it_was_after_a_pause() -> None:
    assert gc.isenabled()
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


@pytest.mark.parametrize(("is_command", "number", "times"), [(True, 300, 1), (True, 3, 0), (False, 300, 0)])
def test_a_command_never_looks_through_what_it_imported(
    is_command: bool, number: int, times: int, frozen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a notebook holds it may let go; and a second model, loaded when all is imported, goes like the first."""
    monkeypatch.setattr(interrupt, "_is_command", is_command)
    assert 3 < collector.MANY < 300
    with collector_paused(), collector_paused():
        import_modules(monkeypatch, number)
    assert len(frozen) == times
