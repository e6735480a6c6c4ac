"""What stages of `mmemb-r1` leave for each other, damaged; and numbers that a configuration can't mean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.faults.checkpoints import TINY
from tests.faults.fault import Command, Fault, World

TRAIN: Command = ("mmemb-r1", "train", "--config", "miniworld", "--output", "out")
RATIONALES: Command = ("mmemb-r1", "rationales", *TRAIN[2:])
SELECT: Command = ("mmemb-r1", "select", *TRAIN[2:])
SMALL = (
    *("--set", "synthetic=[{module: mmeb_tasks.miniworld, folder: train, split: train, seed: 1, queries: 8}]"),
    *("--set", "data=[{kind: suite, path: train, subset: miniworld-text}]"),
)
#: A line that the stage before could have written, and its file.
WRITTEN = {"dataset": "miniworld-text", "pair": "00000", "side": "query", "worker": "precise", "sample": 0, "text": "a"}
WRITTEN |= {"tokens": None, "seconds": None, "finish": "stop"}
SELECTED = {"dataset": "miniworld-text", "pair": "00000", "side": "query", "without": 0.0, "judged": []}


def _row(name: str, make: Callable[[Path], object], command: Command, *says: str, more: Sequence[str] = ()) -> Fault:
    """The row of one output folder; torch is imported, which takes some seconds."""

    def made(world: World) -> list[Command]:
        make(world.folder / "out")
        return [(*command, *SMALL, *more)]

    return Fault("training", name, made, says, slow=True)


def _set(setting: str, *says: str) -> Fault:
    return _row(f"--set {setting}", lambda out: None, TRAIN, *says, more=("--set", setting))


def _line(name: str, file: str, line: object, command: Command, *says: str) -> Fault:
    def make(out: Path) -> None:
        (out / file).parent.mkdir(parents=True)
        (out / file).write_text((line if isinstance(line, str) else json.dumps(line)) + "\n")

    return _row(name, make, command, *says)


def _half_a_start(out: Path) -> None:
    """As a kill left it once: config.json without weights."""
    (out / "start").mkdir(parents=True)
    shutil.copyfile(TINY / "config.json", out / "start" / "config.json")
    (out / "selected").mkdir()
    (out / "selected" / "selected.jsonl").write_text(json.dumps(SELECTED | {"direct_only": True}) + "\n")


def _own(name: str, line: str, *says: str) -> Fault:
    """A file of pairs; the run's folder then has nothing but the configuration."""

    def make(world: World) -> list[Command]:
        (world.folder / "pairs.jsonl").write_text(line + "\n")
        settings = ("data=[{kind: pairs, path: pairs.jsonl}]", "student={checkpoint: tiny}", "start=", "synthetic=[]")
        settings = (*settings, "rationales={}", "judge=")
        return [(*TRAIN, *(word for setting in settings for word in ("--set", setting)))]

    def holds(world: World) -> None:
        assert [path.name for path in (world.folder / "out").iterdir()] == ["config.json"]

    return Fault("training", name, make, says, holds=holds, slow=True)


PICTURED = '{"query": "a", "positive": {"image": "a.png"}}'
ROWS, SIDES = "rationales/rationales.jsonl", "selected/selected.jsonl"

FAULTS = (
    _set("train.loop.steps=-5", r"error: train\.loop\.steps must be at least 1, not -5"),
    _set("train.loop.log_every=0", r"train\.loop\.log_every must be at least 1"),
    _set("train.loop.learning_rate=.nan", r"train\.loop\.learning_rate is nan"),
    _set("train.plan.sub_batches=0", r"sub_batches must be at least 1"),
    _set("train.contrast.temperature=0", r"temperature must be above 0"),
    _set("student.device=cudaa", "device 'cudaa' is no device; use auto, cpu"),
    _set("start.size.vocabulary=1", "vocabulary must be at least 267"),
    _row("an output that is a file", lambda out: out.write_text("x"), TRAIN, "out: File exists; something else lies"),
    _row("nothing selected", lambda out: None, TRAIN, r"selected\.jsonl is missing: run `mmemb-r1 select` first"),
    _row("half a student", _half_a_start, TRAIN, r"start has no .*move out/start away and call `mmemb-r1 train`"),
    _own("a pair without its positive", '{"query": "a"}', r"pairs\.jsonl, line 1: it lacks the positive; mend"),
    _own("a pair whose picture is missing", PICTURED, r"pairs\.jsonl, line 1: .*a\.png is missing; put it there"),
    _line("a rationale that is null", ROWS, "null", RATIONALES, r"rationales\.jsonl, line 1.*delete that line"),
    _line("a rationale without a text", ROWS, WRITTEN | {"text": None}, RATIONALES, "line 1: text must be str"),
    _line("a rationale of a number", ROWS, WRITTEN | {"pair": 3}, RATIONALES, "line 1: pair must be str, not 3"),
    _line("a rationale of another release", ROWS, WRITTEN | {"mood": 1}, RATIONALES, "named 'mood'"),
    _line("a selection without chances", SIDES, SELECTED, TRAIN, r"line 1 lacks 'direct_only'.*r1 select"),
    _line(
        *("a selection whose chances add up to nothing", SIDES, SELECTED | {"direct_only": False}, TRAIN),
        r"chances are \[\], expected some that add up to 1",
    ),
)  # fmt: skip
