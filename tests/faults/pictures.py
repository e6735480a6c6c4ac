"""Pictures and tables that are no files, no pictures, damaged, enormous, or mean something else than they show."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from tests.faults.fault import Command, Fault, World

TABLE, FOLDER = "annotations/ziyjiang/MMEB_Test_Instruct/DocVQA", "image-tasks/DocVQA"
PICTURE = f"{FOLDER}/query_00001.png"
RUN = (
    "mmeb-eval", "run", "--model", "bag_of_features", "--tasks", "DocVQA", "--data", "data", "--limit", "1",
    "--output", "out",
)  # fmt: skip
CHECK = ("mmeb-eval", "data", "check", "--data", "data", "--tasks", "DocVQA", "--workers", "1")
AGAIN, ANEW, SMALLER = "get it again", "save it anew as PNG", "make it smaller"

#: Puts something where a picture, or another file, was.
Put = Callable[[Path], object]

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
RGB = Image.fromarray(NOISE[..., :3])


def _fault(name: str, put: Put, *says: str, code: int = 2, at: str = PICTURE, command: Command = RUN) -> Fault:
    def make(world: World) -> Sequence[Command]:
        path = world.copied("manifest.json", TABLE, FOLDER) / at
        path.unlink()
        put(path)
        return [command]

    return Fault("pictures", name, make, says if code == 0 else (Path(at).name.replace(".", r"\."), *says), code)


def _bytes(content: bytes) -> Put:
    return lambda path: path.write_bytes(content)


def _link(target: str) -> Put:
    return lambda path: path.symlink_to(target)


def _saved(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    picture.copy().save(content, kind, **options)
    return content.getvalue()


def _png(width: int, height: int) -> bytes:
    """A PNG that claims so many pixels, and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return start + struct.pack(">I", 8) + b"IDAT" + zlib.compress(b"")


def _with_text(size: int) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("notes", "a" * size, zip=True)
    return _saved(RGB, pnginfo=texts)


def _damaged(content: bytes, place: float) -> bytes:
    start = int(len(content) * place)
    return content[:start] + b"\xff" * 40 + content[start + 40 :]


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    return exif


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        here = Path.cwd()
        os.chdir(path.parent)  # an address has 108 bytes at most
        try:
            opened.bind(path.name)
        finally:
            os.chdir(here)


def _outside(path: Path) -> None:
    """As the hub's own cache has it: a link out of the folder, over another one, to a file with another name."""
    kept = path.parents[3] / "blobs" / "0123abcd"
    kept.parent.mkdir()
    kept.write_bytes(_saved(RGB))
    (kept.parent / "link").symlink_to(kept)
    path.symlink_to(os.path.relpath(kept.parent / "link", path.parent))


def _refuses_manifest(name: str, content: bytes, *says: str) -> Fault:
    return _fault(f"manifest: {name}", _bytes(content), "mmeb-eval data get", *says, at="manifest.json")


NO_FILES = (
    _fault("a named pipe", os.mkfifo, "it is a named pipe, not a file"),
    _fault("a socket", _socket, "it is a socket, not a file"),
    _fault("a link to /dev/zero", _link("/dev/zero"), "it is a device, not a file"),
    _fault("a link to /dev/full", _link("/dev/full"), "it is a device, not a file"),
    _fault("a folder", Path.mkdir, "is missing"),
    _fault("a link to itself", _link("query_00001.png"), "Too many levels of symbolic links"),
    _fault("a link to nothing", _link("gone.png"), "No such file"),
    _fault("table: a named pipe", os.mkfifo, "named pipe", at=f"{TABLE}/test.parquet"),
    _fault("table: a link to /dev/zero", _link("/dev/zero"), "device", at=f"{TABLE}/test.parquet"),
    _fault("table: a folder", Path.mkdir, "annotations", at=f"{TABLE}/test.parquet"),
    _fault("table: a link to itself", _link("test.parquet"), "are missing", at=f"{TABLE}/test.parquet"),
    _fault("manifest: a named pipe", os.mkfifo, "named pipe", at="manifest.json"),
    _fault("checked: a named pipe", os.mkfifo, "named pipe", code=1, command=CHECK),
    _fault("checked: a link to /dev/zero", _link("/dev/zero"), "it is a device", code=1, command=CHECK),
    _fault("checked: a bomb", _bytes(_png(60_000, 60_000)), SMALLER, code=1, command=CHECK),
)

