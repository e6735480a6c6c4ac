"""A suite is made on first use, and again if somebody changed it since; a folder's manifest is read strictly."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial
from pathlib import Path

import pytest

from mmeb_harness import DataError, Profile, Suite
from mmeb_harness.data.folder import (
    BUNDLE_FOLDERS,
    MANIFEST,
    OTHER_QUERIES,
    DataInfo,
    check_as_made,
    data_revision,
    describe,
    ensure_suite,
    is_benchmark_tree,
    load_samples,
)
from mmeb_harness.store.media import MediaHashes
from tests.toy import toy_task, write_toy

WHOLE = {"schema_version": 1, "name": "toy", "synthetic": True, "revision": "1", "seed": 0}


def make(folder: Path, seed: int) -> None:
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "a.png").write_bytes(b"seed %d" % seed)
    (folder / MANIFEST).write_text(json.dumps(WHOLE))


TOY = Suite("toy", "1", make)


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMEB_CACHE", str(tmp_path))
    return ensure_suite(TOY, 0)


def notes_of_use() -> list[str]:
    notes: list[str] = []
    ensure_suite(TOY, 0, notes.append)
    return notes


def test_a_suite_is_made_once(suite: Path) -> None:
    assert notes_of_use() == []


@pytest.mark.parametrize("damage", ["changed", "gone", "more", "manifest"])
def test_a_changed_suite_is_made_again(damage: str, suite: Path) -> None:
    picture = suite / "pictures" / "a.png"
    match damage:
        case "changed":
            picture.write_bytes(b"seed 1")
        case "gone":
            picture.unlink()
        case "more":
            (suite / "pictures" / "b.png").write_bytes(b"")
        case "manifest":
            (suite / MANIFEST).write_text("{")
    assert notes_of_use() == [f"{suite} was changed since it was made: making it again …"]
    assert picture.read_bytes() == b"seed 0"
    assert [path.name for path in suite.rglob("*.png")] == ["a.png"]
    assert notes_of_use() == []


def test_a_suite_that_was_only_touched_or_copied_is_kept(suite: Path) -> None:
    os.utime(suite / "pictures" / "a.png")
    assert notes_of_use() == []


def test_pages_that_readers_write_are_no_change(suite: Path) -> None:
    for place in ("pages/toy", "pictures/cache/toy"):
        (suite / place).mkdir(parents=True)
        (suite / place / "0.png").write_bytes(b"a page")
    assert notes_of_use() == []
    (suite / "pictures" / "b.png").write_bytes(b"beside what was made")
    assert len(notes_of_use()) == 1


def test_a_suite_of_an_earlier_release_is_read_as_it_is(suite: Path, tmp_path: Path) -> None:
    (tmp_path / ".toy-v1-seed0.listing").unlink()
    (tmp_path / ".toy-v1-seed0.sha256").unlink()
    (suite / "pictures" / "a.png").write_bytes(b"theirs")
    assert notes_of_use() == []


def test_bits_that_rot_without_a_trace_are_found_by_who_reads_them(suite: Path) -> None:
    picture, info = suite / "pictures" / "a.png", describe(suite)
    task = dataclasses.replace(toy_task("toy"), annotations=("pictures/*",))
    hashes = MediaHashes(suite.with_name("media"), suite, check=partial(check_as_made, info))
    hashes.of([picture])
    data_revision(task, info)
    stat = picture.stat()
    picture.write_bytes(b"seed 1")
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert notes_of_use() == []
    for read in (lambda: data_revision(task, info), lambda: hashes.of([picture])):
        with pytest.raises(DataError, match=r"a\.png is not as it was made .*; delete .*toy-v1-seed0, which is made"):
            read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, r"name must be str, not None"),
        ({"synthetic": "no"}, r"synthetic must be bool, not 'no'"),
        ({"revision": 3}, r"revision must be str, not 3"),
        ({"revisions": ["x"]}, r"revisions must be a mapping, not \['x'\]"),
        ({"num_queries": {"OK-VQA": "many"}}, r"num_queries\.OK-VQA must be int, not 'many'"),
        ({"schema_version": "1"}, r"is not a data folder's manifest of this harness; make the folder again"),
        ({"schema_version": 2}, r"has schema version 2, this release reads up to 1: upgrade mmeb-harness"),
    ],
)
def test_a_manifest_that_cannot_be_read(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({**WHOLE, **changes}))
    with pytest.raises(DataError, match=message):
        describe(tmp_path)


def test_a_manifest_says_more_than_is_needed(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({**WHOLE, "more": 1, "num_queries": {"OK-VQA": 3}}))
    info = describe(tmp_path)
    assert (info.name, info.synthetic, info.num_queries) == ("toy", True, {"OK-VQA": 3})


def test_what_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).mkdir()
    with pytest.raises(DataError, match=r"manifest\.json: it is a folder, not a file; make the folder again"):
        describe(tmp_path)


def test_another_number_of_queries_than_the_public_data_set_has_is_counted(tmp_path: Path) -> None:
    write_toy(tmp_path, "toy", num_queries=6)
    task = dataclasses.replace(toy_task("toy"), likely_queries=8)
    assert load_samples(task, DataInfo(tmp_path), Profile(), None).notes == {OTHER_QUERIES: 2}
    assert load_samples(task, DataInfo(tmp_path, synthetic=True), Profile(), None).notes == {}


@pytest.mark.parametrize("folder", BUNDLE_FOLDERS)
def test_a_folder_of_what_mmeb_v3_adds_is_the_benchmarks(folder: str, tmp_path: Path) -> None:
    assert not is_benchmark_tree(tmp_path)
    (tmp_path / folder).mkdir()
    assert is_benchmark_tree(tmp_path)
