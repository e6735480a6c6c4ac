"""Vectors survive on disk, and come back in the order asked for."""

import os
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import DataError, Item, ResultError, TokenVectors, Trace
from mmeb_harness.store import Encoded, StoredTokens, VectorStore, content_key


def encoded(n: int, offset: float = 0.0) -> Encoded:
    return Encoded(
        vectors=np.arange(n * 3, dtype=np.float32).reshape(n, 3) + np.float32(offset),
        traces=tuple(Trace("reasoned", 0.5 + i / 100, f"r{i}", i, i % 2 == 0) for i in range(n)),
        latency_seconds=np.arange(n) / 10,
        share_seconds=np.full(n, 0.25),
    )


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


def test_a_broken_chunk_is_named(tmp_path: Path) -> None:
    (tmp_path / "chunk-000000.parquet").write_bytes(b"not parquet")
    with pytest.raises(ResultError, match=r"chunk-000000\.parquet: .*delete it"):
        VectorStore(tmp_path)


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
    monkeypatch.setattr("mmeb_harness.store.FLUSH_BYTES", 24)
    store = VectorStore(tmp_path, "max_sim" if kind == "several" else "dot")
    store.add(["a"], tokens(5) if kind == "several" else encoded(1))  # 20 or 12 bytes
    assert not list(tmp_path.iterdir())
    store.add(["b"], tokens(1) if kind == "several" else encoded(1))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_truncated_chunk_of_several_vectors_is_named(tmp_path: Path) -> None:
    store = VectorStore(tmp_path, "max_sim")
    store.add(["a"], tokens(1000))
    store.flush()
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ResultError, match=r"can't read .*\.arrow: .*delete it"):
        VectorStore(tmp_path, "max_sim")


def test_vectors_of_another_similarity_are_refused(tmp_path: Path) -> None:
    store = VectorStore(tmp_path)
    store.add(["a"], encoded(1))
    store.flush()
    with pytest.raises(ResultError, match=r"parquet holds vectors of another similarity than 'max_sim'; delete"):
        VectorStore(tmp_path, "max_sim")


def test_the_key_is_the_content(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"one")
    base = Item("1", text="t", images=(picture,), instruction="i")
    key = content_key(base, "query", tmp_path)
    assert content_key(Item("2", text="t", images=(picture,), instruction="i"), "query", tmp_path) == key
    assert content_key(base, "candidate", tmp_path) != key
    assert content_key(Item("1", text="t", frames=(picture,), instruction="i"), "query", tmp_path) != key
    assert content_key(Item("1", text="u", images=(picture,), instruction="i"), "query", tmp_path) != key
    picture.write_bytes(b"longer")
    assert content_key(base, "query", tmp_path) != key


def test_the_key_does_not_depend_on_where_the_data_folder_is(tmp_path: Path) -> None:
    keys = []
    for name in ("here", "there"):
        picture = tmp_path / name / "a.png"
        picture.parent.mkdir()
        picture.write_bytes(b"one")
        os.utime(picture, ns=(1, 1))
        keys.append(content_key(Item("1", images=(picture,)), "query", tmp_path / name))
    assert keys[0] == keys[1]


def test_a_missing_media_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png can't be read"):
        content_key(Item("1", images=(tmp_path / "gone.png",)), "query", tmp_path)
