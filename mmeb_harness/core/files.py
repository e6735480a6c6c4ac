"""Files that are either whole or not there: everything the harness writes goes through here."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from mmeb_harness.core.errors import DataError, HarnessError, NotAFileError, ResultError, way_out_of

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import ReadableBuffer as Buffer

#: Larger annotation files are identified by size, head and tail (a parquet footer indexes every column
#: chunk), so that a run over 100 GB does not start by reading 100 GB.
WHOLE_HASH_LIMIT = 64 << 20
_ENDS = 1 << 20
LOCK_POLL_SECONDS = 0.1
#: What operating systems, file servers, editors and downloads leave beside data, in lower case.
_LITTER = (
    *("__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found"),
    *("$recycle.bin", "recycler", "system volume information", "network trash folder", "temporary items"),
    *("#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "~snapshot"),
)
_LITTER_ENDINGS = (
    *("~", ".bak", ".orig", ".swp", ".tmp", ".temp", ":zone.identifier", ":encryptable"),
    *(".part", ".filepart", ".partial", ".crdownload", ".download", ".incomplete", ".aria2"),
)
#: What git leaves in place of a large file where its LFS extension is missing begins so.
LFS_POINTER = b"version https://git-lfs"
#: A full disk, a used-up quota, a limit on the size of files.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Of JSON and YAML: levels of lists and mappings, and digits of a whole number, far above what anybody writes.
_DEEPEST = 100
_LONGEST_NUMBER = 40
_TOO_DEEP = f"nested more than {_DEEPEST} levels deep"
_SURROGATE = re.compile("[\ud800-\udfff]")
_DEVICES = Path("/dev")
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


def cache_folder() -> Path:
    """Where what is made once is kept between runs: $MMEB_CACHE, else a folder in the user's cache."""
    own = os.environ.get("MMEB_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mmeb"


def regular_file(path: Path) -> Path:
    """The path itself, if it is a file or a link to one: a pipe waits when it is opened, and a device never ends.

    Raises:
        OSError: not there, a link in a circle, not to be looked at; a NotAFileError, which says what it is instead.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise NotAFileError(kind, f"it is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file", str(path))
    return path


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what a clone without git-lfs has in a large file's place."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def _replaceable(path: Path) -> None:
    """See that nothing but a file is taken away: the system's own /dev/null, for one, or what /dev/stdout leads to.

    Raises:
        OSError: something else is there.
    """
    if os.path.realpath(path.parent) == str(_DEVICES):  # `resolve` ends in an error of its own at a loop of links
        raise OSError(errno.EINVAL, "it is a device, not a file", str(path))
    with contextlib.suppress(FileNotFoundError):  # also where a link leads nowhere
        regular_file(path)


@contextmanager
def replacing(path: Path, *, durably: bool = True) -> Iterator[Path]:
    """A name beside `path` to write a file under, which then takes its place: whole, or not there.

    Args:
        durably: what was renamed survives a power cut. It waits for the disk: not for each of a million frames.

    Raises:
        OSError: what stands at `path` is no file.
    """
    _replaceable(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        if durably:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.chmod(0o644)  # folders are shared
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it over `path`.

    Raises:
        ResultError: if it can't be written.
    """
    try:
        with replacing(path) as temporary:
            write(temporary)
    except OSError as error:
        # pyarrow words what the system says in a way of its own.
        why = os.strerror(error.errno) if error.errno not in (None, errno.EINVAL) else error.strerror or error
        raise ResultError(f"can't write {path}: {why}; {way_out_of(error) or 'choose another folder'}") from error


def lock_file(path: Path, while_held: Callable[[], None] = lambda: None, *, shared: bool = False) -> BinaryIO:
    """Take a lock file, waiting for the process that has it. Closed, or with the end of this process, it is free.

    Args:
        while_held: called again and again while another process has it; what it raises ends the waiting (`dont_wait`).
        shared: beside others who share it, against those who don't.

    Raises:
        OSError: neither read nor written there, or a file system without locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        file = _open_lock(path)
        try:
            while not _is_taken(file, kind):
                while_held()
                time.sleep(LOCK_POLL_SECONDS)
            if _lies_at(path, file):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was deleted meanwhile, and holds nobody off


def dont_wait() -> NoReturn:
    """Give up where another process has the lock: what `lock_file` calls raises BlockingIOError."""
    raise BlockingIOError("another process has it")


def _open_lock(path: Path) -> BinaryIO:
    if path.exists():
        regular_file(path)
    elif path.is_symlink():
        raise NotAFileError(errno.ENOENT, "it is a link to nowhere, not a file", str(path))
    try:
        return path.open("ab+")  # a shared lock of a network file system wants to read
    except OSError:
        if not path.is_file():
            raise
        return path.open("rb")  # of a folder that may only be read


def _lies_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _is_taken(file: BinaryIO, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_folder(folder: Path) -> None:
    """A folder, and those above it, where there is none yet.

    Raises:
        OSError: it can't be made; `PermissionError` also where the file system takes none, as /proc, which says ENOENT.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise PermissionError(errno.EPERM, "no folder can be made there", str(folder)) from error


def check_writable(folder: Path) -> None:
    """Find out before hours of work whether `folder` can be written.

    Raises:
        ResultError: it can't.
    """
    write_json(folder / ".writable", {})
    (folder / ".writable").unlink(missing_ok=True)  # another process may have looked at the same time


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused, since it is not JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file, as UTF-8."""
    write_bytes(path, text.encode(errors="backslashreplace"))  # names of files needn't be UTF-8


def write_bytes(path: Path, content: Buffer) -> None:
    """Write a file of these bytes."""
    write_atomically(path, lambda temporary: _write_bytes(temporary, content))


def read_json(path: Path, kind: type[HarnessError] = ResultError, way_out: str = "delete it and run again") -> Any:
    """Read what a JSON file holds.

    Raises:
        HarnessError: of the class `kind`, if it can't be read or is not JSON.
    """
    try:
        return parse_json(regular_file(path).read_bytes())
    except FileNotFoundError as error:
        raise kind(f"can't read {path}: {error.strerror}") from error
    except OSError as error:
        raise kind(f"can't read {path}: {error.strerror or error}; {way_out}") from error
    except ValueError as error:
        raise kind(f"{path} is not valid JSON ({error}); {way_out}") from error


def parse_json(text: str | bytes, *, halves: bool = False) -> Any:
    """What JSON text holds, whoever wrote it; as bytes it is UTF-8.

    Args:
        halves: let half characters be, which some servers send.

    Raises:
        ValueError: not JSON, a key twice, or values that `check_plain` refuses.
    """
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        values = json.loads(decoded, parse_int=_whole_number, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    check_plain(values, halves=halves)
    return values


def check_plain(values: object, *, halves: bool = False) -> None:
    """Refuse what no file of ours holds, and what would end far from here: in a full stack, or where text is written.

    Raises:
        ValueError: lists or mappings nested too deep, or text with half a character (a lone surrogate).
    """
    level = [values]
    for _ in range(_DEEPEST):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend((*value.keys(), *value.values()))
            elif isinstance(value, (list, tuple)):
                inner.extend(item for item in value if isinstance(item, (dict, list, tuple, str)))
            elif isinstance(value, str) and not (halves or value.isascii()) and (half := _SURROGATE.search(value)):
                raise ValueError(f"text with half a character, U+{ord(half[0]):04X}")
        if not inner:
            return
        level = inner
    raise ValueError(_TOO_DEEP)


def is_plain(values: object) -> bool:
    """Whether files of ours can hold it, as far as `check_plain` looks."""
    try:
        check_plain(values)
    except ValueError:
        return False
    return True


def _whole_number(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(text):,} digits")
    return int(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON itself would keep the last of two equal keys, and say nothing."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return values


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as zstd-compressed parquet."""
    import pyarrow.parquet as pq

    write_atomically(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def read_parquet(path: Path, columns: list[str] | None = None, checksum: str = "") -> pa.Table:
    """Read a table that the harness wrote.

    Args:
        checksum: what `file_checksum` gave when it was written; "": not known.

    Raises:
        ResultError: if it can't be read, or is not as it was written.
    """
    import pyarrow as pa

    with _readable(path):
        if not checksum:
            return parquet_table(regular_file(path), columns)
        content = regular_file(path).read_bytes()  # what is parsed is what was checked
        if hashlib.sha256(content).hexdigest() != checksum:
            raise ResultError(f"{path} is not as it was written (its checksum differs); delete it and run again")
        return parquet_table(pa.BufferReader(content), columns)


def parquet_table(source: Path | pa.NativeFile, columns: list[str] | None = None) -> pa.Table:
    """What one file holds. `pq.read_table` is for many, and imports pandas for that: 0.3 s of a short command.

    Raises:
        OSError, pa.ArrowException: it can't be read, or doesn't have each of the columns once.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(source) as file:
        stored = file.schema_arrow.names
        if odd := [name for name in columns or () if stored.count(name) != 1]:  # pyarrow would leave it out
            raise pa.ArrowInvalid(f"{'twice the' if odd[0] in stored else 'no'} column {odd[0]!r}")
        return file.read(columns)


def file_checksum(path: Path) -> str:
    """SHA-256 of a whole file.

    Raises:
        OSError: it can't be read.
    """
    with regular_file(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parquet_columns(path: Path) -> list[str]:
    """Names of a table's columns, without reading them.

    Raises:
        ResultError: if it can't be read.
    """
    import pyarrow.parquet as pq

    with _readable(path):
        names: list[str] = pq.read_schema(regular_file(path)).names
        return names


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError as error:
        raise ResultError(f"{path} is missing; run again") from error
    except (OSError, pa.ArrowException) as error:
        raise ResultError(f"can't read {path}: {error}; delete it and run again") from error


def name_of(path: Path) -> str:
    """A file's name as text, whatever the locale: what isn't UTF-8 in it is replaced."""
    return os.fsencode(path.name).decode(errors="replace")


def readable_size(size: float) -> str:
    """1.2 GB, or in smaller units."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-able parts: equal parts, equal fingerprint, on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:24]


def is_data(name: str) -> bool:
    """Whether a file or folder that a listing finds can be data: the one rule of what never is.

    Never: names that start with a full stop (`._x.jpg`, `.ipynb_checkpoints`, `.DS_Store`), what systems leave behind
    (`__MACOSX`, `Thumbs.db`, `x.jpg:Zone.Identifier`), editors' backups (`x~`, `#x#`) and unfinished downloads
    (`x.part`). What annotations or users name in full is taken at their word.
    """
    name = name.lower()
    is_backup = name.startswith("~$") or (name.startswith("#") and name.endswith("#"))
    return not (name.startswith(".") or is_backup or name in _LITTER or name.endswith(_LITTER_ENDINGS))


def matching(folder: Path, pattern: str = "*") -> list[Path]:
    """What a glob pattern finds below a folder and `is_data`, sorted. Parts that it names in full count as data."""
    named = set(Path(pattern).parts)
    paths = sorted(folder.glob(pattern))
    return [path for path in paths if all(part in named or is_data(part) for part in path.relative_to(folder).parts)]


def hash_files(root: Path, patterns: Iterable[str], listed: Iterable[str] = (), *, whole: bool = False) -> str:
    """Hash of what matches the glob patterns below `root` and `is_data`: relative names, sizes and bytes of files.

    Args:
        listed: folders below `root`, of which the names are hashed that are in them; one that is missing is left to who
            reads it.
        whole: all bytes of large files, too; else of those both ends.

    Raises:
        DataError: one of them can't be read.
    """
    digest = hashlib.sha256()
    paths = {path for pattern in patterns for path in matching(root, pattern)}
    for path in sorted(paths):
        if path.is_dir():
            digest.update(f"{path.relative_to(root).as_posix()}/\0".encode())
            continue
        try:
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(_hash_content(path, path.stat().st_size if whole else WHOLE_HASH_LIMIT))
        except OSError as error:
            raise DataError(f"can't read {path}: {error.strerror or error}; mend it, or get it again") from error
    for folder in filter(lambda folder: (root / folder).exists(), listed):
        names = "\0".join(sorted(filter(is_data, os.listdir(root / folder))))
        digest.update(f"{folder}/\0{names}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()[:24]


def _write_bytes(path: Path, content: Buffer) -> None:
    path.write_bytes(content)


def _hash_content(path: Path, whole_limit: int) -> bytes:
    with regular_file(path).open("rb") as file:
        if path.stat().st_size <= whole_limit:
            return hashlib.file_digest(file, "sha256").digest()
        head = file.read(_ENDS)
        file.seek(-_ENDS, os.SEEK_END)
        return hashlib.sha256(head + file.read(_ENDS)).digest()
