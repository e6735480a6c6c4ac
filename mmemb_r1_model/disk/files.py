"""Files that are whole or not there, and files read by place."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A temporary neighbour of a file, renamed over it when all is written."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """A whole JSON file, indented."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


class PlacedBytes:
    """Parts of a file by where they lie. Opened when first asked; usable from forked and spawned processes alike."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def read(self, start: int, length: int) -> bytes:
        """So many bytes from there on; fewer where the file ends."""
        if self._file is None:
            self._file = self.path.open("rb", buffering=0)
        # pread has no position of its own, so that forked processes can share the open file.
        return os.pread(self._file.fileno(), length, start)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open file: spawned processes open their own."""
        return {**self.__dict__, "_file": None}
