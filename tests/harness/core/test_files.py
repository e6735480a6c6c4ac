"""Files that are whole or not there, locks, and errors as one line."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from mmeb_harness import lock_file, make_folder, one_line, regular_file, replacing
from mmeb_harness.core.errors import ResultError, of_the_system
from mmeb_harness.core.files import dont_wait, read_parquet, readable_size, write_parquet, write_text


def test_a_file_that_fails_to_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a" / ("long" * 60 + ".json")
    with replacing(path) as temporary:
        temporary.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("ne")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"), replacing(path, durably=False) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_lock_holds_others_off_until_it_is_closed(tmp_path: Path) -> None:
    path, waited = tmp_path / "lock", []
    with ThreadPoolExecutor() as pool:
        held = lock_file(path)
        with pytest.raises(BlockingIOError):
            lock_file(path, dont_wait)
        with pytest.raises(BlockingIOError):
            lock_file(path, dont_wait, shared=True)
        waiting = pool.submit(lock_file, path, lambda: waited.append(1) or held.close())  # type: ignore[func-returns-value]
        waiting.result(timeout=30).close()
    assert waited
    with lock_file(path, shared=True), lock_file(path, dont_wait, shared=True), pytest.raises(BlockingIOError):
        lock_file(path, dont_wait)


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_can_be_read_and_written(shared: bool, tmp_path: Path) -> None:
    """Network file systems keep locks as records: a shared one needs the first, an exclusive one the second."""
    with lock_file(tmp_path / "lock", shared=shared) as file:
        assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR


def test_what_is_replaced_can_be_read_by_others(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("{}")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


def test_a_lock_file_that_was_deleted_meanwhile_holds_nobody_off(tmp_path: Path) -> None:
    """Who waited for it would hold a file that nobody else finds."""
    path = tmp_path / "lock"
    held = lock_file(path)

    def delete() -> None:
        path.unlink(missing_ok=True)
        held.close()

    with lock_file(path, delete), pytest.raises(BlockingIOError):
        lock_file(path, dont_wait)


def test_a_lock_needs_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        lock_file(tmp_path / "nowhere" / "lock")


def test_an_error_in_one_line() -> None:
    assert one_line(ValueError("first\n\n  second")) == "first second"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 900))) == 500
    assert len(one_line(ValueError("x" * 900), longest=None)) == 900


@pytest.mark.parametrize(
    ("size", "shown"), [(999, "999 bytes"), (1_500, "1.5 kB"), (2_000_000, "2.0 MB"), (12_345_678_901, "12.3 GB")]
)
def test_sizes_for_people(size: int, shown: str) -> None:
    assert readable_size(size) == shown


def test_only_files_and_links_to_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert [regular_file(tmp_path / name).read_text() for name in ("file", "link")] == ["a", "a"]
    for name, why in (("pipe", "a named pipe"), ("zero", "a device"), (".", "a folder"), ("circle", "symbolic links")):
        with pytest.raises(OSError, match=why):
            regular_file(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "missing")


@pytest.mark.parametrize(("name", "why"), [("zero", "a device"), ("pipe", "a named pipe"), ("/dev/a-file", "a device")])
def test_a_file_takes_the_place_of_files_alone(name: str, why: str, tmp_path: Path) -> None:
    """As root even of the system's /dev/null: from then on all that is thrown away would be kept."""
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ResultError, match=f"can't write .*: it is {why}, not a file"):
        write_text(tmp_path / name, "x")
    assert not list(tmp_path.glob(".*.tmp"))
    (tmp_path / "lost").symlink_to("nowhere")
    write_text(tmp_path / "lost", "x")
    assert (tmp_path / "lost").read_text() == "x"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no file system that takes no folder")
def test_a_folder_that_cant_be_made_is_one_line() -> None:
    with pytest.raises(PermissionError) as refused:
        make_folder(Path("/proc/runs"))
    assert (of_the_system(refused.value) or "").startswith("/proc/runs: no folder can be made there; name a folder")


def test_a_table_is_read_with_each_of_its_columns_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a=1" / "table.parquet"  # a folder's name is no column
    make_folder(path.parent)
    write_parquet(path, pa.table({"one": [1, 2], "two": ["a", None]}))
    assert read_parquet(path).to_pydict() == {"one": [1, 2], "two": ["a", None]}
    assert read_parquet(path, ["two"]).column_names == ["two"]
    with pytest.raises(ResultError, match=r"table\.parquet: no column 'three'"):
        read_parquet(path, ["one", "three"])


def test_a_table_is_read_without_pandas(tmp_path: Path) -> None:
    write_parquet(tmp_path / "table.parquet", pa.table({"one": [1]}))
    code = (
        "import sys\nfrom pathlib import Path\nfrom mmeb_harness.core.files import read_parquet\n"
        "read_parquet(Path(sys.argv[1]), ['one'])\n"
        "assert not {'pandas', 'pyarrow.dataset'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "table.parquet")], check=True)
