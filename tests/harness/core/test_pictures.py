"""Pictures: what models see of each kind, what is counted, and what is said of those that can't be opened."""

from __future__ import annotations

import base64
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageFile, PngImagePlugin

from mmeb_harness import HarnessError, opened_picture
from mmeb_harness.adapter.pictures import data_url, open_picture, picture_size
from mmeb_harness.core import pictures
from mmeb_harness.core.pictures import FORMATS, HEAD, PictureError, Unusual, unusual

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
WIDE = np.linspace(0, 65535, 24 * 32).reshape(24, 32)


def written(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.copy().save(content, kind, **options)  # a picture remembers how it was saved last
    return content.getvalue()


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    picture = open_picture(path)
    assert (picture.mode, picture.info) == ("RGB", {})
    return np.asarray(picture)


def _palette() -> Image.Image:
    return Image.fromarray(NOISE[..., :3]).quantize(16)


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def _after_header(png: bytes, kind: bytes, content: bytes) -> bytes:
    chunk = kind + content
    return png[:33] + struct.pack(">I", len(content)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[33:]


def _with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """As Photoshop writes it, in a segment before the picture's own frame."""
    content = b"Photoshop 3.0\0" + thumbnail
    return jpeg[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content + jpeg[2:]


RGB, GREY = Image.fromarray(NOISE[..., :3]), Image.fromarray(NOISE[..., 0])
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
#: kind → (content, what is counted). All but 16-bit grey look as Pillow's own conversion makes them, as officially.
KINDS: dict[str, tuple[bytes, Unusual]] = {
    "JPEG": (written(RGB, "JPEG"), Unusual(0)),
    "progressive JPEG, grey": (written(GREY, "JPEG", progressive=True), Unusual(0)),
    "JPEG, profile": (written(RGB, "JPEG", icc_profile=SRGB), Unusual(0)),
    "JPEG, orientation": (written(RGB, "JPEG", exif=_exif()), Unusual.TURNED),
    "JPEG, EXIF upright": (written(RGB, "JPEG", exif=Image.Exif()), Unusual(0)),
    "CMYK": (written(RGB.convert("CMYK"), "JPEG", icc_profile=SRGB), Unusual.COLOUR_SPACE),
    "camera's JPEG": (written(RGB, "MPO", save_all=True, append_images=[GREY.convert("RGB")]), Unusual(0)),
    "PNG": (written(RGB, "PNG"), Unusual(0)),
    "PNG, orientation": (written(RGB, "PNG", exif=_exif()), Unusual.TURNED),
    "PNG of one bit": (written(GREY.convert("1"), "PNG"), Unusual(0)),
    "palette": (written(_palette(), "PNG"), Unusual(0)),
    "transparent entry": (written(_palette(), "PNG", transparency=3), Unusual.TRANSPARENT_COLOUR),
    "transparent entries": (written(_palette(), "PNG", transparency=bytes(range(16))), Unusual.TRANSPARENT_COLOUR),
    "transparent colour": (
        written(RGB, "PNG", transparency=tuple(map(int, NOISE[0, 0, :3]))),
        Unusual.TRANSPARENT_COLOUR,
    ),
    "transparent grey": (written(GREY, "PNG", transparency=int(NOISE[0, 0, 0])), Unusual.TRANSPARENT_COLOUR),
    "RGBA": (written(Image.fromarray(NOISE), "PNG"), Unusual.ALPHA),
    "grey with alpha": (written(Image.fromarray(NOISE[..., :2], "LA"), "PNG"), Unusual.ALPHA),
    "RGBA, broken EXIF": (
        _after_header(written(Image.fromarray(NOISE), "PNG"), b"eXIf", b"junk"),
        Unusual.ALPHA,
    ),
    "PNG, orientation in XMP": (
        _after_header(written(RGB, "PNG"), b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        Unusual.TURNED,
    ),
    "CMYK, thumbnail of colours": (
        _with_thumbnail(written(RGB.convert("CMYK"), "JPEG"), written(RGB, "JPEG")),
        Unusual.COLOUR_SPACE,
    ),
    "animated PNG": (written(RGB, "PNG", save_all=True, append_images=[GREY.convert("RGB")]), Unusual.FRAMES),
    "WEBP": (written(RGB, "WEBP"), Unusual(0)),
    "animated WEBP": (written(RGB, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]), Unusual.FRAMES),
    "GIF": (written(_palette(), "GIF"), Unusual(0)),
    "animated GIF": (written(_palette(), "GIF", save_all=True, append_images=[GREY]), Unusual.FRAMES),
    "transparent GIF": (written(_palette(), "GIF", transparency=3), Unusual.TRANSPARENT_COLOUR),
    "BMP": (written(RGB, "BMP"), Unusual(0)),
    "TIFF": (written(RGB, "TIFF"), Unusual(0)),
    "TIFF, compressed": (written(RGB, "TIFF", compression="tiff_lzw"), Unusual(0)),
    "TIFF, orientation": (written(RGB, "TIFF", exif=_exif()), Unusual(0)),  # which Pillow applies by itself
    "TIFF of two pages": (written(RGB, "TIFF", save_all=True, append_images=[GREY]), Unusual.FRAMES),
    "LAB": (written(RGB.convert("LAB"), "TIFF"), Unusual.COLOUR_SPACE),
    "floats": (written(Image.fromarray(WIDE.astype(np.float32)), "TIFF"), Unusual.THIRTY_TWO_BITS),
    "32 bits": (written(Image.fromarray(WIDE.astype(np.int32)), "TIFF"), Unusual.THIRTY_TWO_BITS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_models_see_what_the_official_reader_shows(kind: str, tmp_path: Path) -> None:
    content, counted = KINDS[kind]
    (tmp_path / "a").write_bytes(content)
    with Image.open(tmp_path / "a") as picture:
        officially = picture.convert("RGB")
    assert np.array_equal(pixels(tmp_path / "a"), np.asarray(officially))
    assert picture_size(tmp_path / "a") == officially.size
    assert unusual(tmp_path / "a", content[:HEAD]) == counted


@pytest.mark.parametrize(
    ("kind", "dtype"), [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", ">u2")], ids=["PNG", "TIFF", "big-endian"]
)
def test_grey_of_16_bits_is_scaled(kind: str, dtype: Any, tmp_path: Path) -> None:
    content = written(Image.fromarray(WIDE.astype(dtype)), kind)
    (tmp_path / "a").write_bytes(content)
    assert np.array_equal(pixels(tmp_path / "a")[..., 1], WIDE.astype(np.uint16) >> 8)
    assert unusual(tmp_path / "a", content[:HEAD]) == Unusual.SIXTEEN_BITS


def test_grey_of_12_bits_is_scaled_by_its_own_range(tmp_path: Path) -> None:
    packed = bytes.fromhex("fff800") * 2  # values 4095 and 2048
    tags = [(256, 3, 2), (257, 3, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 2), (279, 4, 6)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 16)
    (tmp_path / "a").write_bytes(
        head + packed + b"\0\0" + struct.pack("<H", len(tags)) + directory + struct.pack("<I", 0)
    )
    assert pixels(tmp_path / "a")[..., 0].tolist() == [[255, 128], [255, 128]]


def test_an_alpha_channel_may_be_laid_over_white_and_a_transparent_colour_never_is(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (10, 20, 30, 0)).save(tmp_path / "alpha.png")
    Image.new("P", (2, 2)).save(tmp_path / "entry.png", transparency=0)
    assert open_picture(tmp_path / "alpha.png", on_white=True).getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(tmp_path / "alpha.png").getpixel((0, 0)) == (10, 20, 30)
    for on_white in (True, False):
        assert open_picture(tmp_path / "entry.png", on_white=on_white).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["transparent entry", "RGBA", "JPEG, orientation", "camera's JPEG", "BMP"])
def test_servers_are_sent_what_our_own_models_see(kind: str, tmp_path: Path) -> None:
    content, _ = KINDS[kind]
    (tmp_path / "a").write_bytes(content)
    head, _, sent = data_url(tmp_path / "a", strictly=True).partition(",")
    (tmp_path / "sent").write_bytes(base64.b64decode(sent))
    assert head == "data:image/png;base64"
    assert np.array_equal(pixels(tmp_path / "sent"), pixels(tmp_path / "a"))
    assert not unusual(tmp_path / "sent", (tmp_path / "sent").read_bytes()[:HEAD])


def _claims(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content + b"\0\0\0\x0aIDAT" + zlib.compress(b"")


def _with_text(size: int) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("notes", "a" * size, zip=True)
    return written(RGB, "PNG", pnginfo=texts)


def _put(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "No such file or directory; get it again"),
    "empty": (_put(b""), "it is empty; get it again"),
    "a web page": (_put(b"<html>not found</html>"), "it is no whole JPEG, PNG, WEBP, GIF, BMP or TIFF picture"),
    "a pointer": (_put(b"version https://git-lfs.github.com/spec/v1\n"), "a pointer of git-lfs"),
    "PostScript": (_put(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "save it in one of these formats"),
    "another format": (_put(written(RGB, "PPM")), "save it in one of these formats"),
    "AVIF": (_put(written(RGB, "AVIF")), "save it in one of these formats"),
    "cut": (_put(written(RGB, "PNG")[:300]), r"damaged, or can't be read \(.*\); get it again, or save it anew"),
    "a bomb": (_put(_claims(60_000, 60_000)), "more than the 500,000,000 pixels that are opened; make it smaller"),
    "a larger bomb": (_put(_claims(2**31 - 1, 2**31 - 1)), "more than the 500,000,000 pixels"),
    "a pipe": (os.mkfifo, "it is a named pipe, not a file; put a file there"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not a file"),
    "a folder": (Path.mkdir, "it is a folder, not a file"),
    "a circle": (lambda path: path.symlink_to(path), "Too many levels of symbolic links; put a file there"),
    "a link to nothing": (lambda path: path.symlink_to("gone"), "No such file or directory"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_is_no_picture_is_named_with_the_way_out(what: str, tmp_path: Path) -> None:
    make, says = UNREADABLE[what]
    make(tmp_path / "a.png")
    with pytest.raises(PictureError, match=rf"^image .*/a\.png can't be opened: .*{says}"):
        open_picture(tmp_path / "a.png")
    with pytest.raises(PictureError):
        data_url(tmp_path / "a.png")


def test_more_text_than_pillow_reads_is_read_within_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(_with_text(2 << 20))
    assert open_picture(tmp_path / "a.png").size == RGB.size
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 20)
    with pytest.raises(PictureError, match=r"its texts take more than .* bytes; save it anew as PNG without them"):
        open_picture(tmp_path / "a.png")


def test_a_cut_picture_is_refused_whatever_other_code_has_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "a.jpg").write_bytes(written(RGB, "JPEG")[:-200])
    with pytest.raises(PictureError, match="damaged"):
        open_picture(tmp_path / "a.jpg")


@pytest.mark.slow
def test_a_genuine_page_above_pillows_own_limit_is_opened(tmp_path: Path) -> None:
    Image.new("1", (14_000, 13_000)).save(tmp_path / "page.png")  # 182 million pixels
    assert picture_size(tmp_path / "page.png") == (14_000, 13_000)
    with opened_picture(tmp_path / "page.png") as page:
        page.load()


WHOLE = {
    "JPEG": KINDS["JPEG, orientation"][0], "PNG": KINDS["transparent entries"][0], "WEBP": KINDS["animated WEBP"][0],
    "GIF": KINDS["animated GIF"][0], "BMP": KINDS["BMP"][0], "TIFF": KINDS["TIFF, compressed"][0],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_a_cut_or_changed_picture_is_a_picture_or_named(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(WHOLE[kind])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path_factory.getbasetemp() / "cut"
    path.write_bytes(content)
    unusual(path, bytes(content[:HEAD]))
    said = str(path)
    try:
        mode = open_picture(path).mode
    except HarnessError as error:
        mode, said = "RGB", str(error)
    assert mode == "RGB"
    assert str(path) in said


def test_formats_are_those_that_can_be_written_here_and_no_others() -> None:
    assert set(WHOLE) == set(FORMATS) == set(pictures.FORMATS)
