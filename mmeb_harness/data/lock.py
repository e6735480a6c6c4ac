"""The lock file: which revision of each repository, and the digest of each file that is fetched from it.

<data>/mmeb-data.lock.json. A second machine that is given it (`--lock FILE`) gets the same bytes or an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.reading import JsonFile

LOCK = "mmeb-data.lock.json"
LOCK_SCHEMA_VERSION = 1
_DIGEST = re.compile(r"git:[0-9a-f]{40}|sha256:[0-9a-f]{64}")
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


@dataclass(frozen=True)
class _Lock:
    schema_version: int
    repos: Mapping[str, LockedRepo]
    checksum: str = ""  # of the rest; older files have none


def _check(lock: _Lock) -> None:
    for repo, locked in lock.repos.items():
        if unlisted := {name for names in locked.tables.values() for name in names} - locked.files.keys():
            raise DataError(f"{repo}: {min(unlisted)} is a table's file, and not listed")
        for name, (size, digest) in locked.files.items():
            if size < 0 or not _DIGEST.fullmatch(digest) or ".." in Path(name).parts or name.startswith("/"):
                raise DataError(f"{repo}: {name!r} can't be of {size} bytes and digest {digest!r}")


_LOCK_FILE = JsonFile(
    _Lock,
    "a lock file",
    LOCK_SCHEMA_VERSION,
    _WAY_OUT,
    _WAY_OUT,
    added=frozenset({"checksum"}),
    error=DataError,
    check=_check,
)


def hub_file(repo: str, locked: LockedRepo, path: str) -> HubFile:
    """A file of a locked repository."""
    size, digest = locked.files[path]
    return HubFile(repo, locked.revision, path, size, digest)


def read_lock(path: Path) -> Lock:
    """Read a lock file; empty if there is none.

    Raises:
        DataError: of another schema, or not a lock file.
    """
    return dict(_LOCK_FILE.read(path).repos) if os.path.lexists(path) else {}


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file, sorted: equal locks, equal bytes."""
    _LOCK_FILE.write(path, _Lock(LOCK_SCHEMA_VERSION, {repo: lock[repo] for repo in sorted(lock)}))
