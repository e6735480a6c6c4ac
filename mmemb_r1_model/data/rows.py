"""Rows of published training files, read where they lie: JSON by place, parquet by column.

The biggest file has 1.46 million rows of some 5 KB: nothing here holds rows as Python objects.
"""

from __future__ import annotations

import codecs
import json
import warnings
import zipfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import PlacedBytes, replacing

if TYPE_CHECKING:
    import pyarrow as pa

#: A row as its file has it: whatever JSON or parquet holds.
Row = dict[str, Any]

_INDEX_VERSION = 1
_ARRAYS = ("starts", "lengths", "group_of", "skip_of")
_CHUNK = 4 << 20
#: A row that is longer than this is a broken one, whose end isn't found.
_LONGEST_ROW = 64 << 20


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What the index keeps of a row.

    Attributes:
        group: the data set it belongs to, in a file of several.
        skip: why it can't be used; "": it can.
    """

    group: str = ""
    skip: str = ""


class JsonRows:
    """Random access to a file of JSON lines, or one JSON array of objects, over an index kept beside it.

    The index (`<file>.<kind>-index.npz`, 14 bytes a row) is built in one pass, written atomically, and built anew
    when the file's size or time of change is another. Processes that build it at the same time write the same.

    Attributes:
        groups: names of the data sets in the file, in order of their first rows.
    """

    def __init__(self, path: Path, kind: str, facts_of: Callable[[Row], RowFacts], fetch: str) -> None:
        """Read the index, or build it.

        Args:
            kind: of `facts_of`; part of the index's name.
            facts_of: must depend on the row alone.
            fetch: the command that gets the file again.

        Raises:
            DataError: no such file, or not JSON throughout; the line or row is named.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing; get it: {fetch}")
        self.path = path
        state = _state(path)  # before the scan: a file that changes under it must not pass for the one indexed
        index = _read_index(path, kind, state)
        if index is None:
            index = _build_index(path, facts_of, fetch)
            _keep_index(path, kind, state, index)
        self._index = index
        self.groups = self._index.groups
        self._bytes = PlacedBytes(path)

    def __len__(self) -> int:
        return len(self._index.starts)

    def of(self, group: str | None, limit: int | None) -> tuple[NDArray[np.int64], dict[str, int]]:
        """Numbers of a data set's usable rows (`None`: of all), and how many were passed over, by reason.

        Args:
            limit: the first rows only, counted before any is passed over.
        """
        index = self._index
        if group is None:
            own = np.arange(len(self))[:limit]
        else:
            own = np.flatnonzero(index.group_of == index.groups.index(group))[:limit]
        reasons = Counter(index.skip_of[own].tolist())
        skipped = {index.skips[code - 1]: count for code, count in sorted(reasons.items()) if code}
        return own[index.skip_of[own] == 0].astype(np.int64), skipped

    def __getitem__(self, number: int) -> Row:
        """A row by its number in the file.

        Raises:
            DataError: the file was changed since the index was read.
        """
        stored = self._bytes.read(int(self._index.starts[number]), int(self._index.lengths[number]))
        try:
            row = json.loads(stored)
        except ValueError as error:
            raise DataError(f"{self.path} was changed while in use (row {number}); run again") from error
        if not isinstance(row, dict):
            raise DataError(f"{self.path} was changed while in use (row {number}); run again")
        return row


