"""Items of rows: text, pictures, frames, several of them or all together; paths stay inside of the folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmeb_harness import (
    PICTURE_SUFFIXES,
    DataError,
    Frames,
    Item,
    Modality,
    StatedItem,
    frame_names,
    one_line,
    opened_picture,
    shown,
    stated_item,
)
from mmeb_tasks.own.rows import Problems, Row, id_text
from mmeb_tasks.readers.media import check_inside, sample_frames
from mmeb_tasks.readers.records import is_whole

#: Columns in which an id may stand; the first is BEIR's.
ID_COLUMNS = ("_id", "id")


class ItemMaker:
    """Makes items of rows; what is wrong with a row is noted. Each folder of media is listed once.

    Args:
        folder: of the data set, which all paths are below.
        look: told of each picture once, before it is opened and its pixels are read; `None`: none is.
    """

    def __init__(
        self, folder: Path, frames: Frames, problems: Problems, look: Callable[[Path], None] | None = None
    ) -> None:
        self._folder, self._frames, self._problems, self._look = folder, frames, problems, look
        self._listings: dict[str, frozenset[str]] = {}
        self._looked_at: set[Path] = set()

    def id_of(self, row: Row) -> str | None:
        """The row's id, text or a whole number; `None`, and noted, if it has none."""
        value = next((row.values[name] for name in ID_COLUMNS if name in row.values), None)
        if (item_id := id_text(value)) and is_whole(item_id):
            return item_id
        said = "has no _id" if value is None else f"_id is {shown(value)}"
        self._problems.add(row.place, f"{said}; give each row an _id, text or a whole number")
        return None

    def item(self, row: Row, item_id: str, instruction: str) -> Item | None:
        """The row's item; `None`, and noted, if it can't be one.

        Args:
            instruction: if the row has none of its own.
        """
        noted = len(self._problems.lines)
        stated = stated_item(row.values, partial(self._problems.add, row.place), ("title", "text"))
        images = tuple(self._file(row, path) for path in stated.images)
        frames = self._frames_of(row, stated)
        for path in (*images, *frames) if len(self._problems.lines) == noted else ():
            self._look_at(row.place, path)
        if len(self._problems.lines) > noted:
            return None
        shown = sample_frames(frames, self._frames.video)
        return Item(item_id, stated.text, images, shown, stated.instruction or instruction)

    def _look_at(self, place: str, path: Path) -> None:
        if self._look is None or path in self._looked_at:
            return
        self._look(path)
        self._looked_at.add(path)
        try:
            with opened_picture(path, path.relative_to(self._folder).as_posix()) as picture:
                picture.load()
        except DataError as error:
            self._problems.add(place, one_line(error))

    def picture(self, place: str, item_id: str, path: Path, instruction: str) -> Item:
        """The item of a picture that a listing found."""
        if not is_whole(item_id):
            self._problems.add(shown(item_id), "its name is not UTF-8; rename it")
        self._look_at(place, path)
        return Item(item_id, images=(path,), instruction=instruction)

    def _frames_of(self, row: Row, stated: StatedItem) -> tuple[Path, ...]:
        """A list of pictures, or a folder of them."""
        if not stated.is_clip:
            return tuple(self._file(row, path) for path in stated.frames)
        inside = self._inside(row, stated.frames[0])
        names = frame_names(self._listing(inside), PICTURE_SUFFIXES) if inside else []
        if inside and not names:
            self._problems.add(row.place, f"frames {inside!r} is no folder with {'/'.join(PICTURE_SUFFIXES)} files")
        return tuple(self._folder / inside / name for name in names)

    def _file(self, row: Row, path: str) -> Path:
        inside = self._inside(row, path)
        directory, name = os.path.split(inside)
        if inside and name not in self._listing(directory):
            way_out = "write / between folders" if "\\" in inside else "paths are relative to that folder"
            self._problems.add(row.place, f"{inside!r} is not in {self._folder}; {way_out}")
        return self._folder / inside

    def _inside(self, row: Row, path: str) -> str:
        """The path in its plain form; "", and noted, if it leaves the folder."""
        try:
            check_inside(path)
        except DataError:
            self._problems.add(row.place, f"{path!r} leaves {self._folder}; copy or link the file into it")
            return ""
        return os.path.normpath(path)

    def _listing(self, directory: str) -> frozenset[str]:
        if directory not in self._listings:
            try:
                self._listings[directory] = frozenset(os.listdir(self._folder / directory))
            except OSError:  # not there or no folder: what it should hold is noted as missing
                self._listings[directory] = frozenset()
        return self._listings[directory]


def modality_of(values: Mapping[str, Any]) -> Modality:
    """What kind of items rows of such columns are."""
    if values.get("frames"):
        return "video"
    return "image" if values.get("image") or values.get("images") else "text"
