"""`mmeb-eval cache`: what it shows, what it finds wrong, and that nothing goes but what was asked for."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from mmeb_harness import ModelInfo, TokenVectors, Trace
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.files import write_parquet
from mmeb_harness.store.chunk_files import chunk_files, hold_alone, map_chunk, share, write_chunk
from mmeb_harness.store.media import MediaHashes, media_files, read_media_files
from mmeb_harness.store.upkeep import check, model_folders, prune, survey
from mmeb_harness.store.vectors import VectorStore
from tests.patience import PATIENCE

A, B = "a" * 24, "b" * 24


def encoded(n: int, seed: int, several: bool = False) -> Encoded:
    flat = np.random.default_rng(seed).normal(size=(2 * n if several else n, 4))
    flat = (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float16 if several else np.float32)
    vectors = TokenVectors(flat, np.arange(0, 2 * n + 1, 2)) if several else flat
    traces = tuple(Trace("reasoned", 0.5, f"r{seed} {i}", i, seconds=0.5) for i in range(n))
    return Encoded(vectors, traces, np.full(n, 0.5), np.full(n, 0.25))


def write(folder: Path, *chunks: list[str], name: str = "m", several: bool = False) -> None:
    """A store with these keys, a chunk a list; repeated keys get other vectors."""
    model = ModelInfo(name, f"revision of {name}", 4)
    store = VectorStore(folder, "max_sim" if several else "dot", model=model)
    for keys in chunks:
        store.add(keys, encoded(len(keys), seed=len(chunk_files(folder)), several=several))
        store.flush()


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """Two models: one in three chunks that repeat two keys, one in one chunk of several vectors an item."""
    folder = tmp_path / "v"
    write(folder / A, ["1", "2"], ["2", "3"], ["4", "1"])
    write(folder / B, ["1", "2", "3"], name="tokens", several=True)
    return folder


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["cache", *map(str, arguments)])


def error_of(result: Result) -> str:
    return f"{result.exception}{result.output}"


def all_of(folder: Path, *keys: str, several: bool = False) -> tuple[list[bytes], tuple[Trace, ...]]:
    found = VectorStore(folder, "max_sim" if several else "dot").get(keys)
    return [found.vectors[i].tobytes() for i in range(len(keys))], found.traces


def flip_a_bit(path: Path) -> None:
    """Of the last vector value: the file is as long and as readable as before."""
    whole = bytearray(path.read_bytes())
    value = map_chunk(path).column("vector").chunk(0).values.to_numpy()[-1:].tobytes()
    whole[whole.rindex(value)] ^= 1
    path.write_bytes(whole)


def test_show_lists_models_and_what_they_take(vectors: Path, tmp_path: Path) -> None:
    done = call("show", "--vectors", vectors, "--json", tmp_path / "out.json")
    assert done.exit_code == 0
    header, first, second, total = done.output.splitlines()
    assert header.split() == ["model", "revision", "fingerprint", "items", "size", "chunks", "written"]
    assert first.split()[:5] == ["m", "revision", "of", A, "4"]  # the beginning of the revision
    assert second.split()[0] == "tokens"
    assert total.startswith("2 models, 7 items, ")
    values = json.loads((tmp_path / "out.json").read_text())
    assert [(store["model"], store["items"], store["chunks"]) for store in values] == [("m", 4, 3), ("tokens", 3, 1)]
    assert values[0]["bytes"] == sum(path.stat().st_size for path in (vectors / A).iterdir())


def test_without_a_command_it_shows_what_runs_here_kept(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "runs/.vectors does not exist: no vectors are there" in error_of(call())
    (tmp_path / "runs").mkdir()
    vectors.rename(tmp_path / "runs" / ".vectors")
    assert "2 models, 7 items" in call().output


def test_check_finds_nothing_wrong(vectors: Path) -> None:
    done = call("check", "--vectors", vectors)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"ok     {vectors / A}: m, 4 items in 3 chunks",
        f"ok     {vectors / B}: tokens, 3 items in 1 chunk",
    ]


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:900])


def double(path: Path) -> Path:
    """A chunk as a faulty program might write it, its checksum in order."""
    table = map_chunk(path)
    position = table.schema.get_field_index("vector")
    kind = table.schema.field("vector").type
    values = table.column("vector").chunk(0).values.to_numpy() * np.float32(2)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), kind.list_size)
    path.unlink()
    return write_chunk(path.parent, table.set_column(position, "vector", column))


def other_table(path: Path) -> None:
    table = map_chunk(path).drop(["gate"])
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (shorten, ""),
        (flip_a_bit, "its bytes are not what was written (checksum)"),
        (double, "a vector of length 2.0000; they must be of unit length"),
        (other_table, "a table of something else"),
    ],
)
def test_check_names_a_broken_chunk_and_prune_deletes_it_alone(
    damage: Callable[[Path], Path | None], problem: str, vectors: Path
) -> None:
    path = chunk_files(vectors / A)[1]
    path = damage(path) or path
    done = call("check", "--vectors", vectors)
    assert done.exit_code == 1
    assert f"       {path.name}: {problem}" in done.output
    assert f"mend: mmeb-eval cache prune --broken --vectors {vectors}" in done.output
    pruned = call("prune", "--broken", "--vectors", vectors)
    assert pruned.exit_code == 0
    assert f"pruned: {path}: broken (" in pruned.output
    assert not path.exists()
    assert call("check", "--vectors", vectors).exit_code == 0
    assert len(VectorStore(vectors / A)) == 3


def test_a_chunk_of_several_ages_counts_row_by_row(tmp_path: Path) -> None:
    """Release 0.1 joined chunks: a run that was started over with --fresh must not find in one what is from before."""
    folder = tmp_path / "v" / A
    write(folder, ["old"])
    since = time.time_ns()
    write(folder, ["new"])
    write(folder, ["newer"])
    tables = [map_chunk(path).replace_schema_metadata(None) for path in chunk_files(folder)]
    for path in chunk_files(folder):
        path.unlink()
    write_chunk(folder, pa.concat_tables(tables).combine_chunks())
    store = VectorStore(folder, since=since)
    assert [key in store for key in ("old", "new", "newer")] == [False, True, True]


def test_a_run_that_starts_meanwhile_waits(vectors: Path) -> None:
    with ThreadPoolExecutor() as pool:
        held = hold_alone(vectors / A)
        assert held
        with held:
            opening = pool.submit(VectorStore, vectors / A)
            assert not wait([opening], timeout=0.2).done
            chunk_files(vectors / A)[0].unlink()
        assert len(opening.result(timeout=PATIENCE)) == 4


def test_pruning_beside_writers_and_readers_breaks_nothing_and_loses_nothing(vectors: Path) -> None:
    ended = time.monotonic() + 1.5

    def write_and_read(name: str) -> int:
        rounds = 0
        while time.monotonic() < ended:
            store = VectorStore(vectors / A, model=ModelInfo("m", "1", 4))
            keys = [f"{name} {rounds} {i}" for i in range(3)]
            store.add(keys, encoded(3, seed=rounds))
            store.flush()
            assert store.get(keys).vectors.shape == (3, 4)  # type: ignore[union-attr]
            del store
            rounds += 1
        return rounds

    def prune_and_look(unused_days: float | None) -> int:
        rounds = 0
        while time.monotonic() < ended:
            folders = model_folders(vectors)
            list(prune(folders, unused_days=unused_days, broken=True, dry_run=rounds % 4 == 0))
            for folder, description in folders.items():
                check(survey(folder, description))
            rounds += 1
        return rounds

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write_and_read, name) for name in "xy"]
        others = [pool.submit(prune_and_look, days) for days in (None, 0.0, 0.0)]
        assert all(worker.result(timeout=PATIENCE) for worker in [*writers, *others])


def test_vectors_used_in_the_future_go_when_all_are_to_go(vectors: Path) -> None:
    os.utime(vectors / A / ".lock", (time.time() + 3600,) * 2)  # the clock was set back since
    assert call("prune", "--model", "m", "--vectors", vectors).exit_code == 0
    assert [path.name for path in vectors.iterdir()] == [B]


def test_what_a_run_is_using_is_left_alone(vectors: Path) -> None:
    running = VectorStore(vectors / A)
    before = sorted(path.name for path in (vectors / A).iterdir())
    for what in (["--model", "m"], ["--older-than", "0"]):
        done = call("prune", *what, "--vectors", vectors)
        assert done.exit_code == 1
        assert f"skipped: {vectors / A}: a run is using it" in done.output
    assert sorted(path.name for path in (vectors / A).iterdir()) == before
    assert call("prune", "--broken", "--vectors", vectors).exit_code == 0  # nothing to do there
    del running
    assert call("prune", "--model", "m", "--vectors", vectors).exit_code == 0


@pytest.mark.parametrize("name", ["m", A])
def test_a_models_vectors_go_as_a_whole(name: str, vectors: Path) -> None:
    (vectors / A / ".chunk-1.arrow.x.tmp").write_bytes(b"half")
    planned = call("prune", "--model", name, "--vectors", vectors, "--dry-run")
    assert f"would go: {vectors / A}: all of m (" in planned.output
    assert len(chunk_files(vectors / A)) == 3
    done = call("prune", "--model", name, "--vectors", vectors)
    assert done.exit_code == 0
    assert planned.output.replace("would go", "pruned").replace("would be free", "freed") == done.output
    assert [path.name for path in vectors.iterdir()] == [B]


def test_a_strangers_file_and_folder_stay(vectors: Path) -> None:
    (vectors / A / "notes.txt").write_text("mine")
    (vectors / "pictures").mkdir()
    (vectors / "pictures" / "a.png").write_bytes(b"mine")
    call("prune", "--older-than", "0", "--vectors", vectors)
    assert sorted(path.relative_to(vectors).as_posix() for path in vectors.rglob("*.*")) == [
        f"{A}/notes.txt",
        "pictures/a.png",
    ]


def test_an_unknown_model_is_named(vectors: Path) -> None:
    done = call("prune", "--model", "tokenz", "--vectors", vectors)
    assert "no model with vectors here named 'tokenz'. Did you mean 'tokens'?" in error_of(done)
    assert len(list(vectors.iterdir())) == 2


def test_nothing_said_nothing_pruned(vectors: Path) -> None:
    for_nan = call("prune", "--older-than", "nan", "--vectors", vectors)
    assert "--older-than nan is no number of days" in error_of(for_nan)
    assert "nothing to prune: name a --model, or say --older-than" in error_of(call("prune", "--vectors", vectors))


def test_only_models_that_nobody_used_for_long_go(vectors: Path) -> None:
    for path in (vectors / A).iterdir():
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    assert "0 bytes freed" in call("prune", "--older-than", "11", "--vectors", vectors).output
    VectorStore(vectors / A)  # reading is use
    assert "0 bytes freed" in call("prune", "--older-than", "9", "--vectors", vectors).output
    os.utime(vectors / A / ".lock", (time.time() - 10 * 86400,) * 2)
    call("prune", "--older-than", "9", "--vectors", vectors)
    assert [path.name for path in vectors.iterdir()] == [B]


def test_older_versions_are_shown_and_go(vectors: Path) -> None:
    old = vectors / ("c" * 24)
    write_parquet(old / "chunk-00001-x.parquet", pa.table({"key": ["1"]}))
    assert "store version 1: not used by this release" in call("show", "--vectors", vectors).output
    assert f"other  {old}: store version 1, not read" in call("check", "--vectors", vectors).output
    os.utime(old / "chunk-00001-x.parquet", (time.time() - 10 * 86400,) * 2)
    assert str(old) in call("prune", "--older-than", "9", "--dry-run", "--vectors", vectors).output
    done = call("prune", "--model", old.name, "--vectors", vectors)
    assert f"pruned: {old}: all of an unnamed model, store version 1 (" in done.output
    assert sorted(path.name for path in vectors.iterdir()) == [A, B]


def test_leftovers_go(vectors: Path) -> None:
    left = vectors / A / ".chunk-1.arrow.x.tmp"
    left.write_bytes(b"half")
    hashes = vectors / ".media" / ".media-1.parquet.x.tmp"
    hashes.parent.mkdir()
    hashes.write_bytes(b"half")
    assert (
        f"pruned: {left}: left by a killed process (4 bytes)" in call("prune", "--broken", "--vectors", vectors).output
    )
    assert not left.exists()
    assert not hashes.exists()
    hashes.write_bytes(b"half")
    with share(hashes.parent) or contextlib.nullcontext():  # it is in the making
        call("prune", "--broken", "--vectors", vectors)
        assert hashes.exists()
    assert len(chunk_files(vectors / A)) == 3


def test_hashes_of_media_are_checked(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmeb_harness.store.media.is_settled", lambda changed: True)
    for name in ("a", "b", "c"):
        (vectors.parent / name).write_text(name)
        hashes = MediaHashes(vectors / ".media", vectors.parent)
        hashes.of([vectors.parent / name])
        hashes.save()
    assert len(read_media_files(vectors / ".media")[0]) == 3
    path = media_files(vectors / ".media")[0]
    path.write_bytes(b"half")
    done = call("check", "--vectors", vectors)
    assert done.exit_code == 1
    assert path.name in done.output
    call("prune", "--broken", "--vectors", vectors)
    assert not path.exists()
    assert len(read_media_files(vectors / ".media")[0]) == 2
