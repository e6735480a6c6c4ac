"""What a media file is: the hash of its bytes, wherever it lies and whatever it is called.

A file is read once: its hash, and what is unusual about the picture, are remembered with its path below the data
folder, size, and times of change, so that a second run only looks at those. The files that remember are append-only
and never written by two processes; broken ones are set aside, and what they remembered is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmeb_harness.core.errors import DataError, ResultError
from mmeb_harness.core.files import parquet_table, regular_file
from mmeb_harness.core.pictures import HEAD, NOTES, READ_ANEW, Unusual, unusual
from mmeb_harness.core.sealed import (
    BrokenFileError,
    has_seal,
    is_as_written,
    listed,
    reading,
    set_aside,
    write_sealed,
)
from mmeb_harness.store.chunk_files import share, sweep

if TYPE_CHECKING:
    import pyarrow as pa

#: Beside the folders of vectors.
MEDIA_FOLDER = ".media"
#: A file that changed so shortly before it was read may change again within the same tick of the file system's clock:
#: of one that knows whole seconds only, and of others.
_COARSE_TICK, _FINE_TICK, _SECOND = 2_000_000_000, 50_000_000, 1_000_000_000
#: A killed run hashes again what it hashed since the last time it wrote.
SAVE_SECONDS = 10.0
#: Files that a thread looks at in one go: a look takes a microsecond, and handing over an order twenty.
_FILES_A_GO = 64

_DIGEST_BYTES = 32

#: Hash of a file's path, size and times → hash of its bytes, then a byte that says what is unusual about the picture,
#: which stores up to release 0.1 lack. All as bytes: half a million take 100 MB.
_Remembered: TypeAlias = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Hashed:
    path: Path
    identity: bytes
    content: bytes
    is_new: bool
    stays: bool  # old enough for its times to tell the next change


class MediaHashes:
    """Hashes of media files by their bytes, remembered in `folder`.

    Where that can't be written nothing is remembered, and `problem` says why.

    Args:
        root: the data folder; a file below it is remembered by its path from there, so that the folder may move.
        note: told of what is broken.
        check: told of each file that is read, and of its SHA-256; raises a DataError where that is another than known.
        read: told how many files more were read: of 100 GB that takes minutes.
    """

    def __init__(
        self,
        folder: Path,
        root: Path,
        note: Callable[[str], None] = lambda _: None,
        check: Callable[[Path, str], None] = lambda path, checksum: None,
        read: Callable[[int], None] = lambda files: None,
    ) -> None:
        self._folder, self._root, self._check, self._read = folder, root, check, read
        sweep(folder)
        self._known, broken = read_media_files(folder)
        if broken:
            note(set_aside(broken, "what it remembered is hashed again"))
        self._unusual: dict[Path, Unusual] = {}
        self._unsaved: _Remembered = {}
        self._changes = threading.Lock()  # of what is remembered: a run that ends early saves while a thread hashes on
        self._saved = time.monotonic()
        self.problem: ResultError | None = None

    def of(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Path → SHA-256 of the file's bytes, in hexadecimal, marked where a picture was once shown otherwise.

        Vectors of what release 0.1 showed otherwise are thus no vectors of the same picture, and are made again.
        SHA-256 is what processors have instructions for: 1.1 GB/s a core, where BLAKE2b takes 0.8.

        Raises:
            DataError: a file is missing or can't be read.
        """
        distinct = list(dict.fromkeys(paths))
        goes = [distinct[start : start + _FILES_A_GO] for start in range(0, len(distinct), _FILES_A_GO)]
        hashes: dict[Path, str] = {}
        with ThreadPoolExecutor(thread_name_prefix="hash") as pool:
            try:
                for hashed in pool.map(self._hash_all, goes):
                    self._remember(hashed)
                    self._read(sum(file.is_new for file in hashed))
                    hashes |= {file.path: self._key_of(file) for file in hashed}
                    if time.monotonic() - self._saved > SAVE_SECONDS:
                        self.save()
            finally:
                pool.shutdown(cancel_futures=True)
        return hashes

    def notes(self, paths: Iterable[Path]) -> dict[str, int]:
        """What is unusual about some of the pictures, and of how many; each file counts once.

        Args:
            paths: whose hashes were asked for before.
        """
        flags = [self._unusual[path] for path in set(paths) & self._unusual.keys()] if self._unusual else []
        counts = {what: sum(kind in each for each in flags) for kind, what in NOTES.items()}
        return {what: count for what, count in counts.items() if count}

    def _key_of(self, file: _Hashed) -> str:
        digest, flags = file.content[:_DIGEST_BYTES].hex(), Unusual(file.content[_DIGEST_BYTES])
        if flags:
            self._unusual[file.path] = flags
        return f"{digest}+{flags & READ_ANEW:d}" if flags & READ_ANEW else digest

    def _hash_all(self, paths: Sequence[Path]) -> list[_Hashed]:
        return [self._hash(path) for path in paths]

    def _hash(self, path: Path) -> _Hashed:
        try:
            identity, _ = self._identity(path)
            content = self._known.get(identity, b"")
            if len(content) > _DIGEST_BYTES:
                return _Hashed(path, identity, content, is_new=False, stays=True)
            with regular_file(path).open("rb") as file:
                head = file.read(HEAD)
                file.seek(0)
                content = content or hashlib.file_digest(file, "sha256").digest()
            self._check(path, content.hex())
            content += bytes([unusual(path, head)])
            after, changed = self._identity(path)
        except OSError as error:
            raise DataError(f"item's media file {path} can't be read: {error.strerror or error}") from error
        return _Hashed(path, identity, content, is_new=True, stays=after == identity and is_settled(changed))

    def _identity(self, path: Path) -> tuple[bytes, int]:
        """What tells a file's next change, and when its inode last changed, which nobody but the system's clock sets;
        in nanoseconds.

        That time is among what tells it: unpacked archives give two revisions of a file one path, one time of
        modification and, with bad luck, one size.
        """
        stat = path.stat()
        relative = path.relative_to(self._root) if path.is_relative_to(self._root) else path
        named = f"{relative.as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}"
        return hashlib.blake2b(os.fsencode(named), digest_size=16).digest(), stat.st_ctime_ns

    def _remember(self, hashed: Sequence[_Hashed]) -> None:
        new = {file.identity: file.content for file in hashed if file.is_new and file.stays}
        with self._changes:
            self._known |= new
            self._unsaved |= new

    def save(self) -> None:
        """Write what is new. `of` does so itself now and then, but not after every handful of files."""
        self._saved = time.monotonic()
        with self._changes:
            unsaved, self._unsaved = self._unsaved, {}
        if not unsaved or self.problem is not None:
            return
        try:
            write_media_file(self._folder, unsaved)
        except ResultError as error:  # costs time, not correctness: a read-only store may be complete
            self.problem = error


