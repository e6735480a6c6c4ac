"""Annotation tables: parquet per repository, configuration and split, below one data folder (see `Table`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmeb_harness import DataError, Table, regular_file

Row = dict[str, Any]

_WIDE_ROWS_AT_ONCE = 32


class MissingTableError(DataError):
    """A table's files are not in the data folder."""


def has_table(data: Path, table: Table) -> bool:
    """Whether the data folder holds the table."""
    return any(True for pattern in table.patterns for _ in data.glob(pattern))


def table_files(data: Path, table: Table) -> list[Path]:
    """The table's files, shards in order.

    Raises:
        MissingTableError: if there is none.
    """
    files = sorted(path for pattern in table.patterns for path in data.glob(pattern))
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


def iter_rows(data: Path, table: Table, columns: Sequence[str]) -> Iterator[Row]:
    """All rows of a table, a few in memory at a time: one row of an image task holds 1,000 candidates.

    Raises:
        DataError: as `read_rows`.
    """
    empty = True
    for batch in iter_batches(data, table, columns, batch_rows=_WIDE_ROWS_AT_ONCE):
        empty = empty and not batch
        yield from batch
    if empty:
        raise DataError(f"annotations {data / table.folder}/{table.split} have no rows")


def read_rows(data: Path, table: Table, columns: Sequence[str]) -> list[Row]:
    """All rows of a table, the named columns only.

    Raises:
        DataError: if a file is missing or broken, lacks a column, or the table is empty.
    """
    return list(iter_rows(data, table, columns))


def iter_batches(data: Path, table: Table, columns: Sequence[str], batch_rows: int = 1024) -> Iterator[list[Row]]:
    """Rows of a table in batches, for columns that hold page images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in table_files(data, table):
        try:
            with pq.ParquetFile(regular_file(path)) as file:
                _check_columns(path, file.schema_arrow.names, columns)
                for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                    yield batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"annotations {path} can't be read: {error}") from error


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise DataError(f"annotations {path} lack the column {missing[0]!r} (found: {', '.join(found)})")
