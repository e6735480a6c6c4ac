"""Files that are whole or not there, and files read by place."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mmeb_harness import (
    Column,
    DataError,
    lock_file,
    make_folder,
    matching,
    parquet_rows,
    read_json,
    regular_file,
    replacing,
)

__all__ = [
    "Column",
    "PlacedBytes",
    "lock_file",
    "make_folder",
    "matching",
    "parquet_rows",
    "read_object",
    "regular_file",
    "replacing",
    "replacing_folder",
    "write_json",
]


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to fill, which then takes its place: whole, or not there. One writer at a time.

    What a killed one left is gone with the next: it may be many gigabytes.

    Raises:
        OSError: the machine couldn't write it, whatever class the library that wrote made of that.
    """
    temporary = folder.with_name(f".{folder.name}.new")
    if temporary.exists():
        shutil.rmtree(temporary)
    make_folder(temporary)
    try:
        yield temporary
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if (number := _of_the_system(error)) is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _of_the_system(error: BaseException | None) -> int | None:
    """The number of the system's error behind one: torch raises another on top, safetensors has it in words."""
    while error is not None:
        said = re.search(r"\(os error (\d+)\)", str(error))
        if said or (isinstance(error, OSError) and error.errno):
            return int(said[1]) if said else error.errno  # type: ignore[attr-defined]
        error = error.__cause__ or error.__context__
    return None


def write_json(path: Path, value: Any) -> None:
    """A whole JSON file, indented."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_object(path: Path, way_out: str) -> dict[str, Any]:
    """A JSON object as `write_json` wrote it.

    Raises:
        DataError: it can't be read or is none, with the way out.
    """
    values = read_json(path, DataError, way_out)
    if not isinstance(values, dict):
        raise DataError(f"{path}: expected an object, found {type(values).__name__}; {way_out}")
    return values


class PlacedBytes:
    """Parts of a file by where they lie. Opened when first asked; usable from forked and spawned processes alike."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from there on; fewer where the file ends."""
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        # pread has no position of its own, so that forked processes can share the open file.
        return os.pread(self._file.fileno(), length, start)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: spawned processes open their own."""
        return {**self.__dict__, "_file": None}
