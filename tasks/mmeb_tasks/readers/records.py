"""Rows of MMEB-V3's files, JSON lines or parquet, whose fields have many spellings: the first that holds something."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb_harness import DataError, is_lfs_pointer, one_line, regular_file, shown
from mmeb_tasks.readers.tables import MissingTableError

#: Rows of a parquet file in memory at once: documents have up to 32,000 tokens.
_ROWS_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Record:
    """A row as its file holds it, and where it stands: lines count from 1, rows of a table from 0."""

    path: Path
    place: str
    values: Mapping[str, Any]

    def first(self, names: Sequence[str]) -> tuple[str, Any]:
        """The first field that holds something and what it holds: 0, "" and null fall through, as officially."""
        held = ((name, value) for name in names if (value := self.values.get(name)))
        return next(held, (names[0], None))

    def text(self, *names: str) -> str:
        """The first of these texts, untouched; "" if there is none.

        Raises:
            DataError: it is something else, or no text that UTF-8 can spell.
        """
        name, value = self.first(names)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.unfit(name, "text")
        if not is_whole(value):
            raise self.unfit(name, "text without half characters")
        return value

    def key(self, *names: str) -> str:
        """The first of these ids, as text; "" if there is none.

        Raises:
            DataError: it is neither text nor a whole number.
        """
        name, value = self.first(names)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise self.unfit(name, "an id (text or a whole number)")
        return self.text(*names)

    def stated_id(self, name: str) -> str:
        """The id in a field of its own, where a 0 is one as well.

        Raises:
            DataError: there is none, or it is neither text nor a whole number.
        """
        value = self.values.get(name)
        stated = "0" if type(value) is int and value == 0 else self.key(name)
        if not stated:
            raise self.unfit(name, "an id (text or a whole number)")
        return stated

    def unfit(self, name: str, expected: str) -> DataError:
        """The error that names a field and what it should hold."""
        held = shown(self.values.get(name))
        return DataError(f"{self.path}, {self.place}, field {name!r} holds {held}, expected {expected}")


def is_whole(text: str) -> bool:
    """Whether UTF-8 can spell it: half a surrogate pair is no letter, nor is a file's name in another encoding."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def iter_records(path: Path, names: Sequence[str]) -> Iterator[Record]:
    """The rows of a file, by its suffix: .parquet, or an object a line. A few of them are in memory at a time.

    Args:
        names: fields that are wanted; no other column of a parquet file is read.

    Raises:
        MissingTableError: there is no such file.
        DataError: it can't be read, or holds something else.
    """
    try:
        if is_lfs_pointer(regular_file(path)):
            raise DataError(f"{path} is a pointer of git-lfs; get the file itself with `git lfs pull`")
        yield from (_rows if path.suffix == ".parquet" else _lines)(path, names)
    except FileNotFoundError as error:
        raise MissingTableError(f"file {path} is missing") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text in UTF-8: {one_line(error)}") from error
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or one_line(error)}") from error


def _lines(path: Path, names: Sequence[str]) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, {place} is not one whole JSON object: {one_line(error)}") from error
            if not isinstance(values, dict):
                raise DataError(f"{path}, {place} is not one whole JSON object")
            yield Record(path, place, values)


def _rows(path: Path, names: Sequence[str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            stored = file.schema_arrow.names
            columns = [name for name in names if name in stored]
            if not columns:
                raise DataError(f"{path} has none of the columns {', '.join(names)} (found: {', '.join(stored)})")
            if twice := next((name for name in columns if stored.count(name) > 1), None):
                raise DataError(f"{path} has twice the column {twice!r}")
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
                for values in batch.to_pylist():
                    yield Record(path, f"row {number}", values)
                    number += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after row {number}: text that is not UTF-8") from error
    except pa.ArrowException as error:
        raise DataError(f"{path} can't be read: {one_line(error)}") from error
