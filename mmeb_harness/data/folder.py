"""What a data folder says of itself, and which data exactly a task's score belongs to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmeb_harness.core.benchmark import MMEB_V2
from mmeb_harness.core.errors import DataError, ResultError
from mmeb_harness.core.files import (
    cache_folder,
    file_checksum,
    fingerprint,
    hash_files,
    matching,
    read_parquet,
    write_text,
)
from mmeb_harness.core.items import Item, Profile, Samples
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.core.reading import JsonFile
from mmeb_harness.core.tasks import Archive, Files, HubSource, Pages, Suite, Table, Task
from mmeb_harness.core.waiting import progress_of

MANIFEST = "manifest.json"
QUERY_LABELS = "query_labels.parquet"
#: What the benchmark's data is called, and where its tables lie.
BENCHMARK_DATA, ANNOTATIONS = MMEB_V2.name, "annotations"
MANIFEST_SCHEMA_VERSION = 1


class RevisionError(DataError):
    """The rows are readable, but not those of the benchmark's edition or of its current revision."""


#: Of own data, whose files say all that there is to know of their revision.
OWN_REVISION = "content"


@dataclass(frozen=True)
class DataInfo:
    """A data folder's own description; the defaults hold for a folder without a manifest.

    Attributes:
        synthetic: made by a suite. Such scores never stand in a table of the benchmark's.
        revision: of a suite; of real data, a name for all of `revisions`.
        revisions: key of a source → the commit its files are of, where `mmeb-eval data get` fetched them.
        num_queries: declared counts, which override those of the task table.
    """

    root: Path
    name: str = BENCHMARK_DATA
    synthetic: bool = False
    revision: str = "unpinned"
    revisions: Mapping[str, str] = field(default_factory=dict)
    num_queries: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Manifest:
    schema_version: int
    name: str
    synthetic: bool
    revision: str
    revisions: Mapping[str, str] = field(default_factory=dict)
    num_queries: Mapping[str, int] = field(default_factory=dict)


#: What MMEB-V3 adds lies in these.
BUNDLE_FOLDERS = ("audio-tasks", "gui-tasks", "memory-tasks", "text-tasks", "tool-tasks")
#: A note.
OTHER_QUERIES = "queries more or fewer than the public data set has"
_AGAIN = "make the folder again, or let `mmeb-eval data get` write it anew"
_MANIFEST_FILE = JsonFile(
    _Manifest,
    "a data folder's manifest",
    MANIFEST_SCHEMA_VERSION,
    way_out=_AGAIN,
    if_damaged=_AGAIN,
    added=frozenset({"revisions", "num_queries"}),
    error=DataError,
    others_pass=True,
)


def describe(root: Path) -> DataInfo:
    """Read the manifest of a data folder.

    Raises:
        DataError: if the folder is missing, or its manifest is damaged or of another schema.
    """
    if not root.is_dir():
        raise DataError(f"data folder {root} {'is a file' if root.exists() else 'does not exist'}")
    if not os.path.lexists(root / MANIFEST):
        return DataInfo(root)
    manifest = _MANIFEST_FILE.read(root / MANIFEST)
    return DataInfo(
        root, manifest.name, manifest.synthetic, manifest.revision, dict(manifest.revisions), dict(manifest.num_queries)
    )


def is_benchmark_tree(root: Path) -> bool:
    """Whether a folder is laid out as the benchmark's data: it says what it is, or has a table where that has some.

    A folder of annotations alone doesn't tell: other people's pictures have one beside them.
    """
    has_folder = any((root / folder).is_dir() for folder in BUNDLE_FOLDERS)
    return has_folder or (root / MANIFEST).exists() or any((root / ANNOTATIONS).glob("*/*/*/*.parquet"))


def suite_folder(suite: Suite, seed: int) -> Path:
    """Where a suite is kept."""
    return cache_folder() / f"{suite.name}-v{suite.version}-seed{seed}"


def ensure_suite(suite: Suite, seed: int, note: Callable[[str], None] = lambda _: None) -> Path:
    """The suite's folder, made on first use, and again if its files were changed since.

    Args:
        note: told before it is made.

    Raises:
        DataError: it can't be made.
    """
    folder = suite_folder(suite, seed)
    if (folder / MANIFEST).is_file():
        if _is_as_made(folder):
            return folder
        note(f"{folder} was changed since it was made: making it again …")
        _remove(folder)
    else:
        note(f"making the {suite.name} suite (synthetic, seed {seed}) in {folder} …")
    with progress_of(f"making the {suite.name} suite"):
        suite.make(folder, seed)
    with contextlib.suppress(ResultError):  # then nothing is known of it, as of suites of earlier releases
        files = _files_of(folder)
        write_text(_seal(folder, "sha256"), _checksums(folder, files))
        write_text(_seal(folder, "listing"), _listing(folder, files))
    return folder


