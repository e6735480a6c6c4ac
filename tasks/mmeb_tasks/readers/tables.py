"""Annotation tables: parquet per repository, configuration and split, below one data folder.

<data>/annotations/<owner>/<name>/<config or "default">/<split>.parquet
<data>/annotations/<owner>/<name>/<config or "default">/<split>-00000-of-00002.parquet   in shards
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb_harness import DataError

Row = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """One table on the hub: repository, configuration (`None`: the only one) and split."""

    repo: str
    config: str | None
    split: str

    @property
    def folder(self) -> str:
        """Folder of its files, below the data folder."""
        return f"annotations/{self.repo}/{self.config or 'default'}"

    @property
    def patterns(self) -> tuple[str, str]:
        """Glob patterns of its files: one file, or shards."""
        return f"{self.folder}/{self.split}.parquet", f"{self.folder}/{self.split}-*-of-*.parquet"


def table_files(data: Path, table: Table) -> list[Path]:
    """The table's files, shards in order.

    Raises:
        DataError: if there is none.
    """
    files = sorted(path for pattern in table.patterns for path in data.glob(pattern))
    if not files:
        raise DataError(
            f"annotations {data / table.folder}/{table.split}.parquet are missing "
            f"(data set {table.repo}, configuration {table.config or 'default'}, split {table.split})"
        )
    return files


def read_rows(data: Path, table: Table, columns: Sequence[str]) -> list[Row]:
    """All rows of a table, the named columns only.

    Raises:
        DataError: if a file is missing or broken, lacks a column, or the table is empty.
    """
    rows = [row for batch in iter_batches(data, table, columns) for row in batch]
    if not rows:
        raise DataError(f"annotations {data / table.folder}/{table.split} have no rows")
    return rows


def iter_batches(data: Path, table: Table, columns: Sequence[str], batch_rows: int = 1024) -> Iterator[list[Row]]:
    """The same in batches, for columns that hold page images."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in table_files(data, table):
        try:
            with pq.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow.names, columns)
                for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                    yield batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"annotations {path} can't be read: {error}") from error


def _check_columns(path: Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise DataError(f"annotations {path} lack the column {missing[0]!r} (found: {', '.join(found)})")
