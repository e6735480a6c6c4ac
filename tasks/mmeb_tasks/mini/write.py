"""Files of a suite: pictures, frame folders, parquet tables, the manifest. Whole or not there at all."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from mmeb_harness import DataError, Table, UnknownNameError, make_folder
from mmeb_tasks.mini.world import Picture, Rng

Difficulty = Literal["easy", "hard"]
Worker = Literal["precise", "verbose", "wrong"]
Side = Literal["query", "positive"]
Known = TypeVar("Known")
#: The random stream of a task, or of a file that several tasks share, by its name.
Streams: TypeAlias = Callable[[str], Rng]
WORKER_RATIONALES = "worker_rationales.parquet"


@dataclass(frozen=True, slots=True)
class QueryLabel:
    """What the world knows of a query: how hard it is, what a careful worker would write, the answer."""

    query_id: str
    difficulty: Difficulty
    rationale: str
    answer: str


@dataclass(frozen=True, slots=True)
class WorkerRationale:
    """What a scripted worker wrote of one side of a pair.

    Attributes:
        sample: 0, 1 …: the worker's attempts.
        right: it leads to the answer, as far as the world can tell.
        details: it names grey levels, which a query's picture hardly shows.
    """

    query_id: str
    side: Side
    worker: Worker
    sample: int
    text: str
    right: bool
    details: bool


class SuiteWriter:
    """Writes below one folder; remembers the labels of every query, and what workers wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: set[Path] = set()
        self._labels: dict[str, list[QueryLabel]] = {}
        self._rationales: dict[str, list[WorkerRationale]] = {}

    def picture(self, relative: str, picture: Picture) -> str:
        """A PNG or JPEG, by suffix. Returns `relative`."""
        return self.content(relative, encode_picture(picture, relative))

    def frames(self, folder: str, pictures: Sequence[Picture]) -> None:
        """A clip's frames, named as the official extraction names them."""
        for number, picture in enumerate(pictures, start=1):
            self.picture(f"{folder}/frame_{number:04d}.jpg", picture)

    def table(self, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        """Write an annotation table."""
        self.parquet(f"{table.folder}/{table.split}.parquet", rows)

    def rows(self, table: Table) -> list[dict[str, Any]]:
        """The rows of an annotation table that is written."""
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(self._folder / f"{table.folder}/{table.split}.parquet").to_pylist()
        return rows

    def parquet(self, relative: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write a table where it belongs."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), self._path(relative))

    def lines(self, relative: str, rows: Sequence[dict[str, Any]]) -> None:
        """Write JSON lines, other letters than ASCII as they are."""
        self.text(relative, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def text(self, relative: str, text: str) -> None:
        """Write a text file."""
        self.content(relative, text.encode())

    def content(self, relative: str, content: bytes) -> str:
        """Write a file. Returns `relative`."""
        self._path(relative).write_bytes(content)
        return relative

    def has(self, relative: str) -> bool:
        """Whether a file that several tasks share is written."""
        return (self._folder / relative).exists()

    def labels(self, task: str, labels: Sequence[QueryLabel]) -> None:
        """Labels of all of a task's queries; a world of its own may have labels with more columns."""
        self._labels[task] = list(labels)

    def labels_of(self, task: str) -> Sequence[QueryLabel]:
        """The labels of a task that is written."""
        return self._labels[task]

    def rationales(self, task: str, rationales: Sequence[WorkerRationale]) -> None:
        """What the scripted workers wrote of a task's pairs."""
        self._rationales[task] = list(rationales)

    def finish(self, name: str, revision: str, seed: int) -> None:
        """The labels of all queries, what workers wrote, if any did, and, last of all, the manifest."""
        self._records("query_labels.parquet", self._labels)
        if self._rationales:
            self._records(WORKER_RATIONALES, self._rationales)
        manifest = {
            "schema_version": 1,
            "name": name,
            "synthetic": True,
            "revision": revision,
            "seed": seed,
            "num_queries": {task: len(of_task) for task, of_task in self._labels.items()},
        }
        self._path("manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    def _records(self, file: str, by_task: Mapping[str, Sequence[QueryLabel | WorkerRationale]]) -> None:
        """Write records of one class as a table, column by column: a large split has half a million."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        records = [record for of_task in by_task.values() for record in of_task]
        columns: dict[str, list[Any]] = {"task": [task for task, of_task in by_task.items() for _ in of_task]}
        for field in fields(records[0]):
            columns[field.name] = [getattr(record, field.name) for record in records]
        pq.write_table(pa.table(columns), self._path(file))

    def _path(self, relative: str) -> Path:
        path = self._folder / relative
        if path.parent not in self._made:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(path.parent)
        return path


def encode_picture(picture: Picture, name: str) -> bytes:
    """PNG, or JPEG if `name` says so. Deterministic for one version of Pillow."""
    from PIL import Image

    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if name.lower().endswith((".jpg", ".jpeg")):
        image.save(buffer, "JPEG", quality=92)
    else:
        image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@contextmanager
def whole_suite(folder: Path) -> Iterator[SuiteWriter]:
    """Write to a neighbour of `folder`, then rename it: a killed or second writer leaves nothing half done.

    Raises:
        DataError: if the place can't be written.
    """
    try:
        make_folder(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise DataError(
            f"can't make a suite in {folder}: {error.strerror or error}; name another folder, by MMEB_CACHE if it is "
            "that of the cache"
        ) from error
    try:
        yield SuiteWriter(temporary)
        temporary.chmod(0o755)
        _rename(temporary, folder)
    except OSError as error:
        raise DataError(f"can't make a suite in {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # gone already if it was renamed


def _rename(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)  # over nothing, or over an empty folder
    except OSError as error:
        if not (folder / "manifest.json").is_file():  # else a second writer was faster: the same files
            raise DataError(f"{folder} exists and is not a finished suite; move it away first") from error


def choose(kind: str, known: Mapping[str, Known], names: Sequence[str] | None) -> dict[str, Known]:
    """What is named of what is known, in its order; `None`: all.

    Raises:
        UnknownNameError: for a name that is not known.
    """
    for name in names or ():
        if name not in known:
            raise UnknownNameError(kind, name, known)
    return {name: value for name, value in known.items() if names is None or name in names}
