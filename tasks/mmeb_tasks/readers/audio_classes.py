"""Sounds to be told apart by class: the names of all classes, by their numbers, are each query's candidates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmeb_harness import Column, DataError, Samples
from mmeb_tasks.readers.image import text_candidate
from mmeb_tasks.readers.sounds import Reading, below_data, column_names, csv_rows, first_of, rows_of, sounds_of

EMOTIONS = ("label_name", "major_emotion", "emotion")
#: Columns of a class's number and of its name; the first pair whose number a table has. "": none, names are sorted.
COLUMNS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "ESC-50": (("target", ("category",)),),
    "NSynth": (
        ("label_id", ("label",)),
        ("instrument_family", ("instrument_family_str",)),
        ("instrument_family_id", ("instrument_family_str",)),
        ("label", ("label_name",)),
        ("target", ("label_name",)),
        ("class_id", ("class",)),
        ("classID", ("class",)),
        ("", ("instrument_family_str", "label_name", "category", "class")),
    ),
    "UrbanSound8K": (("classID", ("class", "classname")), ("", ("class", "classname"))),
    "CREMA-D": (("label", (*EMOTIONS, "label")), ("", EMOTIONS)),
    "SpeechCommands": (("label_id", ("label_name", "label")), ("label", ("label_name", "label"))),
}
#: Of a CSV: where a sound lies below the task's folder, of a row.
PATHS = {"UrbanSound8K": "audio/fold{fold}/{slice_file_name}", "CREMA-D": "AudioWAV/{file}"}
GAPS = "class numbers of no row, which are candidates as text"


@dataclass(frozen=True)
class _Labelled:
    """A table's sounds and their classes, row by row."""

    sounds: list[Path]
    names: list[str]
    numbers: list[int] | None


def read_classes(reading: Reading) -> Samples:
    """Read a task of classes."""
    files = reading.table(0)
    table = _from_csv(reading, files[0]) if files[0].suffix == ".csv" else _from_parquet(reading, files)
    classes = _classes(reading, table)
    own = tuple(reading.builder.candidate(name, partial(text_candidate, name)) for name in classes)
    for number, (sound, name) in enumerate(zip(table.sounds, table.names, strict=True)):
        if name not in classes:
            raise DataError(f"row {number} of {files[0]} is of class {name!r}, whose number has another name")
        reading.query(own, (name,), sound=sound)
    return reading.built(pooled=True)


def _classes(reading: Reading, table: _Labelled) -> dict[str, None]:
    """All names in order. Officially numbers count from 0, and one without a row is its own name."""
    if table.numbers is None:
        return dict.fromkeys(sorted(table.names))
    names: dict[int, str] = {}
    for number, name in zip(table.numbers, table.names, strict=True):
        names.setdefault(number, name)
    reading.builder.notes[GAPS] += max(names) + 1 - len(names)
    return dict.fromkeys(names.get(number, str(number)) for number in range(max(names) + 1))


def _columns(reading: Reading, there: list[str], files: list[Path]) -> tuple[str, str]:
    """Names of the columns of numbers, "" for none, and of names."""
    pairs = COLUMNS[reading.row.name]
    for number, names in pairs:
        named = next((name for name in names if name in there), "")
        if number in there or (not number and named):
            return number, named or number
    first_of([name for pair in pairs for name in (pair[0], *pair[1]) if name], there, files)
    raise DataError(f"annotations {files[0]} have no column of the classes' numbers ({', '.join(there)})")


def _from_csv(reading: Reading, path: Path) -> _Labelled:
    rows = csv_rows(path)
    number, name = _columns(reading, list(rows[0]), [path])
    sounds = [reading.media.file(_csv_path(reading, path, row)) for row in rows]
    try:
        numbers = [int(row[number]) for row in rows] if number else None
    except ValueError as error:
        raise DataError(f"annotations {path}, column {number!r}: {error}") from error
    return _checked(path, _Labelled(sounds, [row[name] for row in rows], numbers))


def _csv_path(reading: Reading, path: Path, row: dict[str, str]) -> str:
    if given := row.get("path"):
        return below_data(given if given.startswith("/") else f"{reading.row.root}/{given}")
    try:
        return f"{reading.row.root}/{PATHS[reading.row.name].format_map(row)}"
    except KeyError as error:
        raise DataError(f"annotations {path} lack the column {error} ({', '.join(row)})") from error


def _from_parquet(reading: Reading, files: list[Path]) -> _Labelled:
    there = column_names(files)
    number, name = _columns(reading, there, files)
    numbers, names = Column.whole_number(number), Column.key(name)
    rows = list(rows_of(files, [*([numbers] if number else []), names]))
    sounds = sounds_of(reading, files, there)
    known = [row[numbers] for row in rows] if number else None
    return _checked(files[0], _Labelled(sounds, [row[names] for row in rows], known))


def _checked(path: Path, table: _Labelled) -> _Labelled:
    """The table; officially a number below 0 counts for nothing, and a million would be as many candidates."""
    if strange := next((number for number in table.numbers or () if not 0 <= number < 10_000), None):
        raise DataError(f"annotations {path}: a class has the number {strange}, expected 0 to 9,999")
    return table
