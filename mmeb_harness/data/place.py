"""Fetched files to where readers look for them. Nothing is ever written outside of the data folder.

Every file appears whole, under its name, or not at all; one that is there with the same content is left alone, so
that an interrupted step goes on fast and the vectors of unchanged media stay valid.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from mmeb_harness.core.columns import Column
from mmeb_harness.core.errors import DataError, one_line
from mmeb_harness.core.files import is_data, make_folder, matching, readable_size, replacing
from mmeb_harness.core.tasks import Files, Pages, Table
from mmeb_harness.data.archives import BROKEN, Member, members
from mmeb_harness.data.records import RecordWriter

if TYPE_CHECKING:
    import pyarrow as pa

#: Pages by content, below the data folder. A task's page is a second name (hard link) of one of these.
PAGE_POOL = "visdoc-tasks/.pages"
#: Parquet rows that carry images, held in memory at once.
_PAGES_AT_ONCE = 32
_ROWS_AT_ONCE = 4096

#: How the folders begin in which tables are converted.
CONVERTING = "mmeb-convert-"
#: Bytes of a member that are held at once.
PIECE = 16 << 20
#: An archive of pictures unpacks to about its own size. A few MB can be made to unpack to as many GB.
MOST_EXPANSION, LEAST_MOST = 20, 1 << 30

#: Files that are named of an archive whose layout is not a known one.
_FIRST = 3

Place = Callable[[str], str | None]


def place_table(parts: Sequence[tuple[str, Path]], table: Table, root: Path, record: RecordWriter) -> None:
    """Annotations as parquet: as published, or converted by `datasets` where they are published as something else.

    Args:
        parts: (name on the hub, fetched file) of the table's files, in order.

    Raises:
        DataError: a file is no parquet, or of a kind that can't be converted.
    """
    folder = root / table.folder
    names = shard_names(table.split, len(parts))
    for name, (hub_name, path) in zip(names, parts, strict=True):
        with _as_parquet(hub_name, path) as parquet:
            for _ in _batches(hub_name, parquet, _ROWS_AT_ONCE):
                pass  # it can be read, all of it
            _put_file(folder / name, parquet)
        record.add_file(folder / name)
    remove_other_shards(root, table, names)


def shard_names(split: str, number: int) -> list[str]:
    """File names of a table in so many parts."""
    if number == 1:
        return [f"{split}.parquet"]
    return [f"{split}-{index:05d}-of-{number:05d}.parquet" for index in range(number)]


def remove_other_shards(root: Path, table: Table, keep: Sequence[str]) -> None:
    """Another revision may have had other shards; read beside the new ones, their rows would be doubled."""
    for pattern in table.patterns:
        for path in matching(root, pattern):
            if path.name not in keep:
                path.unlink()


@contextlib.contextmanager
def _as_parquet(hub_name: str, path: Path) -> Iterator[Path]:
    suffix = PurePosixPath(hub_name.removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        yield path
        return
    kinds = {".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".arrow": "arrow"}
    if suffix not in kinds:
        raise DataError(f"{hub_name}: annotations of kind {suffix or 'unknown'} can't be read; expected parquet")
    import datasets
    from datasets.exceptions import DatasetsError

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(prefix=CONVERTING, dir=path.parent) as folder:
        named = Path(folder) / PurePosixPath(hub_name).name  # compression is told by the name
        named.symlink_to(path.resolve())
        try:
            rows = datasets.load_dataset(kinds[suffix], data_files=str(named), split="train", cache_dir=folder)
        except (DatasetsError, ValueError, OSError) as error:
            reason = one_line(error.__cause__ or error)
            raise DataError(f"{hub_name} can't be read as {kinds[suffix]}: {reason}") from error
        converted = Path(folder) / "converted.parquet"
        rows.to_parquet(converted)
        yield converted


def _batches(name: str, path: Path, size: int) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=size)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{name} is no readable parquet ({error}), although its checksum is the hub's: this revision is damaged; "
            "another one may not be (--update)"
        ) from error


def place_pages(parts: Sequence[tuple[str, Path]], pages: Pages, root: Path, record: RecordWriter) -> int:
    """A corpus's images as files, and its table without them: each page is stored once.

    Equal pages, of one corpus or of two tasks' corpora, are names of one file.

    Returns:
        How many pages had to be stored again, because the file system knows no hard links.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, copies = pages.table, 0
    seen: set[str] = set()
    slim = root / table.folder / f"{table.split}.parquet"
    writer: Any = None
    try:
        with replacing(slim) as temporary:
            for hub_name, path in parts:
                name, first = f"{table.repo}: {hub_name}", 0
                for batch in _batches(name, path, _PAGES_AT_ONCE):
                    if missing := {pages.id_column, pages.image_column} - set(batch.schema.names):
                        raise DataError(f"{name} lacks the column {min(missing)!r}")
                    copies += _place_batch(batch, name, first, pages, root, record, seen)
                    first += batch.num_rows
                    rest = batch.drop_columns([pages.image_column])
                    writer = writer or pq.ParquetWriter(temporary, rest.schema, compression="zstd")
                    writer.write_batch(rest)
            if writer is None:
                raise DataError(f"{table.repo}: {table.config} has no rows")
            writer.close()
    except (pa.ArrowException, ValueError) as error:  # e.g. ids that are integers in one file and text in another
        raise DataError(f"{table.repo}: the files of {table.config} don't fit together: {error}") from error
    remove_other_shards(root, table, [slim.name])
    record.add_file(slim)
    return copies


