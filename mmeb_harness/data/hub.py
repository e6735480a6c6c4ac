"""The hub: what a repository holds at a revision, and single files of it.

huggingface_hub speaks to the hub, datasets knows which files a configuration's split consists of. One thing is done
here: since its version 2 the client deletes a partial file whenever a download ends early, so a killed job would
lose 10 GB of a 12 GB archive. Here the part file is ours, what it lacks is asked for in the client's own session, and
what arrives is held against the digest that the hub declares.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from mmeb_harness.core.errors import DataError, one_line
from mmeb_harness.core.files import LOCK_POLL_SECONDS, dont_wait, lock_file, make_folder
from mmeb_harness.core.http import LONGEST_PAUSE_SECONDS, announce_pause, asked_pause, deadline, keeping_deadlines
from mmeb_harness.core.secrets import keep_secret
from mmeb_harness.core.tasks import Table
from mmeb_harness.data.lock import HubFile, LockedRepo

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo

#: Attempts that end without a new byte before one gives up; the seconds between them double.
ATTEMPTS = 5
#: The same where nobody answers at all.
CONNECT_ATTEMPTS = 3
FIRST_PAUSE_SECONDS = 1.0
#: For an answer that is no download, and until a download begins, however slowly the hub sends.
ANSWER_SECONDS = 120.0

OnBytes = Callable[[int], None]
Wait = Callable[[float], None]  # waits so many seconds; what it raises ends whatever waits
Failures = list[tuple[str, DataError]]
Answer = TypeVar("Answer")


def resolve(
    repo: str, revision: str | None, tables: Sequence[Table], wait: Wait = time.sleep
) -> tuple[LockedRepo, Failures]:
    """What `repo` holds at `revision` (`None`: now), and which files make up each of `tables`.

    Returns:
        The repository, with the tables that it has; and those that it doesn't have, with the reason.

    Raises:
        DataError: not reachable, gated, or gone.
    """
    from huggingface_hub import HfApi

    def ask() -> DatasetInfo:
        with _answering():
            return HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=60)

    info = _patiently(repo, revision, ask, wait)
    commit = str(info.sha)
    files = {
        file.rfilename: (int(file.size or 0), f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}")
        for file in info.siblings or ()
    }
    table_files: dict[str, tuple[str, ...]] = {}
    failures: Failures = []
    for table in tables:
        key = table.key
        try:
            table_files[key] = _patiently(repo, commit, partial(_table_files, table, commit), wait)
            if unlisted := next((path for path in table_files[key] if path not in files), None):
                raise DataError(f"{repo}: {unlisted}, a file of {key}, isn't listed")
        except UnreachableError:
            raise
        except DataError as error:
            failures.append((f"{repo} {key}", error))
            table_files.pop(key, None)
    return LockedRepo(commit, files, table_files), failures


def _patiently(
    repo: str,
    revision: str | None,
    ask: Callable[[], Answer],
    wait: Wait,
    arrived: Callable[[], int] = lambda: 0,
    what: str = "",
) -> Answer:
    """Ask the hub, again where the transport or the server failed.

    Args:
        arrived: bytes of a download; an attempt that brought some doesn't count.
        what: is downloaded, for messages.
    """
    from huggingface_hub.utils import httpx

    failures, pause = 0, FIRST_PAUSE_SECONDS
    while True:
        before = arrived()
        try:
            with _explained(repo, revision):
                return ask()
        except (httpx.HTTPError, OSError) as error:  # of the transport or the server, or a short read
            if _is_local(error) and what:
                raise
            if _is_local(error):
                raise DataError(f"{repo}: {one_line(error)}") from error
            failures, pause = (0, FIRST_PAUSE_SECONDS) if arrived() > before else (failures + 1, pause)
            if _is_final(error) or failures >= (CONNECT_ATTEMPTS if isinstance(error, UnreachableError) else ATTEMPTS):
                if isinstance(error, UnreachableError):
                    raise
                kept = f"; {arrived():,} bytes are kept, the same command goes on from there" if what else ""
                asked = f"{repo}: {what or 'its list of files'}"
                raise DataError(f"{asked} can't be fetched from {_endpoint()} ({one_line(error)}){kept}") from error
            wanted_pause = _asked_pause(error)
            announce_pause(f"the hub at {_endpoint()}", wanted_pause, one_line(error, 100))
            wait(max(pause, wanted_pause))
            pause *= 2


def _asked_pause(error: Exception) -> float:
    """Seconds that a hub which limits requests asks for; 0 if it doesn't."""
    from huggingface_hub.utils import parse_ratelimit_headers

    response = getattr(error, "response", None)
    if response is None:
        return 0.0
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:  # the public hub's word for it; its windows are minutes long
        return min(float(limit.reset_in_seconds), LONGEST_PAUSE_SECONDS) + 1.0
    return asked_pause(response.headers)


