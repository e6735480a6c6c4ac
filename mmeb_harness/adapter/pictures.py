"""Pictures of items, opened so that a broken one is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.core.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture whose header was read; the pixels are when they are asked for.

    Raises:
        DataError: not there, or no picture; also while it is read.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image {path} can't be opened: {error}; get it again") from error


def open_picture(path: Path, mode: str | None = "RGB") -> Image.Image:
    """Decode a picture whole, so that a truncated one shows here, with its path.

    Args:
        mode: that it is converted to; `None`: none, it stays as it is stored.

    Raises:
        DataError: not there, or no picture.
    """
    with opened(path) as image:
        image.load()
        return image.convert(mode) if mode else image.copy()


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Raises:
        DataError: as `open_picture`.
    """
    with opened(path) as image:
        return image.size
