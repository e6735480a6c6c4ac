"""Media files: that they lie inside the data folder and exist, which frames a clip has and which are used."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from mmeb_harness import FRAME_SUFFIXES, DataError, ShortClips, frame_names, is_data, shown

_LONGEST_NAME = 255


class MissingMediaError(DataError):
    """Media that the annotations name are not in the data folder."""


class MediaFolder:
    """Looks up media below one data folder. Each directory is listed once, however often it is asked for.

    What is missing is collected, so that one message can say how much it is: call `refuse_missing` at the end.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._missing: dict[str, str] = {}  # path → what is wrong with it
        self._listings: dict[str, dict[str, bool]] = {}  # directory → name → is a directory

    def file(self, relative: str) -> Path:
        """A file by its path below the data folder.

        Raises:
            DataError: if the path leaves the data folder.
        """
        check_inside(relative)
        directory, name = os.path.split(relative)
        if self._list(directory).get(name, True):
            self._missing[relative] = f"media file {self._data / relative} is missing"
        return self._data / relative

    def has(self, relative: str) -> bool:
        """Whether there is a file at a path below the data folder."""
        directory, name = os.path.split(relative)
        return self._list(directory).get(name) is False

    def subfolders(self, relative: str) -> list[str]:
        """Names of a folder's sub-folders, sorted; none if there is no such folder."""
        check_inside(relative)
        return sorted(name for name, is_folder in self._existing(relative).items() if is_folder and is_data(name))

    def frames(self, relative: str) -> tuple[Path, ...]:
        """All frames of a clip's folder, in natural order; none if it is missing or holds no picture."""
        check_inside(relative)
        listing = self._existing(relative)
        names = frame_names(listing)
        if not names:
            empty = f"frame folder {self._data / relative} holds no {'/'.join(FRAME_SUFFIXES)} file"
            self._missing.setdefault(relative, empty)
        return tuple(self._data / relative / name for name in names)

    def _existing(self, relative: str) -> dict[str, bool]:
        listing = self._list(relative)
        if not listing and not (self._data / relative).is_dir():
            self._missing[relative] = f"frame folder {self._data / relative} is missing"
        return listing

    def refuse_missing(self) -> None:
        """Say what was asked for and isn't there.

        Raises:
            MissingMediaError: if anything was missing.
        """
        if self._missing:
            first = next(iter(self._missing.values()))
            more = f" (and {len(self._missing) - 1:,} more files or frame folders)" if len(self._missing) > 1 else ""
            raise MissingMediaError(first + more)

    def _list(self, directory: str) -> dict[str, bool]:
        if directory not in self._listings:
            try:
                with os.scandir(self._data / directory) as entries:
                    self._listings[directory] = {entry.name: os.path.isdir(entry) for entry in entries}
            except (FileNotFoundError, NotADirectoryError):
                self._listings[directory] = {}
            except OSError as error:
                why = error.strerror or error
                raise DataError(f"media folder {self._data / directory} can't be read: {why}") from error
        return self._listings[directory]


def check_inside(relative: str) -> None:
    """Refuse a path from annotations that leaves the data folder, or that no file system can hold."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in relative:
        raise DataError(f"annotation path {shown(relative)} leaves the data folder")
    if any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise DataError(f"annotation path with a name of more than {_LONGEST_NAME} bytes: {shown(relative)}")


def sample_frames(frames: tuple[Path, ...], n: int, short: ShortClips = "as they are") -> tuple[Path, ...]:
    """`n` frames, both ends included: positions linspace(0, last, n), truncated.

    A clip of fewer frames gives all of them as they are, or repeats them evenly by the same rule, as `short` says.
    """
    import numpy as np

    if not frames or (n > len(frames) and short == "as they are"):
        return frames
    return tuple(frames[int(position)] for position in np.linspace(0, len(frames) - 1, n))
