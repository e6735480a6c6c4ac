"""JSON lines that survive being killed: whole rows only, appended and flushed one by one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mmemb_r1_model.errors import DataError


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
    """Random access to the rows of a file by key; only a hash and a place of each row are in memory (16 bytes).

    Rows of one key may lie anywhere, and there may be several.
    """

    def __init__(self, path: Path, key: Callable[[dict[str, Any]], str]) -> None:
        self.path, self._key = path, key
        hashes, places, place = [], [], 0
        for row, length in _rows_with_length(path):
            hashes.append(_hash(key(row)))
            places.append(place)
            place += length
        order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
        self._hashes = np.array(hashes, dtype=np.uint64)[order]
        self._places = np.array(places, dtype=np.int64)[order]
        self._file: BinaryIO | None = None

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, key: str) -> list[dict[str, Any]]:
        """Rows of a key, in the file's order; none if there is no such key."""
        wanted = np.uint64(_hash(key))
        first, last = (int(np.searchsorted(self._hashes, wanted, side)) for side in ("left", "right"))
        if self._file is None:
            self._file = self.path.open("rb")
        found = []
        for place in self._places[first:last].tolist():
            self._file.seek(place)
            row = json.loads(self._file.readline())
            if self._key(row) == key:
                found.append(row)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: loader processes open their own."""
        return {**self.__dict__, "_file": None}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class RowWriter:
    """Appends rows. A torn last line is cut off first, so that the file is whole again."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("ab")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it is with the operating system when this returns."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def write_json(path: Path, value: Any) -> None:
    """A whole JSON file or none: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


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
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                file.truncate(start + found + 1)
                return
            position = start
        file.truncate(0)
