"""Small WebP copies of images and frames, as data URIs, each file once."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from mmeb_harness.core.items import Modality

#: Longest side in pixels. Pages need more than pictures to be told apart.
LONGEST_SIDE: dict[Modality, int] = {"image": 192, "video": 160, "visdoc": 320}
#: Frames shown of a clip, evenly spaced, both ends included.
SHOWN_FRAMES = 4

_QUALITY = 60


class Album:
    """Thumbnails of one task, made as they are asked for."""

    def __init__(self, root: Path, modality: Modality) -> None:
        self.uris: list[str] = []
        self.missing: list[str] = []
        self._root = root
        self._longest = LONGEST_SIDE[modality]
        self._positions: dict[Path, int | None] = {}

    def add(self, media: Sequence[Path]) -> list[int]:
        """Positions in `uris` of an item's images, or of some of its frames; files that can't be opened are noted."""
        return [place for path in spread(media, SHOWN_FRAMES) if (place := self._position(path)) is not None]

    def _position(self, path: Path) -> int | None:
        if path not in self._positions:
            self._positions[path] = self._append(path)
        return self._positions[path]

    def _append(self, path: Path) -> int | None:
        uri = thumbnail(path, self._longest)
        if uri is None:
            self.missing.append(path.relative_to(self._root).as_posix() if path.is_relative_to(self._root) else "…")
            return None
        self.uris.append(uri)
        return len(self.uris) - 1


def spread(media: Sequence[Path], most: int) -> list[Path]:
    """At most `most` of `media`, evenly spaced, both ends included."""
    if len(media) <= most:
        return list(media)
    return [media[round(index * (len(media) - 1) / (most - 1))] for index in range(most)]


def thumbnail(path: Path, longest: int) -> str | None:
    """A data URI; `None` if the file is missing or no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("RGB", (longest, longest))
            small = image.convert("RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((longest, longest))
    written = io.BytesIO()
    small.save(written, "WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode()}"
