"""Where the benchmark's media lie on the hub, and where each member of an archive belongs.

The archives of TIGER-Lab/MMEB-V2 unpack to other trees than the official evaluation reads: an extra `MMEB/` level,
`data/ziyan/video_retrieval/<set>/frames/`, `video_qa/video_qa/`, `egoschema`, `Charades-STA`; video_qa comes in parts.
So members are placed by what they are, wherever the archive has them: an image by the path that the annotations
name, a frame by the name of its data set's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from mmeb_harness import Archive, Table
from mmeb_tasks.readers.image import IMAGE_ROOT, referenced_images

MEDIA_REPO = "TIGER-Lab/MMEB-V2"

Place = Callable[[str], str | None]


def image_archive(table: Table) -> Archive:
    """The images that one task's table names."""
    return Archive(MEDIA_REPO, r"mmeb_v1\.tar\.gz", partial(place_images, table), expansion=2.2, by_tables=True)


def frame_archive(frame_root: str) -> Archive:
    """The frames of one video task; `frame_root`: e.g. video-tasks/frames/video_cls/K700."""
    group = PurePosixPath(frame_root).parent.name
    return Archive(MEDIA_REPO, rf"{group}\.tar\.gz(-\d+)?", partial(_placed, frame_root))


def place_images(table: Table, data: Path) -> Place:
    """A member is one of the task's images if some tail of its path is a path that the table names."""
    wanted = referenced_images(table, data)

    def place(member: str) -> str | None:
        parts = PurePosixPath(member).parts
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        tail = next((tail for tail in tails if tail in wanted), None)
        return None if tail is None else f"{IMAGE_ROOT}/{tail}"

    return place


def place_frames(frame_root: str, member: str) -> str | None:
    """What lies below the first folder named like the frame root's last one, whatever the spelling."""
    parts = PurePosixPath(member).parts
    name = _spelling(PurePosixPath(frame_root).name)
    start = next((place for place, part in enumerate(parts) if _spelling(part) == name), None)
    if start is None:
        return None
    below = parts[start + 1 :]
    if below[:1] == ("frames",):
        below = below[1:]
    return "/".join([frame_root, *below]) if below else None


def _placed(frame_root: str, data: Path) -> Place:
    return partial(place_frames, frame_root)


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")
