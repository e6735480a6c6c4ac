"""Media files: that they lie inside the data folder and exist, which frames a clip has and which are used."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mmeb_harness import DataError

FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")


class MediaFolder:
    """Looks up media below one data folder. Each directory is listed once, however often it is asked for."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._listings: dict[str, dict[str, bool]] = {}  # directory → name → is a directory

    def file(self, relative: str) -> Path:
        """A file by its path below the data folder.

        Raises:
            DataError: if the path leaves the data folder, or there is no such file.
        """
        check_inside(relative)
        directory, name = os.path.split(relative)
        if self._list(directory).get(name, True):
            raise DataError(f"media file {self._data / relative} is missing")
        return self._data / relative

    def subfolders(self, relative: str) -> list[str]:
        """Names of a folder's sub-folders, sorted.

        Raises:
            DataError: if there is no such folder.
        """
        check_inside(relative)
        return sorted(name for name, is_folder in self._existing(relative).items() if is_folder)

    def frames(self, relative: str) -> tuple[Path, ...]:
        """All frames of a clip's folder, in natural order.

        Raises:
            DataError: if the folder is missing or holds no picture.
        """
        check_inside(relative)
        names = [name for name in self._existing(relative) if name.lower().endswith(FRAME_SUFFIXES)]
        if not names:
            raise DataError(f"frame folder {self._data / relative} holds no {'/'.join(FRAME_SUFFIXES)} file")
        return tuple(self._data / relative / name for name in sorted(names, key=natural_order))

    def _existing(self, relative: str) -> dict[str, bool]:
        listing = self._list(relative)
        if not listing and not (self._data / relative).is_dir():
            raise DataError(f"frame folder {self._data / relative} is missing")
        return listing

    def _list(self, directory: str) -> dict[str, bool]:
        if directory not in self._listings:
            try:
                with os.scandir(self._data / directory) as entries:
                    self._listings[directory] = {entry.name: entry.is_dir() for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._listings[directory] = {}
        return self._listings[directory]


def check_inside(relative: str) -> None:
    """Refuse a path from annotations that leaves the data folder."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in relative:
        raise DataError(f"annotation path {relative!r} leaves the data folder")


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Digit runs compare as integers, the rest in lower case: frame_2 before frame_10, as officially."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part]


def sample_frames(frames: tuple[Path, ...], n: int) -> tuple[Path, ...]:
    """`n` frames, both ends included: positions linspace(0, last, n), truncated; all of them if fewer are there."""
    import numpy as np

    if n > len(frames):
        return frames
    return tuple(frames[int(position)] for position in np.linspace(0, len(frames) - 1, n))
