"""Trackers that are missing, that work and that fail; trackio and wandb themselves are in `tests.real_trackers`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.trackers import TRACKERS, Tracked, check_trackers, tracking
from tests.event_files import curves


def tracked(folder: Path) -> Tracked:
    return Tracked("project", "name", "group", {"loop": {"steps": 4}}, folder, folder / "log.jsonl")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_missing_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(OptionError, match=rf"--track {name} .*mmeb-harness\[{name}\]"):
        check_trackers([name])  # type: ignore[list-item]


def test_a_run_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    check_trackers(["tensorboard"])
    for steps in ((1, 2), (1, 2, 3)):
        with tracking(["tensorboard", "tensorboard"], tracked(tmp_path)) as log:
            for step in steps:
                log({"loss": 1 / step}, step)
    assert curves(tmp_path) == {"loss": [(step, pytest.approx(1 / step)) for step in (1, 2, 3)]}


def test_one_that_fails_is_told_of_when_it_does_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking(["tensorboard"], tracked(tmp_path)) as log:
        log({"loss": 1.0}, 1)
        log({"loss": "none"}, 2)  # type: ignore[dict-item]
        told = capsys.readouterr().err
        log({"loss": 3.0}, 3)
    assert told.count("\n") == 1
    assert "--track tensorboard couldn't take step 2 (" in told
    assert str(tmp_path / "log.jsonl") in told
    assert "couldn't take step 2 (" in capsys.readouterr().err
    assert curves(tmp_path) == {"loss": [(1, 1.0)]}


def test_one_that_cannot_begin_does_not_end_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with tracking(["tensorboard"], tracked(tmp_path)) as log:
        log({"loss": math.pi}, 1)
    told = capsys.readouterr()
    assert told.err.count("--track tensorboard couldn't begin (") == 2
    assert told.out == ""
