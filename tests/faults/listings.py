"""Folders that hold, beside data, what systems, editors and downloads leave there: never data, in any listing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.faults.checkpoints import TINY
from tests.faults.fault import Command, Fault, World
from tests.faults.rows import IMAGES, PARTS, equal_scores, run_of, tables

MOMENTS = ("annotations/VLM2Vec/QVHighlight", "video-tasks/frames/video_mret/QVHighlight")
#: Puts something beside the data.
Litter = Callable[[Path], object]


def _same(name: str, task: str, parts: Sequence[str], litter: Litter) -> Fault:
    """A run on the littered folder measures what one on the clean folder does, of the same data revision."""

    def make(world: World) -> Sequence[Command]:
        world.copied("manifest.json", *parts).rename(world.folder / "clean")
        litter(world.copied("manifest.json", *parts))
        return [run_of(task, "clean", "before"), run_of(task, "data", "after")]

    def holds(world: World) -> None:
        equal_scores(task)(world)
        files = [world.folder / output / "tasks" / f"{task}.json" for output in ("before", "after")]
        before, after = (json.loads(file.read_text())["data_revision"] for file in files)
        assert before == after

    return Fault("listings", name, make, says=(task,), code=0, holds=holds)


def _clip(data: Path) -> Path:
    """A candidate clip's folder."""
    return next(path for path in sorted(data.glob(f"{MOMENTS[1]}/*/*")) if path.name != "query")


def _beside_clips(folder: str) -> Fault:
    def litter(data: Path) -> None:
        for video in sorted((data / MOMENTS[1]).iterdir()):
            shutil.copytree(_clip(data), video / folder)

    return _same(f"{folder!r} beside clips", "QVHighlight", MOMENTS, litter)


def _beside_frames(file: str, content: bytes = b"Mac OS X") -> Fault:
    return _same(
        f"{file!r} beside frames",
        "K700",
        PARTS["K700"],
        lambda data: [(path / file).write_bytes(content) for path in sorted((data / PARTS["K700"][1]).glob("*"))],
    )


def _in_tables(file: str) -> Fault:
    def litter(data: Path) -> None:
        (path,) = tables(data)
        (path.parent / file).write_bytes(b"Mac OS X")

    return _same(f"{file!r} beside a table", "DocVQA", PARTS["DocVQA"], litter)


def _frames_called_oddly(world: World) -> Sequence[Command]:
    data = world.copied("manifest.json", *PARTS["K700"])
    for folder in sorted((data / PARTS["K700"][1]).glob("*")):
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"{'²③'[number % 2]}{number}{path.suffix}")
    return [run_of("K700", "data", "out")]


def _frame_loop(world: World) -> Sequence[Command]:
    data = world.copied("manifest.json", *PARTS["K700"])
    for folder in sorted((data / PARTS["K700"][1]).glob("*")):
        for path in folder.iterdir():
            path.unlink()
        (folder / "a.jpg").symlink_to("a.jpg")
    return [run_of("K700", "data", "out")]


def _only_litter(world: World) -> Sequence[Command]:
    data = world.copied("manifest.json", *PARTS["K700"])
    for folder in sorted((data / PARTS["K700"][1]).glob("*")):
        for path in folder.iterdir():
            path.rename(folder / f"._{path.name}")
    return [run_of("K700", "data", "out")]


def _weights(world: World) -> Sequence[Command]:
    shutil.copytree(TINY, world.folder / "clean" / "ck", copy_function=shutil.copyfile)
    shutil.copytree(TINY, world.folder / "ck", copy_function=shutil.copyfile)
    for name in ("._model.safetensors", "._config.json"):
        (world.folder / "ck" / name).write_bytes(b"Mac OS X")
    (world.folder / "ck" / ".ipynb_checkpoints").mkdir()
    (world.folder / "ck" / ".ipynb_checkpoints" / "config-checkpoint.json").write_text("{}")
    run = ("mmeb-eval", "run", "--limit", "2", "--tasks", "DocVQA", "--reasoning", "never")
    return [
        (*run, "--model", "mmemb_r1:clean/ck", "--output", "before"),
        (*run, "--model", "mmemb_r1:ck", "--output", "after"),
    ]


