"""Stored vectors that were damaged on disk: named, set aside, encoded again, and no vector beside them is lost."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmeb_harness import TokenVectors
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import ModelSpec, load_tasks, resolve_model, select_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from mmeb_harness.store.chunk_files import chunk_files, map_chunk, write_chunk
from tests.faults.fault import Command, Fault, World
from tests.toy import evaluated

TASK = "VOC2007"
RUN: Command = ("mmeb-eval", "run", "--model", "random", "--tasks", TASK, "--output", "again", "--vectors", "v")
RELEASE = Path(__file__).parents[1] / "golden" / "release_0_1" / "vectors"
_KEPT = tempfile.TemporaryDirectory(prefix="mmeb-faults-")
#: Damages the store in a folder: one model's.
Damage = Callable[[Path], None]


@functools.cache
def _whole(mini: Path) -> Path:
    """A folder with a run of the model `random` and its vectors, as they should be."""
    folder, registered = Path(_KEPT.name) / str(len(os.listdir(_KEPT.name))), load_tasks(None)
    embedder = ModelSpec(*resolve_model("random", {})).load()
    settings = RunSettings(folder / "run", vectors=folder / "v")
    evaluated(embedder, select_tasks(registered, (TASK,), (), ()), registered, describe(mini), settings)
    return folder


def _copied(world: World) -> Path:
    """The store of a world, as it should be: the folder of the one model."""
    shutil.copytree(_whole(world.mini) / "v", world.folder / "v")
    (model,) = (path for path in (world.folder / "v").iterdir() if path.name != ".media")
    return model


def _ranked(run: Path) -> object:
    columns = ["query_id", "top_ids", "top_scores", "gate", "path", "rationale"]
    return read_parquet(RunFolder(run).queries_file(TASK), columns).to_pylist()


def _same(world: World) -> None:
    assert _ranked(world.folder / "again") == _ranked(_whole(world.mini) / "run"), "other rankings"


def _run(name: str, damage: Damage, *says: str, holds: Callable[[World], None] = _same) -> Fault:
    """A run goes on, with the results of a store that is whole."""

    def make(world: World) -> Sequence[Command]:
        damage(_copied(world))
        return [RUN]

    return Fault("store", f"run: {name}", make, says, code=0, holds=holds)


def _cache(name: str, damage: Damage, command: Command, *says: str, code: int = 0, kept: int = 0) -> Fault:
    """A command of `mmeb-eval cache`; so many chunks fewer are there afterwards."""

    def make(world: World) -> Sequence[Command]:
        damage(_copied(world))
        return [("mmeb-eval", "cache", *command, "--vectors", "v")]

    def holds(world: World) -> None:
        (model,) = (path for path in (world.folder / "v").iterdir() if path.name != ".media")
        there, all_of = len(chunk_files(model)), len(list((_whole(world.mini) / "v").glob("*/chunk-*")))
        assert there == all_of - kept, f"{there} of {all_of} chunks are there"

    return Fault("store", f"cache {' '.join(command)}: {name}", make, says, code=code, holds=holds)


def _first(damage: Callable[[Path], None]) -> Damage:
    """Damage a folder's first chunk."""
    return lambda folder: damage(chunk_files(folder)[0])


def _flip(path: Path, byte: int) -> None:
    whole = bytearray(path.read_bytes())
    whole[byte] ^= 1
    path.write_bytes(whole)


def _flip_in(column: str) -> Damage:
    """A bit in the middle of what a column holds."""

    def damage(path: Path) -> None:
        part = map_chunk(path).column(column).chunk(0)
        values = part.flatten() if column == "vector" else part
        held = next(bytes(buffer) for buffer in reversed(values.buffers()) if buffer is not None)
        _flip(path, path.read_bytes().index(held) + len(held) // 2)

    return _first(damage)


def _flip_at(share: float) -> Damage:
    return _first(lambda path: _flip(path, int(share * (path.stat().st_size - 1))))


def _replaced(content: bytes) -> Damage:
    return _first(lambda path: _written(path, content))


def _written(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1000)


def _table(change: Callable[[pa.Table], pa.Table], name: str = "chunk-00000000000000000001-other.arrow") -> Damage:
    """One more chunk, made of an old one."""

    def damage(folder: Path) -> None:
        table = change(map_chunk(chunk_files(folder)[0]))
        if name.endswith(".parquet"):
            pq.write_table(table, folder / name)
            return
        with pa.ipc.new_file(folder / name, table.schema) as writer:
            writer.write_table(table)

    return damage


def _with_vectors(column: Callable[[int], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(1, "vector", column(len(table)))


def _narrow(rows: int) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows, dtype=np.float32)), 1)


def _several(rows: int) -> pa.Array:
    tokens = TokenVectors.of_items([np.ones((2, 2), dtype=np.float32)] * rows)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(tokens.flat.reshape(-1)), 2)
    return pa.LargeListArray.from_arrays(pa.array(tokens.offsets), flat)


def _undecodable(folder: Path) -> None:
    """A key that is no text."""
    path = chunk_files(folder)[0]
    key = map_chunk(path).column("key")[0].as_py().encode()
    path.write_bytes(path.read_bytes().replace(key, b"\xff" + key[1:], 1))


