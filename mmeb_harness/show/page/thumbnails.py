"""Small WebP copies of images and frames, as data URIs, each file once."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmeb_harness.core.items import Item, Modality
from mmeb_harness.core.pictures import PictureError, opened_picture, to_rgb
from mmeb_harness.show.page.values import Thumbnails

#: Longest side in pixels. Pages need more than pictures to be told apart.
LONGEST_SIDE: dict[Modality, int] = {"image": 192, "video": 160, "visdoc": 320, "text": 192}
#: Frames shown of a clip, evenly spaced, both ends included.
SHOWN_FRAMES = 4

_QUALITY = 60


def thumbnails_of(
    root: Path, modality: Modality, queries: Mapping[int, Item | None], candidates: Mapping[int, Item | None]
) -> Thumbnails:
    """Of an item's images, or of some of its frames; each file once.

    Args:
        root: the data folder.
    """
    sides = [
        {key: spread(item.media, SHOWN_FRAMES) for key, item in items.items() if item is not None and item.media}
        for items in (queries, candidates)
    ]
    paths = dict.fromkeys(path for side in sides for shown in side.values() for path in shown)
    uris = {path: thumbnail(path, LONGEST_SIDE[modality]) for path in paths}
    opened = {path: uri for path, uri in uris.items() if uri is not None}
    places = {path: place for place, path in enumerate(opened)}
    of_queries, of_candidates = (
        {key: [places[path] for path in shown if path in places] for key, shown in side.items()} for side in sides
    )
    missing = [
        path.relative_to(root).as_posix() if path.is_relative_to(root) else "…" for path in paths if path not in places
    ]
    return Thumbnails(list(opened.values()), of_queries, of_candidates, missing)


def spread(media: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of `media`, evenly spaced, both ends included."""
    if len(media) <= most:
        return list(media)
    return [media[round(index * (len(media) - 1) / (most - 1))] for index in range(most)]


def thumbnail(path: Path, longest: int) -> str | None:
    """A data URI of what a model sees; `None` if the file is missing or no picture."""
    try:
        with opened_picture(path) as image:
            image.draft("RGB", (longest, longest))
            small = to_rgb(image)
    except PictureError:
        return None
    small.thumbnail((longest, longest))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
