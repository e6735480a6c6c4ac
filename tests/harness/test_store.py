"""Vectors survive on disk, and come back in the order asked for."""

import os
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import DataError, Item, ResultError, Trace
from mmeb_harness.store import Encoded, VectorStore, content_key


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
