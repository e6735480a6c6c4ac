"""Where the benchmark's media lie on the hub, and where each member of an archive belongs.

The archives of TIGER-Lab/MMEB-V2 unpack to other trees than the official evaluation reads: an extra `MMEB/` level,
`data/ziyan/video_retrieval/<set>/frames/`, `video_qa/video_qa/`, `egoschema`, `Charades-STA`; video_qa comes in parts.
So members are placed by what they are, wherever the archive has them: an image by the path that the annotations
name, a frame by the name of its data set's folder, a table by its own path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from mmeb_harness import Table
from mmeb_tasks.readers.image import IMAGE_ROOT, referenced_images

MEDIA_REPO = "TIGER-Lab/MMEB-V2"

Place = Callable[[str], str | None]


def by_name(place: Place) -> Callable[[Path], Place]:
    """For an archive whose members are told by their names: whatever the data folder holds."""
    return functools.partial(_whatever_is_there, place)


def _whatever_is_there(place: Place, data: Path) -> Place:
    return place


def place_images(table: Table, data: Path) -> Place:
    """A member is one of the task's images if some tail of its path is a path that the table names."""
    return place_paths(IMAGE_ROOT, referenced_images(table, data))


def place_paths(root: str, wanted: Collection[str]) -> Place:
    """A member is one of the wanted files, whose paths are below `root`, if some tail of its path is that path."""

    def place(member: str) -> str | None:
        tail = next((tail for tail in _tails(member) if tail in wanted), None)
        return None if tail is None else f"{root}/{tail}"

    return place


def place_screens(root: str, named: Collection[str]) -> Place:
    """A member is a screenshot that tables name if some tail of its path is that path below `root`.

    Tables may name it with the archive's top folder or without, and so may the archive, whatever it calls that folder:
    one that is in doubt belongs where the tables have the same path but for the folder.
    """
    exactly, inner = place_paths(root, named), _below_top(named)

    def place(member: str) -> str | None:
        if (target := exactly(member)) is not None:
            return target
        tail = next((tail for tail in _tails(member) if tail in inner), None)
        return None if tail is None else f"{root}/{inner[tail]}"

    return place


def _below_top(paths: Iterable[str]) -> dict[str, str]:
    """Paths by what they are without their top folder; those of which two are the same without it are left out."""
    path_of: dict[str, str] = {}
    twice: set[str] = set()
    for path in paths:
        inner = path.partition("/")[2]
        twice.update({inner} & path_of.keys())
        path_of[inner] = path
    return {inner: path for inner, path in path_of.items() if inner and inner not in twice}


def place_below(folder: str, member: str) -> str | None:
    """A member belongs to a folder if it lies below one named like it. Spellings differ in case and in - and _."""
    below = _below(PurePosixPath(folder).name, member)
    return "/".join([folder, *below]) if below else None


def place_frames(frame_root: str, data: Path) -> Place:
    """A member is one of the task's frames if it lies below a folder named like the frame root's last one.

    Args:
        frame_root: e.g. video-tasks/frames/video_cls/K700. Spellings differ in case and in - and _.
    """

    def place(member: str) -> str | None:
        below = _below(PurePosixPath(frame_root).name, member)
        if below[:1] == ("frames",):
            below = below[1:]
        return "/".join([frame_root, *below]) if below else None

    return place


def _tails(path: str) -> Iterator[str]:
    """A path, and what is left of it without its first folder, and so on."""
    parts = PurePosixPath(path).parts
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _below(folder: str, member: str) -> tuple[str, ...]:
    """The part of a member's path below a folder of that name; nothing if it lies elsewhere."""
    wanted, parts = _spelling(folder), PurePosixPath(member).parts
    start = next((place for place, part in enumerate(parts) if _spelling(part) == wanted), len(parts))
    return parts[start + 1 :]


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")
