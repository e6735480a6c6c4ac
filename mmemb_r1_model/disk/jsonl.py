"""JSON lines that survive being killed: whole rows only, appended and flushed one by one."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import PlacedBytes, replacing
from mmemb_r1_model.disk.hashing import hash64


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a file; a last line without its newline, left by a killed writer, is passed over.

    Raises:
        DataError: not readable, or a line that is no JSON object; path and line number are named.
    """
    return (row for row, _ in _rows_with_length(path))


def _rows_with_length(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                yield _row(path, number, line), len(line)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror}") from error


class KeyedRows:
    """Random access to the rows of a file by key; a hash, a place and a length of each row are in memory (20 bytes).

    Rows of one key may lie anywhere, and there may be several.
    """

    def __init__(
        self,
        path: Path,
        key: Callable[[dict[str, Any]], str],
        note: Callable[[dict[str, Any]], object] = lambda _: None,
    ) -> None:
        """Read the file once.

        Args:
            note: told of every row.
        """
        self.path, self._key, self._file = path, key, PlacedBytes(path)
        hashes, lengths = array("Q"), array("i")
        for row, length in _rows_with_length(path):
            hashes.append(hash64(key(row)))
            lengths.append(length)
            note(row)
        order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
        ends = np.cumsum(np.array(lengths, dtype=np.int64))
        self._hashes, self._ends = np.array(hashes, dtype=np.uint64)[order], ends[order]
        self._lengths = np.array(lengths, dtype=np.int32)[order]

    def get(self, key: str) -> list[dict[str, Any]]:
        """Rows of a key, in the file's order; none if there is no such key."""
        wanted = np.uint64(hash64(key))
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        rows = (
            json.loads(self._file.read(int(self._ends[number] - self._lengths[number]), int(self._lengths[number])))
            for number in range(first, last)
        )
        return [row for row in rows if self._key(row) == key]


class RowWriter:
    """Appends rows. A torn last line is cut off first, so that the file is whole again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("ab")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it is with the operating system when this returns."""
        self._file.write(_line(row))
        self._file.flush()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def rewrite(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """A file of these rows, whole; the old one, which `rows` may be read from, stays until they are written."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        for row in rows:
            file.write(_line(row))


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not valid JSON ({error}); was it written by this tool?") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
    return row


def _cut_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        block = 1 << 16
        position = end
        while position > 0:
            start = max(0, position - block)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            position = start
        file.truncate(0)
