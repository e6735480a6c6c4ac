"""Where the benchmark's media lie on the hub, and where each member of an archive belongs.

The archives of TIGER-Lab/MMEB-V2 unpack to other trees than the official evaluation reads: an extra `MMEB/` level,
`data/ziyan/video_retrieval/<set>/frames/`, `video_qa/video_qa/`, `egoschema`, `Charades-STA`; video_qa comes in parts.
So members are placed by what they are, wherever the archive has them: an image by the path that the annotations
name, a frame by the name of its data set's folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mmeb_harness import Table
from mmeb_tasks.readers.image import IMAGE_ROOT, referenced_images

MEDIA_REPO = "TIGER-Lab/MMEB-V2"

Place = Callable[[str], str | None]


def place_images(table: Table, data: Path) -> Place:
    """A member is one of the task's images if some tail of its path is a path that the table names."""
    wanted = referenced_images(table, data)

    def place(member: str) -> str | None:
        parts = PurePosixPath(member).parts
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        tail = next((tail for tail in tails if tail in wanted), None)
        return None if tail is None else f"{IMAGE_ROOT}/{tail}"

    return place


def place_frames(frame_root: str, data: Path) -> Place:
    """A member is one of the task's frames if it lies below a folder named like the frame root's last one.

    Args:
        frame_root: e.g. video-tasks/frames/video_cls/K700. Spellings differ in case and in - and _.
    """
    wanted = _spelling(PurePosixPath(frame_root).name)

    def place(member: str) -> str | None:
        parts = PurePosixPath(member).parts
        start = next((place for place, part in enumerate(parts) if _spelling(part) == wanted), len(parts))
        below = parts[start + 1 :]
        if below[:1] == ("frames",):
            below = below[1:]
        return "/".join([frame_root, *below]) if below else None

    return place


def _spelling(name: str) -> str:
    return name.lower().replace("-", "_")