NO_PICTURES = (
    _fault("empty", _bytes(b""), "it is empty", AGAIN),
    _fault("a web page", _bytes(b"<!DOCTYPE html><title>404</title>"), "it is no whole JPEG, PNG", AGAIN),
    _fault("a pointer of git-lfs", _bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    _fault("PostScript", _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "save it in one of these"),
    _fault("AVIF", _bytes(_saved(RGB, "AVIF")), "save it in one of these formats"),
    _fault("JPEG 2000", _bytes(_saved(RGB, "JPEG2000")), "save it in one of these formats"),
    _fault("PPM", _bytes(_saved(RGB, "PPM")), "save it in one of these formats"),
    _fault("a header cut short", _bytes(_saved(RGB)[:20]), AGAIN),
    _fault("a JPEG cut short", _bytes(_saved(RGB, "JPEG")[:-300]), "damaged", AGAIN),
    _fault("a WEBP cut short", _bytes(_saved(RGB, "WEBP")[:200]), AGAIN),
    _fault("a PNG with a changed middle", _bytes(_damaged(_saved(RGB), 0.5)), "damaged", ANEW),
    _fault("a TIFF whose directory is cut off", _bytes(_saved(RGB, "TIFF")[:60]), AGAIN),
    _fault("a GIF without pixels", _bytes(_saved(RGB.quantize(8), "GIF")[:60]), AGAIN),
    _fault("a bomb of 3.6 billion pixels", _bytes(_png(60_000, 60_000)), "500,000,000 pixels", SMALLER),
    _fault("a bomb as wide as a PNG may be", _bytes(_png(2**31 - 1, 2**31 - 1)), SMALLER),
    _fault("texts of 70 MB in a PNG", _bytes(_with_text(70 << 20)), "its texts take more than", "without them"),
)

COUNTED = (
    _fault(
        "16-bit grey",
        _bytes(_saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257))),
        "1 pictures of 16-bit grey, scaled to 8",
        code=0,
    ),
    _fault(
        "a transparent palette entry",
        _bytes(_saved(RGB.quantize(8), transparency=0)),
        "1 pictures with a transparent colour, shown opaque",
        code=0,
    ),
    _fault("an alpha channel", _bytes(_saved(Image.fromarray(NOISE))), "1 pictures with an alpha channel", code=0),
    _fault("an orientation", _bytes(_saved(RGB, "JPEG", exif=_turned())), "1 pictures with an EXIF orient", code=0),
    _fault("CMYK", _bytes(_saved(RGB.convert("CMYK"), "JPEG")), "1 CMYK or LAB pictures", code=0),
    _fault(
        "an animation",
        _bytes(_saved(RGB.quantize(8), "GIF", save_all=True, append_images=[RGB.transpose(0).quantize(8)])),
        "1 animations or documents, of which the first",
        code=0,
    ),
    _fault(
        "floats",
        _bytes(_saved(Image.fromarray(NOISE[..., 0].astype(np.float32)), "TIFF")),
        "1 pictures of 32 bits a value, cut off at 255",
        code=0,
    ),
    _fault("texts of 3 MB in a PNG", _bytes(_with_text(3 << 20)), "DocVQA: hit@1", code=0),
    _fault("a link out of the folder", _outside, "DocVQA: hit@1", code=0),
)

MANIFESTS = (
    _refuses_manifest("a list", b"[]"),
    _refuses_manifest("a name that is a number", json.dumps({"schema_version": 1, "name": 5}).encode()),
    _refuses_manifest(
        "counts that are texts",
        json.dumps(
            {"schema_version": 1, "name": "m", "synthetic": True, "revision": "1", "num_queries": {"DocVQA": "many"}}
        ).encode(),
        "many",
    ),
    _refuses_manifest("half a file", b'{"schema_version": 1, "na'),
    _refuses_manifest("brackets in brackets", b"[" * 200_000),
    _refuses_manifest("of a later release", b'{"schema_version": 9}', "upgrade"),
)

FAULTS = (*NO_FILES, *NO_PICTURES, *COUNTED, *MANIFESTS)
