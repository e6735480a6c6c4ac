"""The eight GUI tasks: goals, screens and trajectories, with several screenshots an item between the words.

A trajectory shows a token for each step where its screenshot belongs; here that is an offset into the text.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from mmeb_harness import Item, Samples, Source, matching
from mmeb_tasks.readers.builder import LEGACY_IMAGE_TOKEN, MISMATCHED, SamplesBuilder
from mmeb_tasks.readers.media import MediaFolder, MissingMediaError
from mmeb_tasks.readers.records import Record, iter_records
from mmeb_tasks.readers.tables import MissingTableError

QUERY = ("qry_text", "qry_image_path")
ANSWER_ID, ANSWER = "pos_id", ("pos_text", "pos_image_path")
CANDIDATE_ID, CANDIDATE = "cand_id", ("cand_text", "cand_image_path")

INTERLEAVED = Source("interleaved")


def read_screen_task(queries: str, corpus: str, image_root: str, data: Path) -> Samples:
    """Read one GUI task: candidates are the answers of all queries, then the corpus; the first row of an id counts.

    Args:
        queries, corpus: glob patterns of tables below the data folder.
        image_root: of the screenshots, below the data folder.

    Raises:
        MissingMediaError: a screenshot is missing. Officially its item is embedded without it, and nothing is said.
    """
    builder, screens = SamplesBuilder(), _Screens(data, image_root)
    for number, record in enumerate(_records(data, queries, (*QUERY, ANSWER_ID, *ANSWER))):
        answer = _candidate(record, ANSWER_ID, ANSWER, builder, screens)
        builder.query(_item(record, str(number), QUERY, builder, screens), [answer], {answer: 1.0})
    for record in _records(data, corpus, (CANDIDATE_ID, *CANDIDATE)):
        _candidate(record, CANDIDATE_ID, CANDIDATE, builder, screens)
    screens.refuse_missing()
    return builder.build(pooled=False)


def referenced_screens(queries: str, corpus: str, data: Path) -> set[str]:
    """Paths of screenshots that the tables' rows name."""
    columns = {queries: (QUERY[1], ANSWER[1]), corpus: (CANDIDATE[1],)}
    return {
        path
        for pattern, names in columns.items()
        for record in _records(data, pattern, names)
        for name in names
        for path in _paths(record, name)
    }


def _records(data: Path, pattern: str, names: Sequence[str]) -> Iterator[Record]:
    """The rows of a table's shards, in order."""
    paths = matching(data, pattern)
    if not paths:
        raise MissingTableError(f"annotations {data / pattern} are missing")
    return itertools.chain.from_iterable(iter_records(path, names) for path in paths)


class _Screens:
    """Screenshots by the paths in the tables, which name the folder inside the archive: unpacked, it may be gone."""

    def __init__(self, data: Path, root: str) -> None:
        self._media, self._folder, self._root = MediaFolder(data), data / root, root
        folders = self._media.subfolders(root) if self._folder.is_dir() else []
        self._inner = folders[0] if len(folders) == 1 else None

    def file(self, path: str) -> Path:
        """Where the table says; if it isn't there, one folder higher or deeper, if just one of the two is there."""
        exact, higher, deeper = f"{self._root}/{path}", path.partition("/")[2], self._inner
        others = [
            place
            for place in (higher and f"{self._root}/{higher}", deeper and f"{self._root}/{deeper}/{path}")
            if place and self._media.has(place)
        ]
        is_elsewhere = not self._media.has(exact) and len(others) == 1
        return self._media.file(others[0] if is_elsewhere else exact)

    def refuse_missing(self) -> None:
        """Say what is missing, and what lies there instead.

        Raises:
            MissingMediaError: if anything is missing.
        """
        try:
            self._media.refuse_missing()
        except MissingMediaError as error:
            if not self._folder.is_dir():
                raise
            folders = self._media.subfolders(self._root)
            inside = f"the folders {', '.join(folders[:3])}{', …' * (len(folders) > 3)}" if folders else "no folder"
            files = sum(path.is_file() for path in self._folder.iterdir())
            raise MissingMediaError(f"{error}; {self._folder} holds {files:,} files and {inside}") from error


def _candidate(
    record: Record, id_name: str, fields: tuple[str, str], builder: SamplesBuilder, screens: _Screens
) -> str:
    candidate_id = record.stated_id(id_name)
    return builder.candidate(candidate_id, partial(_item, record, candidate_id, fields, builder, screens))


def _item(record: Record, item_id: str, fields: tuple[str, str], builder: SamplesBuilder, screens: _Screens) -> Item:
    """Words and pictures. Where tokens and pictures don't fit, `source` keeps the words as they are stored."""
    text_name, images_name = fields
    stored = record.text(text_name)
    images = tuple(map(screens.file, _paths(record, images_name)))
    pieces = stored.split(LEGACY_IMAGE_TOKEN)
    fits = len(pieces) - 1 == len(images)
    builder.notes[MISMATCHED] += not fits
    return Item(
        item_id,
        text="".join(pieces),
        images=images,
        places=tuple(itertools.accumulate(map(len, pieces[:-1]))) if fits else (),
        source=INTERLEAVED if fits else Source("interleaved", stored),
    )


def _paths(record: Record, name: str) -> list[str]:
    """A list, one spelled as a Python literal, or one path; empty entries are none."""
    stated = record.values.get(name)
    if isinstance(stated, str):
        try:
            value = ast.literal_eval(stated)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = stated
        stated = value if isinstance(value, (list, tuple, str)) else stated
        stated = [stated] if isinstance(stated, str) else stated
    paths = [path for path in stated if path] if isinstance(stated, (list, tuple)) else [stated] if stated else []
    if not all(isinstance(path, str) for path in paths):
        raise record.unfit(name, "paths of pictures")
    return paths
