"""Pictures of items, as every adapter sees them; see `mmeb_harness.core.pictures` for what that is."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.core.pictures import HEAD, READ_ANEW, opened_picture, to_rgb, unusual

if TYPE_CHECKING:
    from PIL import Image

#: Formats that servers know.
_MIMES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "GIF": "image/gif"}


def open_picture(path: Path, *, on_white: bool = False) -> Image.Image:
    """Decode a picture whole, to RGB, so that a truncated one shows here, with its path.

    Args:
        on_white: an alpha channel is laid over white; otherwise the colours under it are shown.

    Raises:
        DataError: not there, or no picture.
    """
    with opened_picture(path) as image:
        return to_rgb(image, on_white=on_white)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Raises:
        DataError: as `open_picture`.
    """
    with opened_picture(path) as image:
        return image.size


def data_url(path: Path, *, strictly: bool = False, size: tuple[int, int] | None = None) -> str:
    """A picture in base64: as it is, under its true type, or as RGB in a PNG, if servers don't know the format or
    would see it otherwise than `open_picture`.

    Args:
        strictly: so is whatever is unusual, such as an alpha channel, or an orientation that a server may apply.
        size: width and height to which it is resized (bicubic, by Pillow), if it hasn't them.

    Raises:
        DataError: not there, or no picture.
    """
    from PIL.Image import Resampling

    with opened_picture(path) as image:
        image.load()
        content, mime = path.read_bytes(), _MIMES.get(str(image.format))
        flags = unusual(path, content[:HEAD])
        size = size or image.size
        if mime is None or flags & READ_ANEW or (strictly and flags) or size != image.size:
            rgb, buffer = to_rgb(image), BytesIO()
            (rgb if size == rgb.size else rgb.resize(size, Resampling.BICUBIC)).save(buffer, "PNG")
            mime, content = "image/png", buffer.getvalue()
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
