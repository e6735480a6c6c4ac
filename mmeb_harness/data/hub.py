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
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.tasks import Table
from mmeb_harness.data.lock import HubFile, LockedRepo, table_key

#: Attempts that end without a new byte before one gives up; the seconds between them double.
ATTEMPTS = 5
#: The same where nobody answers at all.
CONNECT_ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 1.0
#: A hub that limits requests says how long to wait; no longer than this is waited.
LONGEST_PAUSE_SECONDS = 300.0
LOCK_POLL_SECONDS = 0.1
#: Folder of lock files, below that of the downloads.
LOCKS = "locks"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

OnBytes = Callable[[int], None]
Wait = Callable[[float], None]  # waits so many seconds; what it raises ends whatever waits
Failures = list[tuple[str, DataError]]
Answer = TypeVar("Answer")


def resolve(
    repo: str, revision: str | None, tables: Sequence[Table], wait: Wait = time.sleep
) -> tuple[LockedRepo, Failures]:
    """What `repo` holds at `revision` (`None`: now), and which files make up each of `tables`.

    Returns:
        The repository, with the tables that were found; and those that were not, with the reason.

    Raises:
        DataError: not reachable, gated, or gone.
    """
    from huggingface_hub import HfApi

    info = _patiently(
        repo, revision, lambda: HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=60), wait
    )
    commit = str(info.sha)
    files = {one.rfilename: (int(one.size or 0), _digest(one)) for one in info.siblings or ()}
    found: dict[str, tuple[str, ...]] = {}
    failures: Failures = []
    for table in tables:
        key = table_key(table.config, table.split)
        try:
            found[key] = _patiently(repo, commit, partial(_table_files, table, commit), wait)
            if unlisted := next((path for path in found[key] if path not in files), None):
                raise DataError(f"{repo}: {unlisted}, a file of {key}, isn't listed")
        except UnreachableError:
            raise
        except DataError as error:
            failures.append((f"{repo} {key}", error))
            found.pop(key, None)
    return LockedRepo(commit, files, found), failures


def _patiently(repo: str, revision: str | None, ask: Callable[[], Answer], wait: Wait) -> Answer:
    """Ask the hub, again if the transport or the server failed."""
    pause, attempt = FIRST_PAUSE_SECONDS, 0
    while True:
        attempt += 1
        try:
            with _explained(repo, revision):
                return ask()
        except _transient_errors() as error:
            if attempt >= _attempts(error) or _is_final(error):
                raise error if isinstance(error, DataError) else _refused(repo, "", error) from error
            wait(max(pause, _asked_pause(error)))
            pause *= 2


def _attempts(error: Exception) -> int:
    return CONNECT_ATTEMPTS if isinstance(error, UnreachableError) else ATTEMPTS


def _asked_pause(error: Exception) -> float:
    """Seconds that a hub which limits requests asks for; 0 if it doesn't."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return min(float(asked), LONGEST_PAUSE_SECONDS) if asked.isdigit() else 0.0


def _digest(sibling: Any) -> str:
    return f"sha256:{sibling.lfs.sha256}" if sibling.lfs else f"git:{sibling.blob_id}"


def _table_files(table: Table, commit: str) -> tuple[str, ...]:
    """The files that `datasets` would load for a configuration and split, without loading them."""
    import datasets
    import yaml

    datasets.disable_progress_bars()
    name = f"{table.repo}, configuration {table.config or 'default'}"
    with tempfile.TemporaryDirectory(prefix="mmeb-resolve-") as cache:
        try:
            builder = datasets.load_dataset_builder(table.repo, table.config, revision=commit, cache_dir=cache)
        except FileNotFoundError as error:  # its word for gated, private, gone or empty, without saying which
            _ask_for_a_file(table.repo, commit)
            raise DataError(f"{name}: {' '.join(str(error).split())}") from error
        except (ValueError, RuntimeError, yaml.YAMLError) as error:
            # No such configuration, data that only a script can read, or a README that is no YAML.
            raise DataError(f"{name}: {' '.join(str(error).split())}") from error
        splits = {str(split): files for split, files in (builder.config.data_files or {}).items()}
    if table.split not in splits:
        raise DataError(f"{name} has no split {table.split!r} (found: {', '.join(sorted(splits)) or 'none'})")
    prefix = f"hf://datasets/{table.repo}@{commit}/"
    return tuple(str(file).removeprefix(prefix) for file in splits[table.split])


def _ask_for_a_file(repo: str, commit: str) -> None:
    """Let the hub itself say why files can't be had; nothing if they can."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with contextlib.suppress(RemoteEntryNotFoundError):  # a repository needs no README
        get_hf_file_metadata(hf_hub_url(repo, "README.md", repo_type="dataset", revision=commit))