def _is_as_made(folder: Path) -> bool:
    """Whether a suite's files are those that were made. All are read only where sizes or times say otherwise; a run
    reads what it uses, see `check_as_made`.

    What came into a folder in which nothing was made is no change: readers write pages, pictures and sounds there.
    """
    listing, checksums = (_seal(folder, what) for what in ("listing", "sha256"))
    if not (listing.is_file() and checksums.is_file()):
        return True
    made = _read_checksums(folder)
    inside = _folders_of(made)
    files = [name for name in _files_of(folder) if name in made or name.rpartition("/")[0] in inside]
    return (
        listing.read_bytes() == _listing(folder, files).encode()
        or checksums.read_bytes() == _checksums(folder, files).encode()
    )


def _folders_of(names: Iterable[str]) -> set[str]:
    """Those in which the named files are, at any depth."""
    folders: set[str] = set()
    for name in names:
        while (name := name.rpartition("/")[0]) and name not in folders:
            folders.add(name)
    return folders


def _seal(folder: Path, what: str) -> Path:
    """What is known of a suite since it was made; beside it, since its own files are what it is about."""
    return folder.with_name(f".{folder.name}.{what}")


def _files_of(folder: Path) -> list[str]:
    """Names of all that is below a folder but folders, folder by folder. Of ten thousand files, paths take 0.3 s."""
    start = len(f"{folder}/")
    names = [f"{parent}/{name}"[start:] for parent, _, names in os.walk(folder) for name in names]
    return sorted(names, key=lambda name: name.split("/"))


def _checksums(folder: Path, files: Sequence[str]) -> str:
    """As `sha256sum` writes and checks them."""
    return "".join(f"{file_checksum(folder / name)}  {name}\n" for name in files if (folder / name).is_file())


def _read_checksums(folder: Path) -> dict[str, str]:
    """By file what `_checksums` wrote; nothing of a suite of an earlier release."""
    if not _seal(folder, "sha256").is_file():
        return {}
    lines = _seal(folder, "sha256").read_text(encoding="utf-8", errors="replace").splitlines()
    return {line[66:]: line[:64] for line in lines}


@functools.cache
def _as_made(folder: Path) -> Mapping[str, str]:
    return _read_checksums(folder)


def check_as_made(info: DataInfo, path: Path, checksum: str) -> None:
    """Hold a file of a suite against what was made: bits rot without a change of size or times.

    Args:
        checksum: SHA-256 of the file as it was read.

    Raises:
        DataError: it is another.
    """
    if not (info.synthetic and path.is_relative_to(info.root)):
        return
    if _as_made(info.root).get(path.relative_to(info.root).as_posix(), checksum) != checksum:
        raise DataError(
            f"{path} is not as it was made (its checksum differs); delete {info.root}, which is made again on the next "
            "run"
        )


