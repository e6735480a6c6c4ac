"""Which media files a task was of when it was last read, so that a look at these tells whether any was replaced.

A list names the files, and the folders whose listing decides what a clip's frames are. It holds one hash of their
paths, sizes and times of change, and what the task's items were by content then (`results.files.TaskResult.content`).
Looking costs a call of the system a file, no byte of them is read. What a look can't settle is read and hashed again.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from mmeb_harness.core.files import parquet_table, regular_file, write_atomically
from mmeb_harness.core.items import Item
from mmeb_harness.core.sealed import BrokenFileError, reading
from mmeb_harness.store.media import is_settled

_IDENTITY, _CONTENT = b"identity", b"content"


@dataclass(frozen=True)
class MediaList:
    """Where a task's list of media files is kept.

    Attributes:
        folder: of remembered hashes, beside the vectors.
        name: of the task, its annotations, the data folder, and the frames that are shown.
    """

    folder: Path
    name: str

    @property
    def path(self) -> Path:
        """Where the list lies, whether or not it does."""
        return self.folder / f"files-{self.name}.parquet"

    def content(self) -> str | None:
        """What the items were when the list was written, if every file is still as it was; else `None`.

        Raises:
            ResultError: the list can't be read, and may be whole.
        """
        import pyarrow as pa

        try:
            with reading(self.path):
                table = parquet_table(regular_file(self.path))
                paths: list[bytes] = table.column("path").cast(pa.binary()).to_pylist()
                known = table.schema.metadata or {}
                identity, content = known[_IDENTITY].decode(), known[_CONTENT].decode()
        except (FileNotFoundError, BrokenFileError, KeyError):
            return None  # the files are read and hashed, and the list is written again
        return content if _look_at(paths)[0] == identity else None

    def write(self, items: Iterable[Item], content: str) -> None:
        """Remember the files of these items; not where one changed so lately that it may change again unseen.

        Raises:
            ResultError: the list can't be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        named: dict[bytes, None] = {}  # a name needn't be UTF-8
        for item in items:
            named |= dict.fromkeys(map(os.fsencode, item.media))
            named |= dict.fromkeys(os.fsencode(path.parent) for path in item.frames[:1])
        paths = list(named)
        identity, changed = _look_at(paths)
        if identity is None or not is_settled(changed):
            return
        table = pa.table({"path": pa.array(paths, pa.binary())})
        table = table.replace_schema_metadata({_IDENTITY: identity, _CONTENT: content})
        write_atomically(self.path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def _look_at(paths: Sequence[bytes]) -> tuple[str | None, int]:
    """A hash of files' paths, sizes and times, `None` if one is gone; and when the latest changed, in nanoseconds.

    One thread: a look is a system call of two microseconds, and threads would wait for each other's interpreter. Names
    relative to an open folder, and listings with sizes, were measured and save nothing.
    """
    looks = array("q")
    add = looks.append
    try:
        for seen in map(os.stat, paths):
            add(seen.st_size)
            add(seen.st_mtime_ns)
            add(seen.st_ctime_ns)
    except OSError:
        return None, 0
    digest = xxhash.xxh3_128(looks.tobytes())
    digest.update(b"\0".join(paths))
    return digest.hexdigest(), max(looks[2::3], default=0)
