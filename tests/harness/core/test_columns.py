"""Columns: whatever an Arrow array holds, its cells are of the column's type, or one line says which isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmeb_harness import Column, DataError, is_data, matching, parquet_rows

FORMS: dict[str, tuple[Column[Any], Callable[[Any], bool]]] = {
    "text": (Column.text("c"), lambda cell: isinstance(cell, str)),
    "optional text": (Column.optional_text("c"), lambda cell: isinstance(cell, str)),
    "key": (Column.key("c"), lambda cell: isinstance(cell, str) and bool(cell.strip())),
    "texts": (Column.texts("c"), lambda cell: bool(cell) and all(isinstance(entry, str) for entry in cell)),
    "optional texts": (Column.optional_texts("c"), lambda cell: all(isinstance(entry, str) for entry in cell)),
    "first text": (Column.first_text("c"), lambda cell: isinstance(cell, str)),
    "field texts": (Column.field_texts("c", "a"), lambda cell: all(isinstance(entry, str) for entry in cell)),
    "whole number": (Column.whole_number("c"), lambda cell: type(cell) is int),
    "number": (Column.number("c"), lambda cell: type(cell) is float and abs(cell) < float("inf")),
    "picture": (Column.picture("c"), lambda cell: isinstance(cell, bytes)),
}
_LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary()
_CELLS = _LEAVES | st.lists(_LEAVES, max_size=3) | st.fixed_dictionaries({"a": _LEAVES, "bytes": _LEAVES})


@given(name=st.sampled_from(sorted(FORMS)), cells=st.lists(_CELLS, max_size=5))
def test_cells_are_of_their_columns_type_or_refused(name: str, cells: list[Any]) -> None:
    column, fits = FORMS[name]
    try:
        array = pa.array(cells)
    except (pa.ArrowException, ValueError, OverflowError):
        return  # no column of a file
    try:
        read = column.cells(array, "rows.parquet", 100)
    except DataError as error:
        said = str(error)
        assert said.startswith("rows.parquet, row 10")
        assert "column 'c' holds" in said
    else:
        assert len(read) == len(cells)
        assert all(map(fits, read))


@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_every_flavour_of_text_reads_alike(texts: list[str]) -> None:
    plain = pa.array(texts, pa.string())
    flavours = [
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int8(), pa.string()),
    ]
    for kind in flavours:
        assert Column.text("c").cells(plain.cast(kind), "f") == texts
    nested = pa.ListArray.from_arrays([0, len(texts)], plain)
    for listed in (
        nested,
        nested.cast(pa.large_list(pa.large_string())),
        nested.cast(pa.list_(pa.string(), len(texts))),
        pa.ListViewArray.from_arrays([0], [len(texts)], plain),
    ):
        assert Column.texts("c").cells(listed, "f") == [texts]
        assert Column.first_text("c").cells(listed, "f") == texts[:1]


def test_the_first_unfit_cell_is_named_with_its_entry(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"c": [["a"]] * 40 + [["a", "b", None]]}), path)
    with pytest.raises(DataError, match=r"rows\.parquet, row 40, column 'c' holds null as entry 2, expected"):
        list(parquet_rows(path, [Column.texts("c")], at_once=16))


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(DataError, match="x…") as refused:
        Column.number("c").cells(pa.array(["x" * 9999]), "f")
    assert len(str(refused.value)) < 200


def test_pictures_read_alike_however_they_are_stored() -> None:
    bare = pa.array([b"picture"] * 2)
    for stored in (bare, bare.dictionary_encode(), pa.StructArray.from_arrays([bare.dictionary_encode()], ["bytes"])):
        assert Column.picture("c").cells(stored, "f") == [b"picture"] * 2


NEVER = (
    *(".x", "._x.jpg", ".DS_Store", ".ipynb_checkpoints", "__MACOSX", "Thumbs.db", "THUMBS.DB", "desktop.ini"),
    *("x.jpg:Zone.Identifier", "#recycle", "@Recycle", "~snapshot", "x.orig", "x.filepart", "x.jpg~"),
    *("#x#", "~$x.parquet", "x.part", "x.crdownload", "x.tmp", "@eaDir", "__pycache__", "$RECYCLE.BIN", "Icon\r"),
)
DATA = ("x.jpg", "positive", "1", "²1.jpg", "a.b.c", "_x", "__x", "#1.jpg", "~x", "partial", "tmp", "x part", "café")


@pytest.mark.parametrize("name", NEVER)
def test_what_is_never_data(name: str) -> None:
    assert not is_data(name)


@pytest.mark.parametrize("name", DATA)
def test_what_is_data(name: str) -> None:
    assert is_data(name)


def test_a_pattern_finds_data_and_what_it_names_in_full(tmp_path: Path) -> None:
    for folder in ("a", ".hidden", "a/.ipynb_checkpoints"):
        (tmp_path / folder).mkdir()
        for name in ("x.json", "._x.json", "y.json"):
            (tmp_path / folder / name).touch()
    found_by = {pattern: matching(tmp_path, pattern) for pattern in ("**/*.json", ".hidden/*.json", "*", "none/*")}
    names = {pattern: [path.relative_to(tmp_path).as_posix() for path in paths] for pattern, paths in found_by.items()}
    assert names == {
        "**/*.json": ["a/x.json", "a/y.json"],
        ".hidden/*.json": [".hidden/x.json", ".hidden/y.json"],
        "*": ["a"],
        "none/*": [],
    }
