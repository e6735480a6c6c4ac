"""The hub: what a repository holds at a revision, and single files of it.

huggingface_hub speaks to the hub, datasets knows which files a configuration's split consists of. One thing is done
here: since its version 2 the client deletes a partial file whenever a download ends early, so a killed job would
lose 10 GB of a 12 GB archive. Here the part file is ours, the client's own `http_get` continues it, and what arrives
is held against the digest that the hub declares.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from mmeb_harness.errors import DataError
from mmeb_harness.fetch.lock import HubFile, LockedRepo, table_key
from mmeb_harness.types import Table

#: Attempts at one file that end without a new byte before the download gives up; seconds between them double.
ATTEMPTS = 5
LOCK_POLL_SECONDS = 0.1
#: Folder of lock files, below that of the downloads.
LOCKS = "locks"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FIRST_PAUSE_SECONDS = 1.0

OnBytes = Callable[[int], None]
Answer = TypeVar("Answer")


def resolve(repo: str, revision: str | None, tables: Sequence[Table]) -> LockedRepo:
    """What `repo` holds at `revision` (`None`: now), and which files make up each of `tables`.

    Raises:
        DataError: not reachable, gated, gone, or without such a table.
    """
    from huggingface_hub import HfApi

    info = _patiently(
        repo, revision, lambda: HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=60)
    )
    commit = str(info.sha)
    files = {one.rfilename: (int(one.size or 0), _digest(one)) for one in info.siblings or ()}
    found = {
        table_key(table.config, table.split): _patiently(repo, commit, partial(_table_files, table, commit))
        for table in tables
    }
    for table in tables:
        for path in found[table_key(table.config, table.split)]:
            if path not in files:
                raise DataError(f"{repo}: {path}, a file of {table.config or 'default'}/{table.split}, isn't listed")
    return LockedRepo(commit, files, found)


def _patiently(repo: str, revision: str | None, ask: Callable[[], Answer]) -> Answer:
    """Ask the hub, again if the transport or the server failed."""
    pause = FIRST_PAUSE_SECONDS
    for attempt in range(ATTEMPTS):
        try:
            with _explained(repo, revision):
                return ask()
        except _transient_errors() as error:
            if attempt + 1 == ATTEMPTS or _is_final(error):
                raise error if isinstance(error, DataError) else _refused(repo, "", error) from error
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable")


def _digest(sibling: Any) -> str:
    return f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"


def _table_files(table: Table, commit: str) -> tuple[str, ...]:
    """The files that `datasets` would load for a configuration and split, without loading them."""
    import datasets

    datasets.disable_progress_bars()
    name = f"{table.repo}, configuration {table.config or 'default'}"
    with tempfile.TemporaryDirectory(prefix="mmeb-resolve-") as cache:
        try:
            builder = datasets.load_dataset_builder(table.repo, table.config, revision=commit, cache_dir=cache)
        except (ValueError, RuntimeError) as error:  # no such configuration; or data that only a script can read
            raise DataError(f"{name}: {' '.join(str(error).split())}") from error
        splits = {str(split): files for split, files in (builder.config.data_files or {}).items()}
    if table.split not in splits:
        raise DataError(f"{name} has no split {table.split!r} (found: {', '.join(sorted(splits)) or 'none'})")
    prefix = f"hf://datasets/{table.repo}@{commit}/"
    return tuple(str(file).removeprefix(prefix) for file in splits[table.split])


def download(file: HubFile, folder: Path, on_bytes: OnBytes = lambda _: None) -> Path:
    """Fetch one file into `folder`, under its digest's name; go on with a part file; verify.

    Several processes may ask for the same file: one fetches it, the others wait for it.

    Args:
        on_bytes: told of every chunk, and with 0 while waiting; what it raises ends the download.

    Raises:
        DataError: not reachable after several attempts, not to be had, not the declared bytes, or no room.
    """
    target = downloaded(file, folder)
    with locked(folder / LOCKS / f"{target.name}.lock", lambda: on_bytes(0)):
        for attempt in ("first", "second"):
            if target.is_file():
                on_bytes(file.size)
                return target
            part = target.with_suffix(".part")
            if attempt == "second" or not _take_from_cache(file, part, on_bytes):
                _fetch(file, part, on_bytes)
            found = file_digest(part, file.digest)
            if found == file.digest:
                os.replace(part, target)
                return target
            part.unlink()
            on_bytes(-file.size)
            if attempt == "second":
                raise DataError(
                    f"{file.repo}: {file.path} arrived twice with the wrong checksum ({found}, the hub declares "
                    f"{file.digest}); a proxy or mirror may alter it"
                )
    raise AssertionError("unreachable")


def _take_from_cache(file: HubFile, part: Path, on_bytes: OnBytes) -> bool:
    """Use what the user has in the client's own cache already; it is verified like anything that was fetched."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.path, revision=file.revision, repo_type="dataset")
    if not isinstance(cached, str):
        return False
    part.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(cached), part)
    except OSError:  # another file system
        shutil.copyfile(cached, part)
    on_bytes(file.size)
    return True


def downloaded(file: HubFile, folder: Path) -> Path:
    """Where a download is kept: by content, so that what two repositories share is fetched once."""
    return folder / file.digest.replace(":", "-")


