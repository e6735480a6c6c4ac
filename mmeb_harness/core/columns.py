"""Columns of parquet tables, typed: a cell is what its reader takes it for, or one line says which one isn't.

A column's Arrow type is looked at once a batch; cells are looked at one by one only to name the first that doesn't fit.
Every flavour that text and numbers are stored in (large, in dictionaries, as views, text as bytes of UTF-8, a number
spelled as text) gives the same values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mmeb_harness.core.errors import DataError, one_line
from mmeb_harness.core.files import is_lfs_pointer, regular_file

if TYPE_CHECKING:
    import pyarrow as pa

Cell = TypeVar("Cell", covariant=True)
Value = TypeVar("Value")

_LONGEST_SHOWN = 60


class _UnfitError(ValueError):
    """Some cell is not what its column holds."""


@dataclass(frozen=True, slots=True)
class Column(Generic[Cell]):
    """A column of a table, and what its cells are: `row[column]` has that type, or reading ends in one line.

    Attributes:
        name: in the file.
        expected: what its cells are, for messages.
        read: an Arrow array → its cells; raises ValueError or an Arrow exception.
    """

    name: str
    expected: str
    read: Callable[[pa.Array], Sequence[Cell]]

    @staticmethod
    def text(name: str) -> Column[str]:
        """Text in every row; it may be empty."""
        return Column(name, "text", lambda array: _texts(array).to_pylist())

    @staticmethod
    def optional_text(name: str) -> Column[str]:
        """Text, empty where there is none."""
        return Column(name, "text or null", lambda array: _texts_or_empty(array).to_pylist())

    @staticmethod
    def key(name: str) -> Column[str]:
        """What something is called: text that isn't blank, or a whole number, as its digits."""
        return Column(name, "an id (text or a whole number)", lambda array: _keys(array).to_pylist())

    @staticmethod
    def texts(name: str, *, least: int = 1) -> Column[list[str]]:
        """A list of texts; at least so many."""
        return Column(name, _listed("texts", least), lambda array: _lists(array, _texts, least))

    @staticmethod
    def optional_texts(name: str) -> Column[list[str]]:
        """A list of texts, at least one, each empty where there is none."""
        return Column(name, _listed("texts or nulls", 1), lambda array: _lists(array, _texts_or_empty, 1))

    @staticmethod
    def first_text(name: str) -> Column[str]:
        """Text, or the first of a list of texts."""
        return Column(name, f"text or {_listed('texts', 1)}", lambda array: _texts(_firsts(array)).to_pylist())

    @staticmethod
    def field_texts(name: str, field: str, *, least: int = 1) -> Column[list[str]]:
        """A list of structs, at least so many, of each the text in one field."""

        def read(array: pa.Array) -> list[list[str]]:
            return _lists(array, lambda entries: _texts(_field(entries, field)), least)

        return Column(name, _listed(f"structs with the text {field!r}", least), read)

    @staticmethod
    def whole_number(name: str) -> Column[int]:
        """A whole number, also spelled as text."""
        return Column(name, "a whole number", lambda array: _numbers(array, whole=True).to_pylist())

    @staticmethod
    def number(name: str) -> Column[float]:
        """A finite number, also spelled as text."""
        return Column(name, "a number", lambda array: _finite(_numbers(array, whole=False)).to_pylist())

    @staticmethod
    def truth(name: str) -> Column[bool]:
        """True or false in every row."""
        return Column(name, "true or false", lambda array: _truths(array).to_pylist())

    @staticmethod
    def picture(name: str) -> Column[bytes]:
        """A picture's bytes, bare or in a struct {bytes, path}; none where there is no picture."""
        return Column(name, "a picture (bytes, or a struct with them)", lambda array: _contents(array).to_pylist())

    @staticmethod
    def sound(name: str) -> Column[bytes]:
        """A sound file's bytes, as those of a picture."""
        return Column(name, "a sound (bytes, or a struct with them)", lambda array: _contents(array).to_pylist())

    def cells(self, array: pa.Array, path: Path | str, first: int = 0) -> Sequence[Cell]:
        """The cells of a part of the column.

        Args:
            path: of the file, for messages.
            first: number of the part's first row in the file.

        Raises:
            DataError: a cell is something else; file, row, column and value are named.
        """
        try:
            return self.read(array) if len(array) else []
        except _unfit_errors() as error:
            place = next((place for place in range(len(array)) if not self._fits(array.slice(place, 1))), 0)
            raise self.unfit(path, first + place, self._shown(array.slice(place, 1))) from error

    def unfit(self, path: Path | str, row: int, stored: str, expected: str = "") -> DataError:
        """The error that names a cell and what it should hold. Rows count from 0."""
        return DataError(
            f"{path}, row {row}, column {self.name!r} holds {stored}, expected {expected or self.expected}"
        )

    def _fits(self, array: pa.Array) -> bool:
        try:
            self.read(array)
        except _unfit_errors():
            return False
        return True

    def _shown(self, cell: pa.Array) -> str:
        """What one cell holds; of a list, the entry that doesn't fit."""
        import pyarrow as pa

        if _is_list(cell.type) and not cell.null_count:
            entries = cell.flatten()
            alone = [pa.ListArray.from_arrays([0, 1], entries.slice(place, 1)) for place in range(len(entries))]
            unfit = [place for place, entry in enumerate(alone) if not self._fits(entry)]
            if 0 < len(unfit) < len(alone):
                return f"{_stored(entries.slice(unfit[0], 1))} as entry {unfit[0]}"
        return _stored(cell)


