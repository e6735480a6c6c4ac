"""Pictures: opened in one place, in the formats that the benchmark has, and turned into the RGB that models see.

What the official reader shows is shown, Pillow's own conversion: a picture as it is stored, whatever its EXIF
orientation says (Pillow itself turns TIFF upright); the first frame or page; the colours under transparent pixels;
CMYK and LAB without the picture's profile; values of 32 bits cut off at 255. One deviation: grey of 16 bits is scaled
to 8, as Pillow scales colours of 16 bits; cut off at 255, nearly all of it is white.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterable, Iterator
from enum import IntFlag
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from mmeb_harness.core.errors import DataError, one_line
from mmeb_harness.core.files import LFS_POINTER, is_data, regular_file
from mmeb_harness.core.sounds import is_sound

if TYPE_CHECKING:
    from PIL import Image

#: Everything else stays closed, and reaches none of Pillow's other readers, of which one starts Ghostscript.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
#: How names of a clip's frames end.
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
#: The same of pictures of all formats that are opened.
PICTURE_SUFFIXES = (*FRAME_SUFFIXES, ".webp", ".gif", ".bmp", ".tif", ".tiff")
#: An A0 page at 500 dpi; decoded it takes 2 GB. A few kB can claim many times as much.
MOST_PIXELS = 500_000_000
#: Texts and profiles in a PNG, unpacked: some programs write more than the MB that Pillow reads.
MOST_TEXT = 64 << 20
#: Enough of a usual picture to tell that it is one.
HEAD = 4096

#: A frame of eight bits in one colour or three.
_JPEG_FRAME = re.compile(rb"[\xc0-\xc2]\x00[\x0b\x11]\x08.{4}[\x01\x03]", re.DOTALL)
_ORIENTATION, _TIFF_BITS = 274, 258
_WRITE_ANEW = "save it anew as PNG"


class Unusual(IntFlag):
    """What is shown otherwise than a person's viewer may show it."""

    SIXTEEN_BITS = 1
    TRANSPARENT_COLOUR = 2
    ALPHA = 4
    THIRTY_TWO_BITS = 8
    FRAMES = 16
    COLOUR_SPACE = 32
    TURNED = 64


#: What a picture counts as in the notes of a result.
NOTES = {
    Unusual.SIXTEEN_BITS: "pictures of 16-bit grey, scaled to 8",
    Unusual.TRANSPARENT_COLOUR: "pictures with a transparent colour, shown opaque",
    Unusual.ALPHA: "pictures with an alpha channel, shown without it",
    Unusual.THIRTY_TWO_BITS: "pictures of 32 bits a value, cut off at 255",
    Unusual.FRAMES: "animations or documents, of which the first frame or page is shown",
    Unusual.COLOUR_SPACE: "CMYK or LAB pictures, converted without their profile",
    Unusual.TURNED: "pictures with an EXIF orientation, shown as stored",
}
#: What releases up to 0.1 showed otherwise.
READ_ANEW = Unusual.SIXTEEN_BITS | Unusual.TRANSPARENT_COLOUR


def frame_names(names: Iterable[str], suffixes: tuple[str, ...] = FRAME_SUFFIXES) -> list[str]:
    """Of the names in a clip's folder those of its frames, in natural order: frame_2 before frame_10, as officially."""
    return sorted((name for name in names if name.lower().endswith(suffixes) and is_data(name)), key=_in_order)


def _in_order(name: str) -> list[tuple[int, int, str]]:
    """Digit runs compare as integers, the rest in lower case."""
    parts = filter(None, re.split(r"(\d+)", name))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


