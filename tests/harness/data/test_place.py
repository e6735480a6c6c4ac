"""Files to where they belong: hostile and odd archives, shared pages, tables of any kind. Nothing leaves the folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmeb_harness import DataError, Files, Pages, Table
from mmeb_harness.data.archives import Joined
from mmeb_harness.data.place import PAGE_POOL, inside, place_files, place_pages, place_table, put, put_shared, unpack
from mmeb_harness.data.records import RecordWriter, read_record, recorded_files

TABLE = Table("owner/name", "queries", "test")
STEP = ("owner/name", "c" * 40, ["sha256:1"])


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def archive(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = folder / "archive.tar.gz"
    with tarfile.open(path, "w:gz") as opened:
        for info, content in members:
            opened.addfile(info, io.BytesIO(content))
    return path


def below(folder: str) -> Callable[[str], str | None]:
    return lambda name: f"media/{name.removeprefix(folder)}" if name.startswith(folder) else None


def unpack_into(root: Path, *parts: Path) -> RecordWriter:
    record = RecordWriter(root, "step")
    unpack(parts, "archive.tar.gz", root, [(below("set/"), record)])
    return record


def all_files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() or path.is_symlink()}


def test_wanted_members_are_placed_and_recorded(tmp_path: Path) -> None:
    root = tmp_path / "data"
    path = archive(
        tmp_path, member("set/a/1.jpg", b"one"), member("other/2.jpg"), member("set/a", kind=tarfile.DIRTYPE)
    )
    record = unpack_into(root, path).finish(*STEP)
    assert all_files(root / "media") == {"a/1.jpg"}
    assert (record.files, record.size, record.digests) == (1, 3, ("sha256:1",))
    assert read_record(root, "step") == record
    recorded = recorded_files(root, "step", "path", "size")
    assert recorded is not None
    assert recorded.to_pylist() == [{"path": "media/a/1.jpg", "size": 3}]


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../escape.jpg"), r"'\.\./escape\.jpg' leaves the folder"),
        (member("set/../../escape.jpg"), "leaves the folder"),
        (member("/tmp/escape.jpg"), r"'/tmp/escape\.jpg' leaves the folder"),
        (member("set/link", kind=tarfile.SYMTYPE, link="/etc/passwd"), "'set/link' points to '/etc/passwd', outside"),
        (member("set/link", kind=tarfile.SYMTYPE, link="../../../etc/passwd"), "outside of the archive"),
        (member("set/link", kind=tarfile.LNKTYPE, link="../secret"), "outside of the archive"),
        (member("set/link", kind=tarfile.SYMTYPE, link="never-there"), "'set/never-there', which doesn't precede it"),
        (member("set/pipe", kind=tarfile.FIFOTYPE), "'set/pipe' is neither a file nor a folder"),
        (member("set/device", kind=tarfile.CHRTYPE), "is neither a file nor a folder"),
    ],
)
def test_a_hostile_archive_is_refused_and_nothing_leaves_the_folder(
    hostile: tuple[tarfile.TarInfo, bytes], message: str, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    path = archive(tmp_path, member("set/good.jpg"), hostile, member("set/after.jpg"))
    before = all_files(tmp_path)
    with pytest.raises(DataError, match=rf"^archive archive\.tar\.gz: .*{message}"):
        unpack_into(root, path)
    assert all_files(tmp_path) - before == {"data/media/good.jpg"}
    assert read_record(root, "step") is None


def test_a_link_to_a_folder_cannot_redirect_what_follows(tmp_path: Path) -> None:
    root, outside = tmp_path / "data", tmp_path / "outside"
    outside.mkdir()
    path = archive(
        tmp_path,
        member("elsewhere", kind=tarfile.SYMTYPE, link=str(outside)),
        member("elsewhere/set/1.jpg"),
        member("set/1.jpg"),
    )
    unpack_into(root, path)
    assert all_files(root) == {"media/1.jpg"}
    assert not list(outside.iterdir())


def test_links_inside_the_archive_become_files(tmp_path: Path) -> None:
    root = tmp_path / "data"
    path = archive(
        tmp_path,
        member("set/a/1.jpg", b"one"),
        member("set/b/hard.jpg", kind=tarfile.LNKTYPE, link="set/a/1.jpg"),
        member("set/b/soft.jpg", kind=tarfile.SYMTYPE, link="../a/1.jpg"),
    )
    unpack_into(root, path)
    assert all_files(root) == {"media/a/1.jpg", "media/b/hard.jpg", "media/b/soft.jpg"}
    assert all((root / name).read_bytes() == b"one" and not (root / name).is_symlink() for name in all_files(root))


def test_macos_leftovers_are_no_frames(tmp_path: Path) -> None:
    unpack_into(tmp_path / "data", archive(tmp_path, member("set/1.jpg"), member("set/._1.jpg")))
    assert all_files(tmp_path / "data") == {"media/1.jpg"}


def test_parts_are_read_as_one(tmp_path: Path) -> None:
    whole = archive(tmp_path, *(member(f"set/{i}.jpg", os.urandom(2000)) for i in range(20))).read_bytes()
    parts = []
    for index, start in enumerate(range(0, len(whole), 777)):
        parts.append(tmp_path / f"part-{index}")
        parts[-1].write_bytes(whole[start : start + 777])
    joined = Joined([part.open("rb") for part in parts])
    assert b"".join(iter(lambda: joined.read(1000), b"")) == whole
    assert unpack_into(tmp_path / "data", *parts).files == 20
    with pytest.raises(DataError, match="damaged or cut short"):
        unpack_into(tmp_path / "data", *parts[:-3])
    with pytest.raises(DataError, match="damaged or cut short"):
        unpack_into(tmp_path / "data", *parts[1:])


def test_a_second_unpacking_leaves_equal_files_alone_and_mends_others(tmp_path: Path) -> None:
    root = tmp_path / "data"
    path = archive(tmp_path, member("set/1.jpg", b"one"), member("set/2.jpg", b"two"))
    unpack_into(root, path)
    first, second = root / "media/1.jpg", root / "media/2.jpg"
    os.utime(first, ns=(1, 1))
    second.write_bytes(b"odd")
    unpack_into(root, path)
    assert first.stat().st_mtime_ns == 1  # vectors are kept by time of change
    assert second.read_bytes() == b"two"


def test_an_interrupted_unpacking_leaves_whole_files_only(tmp_path: Path) -> None:
    calls = iter([None, None, KeyboardInterrupt()])

    def stop_at_the_third() -> None:
        if (stop := next(calls)) is not None:
            raise stop

    path = archive(tmp_path, *(member(f"set/{i}.jpg", b"one") for i in range(5)))
    record = RecordWriter(tmp_path / "data", "step")
    with pytest.raises(KeyboardInterrupt):
        unpack([path], "a", tmp_path / "data", [(below("set/"), record)], stop_at_the_third)
    assert all_files(tmp_path / "data") == {"media/0.jpg", "media/1.jpg"}


@pytest.mark.parametrize("relative", ["../x", "/x", "a/../../x", "", "a\0b"])
def test_no_path_leaves_the_data_folder(relative: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leaves the data folder"):
        inside(tmp_path, relative)


def corpus(folder: Path, name: str, pages: dict[int, bytes]) -> tuple[str, Path]:
    rows = [{"corpus-id": page, "image": {"bytes": content, "path": None}} for page, content in pages.items()]
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return name, folder / name


def pages_of(folder: str) -> Pages:
    table = Table(f"owner/{folder}", "corpus", "test")
    return Pages(table, "corpus-id", "image", lambda page: f"pages/{folder}/{page}.png", lambda _, stored: stored)


def test_pages_of_two_tasks_over_one_corpus_are_stored_once(tmp_path: Path) -> None:
    root = tmp_path / "data"
    contents = {page: bytes([page]) * 5000 for page in range(40)} | {40: bytes([0]) * 5000}  # a page that occurs twice
    for name in ("doc", "page"):
        record = RecordWriter(root, name)
        assert place_pages([corpus(tmp_path, "c.parquet", contents)], pages_of(name), root, record) == 0
        assert record.finish(*STEP).files == 42  # 41 pages and the table
    assert all((root / f"pages/doc/{page}.png").read_bytes() == content for page, content in contents.items())
    assert (
        len({(root / f"pages/{name}/{page}.png").stat().st_ino for name in ("doc", "page") for page in contents}) == 40
    )
    assert len(all_files(root / PAGE_POOL)) == 40
    slim = pq.read_table(root / "annotations/owner/doc/corpus/test.parquet")
    assert slim.column_names == ["corpus-id"]
    assert slim.column(0).to_pylist() == list(contents)
    assert not list(root.rglob("*.tmp"))


def test_without_hard_links_pages_are_copied_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    record = RecordWriter(tmp_path / "data", "s")
    found = place_pages([corpus(tmp_path, "c.parquet", {1: b"a", 2: b"a"})], pages_of("doc"), tmp_path / "data", record)
    assert found == 2
    assert (tmp_path / "data/pages/doc/2.png").read_bytes() == b"a"


def test_a_page_of_another_revision_replaces_only_its_own_name(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    for name in ("a", "b"):
        put_shared(tmp_path / name, b"old", pool)
    put_shared(tmp_path / "a", b"new", pool)
    assert [(tmp_path / name).read_bytes() for name in ("a", "b")] == [b"new", b"old"]


def test_a_damaged_page_is_mended(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    put_shared(tmp_path / "a", b"page", pool)
    (tmp_path / "a").write_bytes(b"p??e")  # through its one file, the pool's too
    put_shared(tmp_path / "a", b"page", pool)
    assert (tmp_path / "a").read_bytes() == b"page"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b"PAR1 no parquet"), "c.parquet is no readable parquet"),
        (lambda path: pq.write_table(pa.table({"corpus-id": [1]}), path), "lacks the column 'image'"),
        (
            lambda path: pq.write_table(
                pa.Table.from_pylist([{"corpus-id": 1, "image": {"bytes": b"", "path": "x"}}]), path
            ),
            "page '1' has no image",
        ),
    ],
)
def test_a_spoilt_corpus(spoil: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    part = corpus(tmp_path, "c.parquet", {1: b"a"})
    spoil(part[1])
    with pytest.raises(DataError, match=message):
        place_pages([part], pages_of("doc"), tmp_path / "data", RecordWriter(tmp_path / "data", "s"))
    assert not (tmp_path / "data/annotations/owner/doc/corpus/test.parquet").exists()


ROWS = [{"query": "a", "options": ["x", "y"], "answer": 1}, {"query": "b\n", "options": [], "answer": 2}]


def written(kind: str) -> bytes:
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    if kind == "json":
        return json.dumps(ROWS).encode()
    if kind == "jsonl.gz":
        return gzip.compress(lines)
    if kind == "csv":
        return b"query,answer\na,1\nb,2\n"
    return lines


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "csv"])
def test_tables_that_are_no_parquet_are_converted(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "sha256-1"  # fetched files are named by content
    source.write_bytes(written(kind))
    record = RecordWriter(tmp_path / "data", "s")
    place_table([(f"data/rows.{kind}", source)], TABLE, tmp_path / "data", record)
    rows = pq.read_table(tmp_path / "data/annotations/owner/name/queries/test.parquet").to_pylist()
    expected = [{"query": "a", "answer": 1}, {"query": "b", "answer": 2}] if kind == "csv" else ROWS
    assert rows == expected


def test_shards_keep_their_order_and_old_ones_go(tmp_path: Path) -> None:
    root, parts = tmp_path / "data", []
    for index in range(3):
        pq.write_table(pa.table({"query": [f"{index}"]}), tmp_path / f"{index}")
        parts.append((f"x/test-{index}.parquet", tmp_path / f"{index}"))
    place_table(parts, TABLE, root, RecordWriter(root, "s"))
    folder = root / TABLE.folder
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"test-{index:05d}-of-00003.parquet" for index in range(3)]
    assert [pq.read_table(folder / name).column(0).to_pylist() for name in names] == [["0"], ["1"], ["2"]]
    place_table(parts[:1], TABLE, root, RecordWriter(root, "s"))
    assert [path.name for path in folder.iterdir()] == ["test.parquet"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", b"PAR1", "t.parquet is no readable parquet .* this revision is damaged"),
        ("t.xlsx", b"", "annotations of kind .xlsx can't be read"),
        ("t.jsonl", b"{broken", "t.jsonl can't be read as json"),
    ],
)
def test_a_spoilt_table(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(DataError, match=message):
        place_table([(name, tmp_path / "f")], TABLE, tmp_path / "data", RecordWriter(tmp_path / "data", "s"))
    assert not (tmp_path / "data" / TABLE.folder / "test.parquet").exists()


def test_put_is_whole_or_not_at_all(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b", b"one")
    (tmp_path / "dir").mkdir()
    with pytest.raises(OSError, match="it is a folder, not a file"):
        put(tmp_path / "dir", b"two")
    assert all_files(tmp_path) == {"a/b"}


def test_a_large_member_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmeb_harness.data.place.PIECE", 1000)
    large = os.urandom(4321)
    path = archive(
        tmp_path,
        member("set/large.jpg", large),
        member("set/again.jpg", kind=tarfile.LNKTYPE, link="set/large.jpg"),
        member("set/large.jpg", large[:2000]),
    )
    record = unpack_into(tmp_path / "data", path)
    assert (tmp_path / "data/media/large.jpg").read_bytes() == large[:2000]  # the last one counts, as for tar itself
    assert (tmp_path / "data/media/again.jpg").read_bytes() == large
    recorded = record.finish(*STEP)
    assert (recorded.files, recorded.size) == (3, 2 * len(large) + 2000)
    assert all_files(tmp_path / "data") == {"media/large.jpg", "media/again.jpg", "manifest/" + next(
        (tmp_path / "data/manifest").iterdir()
    ).name}  # fmt: skip


@pytest.mark.parametrize(
    ("bomb", "says"),
    [
        (member("set/a.jpg", bytes(3_000_000)), r"'set/a\.jpg' it unpacks to more than .*isn't the published archive"),
        (member("elsewhere/a", bytes(3_000_000)), "unpacks to more than"),
    ],
    ids=["wanted", "not wanted"],
)
def test_an_archive_does_not_unpack_to_far_more_than_its_size(
    bomb: tuple[tarfile.TarInfo, bytes], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmeb_harness.data.place.LEAST_MOST", 100_000)
    with pytest.raises(DataError, match=says):
        unpack_into(tmp_path / "data", archive(tmp_path, bomb))
    assert not (tmp_path / "data").exists()


def test_a_large_member_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmeb_harness.data.place.PIECE", 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 2000))
    with pytest.raises(OSError, match="No space left"):
        unpack_into(tmp_path / "data", archive(tmp_path, member("set/a.jpg", os.urandom(3000))))
    assert not all_files(tmp_path / "data")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_are_no_utf_8_are_taken(encoding: str, form: int, tmp_path: Path) -> None:
    names = ["Müller/Ärger.jpg", f"{'ü' * 120}.jpg" if form != tarfile.USTAR_FORMAT else "ü.jpg"]
    with tarfile.open(tmp_path / "archive.tar", "w", format=form, encoding=encoding) as opened:
        for name in names:
            opened.addfile(member(f"set/{name}")[0], io.BytesIO(b"x"))
    record = unpack_into(tmp_path / "data", tmp_path / "archive.tar")
    assert record.finish(*STEP).files == 2
    assert all_files(tmp_path / "data/media") == set(names)


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive.tar", "w") as opened:
        for number in range(3):
            opened.addfile(member(f"set/{number}.jpg")[0], io.BytesIO(b"x"))
    content = bytearray((tmp_path / "archive.tar").read_bytes())
    for damaged in (content[: 2 * 1024 + 300], content[:2048] + b"\xff" + content[2049:]):
        (tmp_path / "archive.tar").write_bytes(damaged)
        with pytest.raises(DataError, match="damaged or cut short \\(a member's header is broken"):
            unpack_into(tmp_path / "data", tmp_path / "archive.tar")


def test_a_name_of_megabytes_is_not_read(tmp_path: Path) -> None:
    path = archive(tmp_path, member("set/" + "a" * 200_000))
    with pytest.raises(DataError, match="a member's name has 200,"):
        unpack_into(tmp_path / "data", path)


def zipped(folder: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(folder / "archive.zip", "w") as opened:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, content, zipfile.ZIP_DEFLATED)
    return folder / "archive.zip"


def test_zip_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"set/": b"", "set/a/1.jpg": b"one", "set/b.jpg": b"two", "other/c.jpg": b"x"})
    path = path.rename(tmp_path / "sha256-1")
    assert unpack_into(tmp_path / "data", path).files == 2
    assert (tmp_path / "data/media/a/1.jpg").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("members", "mode", "message"),
    [
        ({"../escape.jpg": b"x"}, 0, "leaves the folder"),
        ({"/escape.jpg": b"x"}, 0, "leaves the folder"),
        ({"set/link": b"../../escape"}, stat.S_IFLNK, "'set/link' points to '../escape', outside of the archive"),
        ({"set/link": b"never-there"}, stat.S_IFLNK, "which doesn't precede it"),
    ],
)
def test_a_hostile_zip_file_is_refused(members: dict[str, bytes], mode: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        unpack_into(tmp_path / "data", zipped(tmp_path, members, mode))
    assert all_files(tmp_path) == {"archive.zip"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:-30], r"damaged or cut short \(File is not a zip file"),
        (lambda content: content.replace(b"\x14\x00\x00\x00", b"\x14\x00\x01\x00"), "is encrypted, or compressed"),
        (lambda content: content[:45] + b"?" + content[46:], "damaged or cut short"),
    ],
)
def test_a_spoilt_zip_file(spoil: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    path = zipped(tmp_path, {"set/a.jpg": os.urandom(100)})
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=rf"^archive archive\.tar\.gz .*{message}"):
        unpack_into(tmp_path / "data", path)
    assert all_files(tmp_path) == {"archive.zip"}


def test_a_zip_file_in_parts_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"set/a.jpg": b"x"})
    with pytest.raises(DataError, match="2 parts of a zip file"):
        unpack_into(tmp_path / "data", path, path)


def test_an_archive_in_an_archive_is_unpacked_in_its_place(tmp_path: Path) -> None:
    inner = archive(tmp_path, member("pictures/1.jpg", b"one"), member("../2.jpg", b"two")).read_bytes()
    good = archive(
        tmp_path,
        member("pictures/1.jpg", b"one"),
        member("2.jpg", b"two"),
        member("3.jpg", kind=tarfile.LNKTYPE, link="2.jpg"),
    ).read_bytes()
    path = archive(tmp_path, member("set/0.jpg"), member("set/deep/pictures.tar.gz", good), member("set/4.jpg"))
    record = RecordWriter(tmp_path / "data", "step")
    first = unpack([path], "a", tmp_path / "data", [(below("set/"), record)], nested=r"pictures\.tar(\.gz)?")
    assert first == ("set/0.jpg", "set/deep/pictures/1.jpg", "set/deep/2.jpg")
    names = {"0.jpg", "deep/pictures/1.jpg", "deep/2.jpg", "deep/3.jpg", "4.jpg"}
    assert record.paths() == {f"media/{name}" for name in names}
    assert (tmp_path / "data/media/deep/3.jpg").read_bytes() == b"two"
    path = archive(tmp_path, member("pictures.tar.gz", inner))
    with pytest.raises(DataError, match=r"'\.\./2\.jpg' leaves the folder"):
        unpack([path], "a", tmp_path / "data", [(below("pictures/"), record)], nested=r"pictures\.tar(\.gz)?")


def test_plain_files_are_copied_and_those_of_another_revision_go(tmp_path: Path) -> None:
    files, root = Files("owner/name", "gui_tasks/set", r"queries/a-.*\.parquet", "gui-tasks/set"), tmp_path / "data"
    kept = [root / "gui-tasks/set" / name for name in ("queries/b-0.parquet", "corpus/a-0.parquet")]
    for path in (*kept, root / "gui-tasks/set/queries/a-0-of-2.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
    (tmp_path / "fetched").write_bytes(b"new")
    record = RecordWriter(root, "step")
    place_files([("gui_tasks/set/queries/a-0-of-1.parquet", tmp_path / "fetched")], files, root, record)
    assert record.paths() == {"gui-tasks/set/queries/a-0-of-1.parquet"}
    assert all_files(root) == {path.relative_to(root).as_posix() for path in kept} | record.paths()