def _table_files(table: Table, commit: str) -> tuple[str, ...]:
    """The files that `datasets` would load for a configuration and split, without loading them."""
    import datasets
    import yaml

    datasets.disable_progress_bars()
    name = f"{table.repo}, configuration {table.config or 'default'}"
    with tempfile.TemporaryDirectory(prefix="mmeb-resolve-") as cache, _answering():
        try:
            builder = datasets.load_dataset_builder(table.repo, table.config, revision=commit, cache_dir=cache)
        except FileNotFoundError as error:  # its word for gated, private, gone or empty, without saying which
            _ask_for_a_file(table.repo, commit)
            raise DataError(f"{name}: {one_line(error)}") from error
        except (ValueError, RuntimeError, yaml.YAMLError) as error:
            # No such configuration, data that only a script can read, or a README that is no YAML.
            raise DataError(f"{name}: {one_line(error)}") from error
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
        on_bytes: told of the bytes that are there and of every chunk that comes, and with 0 while waiting; what it
            raises ends the download.
        verify: don't trust one that is there already either.

    Raises:
        DataError: not reachable after several attempts, not to be had, or not the declared bytes.
        OSError: it can't be written here.
    """
    target = downloaded(file, folder)
    with hold(folder, target.name, lambda: on_bytes(0)):
        if _is_whole(target, file, verify=verify) or _take_local(file, target):
            on_bytes(file.size)
            return target
        target.unlink(missing_ok=True)
        for _ in range(2):
            part = _fetch(file, target, on_bytes)
            arrived = file_digest(part, file.digest)
            if arrived == file.digest:
                _keep(part, target)
                return target
            part.unlink()
            on_bytes(-file.size)
    raise DataError(
        f"{file.repo}: {file.path} arrived twice with the wrong checksum ({arrived}, expected {file.digest}); a proxy "
        "or mirror may alter it"
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
        with hold(folder, target.name, lambda: on_bytes(0), shared=True):
            if _is_whole(target, file, verify=False):
                yield target
                return
        download(file, folder, on_bytes)


def discard(digest: str, folder: Path) -> None:
    """Delete a fetched file and what there is of it, unless a process holds it or fetches it."""
    target = folder / digest.replace(":", "-")
    part = target.with_suffix(".part")
    if target.is_file() or part.is_file():
        with contextlib.suppress(BlockingIOError), hold(folder, target.name, dont_wait):
            target.unlink(missing_ok=True)
            part.unlink(missing_ok=True)


def hold(folder: Path, name: str, while_held: Callable[[], None] = lambda: None, *, shared: bool = False) -> BinaryIO:
    """Take the lock of that name in the folder of downloads; see `lock_file`."""
    make_folder(folder / "locks")
    return lock_file(folder / "locks" / f"{name}.lock", while_held, shared=shared)


def as_on_hub(file: HubFile, folder: Path) -> Path | None:
    """The file in the data folder, if somebody downloaded the repository into it as it is; its content isn't looked at.

    Args:
        folder: of fetched files, in the data folder.
    """
    path = folder.parent / file.path
    return path if path.is_file() and path.stat().st_size == file.size else None


def _take_local(file: HubFile, target: Path) -> bool:
    """Use what the user has already, in the client's own cache or in the data folder, if it is the very bytes."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.path, revision=file.revision, repo_type="dataset")
    in_cache = Path(cached) if isinstance(cached, str) and os.path.getsize(cached) == file.size else None
    for path in (in_cache, as_on_hub(file, target.parent)):
        if path is not None and file_digest(path, file.digest) == file.digest:
            _link_or_copy(path, target)
            return True
    return False


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(path), target)
    except OSError:  # another file system
        part = target.with_suffix(".part")  # of a copy that is cut off the rest is fetched
        shutil.copyfile(path, part)
        _keep(part, target)