class PictureError(DataError):
    """A picture that can't be opened; `why` says so without its name, with the way out."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"image {name} can't be opened: {why}")
        self.why = why


@contextlib.contextmanager
def opened_picture(source: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """A picture whose header was read; the pixels are when they are asked for.

    Args:
        source: a file, or its content.
        name: for messages; default: the path.

    Raises:
        PictureError: not there, no file, no picture, or too large; and whatever is raised while it is open, since
            Pillow raises nearly anything over broken bytes: only what reads the picture belongs there.
    """
    from PIL import ImageFile

    pillow = _pillow()
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # much published model code sets it: grey would stand for what is missing
    try:
        content = io.BytesIO(source) if isinstance(source, bytes) else regular_file(source).open("rb")
        with content, pillow.open(content, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise pillow.DecompressionBombError
            yield image
    except Exception as error:
        raise PictureError(name or str(source), _why(error, source)) from error


@functools.cache
def _pillow() -> ModuleType:
    """Pillow with limits of ours: it knows them only for the process."""
    from PIL import Image, PngImagePlugin

    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT
    return Image


def _why(error: Exception, source: Path | bytes) -> str:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {MOST_PIXELS:,} pixels that are opened; make it smaller"
    if isinstance(error, MemoryError):
        return f"it takes more memory than there is; make it smaller, or {_WRITE_ANEW}"
    if isinstance(error, UnidentifiedImageError):
        head = source[:HEAD] if isinstance(source, bytes) else _head(source)
        if not head:
            return "it is empty; get it again"
        if head.startswith(LFS_POINTER):
            return "it is a pointer of git-lfs; get the file itself with `git lfs pull`"
        kinds = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        return f"it is no whole {kinds} picture; get it again, or save it in one of these formats"
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}; get it again"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{error.strerror}; put a file there that can be read"
    if "Decompressed data too large" in str(error) or "Too much memory used in text" in str(error):
        return f"its texts take more than {MOST_TEXT:,} bytes; {_WRITE_ANEW} without them"
    return f"its bytes are damaged, or can't be read ({one_line(error, 120)}); get it again, or {_WRITE_ANEW}"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def to_rgb(image: Image.Image, *, on_white: bool = False) -> Image.Image:
    """An opened picture as models see it: RGB, decoded whole, and without anything else that was in the file.

    A transparent colour or an orientation that stayed in `info` would be applied by the processors of transformers.

    Args:
        on_white: an alpha channel is laid over white, as some families do; a transparent colour never is.
    """
    image.load()
    image.info.pop("transparency", None)
    if image.mode.startswith("I;16"):
        rgb = _high_bytes(image).convert("RGB")
    elif on_white and image.mode == "RGBA":
        rgb = _pillow().new("RGB", image.size, (255, 255, 255))
        rgb.paste(image, mask=image.getchannel("A"))
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def _high_bytes(image: Image.Image) -> Image.Image:
    import numpy as np

    tags = getattr(image, "tag_v2", {})
    bits = int(tags.get(_TIFF_BITS, (16,))[0])  # TIFF also knows 12
    grey: Image.Image = _pillow().fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    return grey


def unusual(path: Path, head: bytes) -> Unusual:
    """What is unusual about a picture, from its header; nothing if it can't be opened, which shows elsewhere.

    Args:
        head: its first `HEAD` bytes, which tell of most that they are usual.
    """
    if _is_plain(head) or is_sound(head):
        return Unusual(0)
    try:
        with opened_picture(path) as image:
            return _flags(image)
    except PictureError:
        return Unusual(0)


def _is_plain(head: bytes) -> bool:
    if b"Orientation" in head:  # also XMP says so
        return False
    if head.startswith(b"\xff\xd8\xff"):
        place = 2
        while head[place : place + 1] == b"\xff" and head[place + 1] not in range(0xC0, 0xC3):
            place += 2 + int.from_bytes(head[place + 2 : place + 4])  # a thumbnail in a segment has a frame of its own
        return b"Exif\0" not in head and _JPEG_FRAME.match(head, place + 1) is not None
    if head.startswith(b"\x89PNG") and (pixels := head.find(b"IDAT")) >= 0:
        special = any(head.find(chunk, 0, pixels) >= 0 for chunk in (b"tRNS", b"acTL", b"eXIf"))
        return head[24] <= 8 and head[25] in (0, 2, 3) and not special  # bits, and a colour type without alpha
    return False


def _flags(image: Image.Image) -> Unusual:
    flags = Unusual(0)
    if image.mode.startswith("I;16"):
        flags |= Unusual.SIXTEEN_BITS
    if image.mode in ("I", "F"):
        flags |= Unusual.THIRTY_TWO_BITS
    if image.mode in ("CMYK", "LAB"):
        flags |= Unusual.COLOUR_SPACE
    if image.mode in ("RGBA", "RGBa", "LA", "PA"):
        flags |= Unusual.ALPHA
    if "transparency" in image.info:
        flags |= Unusual.TRANSPARENT_COLOUR
    if image.format != "MPO" and getattr(image, "is_animated", False):  # a camera's picture and its preview
        flags |= Unusual.FRAMES
    if image.format != "TIFF" and image.info.keys() & {"exif", "xmp"} and _orientation(image) not in (0, 1):
        flags |= Unusual.TURNED
    return flags


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises nearly anything over broken EXIF, by which nobody turns a picture
        return 1
