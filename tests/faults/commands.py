"""What a message tells to do is done: each way out leads out."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mmeb_harness.results.files import load_run_result, save_run_result
from tests.faults.fault import Command, Fault, World
from tests.faults.results import finished

RUN = ("mmeb-eval", "run", "--model", "random", "--tasks", "DocVQA", "--limit", "2", "--output", "run")
OTHER = ("mmeb-eval", "run", "--model", "bag_of_features", "--tasks", "DocVQA", "--limit", "2", "--output", "run")
DATA = (*RUN, "--data", "data")
WHOLE = ("mmeb-eval", "run", "--model", "random", "--tasks", "DocVQA,OK-VQA", "--output", "run")
FIRST, SECOND, MERGE = (*RUN, "--shard", "1/2"), (*RUN, "--shard", "2/2"), ("mmeb-eval", "merge", "run")


def _row(name: str, make: Callable[[World], Sequence[Command]], *says: str, code: int = 2, slow: bool = False) -> Fault:
    return Fault("commands", name, make, says, code, slow=slow)


def _data(name: str, spoil: Callable[[Path], object], *says: str, command: Command = DATA, code: int = 2) -> Fault:
    """A data folder whose own files were spoilt."""

    def make(world: World) -> list[Command]:
        spoil(world.copied("manifest.json", "annotations/ziyjiang/MMEB_Test_Instruct/DocVQA", "image-tasks/DocVQA"))
        return [command]

    return _row(name, make, *says, code=code)


def _manifest(**changes: object) -> Callable[[Path], object]:
    def spoil(data: Path) -> None:
        path = data / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def _lock(content: object) -> Callable[[Path], object]:
    return lambda data: (data / "mmeb-data.lock.json").write_text(json.dumps(content))


def _shards(name: str, spoil: Callable[[Path], object], after: Sequence[Command], *says: str, code: int = 2) -> Fault:
    """A shard's file that was spoilt before the merge: by a copy of it, since both shards are encoded first."""

    def make(world: World) -> list[Command]:
        shard = {"shard": 1, "shards": 2}
        (world.folder / "run" / "shards").mkdir(parents=True)
        (world.folder / "run" / "shards" / "1-of-2.json").write_text(json.dumps(shard))
        spoil(world.folder / "run" / "shards" / "1-of-2.json")
        return list(after)

    return _row(name, make, *says, code=code, slow=len(after) > 1)


def _other_kind(world: World) -> list[Command]:
    (world.folder / "run").mkdir()
    (world.folder / "run" / "run.json").write_text("{")
    return [(*RUN, "--fresh"), OTHER]


def _suite_gone_bad(world: World) -> list[Command]:
    (world.own_suite() / "manifest.json").unlink()
    return [RUN]


def _suite_moved_away(world: World) -> list[Command]:
    suite = world.own_suite()
    shutil.rmtree(suite / "annotations")
    (suite / "manifest.json").unlink()
    suite.rename(world.folder / "away")
    return [RUN]


def _unfinished(world: World, command: Command) -> list[Command]:
    """As a kill leaves it: run.json says that it runs, and its tasks are finished or not."""
    made = Path(finished(world.mini).name)
    shutil.copytree(made / "run", world.folder / "run")
    path = world.folder / "run" / "run.json"
    run = load_run_result(path)
    save_run_result(path, dataclasses.replace(run, status="running", checksums={}))
    return [command]


FAULTS = (
    _row("another model's folder", lambda _: [RUN, OTHER], "holds a run of model 'random'", "--fresh"),
    _row("another model's folder, started over", lambda _: [RUN, (*OTHER, "--fresh")], "DocVQA", code=0),
    _row("another model's folder, after a broken one was started over", _other_kind, "holds a run of model 'random'"),
    _row(
        "what isn't finished",
        lambda world: _unfinished(world, ("mmeb-eval", "leaderboard", "run")),
        "is not finished",
        "the same command goes on",
    ),
    _row("what isn't finished goes on", lambda world: _unfinished(world, WHOLE), r"2\] .*unchanged: kept", code=0),
    _row("a suite without its manifest", _suite_gone_bad, "is not a finished suite; move it away first", slow=True),
    _row("a suite that was moved away is made again", _suite_moved_away, "making the mini suite", code=0, slow=True),
    _data(
        "a manifest that is cut", lambda data: (data / "manifest.json").write_text("{"), r"manifest\.json", "make the"
    ),
    _data(
        "a manifest of numbers", _manifest(name=3), r"manifest\.json .*name must be str, not 3", "make the folder again"
    ),
    _data(
        "a manifest whose counts are text", _manifest(num_queries={"DocVQA": "24"}), r"num_queries\.DocVQA must be int"
    ),
    _data("a manifest whose counts are null", _manifest(num_queries=None), "num_queries must be a mapping"),
    _data("a manifest of revisions in a list", _manifest(revisions=[1]), "revisions must be a mapping"),
    _data("a manifest of a newer release", _manifest(schema_version=7), "upgrade mmeb-harness"),
    _data(
        "labels that are no table",
        lambda data: (data / "query_labels.parquet").write_bytes(b"PAR1"),
        r"query_labels\.parquet",
    ),
    _data("a lock of text", _lock("x"), "is not a lock file", command=("mmeb-eval", "data", "check", "--data", "data")),
    _shards(
        "a shard's file that is cut", lambda path: path.write_text("{"), [MERGE], "1-of-2", "encode the shard again"
    ),
    _shards("a shard's file of nothing but its number", lambda path: None, [MERGE], "1-of-2", "is not a shard"),
    _shards("a shard's file in lists of lists", lambda path: path.write_text("[" * 9_000), [MERGE], "1-of-2", "nested"),
    _shards(
        "a spoilt shard is encoded again", lambda path: path.write_text("{"), [SECOND, FIRST, MERGE], "DocVQA", code=0
    ),
)