def download(file: HubFile, folder: Path, on_bytes: OnBytes = lambda _: None, *, verify: bool = False) -> Path:
    """Fetch one file into `folder`, under its digest's name; go on with a part file; verify.

    Several processes may ask for the same file: one fetches it, the others wait for it.

    Args:
        on_bytes: told of every chunk, and with 0 while waiting; what it raises ends the download.
        verify: don't trust one that is there already either.

    Raises:
        DataError: not reachable after several attempts, not to be had, not the declared bytes, or no room.
    """
    target = downloaded(file, folder)
    with locked(_lock_file(file, folder), lambda: on_bytes(0)):
        if _is_whole(target, file, verify=verify) or _take_from_cache(file, target):
            return target
        target.unlink(missing_ok=True)
        found = ""
        for _ in range(2):
            part = target.with_suffix(".part")
            _fetch(file, part, on_bytes)
            found = file_digest(part, file.digest)
            if found == file.digest:
                with part.open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(part, target)
                return target
            part.unlink()
            on_bytes(-file.size)
    raise DataError(
        f"{file.repo}: {file.path} arrived twice with the wrong checksum ({found}, expected {file.digest}); a proxy or "
        "mirror may alter it"
    )


def _is_whole(target: Path, file: HubFile, *, verify: bool) -> bool:
    if not target.is_file() or target.stat().st_size != file.size:
        return False
    return not verify or file_digest(target, file.digest) == file.digest


@contextlib.contextmanager
def held(file: HubFile, folder: Path, on_bytes: OnBytes) -> Iterator[Path]:
    """A fetched file that no other process deletes as long as it is held; fetched (again) if it isn't there.

    Looked for under the shared lock first: who fetches takes the lock alone, and would wait for itself where one step
    needs the same bytes twice.
    """
    target = downloaded(file, folder)
    while True:
        with locked(_lock_file(file, folder), lambda: on_bytes(0), shared=True):
            if _is_whole(target, file, verify=False):
                yield target
                return
        download(file, folder, on_bytes)


def discard(digest: str, folder: Path) -> None:
    """Delete a fetched file and what there is of it, unless a process holds it or fetches it."""
    target = folder / digest.replace(":", "-")
    part = target.with_suffix(".part")
    if target.is_file() or part.is_file():
        with contextlib.suppress(BlockingIOError), locked(folder / LOCKS / f"{target.name}.lock", _give_up):
            target.unlink(missing_ok=True)
            part.unlink(missing_ok=True)


def _give_up() -> None:
    raise BlockingIOError("held by another process")


def _lock_file(file: HubFile, folder: Path) -> Path:
    return folder / LOCKS / f"{downloaded(file, folder).name}.lock"


def _take_from_cache(file: HubFile, target: Path) -> bool:
    """Use what the user has in the client's own cache already, if it is the very bytes."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.path, revision=file.revision, repo_type="dataset")
    if not isinstance(cached, str) or os.path.getsize(cached) != file.size:
        return False
    if file_digest(Path(cached), file.digest) != file.digest:
        return False
    try:
        os.link(os.path.realpath(cached), target)
    except OSError:  # another file system
        copy = target.with_suffix(".copy")
        try:
            shutil.copyfile(cached, copy)
            os.replace(copy, target)
        finally:
            copy.unlink(missing_ok=True)
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
            if failures >= _attempts(error):
                kind = UnreachableError if isinstance(error, UnreachableError) else DataError
                raise kind(
                    f"{file.repo}: {file.path} can't be fetched ({_first_line(error)}); {after:,} of {file.size:,} "
                    "bytes are kept, the same command goes on from there"
                ) from error
            _sleep(max(pause, _asked_pause(error)), on_bytes)
            pause *= 2


def _sleep(seconds: float, on_bytes: OnBytes) -> None:
    """Wait, unless `on_bytes` ends it."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        on_bytes(0)
        time.sleep(min(left, LOCK_POLL_SECONDS))


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
        headers = build_hf_headers(library_name="mmeb-harness")
        # Not told the size: it would refuse a file of more than 50 GB, which the hub may still serve. Its own attempts
        # (and its word on each) would multiply with ours, which a Ctrl-C can end.
        logging.getLogger("huggingface_hub.file_download").setLevel(logging.ERROR)
        http_get(url, counted, resume_size=resume, headers=headers, _nb_retries=0)
    size = part.stat().st_size
    if size > file.size:
        part.unlink()
        raise DataError(f"{file.repo}: {file.path} has more than the {file.size:,} bytes that are declared")
    if size < file.size:
        raise ConnectionError(f"{size:,} bytes came, {file.size:,} are declared")


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
def locked(path: Path, while_waiting: Callable[[], None] = lambda: None, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock file (`shared`: beside others who share it), waiting for whoever has it.

    Args:
        while_waiting: what it raises ends the waiting.
    """
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
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
            f"{repo}: revision {revision} is gone from the hub; --update, without --lock, takes the newest (scores may "
            "change)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repo} is not on the hub, or private and {token}") from error
    except RemoteEntryNotFoundError as error:
        raise DataError(f"{repo}: a file is gone from revision {revision} ({_first_line(error)})") from error
    except OfflineModeIsEnabled as error:
        raise DataError("HF_HUB_OFFLINE is set: unset it to fetch data (evaluations never need the network)") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DataError(f"HF_ENDPOINT {_endpoint()!r} is no address ({_first_line(error)})") from error
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