def _place_batch(
    batch: pa.RecordBatch, name: str, first: int, pages: Pages, root: Path, record: RecordWriter, seen: set[str]
) -> int:
    """Place a batch of pages; of an id that occurs twice, here or in `seen`, the first counts, as for readers.

    Args:
        name, first: the file's, and the number of the batch's first row in it.
    """
    copies = 0
    ids = Column.key(pages.id_column).cells(batch.column(pages.id_column), name, first)
    images = Column.picture(pages.image_column).cells(batch.column(pages.image_column), name, first)
    for row_id, stored in zip(ids, images, strict=True):
        if row_id in seen:
            continue
        seen.add(row_id)
        if not stored:
            raise DataError(f"{pages.table.repo}: page {row_id!r} has no image")
        content = pages.content_of(row_id, stored)
        relative = pages.file_of(row_id)
        copies += not put_shared(inside(root, relative), content, root / PAGE_POOL)
        record.add(relative, content)
    return copies


def put_shared(target: Path, content: bytes, pool: Path) -> bool:
    """Make `target` a name of the one file with this content. False: the file system can't, so it is a copy."""
    digest = hashlib.sha256(content).hexdigest()
    pooled = pool / digest[:2] / digest
    if pooled.is_file():
        put(pooled, content)  # nothing to do, unless it was damaged
    else:
        put(target, content)
        make_folder(pooled.parent)
        try:
            os.link(target, pooled)
            return True
        except FileExistsError:  # another corpus has the page, and was faster
            pass
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.ENOSYS, errno.EMLINK):
                return False
            raise
    if target.is_file() and target.samefile(pooled):
        return True
    try:
        with replacing(target, durably=False) as name:
            os.link(pooled, name)
    except OSError:  # too many names of one file: a copy serves as well, and is counted
        put(target, content)
        return False
    return True


def place_files(parts: Sequence[tuple[str, Path]], files: Files, root: Path, record: RecordWriter) -> None:
    """Files as they are on the hub; those of another revision go: readers find shards by listing.

    Args:
        parts: (path on the hub, fetched file) of each.
    """
    placed = {inside(root, f"{files.into}/{name.removeprefix(f'{files.folder}/')}"): path for name, path in parts}
    for target, path in placed.items():
        _put_file(target, path)
        record.add_file(target)
    for path in (root / files.into).rglob("*"):
        is_theirs = re.fullmatch(files.files, path.relative_to(root / files.into).as_posix())
        if is_theirs and path.is_file() and path not in placed:
            path.unlink()


