"""Where a task's files lie if they don't lie where they are read: unpacked elsewhere, or in another known layout."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmeb_harness import is_data

#: Folders of tables in the official tree of MMEB-V3, whose 78 older tasks are read from elsewhere here.
OFFICIAL_TABLES = ("image-query", "video-tasks/data", "visdoc-tasks/data")
ANNOTATIONS = "annotations"
#: Folders of which a data folder has several.
ADDED = ("text-tasks", "tool-tasks", "gui-tasks", "memory-tasks", "audio-tasks")
TOPS = (ANNOTATIONS, "image-tasks", *ADDED)
_ARCHIVE = re.compile(r"\.(tar|tgz|zip)\b")


def elsewhere(data: Path, folder: str) -> str:
    """What to do about a task's folder that isn't there: a clause of a sentence; "" if nothing like it is found.

    Args:
        folder: of the task's tables, below the data folder.
    """
    if (data / folder).exists():
        return ""
    parts = PurePosixPath(folder).parts
    there = [name for name in OFFICIAL_TABLES if parts[0] == ANNOTATIONS and (data / name).is_dir()]
    if there:
        return f"; {data} has tables of the official MMEB-V3 tree, which are not read here ({', '.join(there)})"
    if data.name == parts[0] and (data.parent / folder).exists():
        return f"; that is a part of a data folder: --data {shlex.quote(str(data.parent))} reads it"
    added = [top for top in ADDED if (data / top).is_dir()]
    if added and parts[0] == ANNOTATIONS and not (data / ANNOTATIONS).exists():
        return f"; {data} has what MMEB-V3 adds alone ({', '.join(added)}): --edition v3 with --modality reads it"
    for depth in range(1, len(parts) + 1):  # the highest folder that is elsewhere: all below comes with it
        right, below = data.joinpath(*parts[:depth]), PurePosixPath(*parts[depth:])
        for place in [] if right.exists() else _folders(data, parts[0]):
            if _alike(place.name, right.name) and (place / below).is_dir():
                if depth == 1 and len([top for top in TOPS if (place.parent / top).is_dir()]) > 1:
                    return f"; {place} is there: --data {shlex.quote(str(place.parent))} reads it"
                return f"; what belongs in {right} lies in {place}: move it there"
    packed = [place for place in _in(data) if _alike(place.name, parts[0]) and _holds_archives(place)]
    return f"; {packed[0]} holds archives as the hub has them, to be unpacked" if packed else ""


def _folders(data: Path, top: str) -> Iterator[Path]:
    """Folders in the data folder and in these, and in those of them that are named like the folder at the top."""
    for outer in _in(data):
        yield outer
        for inner in _in(outer):
            yield inner
            if _alike(inner.name, top):
                yield from _in(inner)


def _in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(entry) for entry in entries if is_data(entry.name) and entry.is_dir())
    except OSError:  # what can't be listed is no place to read from either
        return []


def _alike(name: str, other: str) -> bool:
    return name.lower().replace("_", "-") == other.lower().replace("_", "-")


def _holds_archives(folder: Path) -> bool:
    return any(_ARCHIVE.search(path.name) for path in folder.glob("*"))