def _fetch(file: HubFile, part: Path, on_bytes: OnBytes) -> None:
    """Append to the part file until it has the declared size."""
    failures, pause = 0, FIRST_PAUSE_SECONDS
    while True:
        before = part.stat().st_size if part.is_file() else 0
        if before > file.size:
            part.unlink()
            before = 0
        on_bytes(before)
        try:
            _append(file, part, before, on_bytes)
            return
        except _transient_errors() as error:
            if _is_final(error):
                raise _refused(file.repo, file.path, error) from error
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoomError(part, error) from error
            if _is_local(error):
                raise
            after = part.stat().st_size if part.is_file() else 0
            on_bytes(-after)
            failures, pause = (0, FIRST_PAUSE_SECONDS) if after > before else (failures + 1, pause)
            if failures >= ATTEMPTS:
                raise DataError(
                    f"{file.repo}: {file.path} can't be fetched ({_first_line(error)}); {after:,} of {file.size:,} "
                    "bytes are kept, the same command goes on from there"
                ) from error
            time.sleep(pause)
            pause *= 2


def _append(file: HubFile, part: Path, resume: int, on_bytes: OnBytes) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars

    if resume == file.size and resume > 0:
        return
    disable_progress_bars()
    part.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(file.repo, file.path, repo_type="dataset", revision=file.revision)
    with _explained(file.repo, file.revision), part.open("ab") as opened:
        counted: Any = _Counted(opened, on_bytes)
        http_get(
            url,
            counted,
            resume_size=resume,
            headers=build_hf_headers(library_name="mmeb-harness"),
            expected_size=file.size,
            displayed_filename=Path(file.path).name,
        )


class _Counted:
    """A part file that tells how many bytes are written to it, or taken back when the server starts over."""

    def __init__(self, file: IO[bytes], on_bytes: OnBytes) -> None:
        self._file, self._on_bytes = file, on_bytes

    def write(self, chunk: bytes) -> int:
        self._on_bytes(len(chunk))
        return self._file.write(chunk)

    def truncate(self) -> int:
        before = self._file.seek(0, os.SEEK_CUR)
        size = os.fstat(self._file.fileno()).st_size
        self._on_bytes(before - size)
        return self._file.truncate()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def file_digest(path: Path, like: str) -> str:
    """Digest of a file, of the kind that `like` is: sha256, or git's blob id."""
    kind = like.partition(":")[0]
    with path.open("rb") as file:
        if kind == "sha256":
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        blob = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        while chunk := file.read(1 << 20):
            blob.update(chunk)
        return f"git:{blob.hexdigest()}"


@contextlib.contextmanager
def locked(path: Path, while_waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file, waiting for whoever has it. What `while_waiting` raises ends the waiting."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                while_waiting()
                time.sleep(LOCK_POLL_SECONDS)
        yield


def _transient_errors() -> tuple[type[Exception], ...]:
    """What a further attempt may mend: errors of the transport, of the server, and short reads (an OSError)."""
    from huggingface_hub.utils import httpx

    return (httpx.HTTPError, OSError)


def _is_final(error: Exception) -> bool:
    """Whether the server has answered, and another attempt would get the same answer."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code < 500 and response.status_code not in (408, 429)


def _refused(repo: str, path: str, error: Exception) -> DataError:
    what = f"{repo}: {path}" if path else repo
    return DataError(f"{what} can't be fetched from {_endpoint()}: {_first_line(error)}")


def _is_local(error: Exception) -> bool:
    """Whether this machine's files are to blame, which no further attempt mends."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


class NoRoomError(DataError):
    """The disk, or a quota, is full."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(
            f"no room left to write {error.filename or path} ({error.strerror or error}); what is complete is kept: "
            "free some space, then the same command goes on"
        )


@contextlib.contextmanager
def _explained(repo: str, revision: str | None) -> Iterator[None]:
    """The client's errors as one line that says what to do; anything that a further attempt may mend passes through."""
    from huggingface_hub.errors import (
        GatedRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import get_token, httpx

    token = "your token isn't allowed to read it" if get_token() else "no token is set (hf auth login, or HF_TOKEN)"
    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{repo} is gated and {token}: accept its terms at {_page(repo)} with the account of the token"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(
            f"{repo}: revision {revision} is gone from the hub; --update takes the newest (scores may change)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repo} is not on the hub, or private and {token}") from error
    except RemoteEntryNotFoundError as error:
        raise DataError(f"{repo}: a file is gone from revision {revision} ({_first_line(error)})") from error
    except OfflineModeIsEnabled as error:
        raise DataError("HF_HUB_OFFLINE is set: unset it to fetch data (evaluations never need the network)") from error
    except httpx.ConnectError as error:
        raise UnreachableError(
            f"can't reach the hub at {_endpoint()} ({_first_line(error)}); check the network, or set HF_ENDPOINT to a "
            "mirror"
        ) from error


class UnreachableError(DataError, OSError):
    """No connection to the hub; an OSError too, so that a download tries again."""


def _page(repo: str) -> str:
    return f"{_endpoint()}/datasets/{repo}"


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
