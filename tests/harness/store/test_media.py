"""A file is its bytes; it is read once, and again when it has changed."""

import hashlib
import os
import re
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmeb_harness import DataError
from mmeb_harness.store import media
from mmeb_harness.store.media import MediaHashes, is_settled, media_files, read_media_files


@pytest.fixture(autouse=True)
def _files_are_old_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can give a file an older time of change."""
    monkeypatch.setattr("mmeb_harness.store.media.is_settled", lambda changed: True)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"one")
    return path


def reads_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the media files that are read from now on."""
    names: list[str] = []
    original = hashlib.file_digest

    def noted(file, kind):  # type: ignore[no-untyped-def]
        names.extend([Path(file.name).name] if kind == "sha256" else [])
        return original(file, kind)

    monkeypatch.setattr("hashlib.file_digest", noted)
    return names


def test_the_hash_is_of_the_bytes(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "b.jpg").write_bytes(b"one")
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    found = hashes.of([picture, tmp_path / "data" / "b.jpg", picture])
    assert found == dict.fromkeys([picture, tmp_path / "data" / "b.jpg"], hashlib.sha256(b"one").hexdigest())


def test_more_files_than_one_thread_takes(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(1000)]
    for path in paths:
        path.write_text(path.name)
    found = MediaHashes(tmp_path / "media", tmp_path).of(paths)
    assert found == {path: hashlib.sha256(path.name.encode()).hexdigest() for path in paths}