@dataclass(frozen=True)
class _Index:
    """Where rows lie, in bytes, and their facts as numbers: an index into `groups`; 0 or 1 + an index into `skips`."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    group_of: NDArray[np.int16]
    skip_of: NDArray[np.int8]
    groups: tuple[str, ...]
    skips: tuple[str, ...]


def _build_index(path: Path, facts_of: Callable[[Row], RowFacts], fetch: str) -> _Index:
    starts, lengths, group_of, skip_of = array("q"), array("i"), array("h"), array("b")
    groups: dict[str, int] = {}
    skips: dict[str, int] = {"": 0}
    for start, length, row in _scan(path, fetch):
        try:
            facts = facts_of(row)
        except (AttributeError, KeyError, TypeError) as error:
            where = f"{path}, row {len(starts)} (byte {start})"
            raise DataError(f"{where} is not laid out as published: {error}") from error
        starts.append(start)
        lengths.append(length)
        group_of.append(groups.setdefault(facts.group, len(groups)))
        skip_of.append(skips.setdefault(facts.skip, len(skips)))
    return _Index(
        np.array(starts, dtype=np.int64),
        np.array(lengths, dtype=np.int32),
        np.array(group_of, dtype=np.int16),
        np.array(skip_of, dtype=np.int8),
        tuple(groups),
        tuple(skips)[1:],
    )


def _index_path(path: Path, kind: str) -> Path:
    return path.with_name(f"{path.name}.{kind}-index.npz")


def _state(path: Path) -> list[int]:
    stat = path.stat()
    return [_INDEX_VERSION, stat.st_size, stat.st_mtime_ns]


def _read_index(path: Path, kind: str, state: list[int]) -> _Index | None:
    """The kept index; `None` if there is none, or it is of another state of the file."""
    try:
        with np.load(_index_path(path, kind), allow_pickle=False) as kept:
            header = json.loads(str(kept["header"]))
            if header["state"] != state:
                return None
            arrays = {name: kept[name] for name in _ARRAYS}
            return _Index(**arrays, groups=tuple(header["groups"]), skips=tuple(header["skips"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or not whole: it holds nothing that the file doesn't


def _keep_index(path: Path, kind: str, state: list[int], index: _Index) -> None:
    target = _index_path(path, kind)
    header = np.array(json.dumps({"state": state, "groups": index.groups, "skips": index.skips}))
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    try:
        with replacing(target, durably=False) as temporary, temporary.open("wb") as file:
            np.savez(file, header=header, **arrays)
    except OSError as error:
        warnings.warn(f"can't keep {target} ({error.strerror}): every process will index {path} anew", stacklevel=2)


def write_whole(path: Path, content: bytes) -> None:
    """A file, whole or not at all, whoever else writes it at the same time.

    Raises:
        DataError: the folder can't be written.
    """
    try:
        with replacing(path, durably=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}; make room, or make it writable") from error


def _scan(path: Path, fetch: str) -> Iterator[tuple[int, int, Row]]:
    """(first byte, bytes, row) of every row, in order."""
    try:
        with path.open("rb") as file:
            is_array = file.read(256).lstrip()[:1] == b"["
            file.seek(0)
            yield from _scan_array(path, file, fetch) if is_array else _scan_lines(path, file, fetch)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); get it again: {fetch}") from error


def _scan_lines(path: Path, file: BinaryIO, fetch: str) -> Iterator[tuple[int, int, Row]]:
    start = 0
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                torn = "" if line.endswith(b"\n") else " (the file ends within it)"
                raise DataError(
                    f"{path}, line {number} is not valid JSON{torn}: {error}; get it again: {fetch}"
                ) from error
            yield start, len(line), _object(row, f"{path}, line {number}")
        start += len(line)


def _scan_array(path: Path, file: BinaryIO, fetch: str) -> Iterator[tuple[int, int, Row]]:
    """As `_scan_lines`, of an array that may be laid out over lines in any way; some 4 MB are in memory at a time."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    parse = json.JSONDecoder().raw_decode
    number = 0
    text = decoder.decode(file.read(_CHUNK))
    place = byte = text.index("[") + 1  # `byte` is where `place` is in the file
    while True:
        begin = _after_comma(text, place)
        byte += begin - place  # what stands between rows is ASCII
        place = begin
        if text.startswith("]", place):
            return
        try:
            row, end = parse(text, place)
        except ValueError as error:
            stored = file.read(_CHUNK)
            if not stored or len(text) - place > _LONGEST_ROW:
                why = f"not valid JSON ({error})" if stored else "the file ends within it"
                raise DataError(f"{path}, row {number} (byte {byte}): {why}; get it again: {fetch}") from error
            text, place = text[place:] + decoder.decode(stored), 0
            continue
        length = len(text[place:end].encode())
        yield byte, length, _object(row, f"{path}, row {number}")
        place, byte, number = end, byte + length, number + 1


def _after_comma(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


def _object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}")
    return row


def read_columns(files: Sequence[Path], required: Sequence[str], optional: Sequence[str], fetch: str) -> pa.Table:
    """The named columns of parquet files, whole, as one table; an optional one that isn't there is all empty.

    Raises:
        DataError: a file can't be read, or lacks a required column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                stored = file.schema_arrow.names
                if missing := [name for name in required if name not in stored]:
                    raise DataError(
                        f"{path} lacks the column {missing[0]!r} (found: {', '.join(stored)}); get it again: {fetch}"
                    )
                names = [name for name in (*required, *optional) if name in stored]
                table = file.read(columns=names, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"can't read {path}: {error}; get it again: {fetch}") from error
        for name in optional:
            if name not in stored:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        tables.append(table.select([*required, *optional]))
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def find_files(folder: Path, patterns: Sequence[str], fetch: str) -> list[Path]:
    """Files of the first pattern that has some, sorted.

    Raises:
        DataError: no pattern has any.
    """
    for pattern in patterns:
        if found := sorted(folder.glob(pattern)):
            return found
    raise DataError(f"{folder / patterns[0]} is missing; get it: {fetch}")
