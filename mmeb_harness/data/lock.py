"""The lock file: which revision of each repository, and the digest of each file that is fetched from it.

<data>/mmeb-data.lock.json. A second machine that is given it (`--lock FILE`) gets the same bytes or an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.files import write_json

LOCK = "mmeb-data.lock.json"
LOCK_SCHEMA_VERSION = 1
#: It says which revisions a folder is of; thrown away, it is made anew with the newest.
_WAY_OUT = "copy it again from where it came, or restore it from a backup"


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a data set on the hub.

    Attributes:
        size: bytes.
        digest: "sha256:…" of large files, "git:…" (git's blob id) of those that the hub keeps in git itself.
    """

    repo: str
    revision: str
    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class LockedRepo:
    """One repository at one commit.

    Attributes:
        files: path → size and digest, of all its files.
        tables: "configuration/split" → paths of the table's files, in order, for tables that were asked for.
    """

    revision: str
    files: Mapping[str, tuple[int, str]]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


Lock = dict[str, LockedRepo]


def hub_file(repo: str, locked: LockedRepo, path: str) -> HubFile:
    """A file of a locked repository."""
    size, digest = locked.files[path]
    return HubFile(repo, locked.revision, path, size, digest)


def table_key(config: str | None, split: str) -> str:
    """Names a table within its repository."""
    return f"{config or 'default'}/{split}"


def read_lock(path: Path) -> Lock:
    """Read a lock file; empty if there is none.

    Raises:
        DataError: of another schema, or not a lock file.
    """
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"lock file {path} can't be read ({error}); {_WAY_OUT}") from error
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != LOCK_SCHEMA_VERSION:
        raise DataError(
            f"{path} is no lock file of schema version {LOCK_SCHEMA_VERSION} (found: {version}); {_WAY_OUT}"
        )
    try:
        return {repo: _locked(values) for repo, values in stored["repos"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"lock file {path} is damaged ({type(error).__name__}: {error}); {_WAY_OUT}") from error


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file, sorted: equal locks, equal bytes."""
    repos = {repo: dataclasses.asdict(lock[repo]) for repo in sorted(lock)}
    write_json(path, {"schema_version": LOCK_SCHEMA_VERSION, "repos": repos})


def _locked(values: Mapping[str, Any]) -> LockedRepo:
    files = {path: (int(size), str(digest)) for path, (size, digest) in values["files"].items()}
    tables = {key: tuple(paths) for key, paths in values["tables"].items()}
    if missing := next((path for paths in tables.values() for path in paths if path not in files), None):
        raise ValueError(f"{missing} is a table's file, and not listed")
    return LockedRepo(str(values["revision"]), files, tables)
