"""Media whose bytes stand in annotation tables: files are made of them on first use, as officially."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from mmeb_harness import DataError, replacing


def missing_files(paths: Mapping[str, Path]) -> dict[str, Path]:
    """Of files by what they are called in a table, those that are not on disk; each folder is listed once."""
    there = {folder: _names_in(folder) for folder in {path.parent for path in paths.values()}}
    return {key: path for key, path in paths.items() if path.name not in there[path.parent]}


def write_files(
    what: str,
    missing: Mapping[str, Path],
    stored: Iterable[tuple[str, bytes]],
    content_of: Callable[[str, bytes], bytes] = lambda key, stored: stored,
) -> None:
    """Write the missing files.

    Args:
        what: one of them is, for messages.
        stored: what each is called, and its bytes; the first of a name counts.
        content_of: the same → the file's bytes.

    Raises:
        DataError: there are no bytes for one of them, or the folder can't be written; or what `content_of` raises.
    """
    left = dict(missing)
    for key, content in stored:
        if path := left.pop(key, None):
            _write(what, key, path, content and content_of(key, content))
        if not left:
            return


def _write(what: str, key: str, path: Path, content: bytes) -> None:
    if not content:
        raise DataError(f"{what} {key!r}: {path} is missing, and its table holds no bytes for it")
    try:
        with replacing(path, durably=False) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise DataError(f"{what} {key!r} can't be written to {path}: {error.strerror or error}") from error


def _names_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}