class Row:
    """A row of a table. `row[column]` is a cell of the column's type; the row knows where it stands."""

    __slots__ = ("_cells", "_place", "number", "path")

    def __init__(self, path: Path, number: int, cells: dict[str, Sequence[Any]], place: int) -> None:
        self.path, self.number = path, number
        self._cells, self._place = cells, place

    def __getitem__(self, column: Column[Value]) -> Value:
        cell: Value = self._cells[column.name][self._place]
        return cell

    def get(self, column: Column[Value], absent: Value) -> Value:
        """The cell; or `absent` if the table was read without the column."""
        return self[column] if column.name in self._cells else absent

    def unfit(self, column: Column[Any], expected: str) -> DataError:
        """The error to raise for a cell of the right type with a value that means nothing."""
        return column.unfit(self.path, self.number, shown(self[column]), expected)


def parquet_rows(path: Path, columns: Sequence[Column[Any]], at_once: int) -> Iterator[list[Row]]:
    """Rows of a parquet file, so many in memory at a time. Further columns of the file are not read.

    Raises:
        DataError: not readable, a column is missing or there twice, or a cell is not what its column holds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, names = 0, [column.name for column in columns]
    try:
        with pq.ParquetFile(regular_file(path)) as file:
            _check_columns(path, file.schema_arrow.names, names)
            for batch in file.iter_batches(batch_size=at_once, columns=names):
                cells = {column.name: column.cells(batch.column(column.name), path, first) for column in columns}
                yield [Row(path, first + place, cells, place) for place in range(batch.num_rows)]
                first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        if path.is_file() and is_lfs_pointer(path):
            why = "it is a pointer of git-lfs; get the file itself with `git lfs pull`"
        raise DataError(f"annotations {path} can't be read: {why}") from error


def shown(value: object) -> str:
    """A value for messages, short."""
    text = "null" if value is None else one_line(ValueError(repr(value)), None)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def _listed(entries: str, least: int) -> str:
    return f"a list of {entries}" + (f" (at least {least})" if least else "")


def _check_columns(path: Path, stored: Sequence[str], wanted: Sequence[str]) -> None:
    for column in wanted:
        if stored.count(column) != 1:
            problem = "lack the column" if column not in stored else "have twice the column"
            raise DataError(f"annotations {path} {problem} {column!r} (found: {', '.join(stored)})")


def _stored(cell: pa.Array) -> str:
    """One cell and the type it is stored as, for messages."""
    try:
        value = cell.to_pylist()[0]
    except ValueError:
        return "text that is not UTF-8"
    kind = str(cell.type)
    return shown(value) if value is None or len(kind) > _LONGEST_SHOWN else f"{shown(value)} ({kind})"


def _unfit_errors() -> tuple[type[Exception], ...]:
    import pyarrow as pa

    return pa.ArrowException, ValueError


def _filled(array: pa.Array) -> pa.Array:
    if array.null_count:
        raise _UnfitError
    return array


def _plain(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):  # e.g. JSON and UUIDs: what they are stored as
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _texts(array: pa.Array) -> pa.Array:
    return _filled(_strings(array))


def _texts_or_empty(array: pa.Array) -> pa.Array:
    strings = _strings(array)
    return strings.fill_null("") if strings.null_count else strings


def _strings(array: pa.Array) -> pa.Array:
    """Text of any width; bytes, where they are UTF-8; nothing at all."""
    import pyarrow as pa

    array, types = _plain(array), pa.types
    if types.is_string(array.type):
        return array
    is_text = types.is_large_string(array.type) or types.is_string_view(array.type) or types.is_null(array.type)
    if not is_text and not _is_bytes(array.type):
        raise _UnfitError
    return array.cast(pa.string())


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _keys(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    array = _plain(array)
    if pa.types.is_integer(array.type):
        return _filled(array).cast(pa.string())
    texts = _texts(array)
    if pc.any(pc.equal(pc.utf8_trim_whitespace(texts), "")).as_py():
        raise _UnfitError
    return texts


def _numbers(array: pa.Array, *, whole: bool) -> pa.Array:
    """Numbers of any width, exactly, or spelled as text; true and false are none."""
    import pyarrow as pa

    array, types = _plain(array), pa.types
    if not (types.is_integer(array.type) or types.is_floating(array.type) or types.is_decimal(array.type)):
        array = _texts(array)
    return _filled(array).cast(pa.int64() if whole else pa.float64())


def _truths(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    array = _plain(array)
    if not pa.types.is_boolean(array.type):
        raise _UnfitError
    return _filled(array)


def _finite(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if not pc.all(pc.is_finite(array)).as_py():
        raise _UnfitError
    return array


def _contents(array: pa.Array) -> pa.Array:
    import pyarrow as pa

    array, is_null = _plain(array), pa.types.is_null
    content = array if _is_bytes(array.type) or is_null(array.type) else _plain(_field(array, "bytes"))
    if not _is_bytes(content.type) and not is_null(content.type):
        raise _UnfitError
    return content.cast(pa.large_binary()).fill_null(b"")


def _field(array: pa.Array, name: str) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
        raise _UnfitError
    return pc.struct_field(array, name)


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def _lists(array: pa.Array, inner: Callable[[pa.Array], pa.Array], least: int) -> list[list[Any]]:
    """Lists of at least so many values, their values made by `inner`."""
    import pyarrow.compute as pc

    if not _is_list(array.type):
        raise _UnfitError
    lengths = pc.list_value_length(_filled(array)).to_pylist()
    if min(lengths) < least:
        raise _UnfitError
    entries = inner(array.flatten()).to_pylist()
    ends = itertools.accumulate(lengths)
    return [entries[end - length : end] for length, end in zip(lengths, ends, strict=True)]


def _firsts(array: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    if not _is_list(array.type):
        return array
    lengths = pc.list_value_length(_filled(array)).to_pylist()
    if min(lengths) < 1:
        raise _UnfitError
    # Not by `list_element`, which fails on views of short texts.
    ends = itertools.accumulate(lengths)
    return array.flatten().take([end - length for length, end in zip(lengths, ends, strict=True)])
