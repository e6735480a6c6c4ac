"""Pictures of items, opened so that a broken one is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.core.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


def open_picture(path: Path, mode: str | None = "RGB") -> Image.Image:
    """Decode a picture whole, so that a truncated one shows here, with its path.

    Args:
        mode: that it is converted to; `None`: none, it stays as it is stored.

    Raises:
        DataError: not there, or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.convert(mode) if mode else image.copy()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone.

    Raises:
        DataError: as `open_picture`.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> DataError:
    """What to say of a picture that can't be opened."""
    return DataError(f"image {path} can't be opened: {error}; get it again")
