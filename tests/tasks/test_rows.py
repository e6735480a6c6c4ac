"""Every column of every task's tables, spoiled one at a time: one line that names the cell, or the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS, TASKS

from mmeb_harness import DataError, Frames, Samples, Task
from tests.tasks.golden import GOLDEN_TASKS, write_case
from tests.tasks.golden_v3 import CASES, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]} | {task.name: task for task in TASKS}
Change = Callable[[pa.ChunkedArray], pa.Array]


def reader_of(task: Task) -> str:
    load: Any = task.load
    return str(load.args[2].args[0].reader)


#: Those that are read in a way of their own, then one of each reader.
OF_EACH_READER = ("VisDial", "WebQA", "EDIS", *{reader_of(task): task.name for task in reversed(TASKS)}.values())


#: Of what MMEB-V3 adds, one of each reader whose rows stand in parquet; queries of BRIGHT have their labels in them.
OF_MMEB_V3 = ("text/NanoBEIR/NanoDBPedia", "text/BRIGHT/biology", "toolde/web/apibank", "GAE-GUIAct_q2t")


def all_of(value: Any) -> Change:
    return lambda column: pa.array([value] * len(column))


def with_one(value: Any) -> Change:
    """The last cell alone is another one."""
    return lambda column: pa.array([*column.to_pylist()[:-1], value], column.type)


def _emptied(column: pa.ChunkedArray) -> pa.Array:
    is_list = pa.types.is_list(column.type)
    empty: Any = [] if is_list else 0 if pa.types.is_integer(column.type) else ""
    return pa.array([empty] * len(column), None if pa.types.is_struct(column.type) else column.type)


def _in_a_list(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([[cell] for cell in column.to_pylist()], pa.list_(column.type))


def _with_a_null_inside(column: pa.ChunkedArray) -> pa.Array:
    cells = column.to_pylist()
    return pa.array([[None, *cell[1:]] if isinstance(cell, list) else cell for cell in cells], column.type)


#: What may be refused, or be defined; never anything else.
SPOILED: dict[str, Change] = {
    "nulled": lambda column: pa.nulls(len(column), column.type),
    "retyped": all_of({"strange": 1}),
    "emptied": _emptied,
}
MORE_SPOILED: dict[str, Change] = {
    "of type null": all_of(None),
    "one null": with_one(None),
    "one null inside": _with_a_null_inside,
    "a list of each": _in_a_list,
    "numbers": all_of(7),
    "negative numbers": all_of(-1),
    "huge numbers": all_of(2**63 - 1),
    "fractions": all_of(0.5),
    "not a number": all_of(float("nan")),
    "truths": all_of(True),
    "pictures": all_of(b"\xff\xd8\xff\xe0JFIF"),
    "lists of numbers": all_of([1]),
    "lists of nothing": all_of([None]),
    "lists of lists": all_of([["a"]]),
    "empty structs": all_of({"output_path": None, "bytes": None}),
    "blank": all_of(" "),
    "superscript": all_of("²"),
    "slashes": all_of("/"),
    "parents": all_of("../../etc/passwd"),
    "NUL": all_of("a\0b"),
    "long": all_of("x" * 5000),
    "all alike": lambda column: pa.array([column[0].as_py()] * len(column), column.type),
}


def tables_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def columns_of(folder: Path) -> Iterator[tuple[Path, pa.Table, str]]:
    """Every column of every table; of many tables of the same columns (MVBench) the first."""
    seen: set[tuple[str, ...]] = set()
    for path in tables_of(folder):
        table = pq.read_table(path)
        if tuple(table.column_names) not in seen:
            seen.add(tuple(table.column_names))
            yield from ((path, table, name) for name in table.column_names)


def put(path: Path, table: pa.Table, name: str, column: pa.Array) -> None:
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def check_spoiled(task: Task, folder: Path, path: Path, column: str) -> None:
    try:
        samples = task.load(folder, Frames())
    except DataError as error:
        text = str(error)
        said, _, way_out = text.partition("mmeb-eval data ")
        assert text.startswith(f"{task.name}: ")
        assert "\n" not in text
        assert len(text) < 1000
        assert str(folder) in said, f"no file is named: {text}"
        assert way_out, f"no way out: {text}"
    else:
        assert isinstance(samples, Samples)


def spoil(name: str, folder: Path, changes: dict[str, Change]) -> None:
    if name in GOLDEN_TASKS:
        write_case(GOLDEN_TASKS[name], folder)
    else:
        write_files(CASES[name], folder)
    for path, table, column in columns_of(folder):
        for change in changes.values():
            try:
                spoiled = change(table[column])
            except (pa.ArrowException, TypeError, ValueError):
                continue  # this column can't be spoiled so
            put(path, table, column, spoiled)
            check_spoiled(BY_NAME[name], folder, path, column)
        pq.write_table(table, path)


@pytest.mark.parametrize("name", [*GOLDEN_TASKS, *OF_MMEB_V3])
def test_a_spoiled_column_is_one_line_or_defined(name: str, tmp_path: Path) -> None:
    spoil(name, tmp_path, SPOILED)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OF_EACH_READER, *OF_MMEB_V3])
def test_a_column_spoiled_in_any_way_is_one_line_or_defined(name: str, tmp_path: Path) -> None:
    spoil(name, tmp_path, MORE_SPOILED)