def test_a_file_is_read_once_in_all_runs_and_again_when_it_changed(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, folder = reads_of(monkeypatch), tmp_path / "media"
    hashes = MediaHashes(folder, tmp_path / "data")
    first = hashes.of([picture])
    hashes.save()
    assert hashes.of([picture]) == MediaHashes(folder, tmp_path / "data").of([picture]) == first
    assert reads == ["a.png"]
    stat = picture.stat()
    picture.write_bytes(b"two")
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of modification
    assert MediaHashes(folder, tmp_path / "data").of([picture]) != first
    assert reads == ["a.png", "a.png"]


def test_the_data_folder_may_move(picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    hashes.of([picture])
    hashes.save()
    reads = reads_of(monkeypatch)
    (tmp_path / "data").rename(tmp_path / "moved")
    MediaHashes(tmp_path / "media", tmp_path / "moved").of([tmp_path / "moved" / "a.png"])
    assert reads == []


def test_a_file_that_has_just_changed_is_not_remembered(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmeb_harness.store.media.is_settled", is_settled)
    changed = picture.stat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: changed + 10_000_000)
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    hashes.of([picture])
    hashes.save()
    assert not (tmp_path / "media").exists()


@pytest.mark.parametrize(
    ("changed", "age", "settled"),
    [(1_000_000_001, 40_000_000, False), (1_000_000_001, 60_000_000, True), (2_000_000_000, 1_900_000_000, False)],
)
def test_how_long_a_file_may_change_unseen_depends_on_the_clock_of_its_disk(
    changed: int, age: int, settled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: changed + age)
    assert is_settled(changed) is settled


def test_what_was_hashed_before_an_error_is_remembered(picture: Path, tmp_path: Path) -> None:
    gone = tmp_path / "data" / "gone.png"
    many = [picture] * 1 + [picture.with_name(f"{number}.png") for number in range(100)]
    for path in many:
        path.write_bytes(path.name.encode())
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    with pytest.raises(DataError, match=r"item's media file .*gone\.png can't be read: No such file"):
        hashes.of([*many, gone])
    hashes.save()
    assert len(read_media_files(tmp_path / "media")[0]) == 64  # the go before that of the missing one


def test_what_is_hashed_while_it_is_saved_is_saved_the_next_time(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends early saves what it remembers while its thread still hashes."""
    (other := tmp_path / "other.png").write_bytes(b"other")
    hashes = MediaHashes(tmp_path / "media", tmp_path)
    hashes.of([picture])
    write, written = media.write_media_file, []

    def write_while_hashing(folder: Path, unsaved: dict[bytes, bytes]) -> None:
        count = len(unsaved)
        hashes.of([other])
        assert len(unsaved) == count
        written.append(count)
        write(folder, unsaved)

    monkeypatch.setattr(media, "write_media_file", write_while_hashing)
    hashes.save()
    monkeypatch.setattr(media, "write_media_file", write)
    hashes.save()
    assert written == [1]
    assert len(read_media_files(tmp_path / "media")[0]) == 2


def test_processes_do_not_write_one_file(picture: Path, tmp_path: Path) -> None:
    one, other = (MediaHashes(tmp_path / "media", tmp_path / "data") for _ in range(2))
    for hashes in (one, other):
        hashes.of([picture])
        hashes.save()
    assert len(media_files(tmp_path / "media")) == 2
    assert len(read_media_files(tmp_path / "media")[0]) == 1


def test_what_cannot_be_remembered_is_hashed_all_the_same_and_said(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hashes = MediaHashes(tmp_path / "file" / "media", tmp_path / "data")
    assert hashes.of([picture])[picture] == hashlib.sha256(b"one").hexdigest()
    hashes.save()
    assert "can't write" in str(hashes.problem)


def test_a_broken_file_of_hashes_is_named_and_set_aside(picture: Path, tmp_path: Path) -> None:
    folder, notes = tmp_path / "media", list[str]()
    hashes = MediaHashes(folder, tmp_path / "data")
    expected = hashes.of([picture])
    hashes.save()
    path = media_files(folder)[0]
    whole = bytearray(path.read_bytes())
    whole[whole.index(hashlib.sha256(b"one").digest())] ^= 1
    path.write_bytes(whole)
    assert MediaHashes(folder, tmp_path / "data", notes.append).of([picture]) == expected
    assert re.fullmatch(
        rf"{path} is broken \(.*checksum\)\): set aside in {folder}/set_aside; .* hashed again", notes[0]
    )
    assert media_files(folder) == []
    MediaHashes(folder, tmp_path / "data", notes.append)
    assert len(notes) == 1


def test_a_file_whose_times_lie_ahead_is_remembered(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmeb_harness.store.media.is_settled", is_settled)
    clock = time.time_ns
    monkeypatch.setattr("time.time_ns", lambda: clock() - 3600 * 1_000_000_000)  # set back since it was written
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    hashes.of([picture])
    hashes.save()
    reads = reads_of(monkeypatch)
    MediaHashes(tmp_path / "media", tmp_path / "data").of([picture])
    assert reads == []


def test_unusual_pictures_are_counted_and_those_once_shown_otherwise_are_other_pictures(tmp_path: Path) -> None:
    wide, entry, alpha, plain = (tmp_path / name for name in ("wide.png", "entry.png", "alpha.png", "plain.png"))
    Image.fromarray(np.full((4, 4), 999, dtype=np.uint16)).save(wide)
    Image.new("P", (4, 4)).save(entry, transparency=0)
    Image.new("RGBA", (4, 4)).save(alpha)
    Image.new("RGB", (4, 4)).save(plain)
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (wide, entry, alpha, plain)}
    first = MediaHashes(tmp_path / "media", tmp_path)
    assert first.of([*digests]) == {**digests, wide: f"{digests[wide]}+1", entry: f"{digests[entry]}+2"}
    first.save()
    again = MediaHashes(tmp_path / "media", tmp_path)
    assert again.of([*digests]) == first.of([*digests])
    assert again.notes([wide, wide, alpha, plain]) == {
        "pictures of 16-bit grey, scaled to 8": 1,
        "pictures with an alpha channel, shown without it": 1,
    }


def test_what_release_0_1_remembered_is_not_hashed_again(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.full((4, 4), 999, dtype=np.uint16)).save(picture)
    hashes = MediaHashes(tmp_path / "media", tmp_path / "data")
    expected = hashes.of([picture])
    hashes.save()
    (path,) = media_files(tmp_path / "media")
    pq.write_table(pq.read_table(path).drop_columns("unusual"), path.with_name("media-0.parquet"))
    path.unlink()
    reads = reads_of(monkeypatch)
    older = MediaHashes(tmp_path / "media", tmp_path / "data")
    assert older.of([picture]) == expected
    assert older.notes([picture])
    assert reads == []
    older.save()
    assert {len(content) for content in read_media_files(tmp_path / "media")[0].values()} == {33}