def _listing(folder: Path, files: Sequence[str]) -> str:
    """Names, sizes and times."""
    stats = [(name, os.lstat(f"{folder}/{name}")) for name in files]
    return fingerprint(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _remove(folder: Path) -> None:
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.damaged")
    try:
        folder.rename(aside)
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        raise DataError(
            f"{folder} was changed since it was made, and can't be made again ({error.strerror}); delete it, or set "
            "MMEB_CACHE to a folder of yours"
        ) from error
    shutil.rmtree(aside, ignore_errors=True)


def data_revision(task: Task, info: DataInfo) -> str:
    """Identifies what a task reads: the commits of its sources, and a hash of its annotations.

    Only its own: fetching another task's data makes no earlier result stale.

    Raises:
        DataError: annotations can't be read.
    """
    keys = {source_key(task.name, source): repo_of(source) for source in task.sources}
    commits = sorted({f"{repo}@{info.revisions[key][:12]}" for key, repo in keys.items() if key in info.revisions})
    try:
        if _as_made(info.root):
            for path in {path for pattern in task.annotations for path in matching(info.root, pattern)}:
                if path.is_file():
                    check_as_made(info, path, file_checksum(path))
        content = hash_files(info.root, task.annotations, task.listed, whole=info.revision == OWN_REVISION)
        return f"{','.join(commits or [info.revision])}:{content}"
    except OSError as error:
        raise DataError(f"annotations {error.filename} can't be read: {error.strerror}; put a file there") from error


def table_of(source: Table | Pages) -> Table:
    """The table that a source is, or that carries its pages."""
    return source.table if isinstance(source, Pages) else source


def repo_of(source: HubSource) -> str:
    """The repository that a source is in."""
    return source.table.repo if isinstance(source, Pages) else source.repo


def source_key(task: str, source: HubSource) -> str:
    """Names a source in the manifest. Tasks share tables; of an archive each task has its own part."""
    if isinstance(source, Archive):
        return f"{source.repo}/{source.file}@{task}"
    if isinstance(source, Files):
        return f"{source.repo}/{source.folder}/{source.files}"
    table = table_of(source)
    return f"{table.repo}/{table.key}"


def load_samples(task: Task, info: DataInfo, profile: Profile, limit: int | None = None) -> Samples:
    """Read a task and hold it against its edition and its declared number of queries; then cut to `limit` queries.

    Args:
        profile: the frames of videos and the seconds of sounds that are shown.

    Raises:
        DataError: if the reader refuses.
        RevisionError: if the rows are of another edition, or their number is not the declared one: a score over
            fewer queries than declared is not a score.
    """
    with plugin_code(f"task {task.name!r} can't be read"):
        try:
            samples = task.load(info.root, profile.frames)
        except DataError as error:
            if str(error).startswith(f"{task.name}: "):
                raise
            raise _named(task, info.root, error) from error
    if not isinstance(samples, Samples):
        raise DataError(f"{task.name}: its reader returned {type(samples).__name__}, not Samples")
    if not info.synthetic and task.recognise is not None:
        with plugin_code(f"task {task.name!r} can't tell its edition"):
            edition = task.recognise(samples)
        if edition not in (None, task.edition):
            raise RevisionError(
                f"{task.name}: the rows in {info.root} are of edition {edition}, the run asks for {task.edition}; run "
                f"with --edition {edition}, or fetch them again: mmeb-eval data get --update --data "
                f"{shlex.quote(str(info.root))} --edition {task.edition} --tasks {shlex.quote(task.name)}"
            )
    expected = info.num_queries.get(task.name, None if info.synthetic else task.num_queries)
    if expected is not None and len(samples.queries) != expected:
        raise RevisionError(
            f"{task.name}: expected {expected} queries, found {len(samples.queries)} in {info.root} "
            f"(another data revision of {task.source or 'its source'}?)"
        )
    if not info.synthetic:
        samples = _with_counted_candidates(task, _with_counted_queries(task, samples), info)
    samples = _windowed(samples, profile.audio_seconds)
    return samples if limit is None else _first_queries(samples, limit)


def _windowed(samples: Samples, seconds: float) -> Samples:
    """The samples with every sound cut to so many seconds: models needn't know of it."""
    if all(item.sound is None for item in (*samples.queries, *samples.candidates)):
        return samples

    def cut(item: Item) -> Item:
        if item.sound is None:
            return item
        return dataclasses.replace(item, sound=dataclasses.replace(item.sound, window=seconds))

    queries, candidates = (tuple(map(cut, items)) for items in (samples.queries, samples.candidates))
    return dataclasses.replace(samples, queries=queries, candidates=candidates)


def _named(task: Task, root: Path, error: DataError) -> DataError:
    """A reader's refusal with the task and its files, if it doesn't name one."""
    if str(root) in str(error):
        return DataError(f"{task.name}: {error}")
    files = f" (read from {root / task.annotations[0]})" if task.annotations else f" (read from {root})"
    return DataError(f"{task.name}: {error}{files}; mend the data, or the task's reader")


def _with_counted_queries(task: Task, samples: Samples) -> Samples:
    """Another number of queries than the public data set has is no error: the benchmark's copy states none."""
    difference = abs(len(samples.queries) - (task.likely_queries or len(samples.queries)))
    return dataclasses.replace(samples, notes={**samples.notes, OTHER_QUERIES: difference}) if difference else samples


def _with_counted_candidates(task: Task, samples: Samples, info: DataInfo) -> Samples:
    """Candidates held against the declared number: fewer of them make a task easier.

    A corpus of pages that lacks some is refused: it is a table of its own, and can be incomplete. All other candidates
    come with the query rows, whose number is checked; fewer of them than published are counted.

    Raises:
        RevisionError: the corpus is smaller than declared.
    """
    if task.num_candidates is None:
        return samples
    if samples.pools is None:
        missing = task.num_candidates - len(samples.candidates)
        if missing > 0 and task.modality != "visdoc":
            return dataclasses.replace(samples, notes={**samples.notes, "candidates fewer than declared": missing})
        if missing > 0:
            raise RevisionError(
                f"{task.name}: expected {task.num_candidates} candidates, found {len(samples.candidates)} in "
                f"{info.root} (incomplete, or another data revision of {task.source or 'its source'}?)"
            )
        return samples
    short = sum(len(pool) < task.num_candidates for pool in samples.pools.values())
    return dataclasses.replace(samples, notes={**samples.notes, "candidate lists shorter than declared": short})


def _first_queries(samples: Samples, limit: int) -> Samples:
    """The first queries; candidates that no remaining pool needs are dropped, a global corpus stays whole."""
    queries = samples.queries[:limit]
    gains = {query.id: samples.gains[query.id] for query in queries}
    incomplete = samples.incomplete & gains.keys()
    if samples.pools is None:
        return Samples(queries, samples.candidates, gains, None, incomplete, samples.notes)
    pools = {query.id: samples.pools[query.id] for query in queries}
    needed = set(itertools.chain(*pools.values(), *gains.values()))
    candidates = tuple(candidate for candidate in samples.candidates if candidate.id in needed)
    return Samples(queries, candidates, gains, pools, incomplete, samples.notes)


def query_labels(info: DataInfo) -> Mapping[str, Mapping[str, str]]:
    """task → query id → "easy" or "hard", where the data folder says so (suites do; real data does not)."""
    path = info.root / QUERY_LABELS
    if not path.is_file():
        return {}
    labels: dict[str, dict[str, str]] = {}
    for row in read_parquet(path, ["task", "query_id", "difficulty"]).to_pylist():
        labels.setdefault(row["task"], {})[row["query_id"]] = row["difficulty"]
    return labels