def is_settled(changed: int) -> bool:
    """Whether the next change of a file will have another time than this one, in nanoseconds.

    A time in the future counts as well: the next change will have another one.
    """
    tick = _FINE_TICK if changed % _SECOND else _COARSE_TICK
    return abs(time.time_ns() - changed) > tick


def media_files(folder: Path) -> list[Path]:
    """The files of remembered hashes, oldest first."""
    return listed(folder, "media-", ".parquet")


def write_media_file(folder: Path, hashes: Mapping[bytes, bytes]) -> None:
    """Remember `hashes` in a file that nobody else writes.

    Raises:
        ResultError: if it can't be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "identity": pa.array(list(hashes), pa.binary()),
        "sha256": pa.array([content[:_DIGEST_BYTES] for content in hashes.values()], pa.binary()),
        "unusual": pa.array([content[_DIGEST_BYTES:] for content in hashes.values()], pa.binary()),
    }
    memory = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), memory, compression="zstd")
    held = share(folder)  # against `sweep`
    with held or contextlib.nullcontext():
        write_sealed(folder, f"media-{time.time_ns():020d}", ".parquet", memory.getvalue())


def read_media_files(folder: Path) -> tuple[dict[bytes, bytes], dict[Path, str]]:
    """All hashes that a folder remembers; and its broken files, with what is wrong."""
    known: _Remembered = {}
    broken: dict[Path, str] = {}
    for path in media_files(folder):
        try:
            known |= read_media_file(path)
        except BrokenFileError as error:
            broken[path] = str(error)
        except FileNotFoundError:  # pruned since it was listed; what it held is hashed again
            continue
    return known, broken


def read_media_file(path: Path) -> dict[bytes, bytes]:
    """The hashes of one file, each followed by what is unusual, of files that hold it.

    Raises:
        FileNotFoundError: it was deleted.
        BrokenFileError: it is damaged.
        ResultError: it can't be read.
    """
    import pyarrow as pa

    with reading(path):
        if has_seal(path) and not is_as_written(path):
            raise BrokenFileError("its bytes are not what was written (checksum)")
        table = parquet_table(regular_file(path))
        if table.schema.names[:2] != ["identity", "sha256"] or set(table.schema.types) != {pa.binary()}:
            raise BrokenFileError("a table of something else")
        contents = _contents(table)
        lengths = set(map(len, contents))
        if any(column.null_count for column in table.columns) or lengths - {_DIGEST_BYTES, _DIGEST_BYTES + 1}:
            raise BrokenFileError("hashes of another length")
        return dict(zip(table.column("identity").to_pylist(), contents, strict=True))


def _contents(table: pa.Table) -> list[bytes]:
    digests: list[bytes] = table.column("sha256").to_pylist()
    if "unusual" not in table.column_names:
        return digests
    return [digest + flags for digest, flags in zip(digests, table.column("unusual").to_pylist(), strict=True)]
