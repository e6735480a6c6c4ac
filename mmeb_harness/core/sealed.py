"""Files that are written once: their names hold the hash of their bytes, and what is broken is set aside.

A name is `<beginning>-xxh3-<hash><ending>`. The hash is XXH3 of 128 bits, which finds accidents, not attackers: 8 to 12
GB/s a core here, where zlib's CRC takes 1.4 and SHA-1 0.8, so that reading is what verifying costs.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from mmeb_harness.core.errors import ResultError, one_line, shortened
from mmeb_harness.core.files import regular_file, write_bytes

#: Beside the files of a folder: those of them that were found broken.
SET_ASIDE = "set_aside"
#: Errors that are a file's own: of its disk, or since it isn't one.
_OF_THE_FILE = (None, errno.EIO, errno.EINVAL, errno.EISDIR, errno.ELOOP)
#: A temporary file has such a name (see `core.files`), and so has what tries whether a folder can be written.
_LEFT_OVER = re.compile(r"\..*\.tmp|\.writable")


class BrokenFileError(Exception):
    """A file's contents are damaged: says why, but not which file's. Nothing that a user has to mend."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What reading a file raises, by whose fault it is: a process without memory or descriptors breaks no file.

    Raises:
        FileNotFoundError: it was deleted.
        BrokenFileError: it is damaged.
        ResultError: it can't be read, and may be whole.
    """
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise
    except MemoryError as error:
        if has_seal(path) and not is_as_written(path):  # sizes that nobody wrote
            raise BrokenFileError("sizes beyond all memory") from error
        raise ResultError(f"can't read {path}: no memory is left") from error
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise ResultError(f"can't read {path}: {error.strerror or error}") from error
        raise BrokenFileError(error.strerror or one_line(error)) from error
    except (ValueError, pa.ArrowException) as error:
        raise BrokenFileError(one_line(error)) from error


def write_sealed(folder: Path, beginning: str, ending: str, body: Any) -> Path:
    """Write a buffer of bytes as a file that nobody writes again, whole or not at all.

    Raises:
        ResultError: if it can't be written.
    """
    path = folder / f"{beginning}-xxh3-{xxhash.xxh3_128_hexdigest(body)}{ending}"
    write_bytes(path, body)
    return path


def has_seal(path: Path) -> bool:
    """Whether a file's name holds a hash; earlier releases wrote names without."""
    return _seal_of(path) is not None


def is_as_written(path: Path) -> bool:
    """Whether a file with a seal still has the bytes that its name speaks of; read in pieces.

    Raises:
        OSError: if it can't be read.
    """
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest() == _seal_of(path)


def read_sealed(path: Path) -> bytes:
    """The bytes of a file with a seal, as they were written; what is returned is what was checked.

    Raises:
        FileNotFoundError: it was deleted.
        BrokenFileError: it is damaged.
        ResultError: it can't be read.
    """
    with reading(path):
        body = regular_file(path).read_bytes()
        if xxhash.xxh3_128_hexdigest(body) != _seal_of(path):
            raise BrokenFileError("its bytes are not what was written (checksum)")
        return body


def _seal_of(path: Path) -> str | None:
    named = re.search(r"-xxh3-([0-9a-f]{32})\.\w+$", path.name)
    return named and named[1]


def listed(folder: Path, beginning: str, *endings: str) -> list[Path]:
    """The files of a folder whose names begin and end so, by name; none where there is no folder.

    Raises:
        ResultError: the folder can't be read.
    """
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ResultError(f"can't read the folder {folder}: {error.strerror or error}") from error
    return [folder / name for name in names if name.startswith(beginning) and name.endswith(endings or "")]


def left_over(folder: Path) -> list[Path]:
    """What processes are writing right now, or were when they were killed."""
    return [path for path in listed(folder, ".") if _LEFT_OVER.fullmatch(path.name)]


def set_aside(broken: Mapping[Path, str], consequence: str) -> str:
    """Put broken files of one folder out of the way.

    Args:
        broken: why, by file.
        consequence: what becomes of what they held.

    Returns:
        What to say of it, in one line.
    """
    aside = next(iter(broken)).parent / SET_ASIDE
    where = f"set aside in {aside}"
    for path in broken:
        try:
            aside.mkdir(exist_ok=True)
            os.replace(path, aside / path.name)
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            where = f"left there, unused, since it can't be moved to {aside} ({error.strerror or error})"
    first, *others = broken
    more = f", and {len(others)} more: {shortened([path.name for path in others], 3)}" if others else ""
    return f"{first} is broken ({broken[first]}){more}: {where}; {consequence}"


def files_set_aside(folder: Path) -> list[Path]:
    """What of a folder was found broken."""
    return listed(folder / SET_ASIDE, "")


def size_of(path: Path) -> int:
    """Bytes that a file takes; 0 where it is gone."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def changed_at(path: Path) -> float | None:
    """When a file was last written, seconds since the epoch; `None` where it is gone."""
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None
