"""Annotation tables: parquet per repository, configuration and split, below one data folder (see `Table`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmeb_harness import Column, DataError, Row, Table, matching, parquet_rows

_WIDE_ROWS_AT_ONCE = 32
_ROWS_AT_ONCE = 4096


class MissingTableError(DataError):
    """A table's files are not in the data folder."""


def has_table(data: Path, table: Table) -> bool:
    """Whether the data folder holds the table."""
    return any(matching(data, pattern) for pattern in table.patterns)


def table_files(data: Path, table: Table) -> list[Path]:
    """The table's files, shards in order.

    Raises:
        MissingTableError: if there is none.
    """
    files = sorted(path for pattern in table.patterns for path in matching(data, pattern))
    if not files:
        raise MissingTableError(
            f"annotations {data / table.folder}/{table.split}.parquet are missing "
            f"(data set {table.repo}, configuration {table.config or 'default'}, split {table.split})"
        )
    return files


def has_column(data: Path, table: Table, column: str) -> bool:
    """Whether the table carries a column."""
    import pyarrow.parquet as pq

    return column in pq.read_schema(table_files(data, table)[0]).names


def iter_rows(
    data: Path, table: Table, columns: Sequence[Column[Any]], at_once: int = _WIDE_ROWS_AT_ONCE
) -> Iterator[Row]:
    """All rows of a table, a few in memory at a time: one row of an image task holds 1,000 candidates.

    Raises:
        DataError: as `read_rows`.
    """
    empty = True
    for rows in iter_batches(data, table, columns, at_once):
        empty = empty and not rows
        yield from rows
    if empty:
        raise DataError(f"annotations {data / table.folder}/{table.split} have no rows")


def read_rows(data: Path, table: Table, columns: Sequence[Column[Any]]) -> list[Row]:
    """All rows of a table, the named columns only.

    Raises:
        DataError: if a file is missing or broken, lacks a column, holds something else in it, or the table is empty.
    """
    return list(iter_rows(data, table, columns, _ROWS_AT_ONCE))


def iter_batches(data: Path, table: Table, columns: Sequence[Column[Any]], at_once: int) -> Iterator[list[Row]]:
    """Rows of a table in batches, for columns that hold page images."""
    for path in table_files(data, table):
        yield from parquet_rows(path, columns, at_once)