def unpack(
    parts: Sequence[Path],
    name: str,
    root: Path,
    into: Sequence[tuple[Place, RecordWriter]],
    on_member: Callable[[], None] = lambda: None,
    nested: str = "",
) -> tuple[str, ...]:
    """Place the members of an archive, in one pass, holding no more than a piece of one.

    Args:
        parts: the archive's parts, in order.
        into: for each step where a member belongs below the data folder, or `None`; and the step's record.
        on_member: called before each member; what it raises stops the unpacking.
        nested: regular expression of base names of members that are tar files, to be unpacked in their place.

    Returns:
        The first few files in it.

    Raises:
        DataError: damaged, cut short, of far more than its size, or with a member that leaves the folder (absolute,
            `..`, or a link that does).
    """
    most = max(sum(part.stat().st_size for part in parts) * MOST_EXPANSION, LEAST_MOST)
    unpacked, first = 0, list[str]()
    try:
        with contextlib.closing(members(parts, nested)) as packed:
            for member in packed:
                unpacked += member.size
                if member.kind == "file" and len(first) < _FIRST:
                    first.append(member.name)
                if unpacked > most:
                    raise DataError(
                        f"archive {name}: with {member.name!r} it unpacks to more than {readable_size(most)}; this "
                        "isn't the published archive, and no more of it is used"
                    )
                on_member()
                _place_member(member, name, root, into)
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"archive {name} is damaged or cut short ({error})") from error
    return tuple(first)


def _place_member(member: Member, name: str, root: Path, into: Sequence[tuple[Place, RecordWriter]]) -> None:
    path = _safe(name, member.name)
    if member.kind == "folder" or not all(map(is_data, PurePosixPath(path).parts)):
        return
    if member.kind == "other":
        raise DataError(f"archive {name}: {member.name!r} is neither a file nor a folder")
    wanted = [(target, record) for place, record in into if (target := place(path)) is not None]
    if not wanted:
        return
    if member.kind == "link":
        linked = _linked(member, name, [place for place, _ in into], root)
        source: IO[bytes] = linked.open("rb")
        size = linked.stat().st_size
    else:
        source, size = member.open(), member.size
    with source:
        digest = _put_all(source, size, [inside(root, target) for target in {target for target, _ in wanted}])
    for target, record in wanted:
        record.add_hashed(target, size, digest)


def _put_all(source: IO[bytes], size: int, targets: Sequence[Path]) -> bytes:
    """Write a file to all its places, since tasks share images, a large one piece by piece; its sha256."""
    if size <= PIECE:
        content = source.read()
        for target in targets:
            put(target, content)
        return hashlib.sha256(content).digest()
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        names = [stack.enter_context(replacing(target, durably=False)) for target in targets]
        if size * len(names) > shutil.disk_usage(names[0].parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(targets[0]))
        files = [stack.enter_context(name.open("wb")) for name in names]
        while piece := source.read(PIECE):
            digest.update(piece)
            for file in files:
                file.write(piece)
    return digest.digest()


def _safe(name: str, member: str) -> str:
    if _leaves(member):
        raise DataError(
            f"archive {name}: member {member!r} leaves the folder; this isn't the published archive, and no more of it "
            "is used"
        )
    return PurePosixPath(member).as_posix()


def _leaves(relative: str) -> bool:
    path = PurePosixPath(relative)
    return path.is_absolute() or ".." in path.parts or "\0" in relative


def _linked(member: Member, name: str, places: Sequence[Place], root: Path) -> Path:
    """The file that a link inside the archive points to, if it was placed before. Links themselves are never made."""
    if member.linked.startswith(("/", "..")):
        raise DataError(f"archive {name}: link {member.name!r} points to {member.linked!r}, outside of the archive")
    for place in places:
        target = place(member.linked)
        if target is not None and inside(root, target).is_file():
            return inside(root, target)
    raise DataError(f"archive {name}: link {member.name!r} points to {member.linked!r}, which doesn't precede it")


def inside(root: Path, relative: str) -> Path:
    """A path below the data folder.

    Raises:
        DataError: if it leaves the folder.
    """
    if _leaves(relative) or not PurePosixPath(relative).parts:
        raise DataError(f"{relative!r} leaves the data folder")
    return root / relative


def put(target: Path, content: bytes) -> None:
    """Write a file, whole; leave one of the same content alone."""
    with contextlib.suppress(FileNotFoundError):
        if target.stat().st_size == len(content) and target.read_bytes() == content:
            return
    with replacing(target, durably=False) as temporary:
        temporary.write_bytes(content)


def _put_file(target: Path, source: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
