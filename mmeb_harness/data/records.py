"""What each finished step wrote: a parquet file with a row a file (path, size, sha256), and where it came from.

<data>/manifest/<step>.parquet     written last: where it exists, the step's files were all there
<data>/manifest.json               name, and the commit behind every step; what a run reads
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.errors import HarnessError, ResultError
from mmeb_harness.core.files import (
    fingerprint,
    lock_file,
    make_folder,
    matching,
    parse_json,
    read_json,
    read_parquet,
    regular_file,
    write_json,
    write_parquet,
)
from mmeb_harness.core.reading import build_config
from mmeb_harness.data.folder import MANIFEST, MANIFEST_SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "manifest"
NAME = "MMEB-V2"
#: Rows held in memory while an archive of a million files is unpacked.
_ROWS_AT_ONCE = 50_000
#: Files that are looked at to see whether a step's are still there.
_SAMPLE = 32


@dataclass(frozen=True)
class Record:
    """What one finished step was made from, and how much it wrote.

    Attributes:
        source: key of the source it carried out (see `Step` in plan.py).
        digests: of the hub's files it was made from, in order.
        files, size: how many files it wrote, and their bytes.
    """

    source: str
    repo: str
    revision: str
    digests: tuple[str, ...]
    files: int
    size: int


def record_path(root: Path, source: str) -> Path:
    """Where a step's record lies."""
    return root / FOLDER / f"{slug(source)}.parquet"


def slug(key: str) -> str:
    """A file name for a key."""
    return re.sub(r"[^\w.+-]+", "-", key)[:120] + "-" + hashlib.sha256(key.encode()).hexdigest()[:8]


class RecordWriter:
    """Collects what a step writes; `finish` makes it a record."""

    def __init__(self, root: Path, source: str) -> None:
        self._root, self._source = root, source
        self._rows: list[tuple[str, int, bytes]] = []
        self._batches: list[pa.RecordBatch] = []
        self.files = self.size = 0

    def add(self, path: str, content: bytes) -> None:
        """A file below the data folder, with what is in it."""
        self.add_hashed(path, len(content), hashlib.sha256(content).digest())

    def add_file(self, path: Path) -> None:
        """A file that is already on disk."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        self.add_hashed(path.relative_to(self._root).as_posix(), path.stat().st_size, digest)

    def add_hashed(self, path: str, size: int, sha256: bytes) -> None:
        """A file whose hash is known."""
        self._rows.append((path, size, sha256))
        self.files += 1
        self.size += size
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def paths(self) -> set[str]:
        """Paths of all files so far."""
        paths = {path for path, _, _ in self._rows}
        for batch in self._batches:
            paths.update(batch.column("path").to_pylist())
        return paths

    def finish(self, repo: str, revision: str, digests: Sequence[str]) -> Record:
        """Write the record: the step is done.

        Args:
            digests: of all that decided what was placed.
        """
        import pyarrow as pa

        self._flush()
        record = Record(self._source, repo, revision, tuple(digests), self.files, self.size)
        metadata = {b"record": json.dumps(dataclasses.asdict(record)).encode()}
        table = pa.Table.from_batches(self._batches, _schema()).replace_schema_metadata(metadata)
        write_parquet(record_path(self._root, self._source), table)
        return record

    def _flush(self) -> None:
        import pyarrow as pa

        paths, sizes, hashes = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        arrays = [pa.array(paths, pa.string()), pa.array(sizes, pa.int64()), pa.array(hashes, pa.binary(32))]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=_schema()))
        self._rows = []


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("path", pa.string()), ("size", pa.int64()), ("sha256", pa.binary(32))])


def read_record(root: Path, source: str) -> Record | None:
    """A step's record; `None` if it isn't done, or if the record is damaged and so says nothing."""
    path = record_path(root, source)
    return _read(path) if path.is_file() else None


def recorded_files(root: Path, source: str, *columns: str) -> pa.Table | None:
    """`path`, `size` or `sha256` of every file a step wrote; `None` if it isn't done, or its record is damaged."""
    if read_record(root, source) is None:
        return None
    try:
        table = read_parquet(record_path(root, source))
    except ResultError:
        return None
    whole = table.schema.equals(_schema()) and not any(column.null_count for column in table.columns)
    return table.select(columns) if whole else None


def record_sample(root: Path, source: str) -> list[tuple[str, int]]:
    """(path, size) of some of the files a step wrote, evenly spaced; of a damaged record one that isn't there."""
    table = recorded_files(root, source, "path", "size")
    if table is None:
        return [("", -1)]
    last = len(table) - 1
    rows = table.take(sorted({index * last // (_SAMPLE - 1) for index in range(_SAMPLE)}))
    return list(zip(rows.column("path").to_pylist(), rows.column("size").to_pylist(), strict=True))


def _read(path: Path) -> Record | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(regular_file(path)).metadata or {}
        return build_config(Record, parse_json(metadata[b"record"]))
    except (OSError, pa.ArrowException, KeyError, ValueError, HarnessError):
        return None  # it only repeats what fetching again finds out


def write_manifest(root: Path) -> None:
    """Sum up all records in manifest.json, if it says something else.

    Several processes may call it; each sees what the others finished. A finished folder may be read-only.
    """
    if _is_manifest(root, _manifest(root)):
        return
    make_folder(root / FOLDER)
    with lock_file(root / FOLDER / ".lock"):
        write_json(root / MANIFEST, _manifest(root))


def _is_manifest(root: Path, manifest: dict[str, Any]) -> bool:
    try:
        return bool(read_json(root / MANIFEST) == manifest)
    except ResultError:  # missing or damaged: it is made from the records, and can be made again
        return False


def _manifest(root: Path) -> dict[str, Any]:
    records = [record for path in matching(root / FOLDER, "*.parquet") if (record := _read(path)) is not None]
    return {
        "schema_version": MANIFEST_SCHEMA_VERSION,
        "name": NAME,
        "synthetic": False,
        "revision": fingerprint({record.source: record.digests for record in records}),
        "revisions": {record.source: record.revision for record in records},
        "files": sum(record.files for record in records),
        "bytes": sum(record.size for record in records),
    }
