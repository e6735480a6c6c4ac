"""JSON lines that survive being killed: whole rows only, appended and flushed one by one."""

from __future__ import annotations

import json
import mmap
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from mmemb_r1_model.disk.config import parse_record
from mmemb_r1_model.disk.errors import DataError, HarnessError
from mmemb_r1_model.disk.files import PlacedBytes, make_folder, regular_file, replacing
from mmemb_r1_model.disk.hashing import hash64

_HALF_PAIR = re.compile("[\ud800-\udfff]")

#: A row as its file has it: whatever JSON or parquet holds.
Row = dict[str, Any]
#: A frozen dataclass that a file holds one of in each line.
Record = TypeVar("Record")


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file; a last line without its newline, left by a killed writer, is passed over.

    Raises:
        DataError: not readable, or a line that is no JSON object; path and line number are named.
    """
    return (row for _, _, row in placed_rows(path))


def placed_rows(
    path: Path, way_out: str = "was it written by this tool?", is_finished: bool = False
) -> Iterator[tuple[int, int, Row]]:
    """(first byte, bytes, row) of every line that isn't blank.

    Args:
        is_finished: nobody was killed while writing it; the last line counts without a newline, too.

    Raises:
        DataError: as `read_rows`, with the way out.
    """
    for where, start, line in _placed_lines(path, is_finished):
        try:
            yield start, len(line), checked_row(json.loads(line), where)
        except DataError as error:
            raise DataError(f"{error}; {way_out}") from error
        except (ValueError, RecursionError) as error:
            torn = "" if line.endswith(b"\n") else " (the file ends within it)"
            raise DataError(f"{where} is not valid JSON{torn}: {error}; {way_out}") from error


def read_records(path: Path, kind: type[Record], way_out: str) -> Iterator[Record]:
    """Dataclasses of a file that `RowWriter` wrote, line by line; see `read_rows` for a last one that is torn.

    Raises:
        DataError: not readable, or a line that isn't of that class; path, line number and way out are named.
    """
    return (record for _, _, record in _placed_records(path, kind, way_out))


def _placed_records(path: Path, kind: type[Record], way_out: str) -> Iterator[tuple[int, int, Record]]:
    for where, start, line in _placed_lines(path, is_finished=False):
        try:
            yield start, len(line), parse_record(kind, line, where)
        except HarnessError as error:
            raise DataError(f"{error}; {way_out}") from error


def _placed_lines(path: Path, is_finished: bool) -> Iterator[tuple[str, int, bytes]]:
    """(file and line for messages, first byte, content) of every line that isn't blank."""
    start = 0
    try:
        with regular_file(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n") and not is_finished:
                    return
                if line.strip():
                    yield f"{path}, line {number}", start, line
                start += len(line)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


def checked_row(row: object, where: str) -> Row:
    """What JSON holds, if it is an object.

    Raises:
        DataError: it is none.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def text_at(row: Row, field: str) -> str:
    """The text of a field; "" where it is null or missing.

    Raises:
        DataError: it is no text.
    """
    value = row.get(field)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{field!r} holds {shown_value(value)}, expected text")
    if value and not value.isascii() and _HALF_PAIR.search(value):
        raise DataError(f"{field!r} holds {shown_value(value)}, which has half of a surrogate pair, expected text")
    return value or ""


def texts_at(row: Row, field: str) -> list[str]:
    """The texts of a field that holds one, a list of them, or nothing; empty ones left out.

    Raises:
        DataError: it, or an entry, is no text.
    """
    value = row.get(field)
    listed = value if isinstance(value, list) else [value]
    return [text for text in (text_at({field: entry}, field) for entry in listed) if text]


def rows_at(row: Row, field: str) -> list[Row]:
    """The objects that a field lists; none where it is null or missing.

    Raises:
        DataError: it is no list, or an entry is no object.
    """
    value = row.get(field)
    if value is not None and not (isinstance(value, list) and all(isinstance(entry, dict) for entry in value)):
        raise DataError(f"{field!r} holds {shown_value(value)}, expected a list of objects")
    return value or []


def row_at(row: Row, field: str) -> Row:
    """The object of a field; an empty one where it is null or missing.

    Raises:
        DataError: it is none.
    """
    return checked_row(row.get(field) or {}, repr(field))


def shown_value(value: object) -> str:
    """A value for messages, short."""
    return textwrap.shorten(json.dumps(value, default=repr), 60, placeholder="…")


class KeyedRecords(Generic[Record]):
    """Random access to the lines of a file by key; a hash, a place and a length of each are in memory (28 bytes).

    Lines of one key may lie anywhere, and there may be several.
    """

    def __init__(
        self,
        path: Path,
        kind: type[Record],
        way_out: str,
        key: Callable[[Record], str],
        note: Callable[[Record], object] = lambda _: None,
    ) -> None:
        """Read the file once.

        Args:
            note: told of every line.

        Raises:
            DataError: as `read_records`.
        """
        self.path, self._kind, self._key, self._file = path, kind, key, PlacedBytes(path)

        def places() -> Iterator[tuple[int, int, int]]:
            for start, length, record in _placed_records(path, kind, way_out):
                note(record)
                yield hash64(key(record)), start, length

        dtype = np.dtype([("hash", "<u8"), ("start", "<i8"), ("length", "<i4")])
        unsorted = np.fromiter(places(), dtype)
        self._places = unsorted[np.argsort(unsorted["hash"], kind="stable")]
        self._hashes = np.ascontiguousarray(self._places["hash"])  # searched without a copy each time

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> list[Record]:
        """What has a key, in the file's order; nothing if there is no such key."""
        wanted = np.uint64(hash64(key))
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        lines = (self._file.read(start, length) for _, start, length in self._places[first:last].tolist())
        records = (parse_record(self._kind, line, str(self.path)) for line in lines)
        return [record for record in records if self._key(record) == key]


class RowWriter:
    """Appends rows. A torn last line is cut off first, so that the file is whole again."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        _cut_torn_line(path)
        self._file = path.open("ab")

    def write(self, row: Row) -> None:
        """Append one row; it is with the operating system when this returns."""
        self._file.write(_line(row))
        self._file.flush()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def rewrite(path: Path, rows: Iterable[Row]) -> None:
    """A file of these rows, whole; the old one, which `rows` may be read from, stays until they are written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for row in rows:
            file.write(_line(row))


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _cut_torn_line(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            whole = content.rfind(b"\n") + 1
        file.truncate(whole)