def _keep(part: Path, target: Path) -> None:
    with part.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(part, target)


def downloaded(file: HubFile, folder: Path) -> Path:
    """Where a download is kept: by content, so that what two repositories share is fetched once."""
    return folder / file.digest.replace(":", "-")


def _fetch(file: HubFile, target: Path, on_bytes: OnBytes) -> Path:
    """Append to the part file until it has the declared size."""
    part = target.with_suffix(".part")
    if _size(part) > file.size:
        part.unlink()
    on_bytes(_size(part))
    wait, arrived = partial(_sleep, on_bytes), partial(_size, part)
    _patiently(file.repo, file.revision, partial(_append, file, part, on_bytes), wait, arrived, file.path)
    return part


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _sleep(on_bytes: OnBytes, seconds: float) -> None:
    """Wait, unless `on_bytes` ends it."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        on_bytes(0)
        time.sleep(min(left, LOCK_POLL_SECONDS))


def _append(file: HubFile, part: Path, on_bytes: OnBytes) -> None:
    """Ask once for what the part file lacks. What has come is in it, however this ends."""
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(file.repo, file.path, repo_type="dataset", revision=file.revision)
    # A range is one of the file, not of something compressed on the way.
    headers = build_hf_headers(library_name="mmeb-harness", headers={"Accept-Encoding": "identity"})
    with part.open("ab") as opened:
        size = opened.tell()
        if size == file.size:
            return
        if size:
            headers["Range"] = f"bytes={size}-"
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with contextlib.ExitStack() as stack:
            with _answering():
                response = stack.enter_context(get_session().stream("GET", url, headers=headers, timeout=timeout))
                hf_raise_for_status(response)
            if size and response.status_code == 200:  # the server sends all of it
                opened.truncate(0)
                on_bytes(-size)
                size = 0
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > file.size:
                    raise DataError(f"{file.repo}: {file.path} has more than the {file.size:,} bytes that are declared")
                opened.write(chunk)
                on_bytes(len(chunk))
    if size < file.size:
        raise ConnectionError(f"{size:,} bytes came, {file.size:,} are declared")


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


def _is_final(error: Exception) -> bool:
    """Whether the server has answered, and another attempt would get the same answer."""
    response = getattr(error, "response", None)
    return response is not None and response.status_code < 500 and response.status_code not in (408, 429)


def _is_local(error: Exception) -> bool:
    """Whether this machine's files are to blame, which no further attempt mends."""
    return isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError)


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

    keep_secret(get_token())
    token = "your token isn't allowed to read it" if get_token() else "no token is set (hf auth login, or HF_TOKEN)"
    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{repo} is gated and {token}: accept its terms at {_endpoint()}/datasets/{repo} with the account of the "
            "token"
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(
            f"{repo}: revision {revision} is gone from the hub; --update, without --lock, takes the newest (scores may "
            "change)"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{repo} is not on the hub, or private and {token}") from error
    except RemoteEntryNotFoundError as error:
        raise DataError(f"{repo}: a file is gone from revision {revision} ({one_line(error)})") from error
    except OfflineModeIsEnabled as error:
        raise DataError("HF_HUB_OFFLINE is set: unset it to fetch data (evaluations never need the network)") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise DataError(f"HF_ENDPOINT {_endpoint()!r} is no address ({one_line(error)})") from error
    except httpx.ConnectError as error:
        raise UnreachableError(
            f"can't reach the hub at {_endpoint()} ({one_line(error)}); check the network, or set HF_ENDPOINT to a "
            "mirror"
        ) from error


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """What the hub is asked inside is answered in time."""
    from huggingface_hub import get_session

    keeping_deadlines(get_session())
    with deadline(ANSWER_SECONDS):
        yield


class UnreachableError(DataError, OSError):
    """No connection to the hub; an OSError too, so that a download tries again."""


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)
