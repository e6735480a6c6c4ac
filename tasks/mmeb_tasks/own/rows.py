"""Rows of people's own files: JSON lines, tables with a header, parquet. Each knows where it stands, for messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb_harness import DataError, one_line, regular_file, shown

#: What rows may stand in, in the order in which they are looked for.
TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
#: Letters of a table's cell: more than Python's own limit, of 131,072.
_LONGEST_CELL = 1 << 30


@dataclass(frozen=True)
class Problems:
    """What is wrong with a folder's files, a line each, in the order in which it was found."""

    folder: Path
    lines: list[str] = field(default_factory=list)

    def add(self, place: str, what: str) -> None:
        """Note that something is wrong at a place: "queries.jsonl:3"."""
        self.lines.append(f"{place}: {what}")

    def refuse(self) -> None:
        """Say the first of them, and how many more there are.

        Raises:
            DataError: if there is any.
        """
        if self.lines:
            more = len(self.lines) - 1
            others = f" ({more:,} more problems: mmeb-eval check --data {self.folder})" if more else ""
            raise DataError(f"{self.folder / self.lines[0]}{others}")


@dataclass(frozen=True, slots=True)
class Row:
    """A row's values by column, and its place: "queries.jsonl:3"."""

    place: str
    values: dict[str, Any]


def file_of(folder: Path, name: str, suffixes: Sequence[str] = TABLES) -> Path | None:
    """The file of that name with one of the suffixes; `None` if there is none.

    Raises:
        DataError: there are several, and nobody knows which is meant.
    """
    there = [path for suffix in suffixes if (path := folder / f"{name}{suffix}").exists()]
    if len(there) > 1:
        raise DataError(f"{folder} holds both {there[0].name} and {there[1].name}; take one away")
    return there[0] if there else None


def rows_of(path: Path, problems: Problems, columns: Sequence[str] = ()) -> Iterator[Row]:
    """The rows of a file, by its suffix: .jsonl, .csv, .tsv or .parquet. Rows that are none are noted and left out.

    Args:
        columns: that a table must have; one that lacks some is noted once, and has no rows.
    """
    name = path.relative_to(problems.folder).as_posix()
    read = {".jsonl": _json_lines, ".csv": _table, ".tsv": _table, ".parquet": _parquet}[path.suffix]
    try:
        yield from read(path, name, problems, columns)
    except UnicodeDecodeError as error:
        problems.add(name, f"not text in UTF-8 ({one_line(error)}); save it as UTF-8")
    except (OSError, csv.Error) as error:
        problems.add(name, f"can't be read: {one_line(error)}; mend the file")


def id_text(value: object) -> str | None:
    """An id as text, without outer blanks; `None` if it is neither text nor a whole number.

    A column of whole numbers in which some are missing comes out of pandas as 2.0.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.strip() or None if isinstance(value, str) else None


def _lacks(place: str, there: Sequence[str], columns: Sequence[str], problems: Problems) -> bool:
    missing = [column for column in columns if column not in there]
    if missing:
        problems.add(
            place, f"no column {missing[0]!r}; it has {shown(', '.join(there))}, and needs {', '.join(columns)}"
        )
    return bool(missing)


def _json_lines(path: Path, name: str, problems: Problems, columns: Sequence[str]) -> Iterator[Row]:
    with regular_file(path).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{name}:{number}"
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                if number == 1 and line.lstrip().startswith("["):
                    problems.add(place, "begins a list; write an object a line, without brackets around them")
                    return
                problems.add(place, f"no JSON ({one_line(error)}); write an object a line")
                continue
            if isinstance(values, dict):
                yield Row(place, values)
            else:
                problems.add(place, f"{shown(values)} is no JSON object; write an object a line")


def _table(path: Path, name: str, problems: Problems, columns: Sequence[str]) -> Iterator[Row]:
    """Separated by tabs, or what a .csv has most of in its header: some programs write semicolons."""
    csv.field_size_limit(_LONGEST_CELL)
    with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = "\t" if path.suffix == ".tsv" else max(",;\t", key=header.count)
        reader = csv.DictReader(file, delimiter=delimiter, restkey="", strict=True)
        reader.fieldnames = names = [column.strip() for column in reader.fieldnames or ()]
        if names and _lacks(f"{name}:1", names, columns, problems):
            return
        for values in reader:
            place = f"{name}:{reader.line_num}"
            if values.pop("", None) or None in values.values():
                problems.add(place, f"another number of columns than the header, {', '.join(names)}")
                continue
            yield Row(place, dict(values))


def _parquet(path: Path, name: str, problems: Problems, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(regular_file(path)) as file:
            if _lacks(name, file.schema_arrow.names, columns, problems):
                return
            number = 0
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{name}, row {number}", {key: held for key, held in values.items() if held is not None})
    except pa.ArrowException as error:
        problems.add(name, f"no parquet table ({one_line(error, 120)}); write it again")