def _same_model(world: World) -> None:
    equal_scores("DocVQA")(world)
    files = [world.folder / output / "run.json" for output in ("before", "after")]
    before, after = (json.loads(file.read_text())["model_fingerprint"] for file in files)
    assert before == after


def _results(command: Command) -> Callable[[World], Sequence[Command]]:
    """A finished run, in whose folder a file server left its own files."""

    def make(world: World) -> Sequence[Command]:
        return [run_of("DocVQA", str(world.mini), "out"), *_littered(world), command]

    return make


def _littered(world: World) -> Sequence[Command]:
    """Commands can't write litter, so it is there before the run: what a run finds is what it may trip over."""
    for folder, name in (("tasks", "._DocVQA.json"), ("tasks", ".DS_Store"), ("queries", "._DocVQA.parquet")):
        path = world.folder / "out" / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\0\5\x16\7Mac OS X")
    return []


def _official(world: World) -> Sequence[Command]:
    folder = world.folder / "official"
    folder.mkdir()
    (folder / "DocVQA_score.json").write_text(json.dumps({"hit@1": 0.5, "num_pred": 1000, "num_data": 1000}))
    (folder / "._DocVQA_score.json").write_bytes(b"\0\5\x16\7Mac OS X")
    (folder / "._EDIS_score.json").write_bytes(b"\0\5\x16\7Mac OS X")
    return [("mmeb-eval", "import", "official", "--edition", "page-fixed", "--output", "imported")]


def _store(world: World) -> Sequence[Command]:
    for name in ("._random", ".ipynb_checkpoints", "__MACOSX"):
        folder = world.folder / "vectors" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_bytes(b"\0\5\x16\7Mac OS X")
    run = run_of("DocVQA", str(world.mini), "out")
    return [(*run, "--vectors", "vectors"), ("mmeb-eval", "cache", "check", "--vectors", "vectors")]


def _left_to_fuzz(*faults: Fault) -> Iterator[Fault]:
    return (dataclasses.replace(fault, slow=True) for fault in faults)


FAULTS: tuple[Fault, ...] = (
    # One name shows that a listing asks the rule, whose own test has all names; the others are left to make fuzz.
    _beside_clips(".ipynb_checkpoints"),
    _beside_frames("._0001.jpg"),
    _in_tables("._test.parquet"),
    *_left_to_fuzz(*(_beside_clips(folder) for folder in ("__MACOSX", "._positive", "negative_1~", "@eaDir"))),
    *_left_to_fuzz(*(_beside_frames(file) for file in (".0001.jpg.swp", "Thumbs.db", ".hidden.PNG", "#0001.jpg#"))),
    *_left_to_fuzz(*(_in_tables(file) for file in ("test.parquet~", "test-00000-of-00001.parquet.part"))),
    _same(
        "hidden shard beside a table",
        "DocVQA",
        (f"{IMAGES}/DocVQA", PARTS["DocVQA"][1]),
        lambda data: [shutil.copytree(path.parent, path.parent / ".ipynb_checkpoints") for path in tables(data)],
    ),
    Fault("listings", "nothing but litter in frame folders", _only_litter, (r"K700: frame folder .* holds no \.jpg",)),
    Fault("listings", "frames named by digits that are no numbers", _frames_called_oddly, ("K700",), code=0),
    Fault("listings", "frames that are links in a circle", _frame_loop, (r"a\.jpg", "K700")),
    Fault(
        "listings", "twins of weights and configuration", _weights, ("DocVQA",), code=0, holds=_same_model, slow=True
    ),
    Fault("listings", "litter in a run folder", _results(("mmeb-eval", "leaderboard", "out")), ("Not ranked",), code=0),
    Fault("listings", "litter in a run folder, checked", _results(("mmeb-eval", "verify", "out")), ("out",), code=0),
    Fault("listings", "twins of official results", _official, ("DocVQA|official",), code=0),
    Fault("listings", "folders beside stored vectors", _store, ("vectors|random",), code=0),
)
