"""Pictures and frames of training pairs: files below a folder, or bytes in parquet that become files once.

What a pair names and isn't there is an error when the pair is read: the published loaders leave such a row out, or
show its neighbour, and nobody learns what was trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from mmeb_harness import FRAME_SUFFIXES, Column, frame_names
from mmemb_r1_model.data.rows import open_parquet
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.files import replacing

_IMAGES_AT_ONCE = 32
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclass(frozen=True, slots=True)
class MediaFolder:
    """Media files of one data set.

    Attributes:
        way_out: what to do about one that is missing.
    """

    root: Path
    way_out: str

    def file(self, relative: str) -> Path:
        """A file by its path below the folder.

        Raises:
            DataError: it isn't there, or the path leaves the folder.
        """
        path = self._inside(relative)
        if not os.path.isfile(path):  # also where the name is longer than any file
            raise DataError(f"media file {path} is missing; {self.way_out}")
        return path

    def frames(self, relative: str, count: int, suffixes: tuple[str, ...] = FRAME_SUFFIXES) -> tuple[Path, ...]:
        """`count` frames of a clip's folder, in natural order, as `spread` picks them.

        Args:
            suffixes: of its pictures.

        Raises:
            DataError: no such folder, or no picture in it.
        """
        folder = self._inside(relative)
        try:
            names = frame_names(os.listdir(folder), suffixes)
        except OSError:
            names = []
        if not names:
            raise DataError(f"frame folder {folder} is missing or holds no picture; {self.way_out}")
        return tuple(folder / name for name in spread(names, count))

    def _inside(self, relative: str) -> Path:
        parts = PurePosixPath(relative)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in relative:
            raise DataError(f"media path {relative!r} is not one below the data set's folder, {self.root}")
        return self.root / relative


def spread(names: Sequence[str], count: int) -> list[str]:
    """`count` of the names, evenly spaced, both ends included; all of them if there are no more.

    Source: `process_video_frames` of VLM2Vec, src/data/utils/vision_utils.py: positions linspace(0, last, count),
    truncated; a shorter clip isn't padded.
    """
    if count >= len(names):
        return list(names)
    return [names[place] for place in np.linspace(0, len(names) - 1, count, dtype=int)]


class StoredImages:
    """The images of a parquet column, as files: a row group's are all written when the first of them is asked for.

    A file's name is a hash of its bytes, so that a page that stands in many rows is one file and one path. A parquet
    file's row group can only be read whole; in a shuffled order that would mean reading a hundred pages for each.

        <cache>/<two digits>/<hash>.jpg
        <cache>/<parquet file>-<row group>.json    names in the order of the rows, and the state of the parquet file

    Any number of processes may do so at the same time: they write the same bytes under the same names.
    """

    def __init__(self, files: Sequence[Path], column: str, cache: Path, way_out: str) -> None:
        """Read the files' footers.

        Raises:
            DataError: a file can't be read, or has no such column.
        """
        self._column, self._cache, self._way_out = column, cache, way_out
        self._groups: list[tuple[Path, int]] = []
        sizes = []
        for path in files:
            with open_parquet(path, [column], way_out) as file:
                footer = file.metadata
            self._groups += [(path, group) for group in range(footer.num_row_groups)]
            sizes += [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        self._ends = np.cumsum(np.array(sizes, dtype=np.int64))
        self._names: dict[int, list[str]] = {}

    def __getitem__(self, row: int) -> Path:
        """The file of a row's image; rows are counted over all parquet files.

        Raises:
            DataError: the row has no image, or the cache can't be written.
        """
        group = int(np.searchsorted(self._ends, row, side="right"))
        place = row - int(self._ends[group - 1] if group else 0)
        names = self._names.get(group) or self._kept_names(group) or self._extract(group)
        if names[place] and not self._path(names[place]).is_file():
            names = self._extract(group)  # deleted since; the parquet file still has it
        self._names[group] = names
        if not names[place]:
            raise DataError(f"{self._groups[group][0]}: row {row} of the data set has no image")
        return self._path(names[place])

    def _path(self, name: str) -> Path:
        return self._cache / name[:2] / name

    def _list_path(self, group: int) -> Path:
        path, number = self._groups[group]
        return self._cache / f"{path.stem}-{number:05d}.json"

    def _kept_names(self, group: int) -> list[str] | None:
        try:
            kept = json.loads(self._list_path(group).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # not there, or not whole: it holds nothing that the parquet file doesn't
        return list(kept["names"]) if kept["source"] == self._state(group) else None

    def _state(self, group: int) -> list[int]:
        stat = self._groups[group][0].stat()
        return [stat.st_size, stat.st_mtime_ns]

    def _extract(self, group: int) -> list[str]:
        path, number = self._groups[group]
        state, names, images = self._state(group), list[str](), Column.picture(self._column)
        with open_parquet(path, [self._column], self._way_out) as file:
            # No threads: loader processes are forked, and Arrow's pool doesn't outlive a fork everywhere.
            reading = {"row_groups": [number], "columns": [self._column], "use_threads": False}
            for batch in file.iter_batches(batch_size=_IMAGES_AT_ONCE, **reading):
                where = f"{path}, row group {number}"
                names += [self._write(image) for image in images.cells(batch.column(0), where, len(names))]
        _write_whole(self._list_path(group), json.dumps({"source": state, "names": names}).encode())
        return names

    def _write(self, content: bytes) -> str:
        """Write an image that isn't written yet; its name, "" if there is none."""
        if not content:
            return ""
        suffix = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), ".img")
        name = hashlib.blake2b(content, digest_size=16).hexdigest() + suffix
        if not self._path(name).is_file():
            _write_whole(self._path(name), content)
        return name


def _write_whole(path: Path, content: bytes) -> None:
    """A file, whole or not at all, whoever else writes it at the same time."""
    try:
        with replacing(path, durably=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"can't write {path}: {error.strerror or error}; make room, or make it writable") from error


def answer_key(text: str, media: Sequence[str] = ()) -> str:
    """Equal for positives that are one answer: the same words, whatever their case and spacing, over the same media."""
    return "\x1f".join(filter(None, (" ".join(text.casefold().split()), *media)))
