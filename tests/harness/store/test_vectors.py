"""Vectors survive on disk, and come back in the order asked for."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmeb_harness import DataError, Item, ModelInfo, ResultError, Role, TokenVectors, Trace
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.files import fingerprint
from mmeb_harness.core.sealed import files_set_aside
from mmeb_harness.store import vectors
from mmeb_harness.store.chunk_files import chunk_files, map_chunk
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import StoredTokens, VectorStore, content_keys

ROOT = Path(__file__).parents[3]


def encoded(n: int, offset: float = 0.0) -> Encoded:
    return Encoded(
        vectors=np.arange(n * 3, dtype=np.float32).reshape(n, 3) + np.float32(offset),
        traces=tuple(Trace("reasoned", 0.5 + i / 100, f"r{i}", i, i % 2 == 0) for i in range(n)),
        latency_seconds=np.arange(n) / 10,
        share_seconds=np.full(n, 0.25),
    )


def stored(folder: Path, *keys: str) -> Path:
    """A store that was left, a chunk a key."""
    store = VectorStore(folder)
    for key in keys:
        store.add([key], encoded(1))
        store.flush()
    return folder


def test_what_was_flushed_is_there_after_a_restart_across_chunks(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.add(["a", "b"], encoded(2))
    store.flush()
    store.add(["c"], encoded(1, 100))
    store.flush()
    again = VectorStore(tmp_path)
    assert len(again) == 3
    assert "c" in again
    found = again.get(["c", "b", "a", "c"])
    assert found.vectors.tolist() == [[100, 101, 102], [3, 4, 5], [0, 1, 2], [100, 101, 102]]
    assert [trace.rationale for trace in found.traces] == ["r0", "r1", "r0", "r0"]
    assert found.traces[1] == Trace("reasoned", 0.51, "r1", 1, False, 0.1)


def test_what_was_not_flushed_is_not_half_there(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.add(["a"], encoded(1))
    assert "a" in store
    assert len(VectorStore(tmp_path)) == 0


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:700])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_table(path: Path) -> None:
    write_table(path, pa.table({"key": ["a"]}))


def write_table(path: Path, table: pa.Table) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    whole = bytearray(path.read_bytes())
    whole[byte] ^= 1 << bit
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("damage", "why"),
    [(cut, r".+"), (empty, r".+"), (other_table, "a table of something else"), (Path.unlink, "")],
    ids=["cut", "empty", "of something else", "deleted"],
)
def test_what_is_no_chunk_is_named_and_set_aside(damage: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    folder, notes = stored(tmp_path / "f", "a", "b"), list[str]()
    path = chunk_files(folder)[0]
    damage(path)
    store = VectorStore(folder, note=notes.append)
    assert ["a" in store, "b" in store, len(chunk_files(folder))] == [False, True, 1]
    assert len(notes) == (1 if why else 0)
    said = rf"{path} is broken \({why}\): set aside in {folder}/set_aside; what it held is encoded again"
    assert all(re.fullmatch(said, note) for note in notes)
    assert [file.name for file in files_set_aside(folder)] == [path.name][: len(notes)]


@pytest.mark.parametrize("column", range(10))
def test_a_bit_of_any_column_is_missed(column: int, tmp_path: Path) -> None:
    """The damaged chunk doesn't count, the earlier one of the same key does, and all is there in the end."""
    folder, notes = stored(tmp_path / "f", "a"), list[str]()
    store = VectorStore(folder)
    store.add(["a", "b"], encoded(2, 7))
    store.flush()
    path = chunk_files(folder)[1]
    part = map_chunk(path).column(column).chunk(0)
    values = part.flatten() if pa.types.is_fixed_size_list(part.type) else part
    value = next(bytes(buffer) for buffer in reversed(values.buffers()) if buffer is not None)
    whole = path.read_bytes()
    flip(path, whole.rindex(value) + len(value) // 2)
    again = VectorStore(folder, note=notes.append)
    again.settle(["a", "b"])
    assert ["a" in again, "b" in again] == [True, False]
    assert again.get(["a"]).vectors.tolist() == [[0, 1, 2]]
    assert re.search(rf"{path.name} is broken \(.*\): set aside in .*; what it held is encoded again", "".join(notes))
    assert len(notes) == 1


def test_what_breaks_while_it_is_in_use_is_not_returned(tmp_path: Path) -> None:
    folder = stored(tmp_path / "f", "a")
    store = VectorStore(folder)
    path = chunk_files(folder)[0]
    flip(path, len(path.read_bytes()) // 2)
    with pytest.raises(ResultError, match=rf"{path.name} broke \(.*\) while it was in use; run again: what it held"):
        store.get(["a"])
    assert "a" not in store


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()], ids=str)
def test_a_process_without_means_takes_no_file_for_broken(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    folder = stored(tmp_path / "f", "a")
    store = VectorStore(folder)
    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.memory_map", fail)
        with pytest.raises(ResultError, match=r"can't read .*\.arrow: (Too many open files|no memory is left)"):
            VectorStore(folder)
        with pytest.raises(ResultError, match="can't read "):
            store.get(["a"])
    assert files_set_aside(folder) == []
    assert store.get(["a"]).vectors.tolist() == [[0, 1, 2]]


def test_a_chunk_is_verified_once_and_only_if_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[Path] = []
    store = VectorStore(stored(tmp_path, "a", "b", "c"))
    original = vectors.verify_chunk
    monkeypatch.setattr(vectors, "verify_chunk", lambda path: verified.append(path) or original(path))
    store.look_through(["a", "b"])
    store.settle(["a", "b", "unknown"])
    store.get(["b", "a"])
    store.get(["a"])
    assert sorted(verified) == chunk_files(tmp_path)[:2]


@pytest.mark.parametrize("model", [ModelInfo("m", "1", 4), ModelInfo("m", "1", 3, similarity="max_sim")])
def test_vectors_that_do_not_fit_the_model_are_set_aside(model: ModelInfo, tmp_path: Path) -> None:
    folder, notes = stored(tmp_path / "f", "a"), list[str]()
    (folder / "model.json").unlink()
    store = VectorStore(folder, model.similarity, model=model, note=notes.append)
    assert "a" not in store
    assert re.search(r"is broken \((vectors of width 3, the model's have 4|one vector an item).*", "".join(notes))


def test_what_release_0_1_wrote_is_read_and_checked_by_its_own_checksum(tmp_path: Path) -> None:
    folder, notes = tmp_path / "f", list[str]()
    shutil.copytree(ROOT / "tests" / "golden" / "release_0_1" / "vectors", folder)
    read = VectorStore(folder).get(["c", "b"])
    assert read.traces == (Trace(seconds=0.3), Trace("reasoned", 0.75, "because é", 4, True, 0.2))
    np.testing.assert_allclose(np.linalg.norm(read.vectors, axis=1), 1, rtol=1e-6)  # type: ignore[arg-type]
    path = chunk_files(folder)[0]
    value = read.vectors[0].tobytes()
    flip(path, path.read_bytes().index(value) + 3)
    store = VectorStore(folder, note=notes.append)
    store.settle(["a", "b", "c"])
    assert len(store) == 0
    assert "(keys or vectors are not what was written (checksum))" in notes[0]


def tokens(*counts: int, dtype: type = np.float16) -> Encoded:
    """Items of as many vectors; every value is another one."""
    n, plain = len(counts), encoded(len(counts))
    flat = np.arange(sum(counts) * 2, dtype=dtype).reshape(-1, 2)
    vectors = TokenVectors(flat, np.cumsum([0, *counts], dtype=np.int64))
    return Encoded(vectors, plain.traces, np.arange(n) / 10, np.full(n, 0.25))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_several_vectors_an_item_stay_on_disk(tmp_path: Path, dtype: type) -> None:
    store = VectorStore(tmp_path, "max_sim")
    store.add(["a", "b"], tokens(2, 1, dtype=dtype))
    store.flush()
    store.add(["c"], tokens(3, dtype=dtype))
    store.flush()
    found = VectorStore(tmp_path, "max_sim").get(["c", "b", "a", "c"])
    assert isinstance(found.vectors, StoredTokens)
    assert len(found.vectors) == 4
    c = [[0, 1], [2, 3], [4, 5]]
    assert [found.vectors[i].tolist() for i in range(4)] == [c, [[4, 5]], [[0, 1], [2, 3]], c]
    assert found.vectors[0].dtype == dtype
    assert not found.vectors[0].flags.owndata  # a view of the file
    assert [trace.rationale for trace in found.traces] == ["r0", "r1", "r0", "r0"]


def test_no_file_stays_open_for_a_chunk(tmp_path: Path) -> None:
    """A long run leaves thousands; a process may open a thousand."""
    store = VectorStore(tmp_path, "max_sim")
    for i in range(20):
        store.add([str(i)], tokens(2))
        store.flush()
    before = len(os.listdir("/proc/self/fd"))
    found = VectorStore(tmp_path, "max_sim").get([str(i) for i in range(20)])
    assert found.vectors[19].tolist() == [[0, 1], [2, 3]]
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("kind", ["one vector", "several"])
def test_what_is_pending_is_bounded_in_bytes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmeb_harness.store.vectors.FLUSH_BYTES", 24)
    store = VectorStore(tmp_path, "max_sim" if kind == "several" else "dot")
    store.add(["a"], tokens(5) if kind == "several" else encoded(1))  # 20 or 12 bytes
    assert not list(tmp_path.iterdir())
    store.add(["b"], tokens(1) if kind == "several" else encoded(1))
    assert len(chunk_files(tmp_path)) == 1


def test_a_truncated_chunk_of_several_vectors_is_named(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, "max_sim")
    store.add(["a"], tokens(1000))
    store.flush()
    path = chunk_files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:2000])
    notes: list[str] = []
    assert "a" not in VectorStore(tmp_path, "max_sim", note=notes.append)
    assert re.search(rf"{path.name} is broken", notes[0])


