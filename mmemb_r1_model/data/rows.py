"""Rows of published training files, read where they lie: JSON by place, parquet by column; and pairs made of them.

The biggest file has 1.46 million rows of some 5 KB: nothing here holds rows as Python objects.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb_harness import Column
from mmemb_r1_model.data.pairs import Item, Pair
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import PlacedBytes, matching, regular_file, replacing
from mmemb_r1_model.disk.jsonl import Row, checked_row, placed_rows

_INDEX_VERSION = 2
#: Of each row: where it lies, in bytes, and its facts as numbers: an index into `groups`; 0, or 1 + one into `skips`.
_PLACE = np.dtype([("starts", "<i8"), ("lengths", "<i4"), ("group_of", "<i2"), ("skip_of", "i1")])
_CHUNK = 4 << 20
#: A row that is longer than this is a broken one, whose end isn't found.
_LONGEST_ROW = 64 << 20


@dataclass(frozen=True)
class RowPairs:
    """The usable rows of a published file as pairs, each made when it is asked for.

    Attributes:
        numbers: of the rows in the file; ids of the pairs.
        pair_of: the set's name and a row's number → its pair. Can be pickled: loader processes may be spawned.
        skipped: reason → rows that were passed over, of those asked for.
    """

    name: str
    numbers: NDArray[np.int64]
    pair_of: Callable[[str, int], Pair]
    skipped: Mapping[str, int]
    distractors: Sequence[Item] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Pair:
        return self.pair_of(self.name, int(self.numbers[index]))


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

    The index (`<file>.<kind>-index.npz`, 15 bytes a row) is built in one pass, written atomically, and built anew
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
        kept = path.with_name(f"{path.name}.{kind}-index.npz")
        stat = path.stat()  # before the scan: a file that changes under it must not pass for the one indexed
        state = [_INDEX_VERSION, stat.st_size, stat.st_mtime_ns]
        index = _read_index(kept, state)
        if index is None:
            index = _build_index(path, facts_of, fetch)
            _keep_index(kept, state, index)
        self._places, self.groups, self._skips = index.places, index.groups, index.skips
        self._bytes = PlacedBytes(path)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, group: str | None, limit: int | None) -> tuple[NDArray[np.int64], dict[str, int]]:
        """Numbers of a data set's usable rows (`None`: of all), and how many were passed over, by reason.

        Args:
            limit: the first rows only, counted before any is passed over.
        """
        numbers = np.arange(len(self))
        if group is not None:
            numbers = np.flatnonzero(self._places["group_of"] == self.groups.index(group))
        skips = self._places["skip_of"][numbers[:limit]]
        reasons = sorted(Counter(skips[skips > 0].tolist()).items())
        return numbers[:limit][skips == 0], {self._skips[code - 1]: count for code, count in reasons}

    def __getitem__(self, number: int) -> Row:
        """A row by its number in the file.

        Raises:
            DataError: the file was changed since the index was read.
        """
        start, length, *_ = self._places[number].item()
        return row_at_place(self._bytes, start, length, number)


def row_at_place(file: PlacedBytes, start: int, length: int, number: int) -> Row:
    """A row of JSON by where it lies.

    Raises:
        DataError: the file was changed since that was found out.
    """
    try:
        return checked_row(json.loads(file.read(start, length)), "")
    except (ValueError, DataError) as error:
        raise DataError(f"{file.path} was changed while in use (row {number}); run again") from error


@dataclass(frozen=True)
class _Index:
    places: NDArray[np.void]
    groups: tuple[str, ...]
    skips: tuple[str, ...]


def _build_index(path: Path, facts_of: Callable[[Row], RowFacts], fetch: str) -> _Index:
    groups: dict[str, int] = {}
    skips: dict[str, int] = {"": 0}

    def places() -> Iterator[tuple[int, int, int, int]]:
        for number, (start, length, row) in enumerate(scan_json(path, f"get it again: {fetch}")):
            try:
                facts = facts_of(row)
            except DataError as error:
                where = f"{path}, row {number} (byte {start})"
                raise DataError(f"{where} is not laid out as published: {error}; get it again: {fetch}") from error
            group, skip = groups.setdefault(facts.group, len(groups)), skips.setdefault(facts.skip, len(skips))
            yield start, length, group, skip

    return _Index(np.fromiter(places(), dtype=_PLACE), tuple(groups), tuple(skips)[1:])


def _read_index(path: Path, state: list[int]) -> _Index | None:
    """The kept index; `None` if there is none, or it is of another state of the file."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            header = json.loads(str(kept["header"]))
            if header["state"] != state:
                return None
            places = np.empty(len(kept["starts"]), _PLACE)
            for name in _PLACE.names or ():
                places[name] = kept[name]
            return _Index(places, tuple(header["groups"]), tuple(header["skips"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or not whole: it holds nothing that the file doesn't


def _keep_index(path: Path, state: list[int], index: _Index) -> None:
    arrays: dict[str, Any] = {name: index.places[name] for name in _PLACE.names or ()}
    arrays["header"] = json.dumps({"state": state, "groups": index.groups, "skips": index.skips})
    try:
        with replacing(path, durably=False) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(f"can't keep {path} ({error.strerror}): every process will index anew", stacklevel=2)


def scan_json(path: Path, way_out: str) -> Iterator[tuple[int, int, Row]]:
    """(first byte, bytes, row) of every row of JSON lines or of one array, in order.

    Raises:
        DataError: not readable, or not JSON objects throughout; line or row and the way out are named.
    """
    try:
        with regular_file(path).open("rb") as file:
            is_array = file.read(256).lstrip()[:1] == b"["
            file.seek(0)
            yield from _scan_array(path, file, way_out) if is_array else placed_rows(path, way_out, True)
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}); {way_out}") from error


def _scan_array(path: Path, file: BinaryIO, way_out: str) -> Iterator[tuple[int, int, Row]]:
    """Rows of an array that may be laid out over lines in any way; some 4 MB are in memory at a time."""
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
        except (ValueError, RecursionError) as error:
            stored = file.read(_CHUNK)
            if not stored or len(text) - place > _LONGEST_ROW:
                why = f"not valid JSON ({error})" if stored else "the file ends within it"
                raise DataError(f"{path}, row {number} (byte {byte}): {why}; {way_out}") from error
            text, place = text[place:] + decoder.decode(stored), 0
            continue
        length = len(text[place:end].encode())
        yield byte, length, checked_row(row, f"{path}, row {number}")
        place, byte, number = end, byte + length, number + 1


def _after_comma(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,":
        place += 1
    return place


@contextlib.contextmanager
def open_parquet(path: Path, required: Sequence[str], way_out: str) -> Iterator[pq.ParquetFile]:
    """A parquet file that has the required columns.

    Raises:
        DataError: it can't be read, or lacks one.
    """
    try:
        with pq.ParquetFile(regular_file(path)) as file:
            stored = file.schema_arrow.names
            if missing := [name for name in required if name not in stored]:
                raise DataError(f"{path} lacks the column {missing[0]!r} (found: {', '.join(stored)}); {way_out}")
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"can't read {path}: {error}; {way_out}") from error


def read_columns(files: Sequence[Path], required: Sequence[str], optional: Sequence[str], way_out: str) -> pa.Table:
    """The named columns of texts of parquet files, whole, as one table; an optional one that isn't there is all empty.

    Raises:
        DataError: a file can't be read, lacks a required column, or holds something else than text or null in one.
    """
    tables = []
    for path in files:
        with open_parquet(path, required, way_out) as file:
            stored = file.schema_arrow.names
            names = [name for name in (*required, *optional) if name in stored]
            columns = file.read(columns=names, use_threads=False)
        table = pa.table({name: _texts(columns[name].combine_chunks(), name, path, way_out) for name in names})
        for name in optional:
            if name not in stored:
                table = table.append_column(name, pa.nulls(table.num_rows, pa.string()))
        tables.append(table.select([*required, *optional]))
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _texts(column: pa.Array, name: str, path: Path, way_out: str) -> pa.Array:
    """Texts and nulls, of whatever flavour, as strings."""
    with contextlib.suppress(pa.ArrowInvalid):  # not UTF-8: the row is named below
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column.validate(full=True)
            return column
    try:
        return pa.array(Column.optional_text(name).cells(column, path), pa.string())
    except DataError as error:
        raise DataError(f"{error}; {way_out}") from error


def text_of(table: pa.Table, name: str, number: int) -> str:
    """A cell of a table of texts; "" where there is none."""
    return table[name][number].as_py() or ""


def has_words(column: pa.ChunkedArray, ignored: str = "") -> NDArray[np.bool_]:
    """Where a column of texts has more than white space and what is ignored."""
    texts = pc.fill_null(column, "")
    texts = pc.replace_substring(texts, ignored, "") if ignored else texts
    return np.asarray(pc.not_equal(pc.utf8_trim_whitespace(texts), ""), dtype=bool)


def usable_rows(has: Mapping[str, NDArray[np.bool_]]) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Numbers of the rows that lack nothing; the others are counted by the first that they lack.

    Args:
        has: what to say of rows without something → which rows have it.
    """
    usable = np.logical_and.accumulate(list(has.values()))
    lost = np.diff((~usable).sum(axis=1), prepend=0).tolist()
    return np.flatnonzero(usable[-1]), {reason: count for reason, count in zip(has, lost, strict=True) if count}


def find_files(folder: Path, patterns: Sequence[str], fetch: str) -> list[Path]:
    """Files of the first pattern that has some, sorted.

    Raises:
        DataError: no pattern has any.
    """
    for pattern in patterns:
        if files := matching(folder, pattern):
            return files
    raise DataError(f"{folder / patterns[0]} is missing; get it: {fetch}")
