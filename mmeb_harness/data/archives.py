"""Members of the hub's archives, in order: of a tar file in parts, of a zip file, of tar files inside of them.

An archive is read once, from its beginning; no more than a piece of a member is held.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Literal, cast

from mmeb_harness.core.errors import DataError

#: What a broken archive raises while it is read; an OSError only where it has no number, which is the system's.
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
LONGEST_NAME = 1 << 16

_NAME_TYPES = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE
)  # fmt: skip
_ZIP = b"PK"
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: its path inside, as the archive has it: it may leave the folder that it is unpacked in.
        linked: of a link, the path inside that it points to; it may lie outside.
        open: its content; only until the next member is asked for.
    """

    name: str
    size: int
    kind: Literal["file", "folder", "link", "other"]
    open: Callable[[], IO[bytes]]
    linked: str = ""


def members(parts: Sequence[Path], nested: str = "") -> Generator[Member, None, None]:
    """The members of an archive, tar or zip as its first bytes say.

    Args:
        parts: the archive's parts, in order.
        nested: regular expression of base names of members that are tar files: theirs come in their place.

    Raises:
        DataError: a zip file in parts.
        Exception: those in `BROKEN`.
    """
    with parts[0].open("rb") as first:
        is_zip = first.read(len(_ZIP)) == _ZIP
    if is_zip and len(parts) > 1:
        raise DataError(f"{len(parts)} parts of a zip file can't be read in one pass; another revision may be whole")
    for member in _zip_members(parts[0]) if is_zip else _joined_members(parts):
        path = PurePosixPath(member.name)
        if nested and member.kind == "file" and re.fullmatch(nested, path.name):
            with member.open() as inner:
                yield from _tar_members(cast(BinaryIO, inner), path.parent)
        else:
            yield member


def _joined_members(parts: Sequence[Path]) -> Iterator[Member]:
    with contextlib.ExitStack() as stack:
        joined = Joined([stack.enter_context(part.open("rb")) for part in parts])
        yield from _tar_members(cast(BinaryIO, joined), PurePosixPath())


def _tar_members(file: BinaryIO, folder: PurePosixPath) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_TarMember, encoding="utf-8") as archive:
        while (info := archive.next()) is not None:
            # tarfile keeps every member it has seen: a GB of them for a million frames.
            archive.members = []  # type: ignore[attr-defined]
            path = folder / _text(info.name)
            base = path.parent if info.issym() else folder
            linked = os.path.normpath(base / _text(info.linkname)) if info.issym() or info.islnk() else ""
            yield Member(str(path), info.size, _tar_kind(info), partial(_extracted, archive, info), linked)


def _tar_kind(info: tarfile.TarInfo) -> Literal["file", "folder", "link", "other"]:
    if info.issym() or info.islnk():
        return "link"
    return "folder" if info.isdir() else "file" if info.isreg() else "other"


def _extracted(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(info)
    assert content is not None  # a regular file's never is
    return content


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1 or info.compress_type not in _ZIP_METHODS:
                raise zipfile.BadZipFile(f"{info.filename!r} is encrypted, or compressed by an unknown method")
            if stat.S_ISLNK(info.external_attr >> 16):
                target = archive.read(info)[:LONGEST_NAME].decode("utf-8", "replace")
                linked = os.path.normpath(PurePosixPath(info.filename).parent / target)
                yield Member(info.filename, 0, "link", partial(archive.open, info), linked)
            else:
                kind: Literal["file", "folder"] = "folder" if info.is_dir() else "file"
                yield Member(info.filename, info.file_size, kind, partial(archive.open, info))


class _TarMember(tarfile.TarInfo):
    """A member whose header is whole. tarfile takes a broken one for the end, and holds a name however long it is."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _TarMember:
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if bytes(buf).strip(b"\0"):
                raise tarfile.ReadError(f"a member's header is broken: {error}") from error
            raise
        if member.type in _NAME_TYPES and member.size > LONGEST_NAME:
            raise tarfile.ReadError(f"a member's name has {member.size:,} bytes")
        return member


def _text(name: str) -> str:
    """A member's name; of one that isn't UTF-8 each byte is a character, as older programs of the West wrote them."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


class Joined:
    """Several open files, read as one."""

    def __init__(self, parts: Sequence[BinaryIO]) -> None:
        self._rest = list(parts)

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end of the last file."""
        while self._rest:
            if content := self._rest[0].read(size):
                return content
            self._rest.pop(0)
        return b""