def test_vectors_of_another_similarity_are_refused(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.add(["a"], encoded(1))
    store.flush()
    with pytest.raises(ResultError, match=r"of similarity 'dot', the model declares 'max_sim'; delete"):
        VectorStore(tmp_path, "max_sim")


def test_two_stores_on_one_folder_never_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 7)  # not even in the same nanosecond
    one, other = VectorStore(tmp_path), VectorStore(tmp_path)
    one.add(["a"], encoded(1))
    other.add(["a", "b"], encoded(2))
    one.flush()
    other.flush()
    assert len(chunk_files(tmp_path)) == 2
    found = VectorStore(tmp_path).get(["a", "b"])
    assert found.vectors.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert one.get(["a"]).vectors.tolist() == [[0, 1, 2]]


def test_a_chunk_that_is_being_written_is_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / ".chunk-0001.arrow.x.tmp").write_bytes(b"half of it")
    assert len(VectorStore(tmp_path)) == 0


def test_of_equal_keys_the_latest_counts_and_earlier_ones_can_be_ignored(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.add(["a", "b"], encoded(2))
    store.flush()
    since = time.time_ns()
    assert len(VectorStore(tmp_path, since=since)) == 0
    again = VectorStore(tmp_path, since=since)
    again.add(["a"], encoded(1, 100))
    again.flush()
    assert VectorStore(tmp_path).get(["a", "b"]).vectors.tolist() == [[100, 101, 102], [3, 4, 5]]
    assert len(VectorStore(tmp_path, since=since)) == 1


def key_of(item: Item, role: Role, root: Path) -> str:
    return content_keys([item], role, MediaHashes(root / ".media", root))[0]


def test_the_key_is_the_content(tmp_path: Path) -> None:
    picture, copy = tmp_path / "a.png", tmp_path / "elsewhere" / "b.png"
    picture.write_bytes(b"one")
    copy.parent.mkdir()
    copy.write_bytes(b"one")
    base = Item("1", text="t", images=(picture,), instruction="i")
    key = key_of(base, "query", tmp_path)
    assert key_of(Item("2", text="t", images=(picture,), instruction="i"), "query", tmp_path) == key
    assert key_of(Item("1", text="t", images=(copy,), instruction="i"), "query", tmp_path) == key
    assert key_of(base, "candidate", tmp_path) != key
    assert key_of(Item("1", text="t", frames=(picture,), instruction="i"), "query", tmp_path) != key
    assert key_of(Item("1", text="t", images=(picture, copy), instruction="i"), "query", tmp_path) != key
    assert key_of(Item("1", text="u", images=(picture,), instruction="i"), "query", tmp_path) != key
    assert key_of(Item("1", text="t", images=(picture,)), "query", tmp_path) != key
    picture.write_bytes(b"two")
    assert key_of(base, "query", tmp_path) != key


def test_a_missing_media_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png can't be read"):
        key_of(Item("1", images=(tmp_path / "gone.png",)), "query", tmp_path)


def test_what_other_processes_wrote_is_there_after_a_refresh(tmp_path: Path) -> None:
    one, other = VectorStore(tmp_path), VectorStore(tmp_path)
    one.add(["mine"], encoded(1))  # pending while the other's chunk comes
    other.add(["a", "b"], encoded(2))
    other.flush()
    assert "b" not in one
    one.refresh()
    assert len(one) == 3
    assert one.get(["b", "mine"]).vectors.tolist() == [[3, 4, 5], [0, 1, 2]]


def test_of_equal_keys_all_processes_take_the_same(tmp_path: Path) -> None:
    """Not the one that they saw last."""
    earlier, later = VectorStore(tmp_path), VectorStore(tmp_path)
    earlier.add(["a"], encoded(1))
    earlier.flush()
    later.add(["a"], encoded(1, 100))
    later.flush()
    for store in (earlier, later, VectorStore(tmp_path)):
        store.refresh()
        assert store.get(["a"]).vectors.tolist() == [[100, 101, 102]]


def test_what_is_deleted_meanwhile_is_said_and_forgotten(tmp_path: Path) -> None:
    store = VectorStore(stored(tmp_path / "f", "a", "b"))
    chunk_files(tmp_path / "f")[0].unlink()
    with pytest.raises(ResultError, match=r"was deleted while it was in use; run again"):
        store.get(["a"])
    store.refresh()
    assert "a" not in store
    assert store.get(["b"]).vectors.tolist() == [[0, 1, 2]]


def test_the_folder_says_whose_vectors_it_holds(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "f", model=ModelInfo("m", "r1", 3, settings={"dtype": "float32"}))
    assert not (tmp_path / "f").exists()
    store.add(["a"], encoded(1))
    store.flush()
    said = json.loads((tmp_path / "f" / "model.json").read_text())
    assert (said["store_version"], said["model"], said["revision"], said["dimensions"]) == (2, "m", "r1", 3)
    assert (said["similarity"], said["settings"], said["profile"]["name"]) == ("dot", {"dtype": "float32"}, "unstated")


@pytest.mark.parametrize(("version", "way_out"), [(1, "cache prune --model f --vectors "), (3, "upgrade mmeb")])
def test_another_store_version_is_refused(version: int, way_out: str, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    if version == 1:
        folder.mkdir()
        write_table(folder / "chunk-1.arrow", pa.table({"key": ["a"]}))
    else:
        values = {"store_version": version}
        stored(folder, "a")
        (folder / "model.json").write_text(json.dumps(values | {"checksum": fingerprint(values)}))
    with pytest.raises(ResultError, match=f"of store version {version}, this release reads and writes 2: .*{way_out}"):
        VectorStore(folder)


def test_a_complete_store_needs_no_writing(tmp_path: Path) -> None:
    """Copied without its lock, to where nothing can be written: a mount that is read-only even for root."""
    folder = stored(tmp_path / "f", "a", "b")
    (folder / ".lock").unlink()
    script = """
        import sys
        from pathlib import Path
        from mmeb_harness.store.vectors import VectorStore
        from tests.harness.store.test_vectors import encoded
        store = VectorStore(Path(sys.argv[1]))
        print(store.get(["b", "a"]).vectors.tolist())
        store.check_writable()
    """
    mounted = read_only(folder)
    if mounted is None:
        pytest.skip("this user can't mount")
    done = python(script, folder, before=mounted)
    assert done.stdout == "[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]\n"
    assert re.search(r"can't write .*Read-only file system.*--vectors says where", done.stderr)


def read_only(folder: Path) -> list[str] | None:
    """A command that runs another one, for which `folder` is a read-only mount; `None` if there is none."""
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--map-root-user"]):
        command = [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh"]
        try:
            if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
                return command
        except FileNotFoundError:
            return None
    return None


def python(script: str, *arguments: object, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


FULL = """
    import resource, sys
    from pathlib import Path
    from mmeb_harness import ModelError, ResultError
    from mmeb_harness.encode.local import flushing
    from mmeb_harness.store.vectors import VectorStore
    from tests.harness.store.test_vectors import encoded

    store = VectorStore(Path(sys.argv[1]))
    store.add(["a"], encoded(1))
    store.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))   # no file may become larger: as if full
    store.add(["b", "c"], encoded(2))
    try:
        store.flush()
    except ResultError as error:
        print(error)
    try:
        with flushing(store):
            raise ModelError("the first error")
    except ModelError as error:
        print(error, "|", *error.__notes__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.flush()
    print(VectorStore(Path(sys.argv[1])).get(["c", "a"]).vectors.tolist())
"""


def test_a_full_disk_loses_nothing_and_hides_no_other_error(tmp_path: Path) -> None:
    done = python(FULL, tmp_path)
    first, second, vectors = done.stdout.splitlines()
    says = r"can't write .*\.arrow: File too large; raise `ulimit -f`.*\(--vectors\); what was encoded before is kept.*"
    assert re.fullmatch(says, first)
    assert second.startswith("the first error | can't write ")
    assert vectors == "[[3.0, 4.0, 5.0], [0.0, 1.0, 2.0]]"
    assert not list(tmp_path.glob(".chunk*"))  # what didn't fit is gone


#: Writes chunks, and after every so many says how many and waits for a line, or for no more lines.
WRITER = """
    import sys
    from pathlib import Path
    from mmeb_harness.store.vectors import VectorStore
    from tests.harness.store.test_vectors import encoded

    folder, name, count, every = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    store = VectorStore(folder)
    for number in range(count):
        store.add([f"{name} {number}", f"both {number}"], encoded(2, number))
        store.flush()
        if (number + 1) % every == 0:
            print(number + 1, flush=True)
            sys.stdin.readline()
"""


def writer(folder: Path, name: str, count: int, every: int, stdin: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), name, str(count), str(every)]
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, text=True)


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def let_go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("on\n")
    process.stdin.flush()


@pytest.mark.slow
def test_two_processes_write_and_a_third_reads(tmp_path: Path) -> None:
    writers = [writer(tmp_path, name, 150, 30, subprocess.PIPE) for name in ("one", "other")]
    reader, sizes, sizes_at_rest = VectorStore(tmp_path), [], []
    with ThreadPoolExecutor(len(writers)) as listeners:
        for count in range(30, 151, 30):
            reports = [listeners.submit(heard, process) for process in writers]
            while not all(report.done() for report in reports):  # it reads while they write
                reader.refresh()
                sizes.append(len(reader))
                if "both 3" in reader:
                    assert reader.get(["both 3"]).vectors.tolist() == [[6, 7, 8]]
            assert [report.result() for report in reports] == [str(count)] * 2
            reader.refresh()
            sizes.append(len(reader))
            sizes_at_rest.append(len(reader))
            for process in writers:
                let_go_on(process)
    assert [process.wait() for process in writers] == [0, 0]
    assert sizes == sorted(sizes)
    assert sizes_at_rest == [90, 180, 270, 360, 450]  # both writers' own keys, and those that both wrote, once
    assert len(VectorStore(tmp_path)) == 450
    keys = [f"{name} {number}" for name in ("one", "other") for number in range(150)]
    assert reader.get(keys).vectors[:, 0].tolist() == [*range(150), *range(150)]  # type: ignore[index]


@pytest.mark.slow
def test_kill_9_leaves_whole_chunks_only(tmp_path: Path) -> None:
    rng = random.Random(0)
    for attempt in range(6):
        process = writer(tmp_path, str(attempt), 1_000_000, 1, subprocess.DEVNULL)
        assert heard(process) == "1"
        time.sleep(rng.uniform(0.01, 0.2))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    store = VectorStore(tmp_path)
    assert len(store) > 6
    for attempt in range(6):
        there = [number for number in range(len(store)) if f"{attempt} {number}" in store]
        assert there == list(range(len(there)))
        assert store.get([f"{attempt} {number}" for number in there]).vectors[:, 0].tolist() == there  # type: ignore[index]


def test_what_is_left_out_is_stored_where_something_is(tmp_path: Path) -> None:
    """Chunks without it are of the form that they had before there was such a column."""
    store = VectorStore(tmp_path)
    store.add(["a"], encoded(1))
    store.flush()
    cut = Encoded(np.ones((2, 3), np.float32), (Trace(), Trace(left_out="texts cut")), np.zeros(2), np.zeros(2))
    store.add(["b", "c"], cut)
    store.flush()
    assert ["left_out" in map_chunk(path).schema.names for path in chunk_files(tmp_path)] == [False, True]
    again = VectorStore(tmp_path)
    assert [trace.left_out for trace in again.get(["c", "a", "b"]).traces] == ["texts cut", "", ""]
    assert files_set_aside(tmp_path) == []