def _old_flipped(folder: Path) -> None:
    """Chunks of release 0.1 have another checksum; this one isn't of the model's width either."""
    (chunk,) = RELEASE.glob("chunk-*")
    shutil.copy(chunk, folder)
    _flip(folder / chunk.name, chunk.stat().st_size // 2)


def _described(content: bytes) -> Damage:
    return lambda folder: _written(folder / "model.json", content)


def _said(**values: object) -> Damage:
    """A description that says something else, without its checksum as of release 0.1."""

    def damage(folder: Path) -> None:
        path = folder / "model.json"
        there = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
        path.write_text(json.dumps(there | values))

    return damage


def _flipped_description(byte: int) -> Damage:
    return lambda folder: _flip(folder / "model.json", byte)


def _folder_instead(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return damage


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _all_cut(folder: Path) -> None:
    for path in chunk_files(folder):
        _cut(path)


def _nowhere_to_set_aside(folder: Path) -> None:
    (folder / "set_aside").write_text("in the way")
    _cut(chunk_files(folder)[0])


def _others(folder: Path) -> None:
    """Vectors of another model under the same keys: whole, and of the same width."""
    other = folder.parent / "other"
    other.mkdir()
    made = write_chunk(other, map_chunk(chunk_files(folder)[0]))
    made.rename(folder / made.name)
    other.rmdir()


def _left_over(folder: Path) -> None:
    for path in (folder / ".chunk-1.arrow.x.tmp", folder / ".writable", folder.parent / ".media" / ".media-1.x.tmp"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")


def _nothing_left_over(world: World) -> None:
    _same(world)
    assert not [*world.folder.rglob("*.tmp"), *(world.folder / "v").rglob(".writable")]


def _media(content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder.parent / ".media").mkdir(exist_ok=True)
        (folder.parent / ".media" / "media-00000000000000000001-x.parquet").write_bytes(content)

    return damage


def _started_over(content: str, *says: str, code: int) -> Fault:
    """Vectors count from a time on, as release 0.1 remembered it; the second run finds what the first encoded."""

    def make(world: World) -> Sequence[Command]:
        _copied(world)
        shutil.copytree(_whole(world.mini) / "run", world.folder / "again")
        shutil.rmtree(world.folder / "again" / "tasks")
        (world.folder / "again" / ".fresh").write_text(content)
        return [RUN]

    def holds(world: World) -> None:
        _same(world)
        names = json.loads((world.folder / "again" / ".fresh").read_text())["chunks"]
        assert set(names) == {path.name for path in (_whole(world.mini) / "v").glob("*/chunk-*")}

    return Fault("store", f".fresh: {content[:20]}", make, says, code, holds=holds if code == 0 else None)


def _used_in_the_future(folder: Path) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() + 3600,) * 2)


BROKEN, AGAIN = r"chunk-\d{20}-\S+ is broken \(", r"set aside in \S+/set_aside; what it held is encoded again"
DESCRIBED = r"model\.json is broken \(.*set aside in \S+/set_aside; it is written anew, and no vector is lost by it"
CHECK, PRUNE, SHOW = ("check",), ("prune", "--broken"), ("show",)

FAULTS = (
    _run("a bit of column vector", _flip_in("vector"), BROKEN, "checksum", AGAIN),
    _run("a bit 99% into a chunk", _flip_at(0.99), BROKEN, AGAIN),
    _run("all chunks cut", _all_cut, BROKEN, r"and \d+ more", AGAIN),
    _run("an empty chunk", _replaced(b""), BROKEN, AGAIN),
    _run("a chunk of parquet by another name", _table(lambda table: table, "chunk-1.parquet")),
    _run("a chunk without a column", _table(lambda table: table.drop(["gate"])), "a table of something else", AGAIN),
    _run(
        "a chunk of another width", _table(_with_vectors(_narrow)), r"vectors of width 1, the model's have \d+", AGAIN
    ),
    _run("a chunk of several vectors an item", _table(_with_vectors(_several)), BROKEN, AGAIN),
    _run("a chunk of another model", _others, "another model's vectors, of the folder other", AGAIN),
    _run("a chunk without a checksum", _table(lambda table: table)),
    _run("a pipe as a chunk", _first(_pipe), "it is a named pipe", AGAIN),
    _run("a link to nowhere as a chunk", _first(_dangling)),
    _run("a bit of a chunk of release 0.1", _old_flipped, BROKEN, AGAIN),
    _run("nowhere to set aside", _nowhere_to_set_aside, BROKEN, "left there, unused, since it can't be moved"),
    _run("a model.json that is not UTF-8", _described(b'{"store_version": 2, "model": "\xff"}'), DESCRIBED),
    _run("a flipped bit of the version", _flipped_description(21), DESCRIBED),
    _run("model.json deleted", lambda folder: (folder / "model.json").unlink()),
    _run("a folder as model.json", _folder_instead("model.json")),
    _run("a folder as the lock", _folder_instead(".lock")),
    _run("what killed processes left", _left_over, holds=_nothing_left_over),
    _run("broken hashes of media", _media(b"half"), r"media-\S+ is broken", "what it remembered is hashed again"),
    _started_over(str(4 * 10**18), r"\.fresh is of a time that is yet to come", code=0),
    _started_over(
        '{"chunks": [], "nanoseconds": 0, "schema_version": 1, "checksum": "0"}',
        r"\.fresh was changed since it was written .*run again with --fresh",
        code=2,
    ),
    _cache("undecodable keys", _undecodable, SHOW, "1 broken files"),
    _cache("undecodable keys", _undecodable, CHECK, r"WRONG .*random", "Invalid UTF8", code=1),
    _cache("a bit of column vector", _flip_in("vector"), PRUNE, r"pruned: \S+: broken", kept=1),
    _cache("a cut model.json", _described(b'{"store_version": 2'), CHECK, "the next run writes it anew", code=1),
    _cache("a cut model.json", _described(b'{"store_version": 2'), PRUNE, r"pruned: \S+model.json: broken"),
    _cache("another width in model.json", _said(dimensions=7), PRUNE, "0 bytes freed"),
    _cache("a folder as the lock", _folder_instead(".lock"), PRUNE, "move it away", code=2),
    _cache("used in the future", _used_in_the_future, ("prune", "--older-than", "1"), "0 bytes freed"),
)
