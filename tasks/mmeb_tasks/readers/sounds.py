"""What the audio tasks' readers have in common: their rows, their tables, and where a sound lies."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from mmeb_harness import (
    Column,
    DataError,
    Frames,
    Item,
    Medium,
    Row,
    Samples,
    Sound,
    Source,
    matching,
    one_line,
    parquet_rows,
    regular_file,
)
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.media import MediaFolder, check_inside
from mmeb_tasks.readers.stored import missing_files, write_files
from mmeb_tasks.readers.tables import MissingTableError

AudioReader = Literal[
    "audio_cls",
    "sounddescs_text_audio",
    "clotho_text_audio",
    "ave_retrieval",
    "audio_ret_speechcoco",
    "tutsound_audio_gnd",
    "tutsound_audio_gnd_hard",
]

#: What officially stands for the text of a candidate that is a sound alone.
PLACEHOLDER = "[AUDIO]"
#: Folder that all tasks' files lie in, below the data folder.
AUDIO_TASKS = "audio-tasks"

_ROWS_AT_ONCE = 4096
#: Rows in memory at once that hold a sound each, of which one may be an hour.
FEW_ROWS = 4


class AudioRow(NamedTuple):
    """One audio task.

    Attributes:
        root: folder of its files, below the data folder.
        tables: each of its tables, as glob patterns below `root`: the first that finds files is it.
        listed: folders below `root` of which the rows may name files that aren't there.
    """

    name: str
    group: str
    reader: AudioReader
    root: str
    tables: tuple[tuple[str, ...], ...]
    media: tuple[Medium, ...]
    instruction: str
    target_instruction: str = ""
    listed: tuple[str, ...] = ()


@dataclass
class Reading:
    """One audio task while it is read."""

    row: AudioRow
    data: Path
    frames: Frames
    media: MediaFolder
    builder: SamplesBuilder

    @property
    def root(self) -> Path:
        """Folder of the task's files."""
        return self.data / self.row.root

    def table(self, number: int) -> list[Path]:
        """The files of one of its tables, shards in order.

        Raises:
            MissingTableError: there is none.
        """
        patterns = self.row.tables[number]
        for pattern in patterns:
            if files := matching(self.data, f"{self.row.root}/{pattern}"):
                return files
        raise MissingTableError(f"{self.root} holds no {' and no '.join(patterns)}")

    def query(
        self, own: Sequence[str], gains: Iterable[str], *, text: str = "", sound: Path | None = None, query_id: str = ""
    ) -> str:
        """Add a query: the task's sentence, with a text, a sound or both. Its id is its number unless it has one."""
        source = Source("sound_query", self.row.instruction)
        heard = None if sound is None else Sound(sound)
        query_id = query_id or str(self.builder.num_queries)
        item = Item(query_id, text, instruction=self.row.instruction, source=source, sound=heard)
        self.builder.query(item, own, dict.fromkeys(gains, 1.0))
        return query_id

    def built(self, *, pooled: bool) -> Samples:
        """The samples.

        Raises:
            MissingMediaError: media that rows name are missing.
            DataError: no query is left.
        """
        self.media.refuse_missing()
        return self.builder.build(pooled=pooled)


def sound_candidate(candidate_id: str, path: Path) -> Item:
    """A sound alone, under the text that officially stands for it."""
    return Item(candidate_id, source=Source("basic", PLACEHOLDER), sound=Sound(path))


def lists(folders: Iterable[Path]) -> Callable[[Path], bool]:
    """Whether a file lies in one of some folders, each listed once."""
    there = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return there.__contains__


def below_data(path: str) -> str:
    """A path as the tables have it, below the data folder: of one from another machine what follows `audio-tasks/`.

    Raises:
        DataError: it leaves the data folder.
    """
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() and AUDIO_TASKS in parts:
        path = PurePosixPath(*parts[parts.index(AUDIO_TASKS) :]).as_posix()
    check_inside(path)
    return path


def column_names(files: Sequence[Path]) -> list[str]:
    """Names of a parquet table's columns."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(regular_file(files[0])).names)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"annotations {files[0]} can't be read: {one_line(error)}") from error


def first_of(names: Iterable[str], there: Sequence[str], files: Sequence[Path]) -> str:
    """The first of some column names that a table has.

    Raises:
        DataError: it has none of them.
    """
    wanted = list(names)
    if (column := next((name for name in wanted if name in there), None)) is None:
        raise DataError(f"annotations {files[0]} have none of the columns {', '.join(wanted)} ({', '.join(there)})")
    return column


def rows_of(files: Sequence[Path], columns: Sequence[Column[Any]], at_once: int = _ROWS_AT_ONCE) -> Iterator[Row]:
    """Rows of a parquet table, the named columns only.

    Raises:
        DataError: as `parquet_rows`, or there are none.
    """
    empty = True
    for path in files:
        for rows in parquet_rows(path, columns, at_once):
            empty = empty and not rows
            yield from rows
    if empty:
        raise DataError(f"annotations {files[0]} have no rows")


def lines_of(path: Path) -> list[str]:
    """Lines of a text file, without blanks around them.

    Raises:
        DataError: not readable, or no UTF-8.
    """
    try:
        return [line.strip() for line in regular_file(path).read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"annotations {path} can't be read: {one_line(error)}") from error


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file by the names in its first line, which are each row's keys.

    Raises:
        DataError: not readable, no UTF-8, without rows, or a row of another length.
    """
    try:
        with regular_file(path).open(encoding="utf-8-sig", newline="") as file:
            names, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"annotations {path} can't be read: {one_line(error)}") from error
    if not rows:
        raise DataError(f"annotations {path} have no rows")
    if (short := next((number for number, row in enumerate(rows, 2) if len(row) != len(names)), None)) is not None:
        raise DataError(f"annotations {path}: row {short} has {len(rows[short - 2])} fields, not {len(names)}")
    return [dict(zip(names, row, strict=True)) for row in rows]


def sounds_of(reading: Reading, files: Sequence[Path], there: Sequence[str]) -> list[Path]:
    """Row → its sound, whose bytes stand in the table, or its path.

    Args:
        there: names of the table's columns.

    Raises:
        DataError: it has neither, or a path leaves the data folder.
    """
    name = first_of(("audio", "audio_bytes", "audio_path", "path"), there, files)
    if name in ("audio", "audio_bytes"):
        return written("sound", files, Column.sound(name), reading.root / "audio_cache", ".wav")
    paths = Column.text(name)
    return [reading.media.file(below_data(row[paths])) for row in rows_of(files, (paths,))]


def written(what: str, files: Sequence[Path], column: Column[bytes], folder: Path, suffix: str) -> list[Path]:
    """Row → the file of its bytes, below a folder; those that are not on disk yet are written.

    They are named by the row, in a folder named by the table: those of another table are never taken for them.
    """
    import pyarrow.parquet as pq

    stamp = hashlib.sha256("\0".join(f"{path.name}\0{path.stat().st_size}" for path in files).encode()).hexdigest()
    count = sum(pq.read_metadata(path).num_rows for path in files)
    paths = {str(number): folder / stamp[:8] / f"{number:05d}{suffix}" for number in range(count)}
    if missing := missing_files(paths):
        rows = rows_of(files, (column,), FEW_ROWS)
        write_files(what, missing, ((str(number), row[column]) for number, row in enumerate(rows)))
    return list(paths.values())
