"""A task, a suite, and where the data of a task comes from, as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mmeb_harness.core.items import Frames, Medium, MetricName, Modality, Samples


@dataclass(frozen=True, slots=True)
class Table:
    """An annotation table on the hub: repository, configuration (`None`: the only one) and split.

    On disk: `annotations/<owner>/<name>/<configuration or "default">/<split>.parquet`, or in shards
    `<split>-00000-of-00002.parquet`, below the data folder.
    """

    repo: str
    config: str | None
    split: str

    @property
    def key(self) -> str:
        """Names it within its repository."""
        return f"{self.config or 'default'}/{self.split}"

    @property
    def folder(self) -> str:
        """Folder of its files, below the data folder."""
        return f"annotations/{self.repo}/{self.config or 'default'}"

    @property
    def patterns(self) -> tuple[str, str]:
        """Glob patterns of its files: one file, or shards."""
        return f"{self.folder}/{self.split}.parquet", f"{self.folder}/{self.split}-*-of-*.parquet"


@dataclass(frozen=True, slots=True)
class Pages:
    """A table that carries one image a row, to become a file each.

    Attributes:
        id_column, image_column: names of the columns.
        file_of: a row's id → the image's path below the data folder.
        content_of: a row's id and the stored image → the file's bytes.
    """

    table: Table
    id_column: str
    image_column: str
    file_of: Callable[[str], str]
    content_of: Callable[[str, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Files:
    """Files on the hub that are copied as they are.

    Attributes:
        folder: in the repository.
        files: regular expression that a file's path below that folder matches in full.
        into: folder below the data folder; what lies there and matches `files` is theirs alone.
        revision: commit to fetch unless a lock file or --update says otherwise; `None`: the newest.
    """

    repo: str
    folder: str
    files: str
    into: str
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """A task's files on the hub, inside a tar or zip archive that several tasks share.

    Attributes:
        file: regular expression that the archive's base name matches in full. Several matching files are the
            parts of one archive, in the order of their numbers.
        place_in: data folder, which holds the annotations by then → a function from a member's path to where
            it belongs below the data folder; `None` if it isn't this task's.
        expansion: size of all that is in it over its own size, roughly: how much room to keep.
        by_tables: which members are the task's is said by its other sources: other rows, other members.
        folder: below the data folder, where files are found by listing it: what an older revision, or an
            interrupted pass, left there goes. "": files are found by their names alone.
        nested: regular expression that base names of members match in full which are tar archives themselves; their
            members count as lying in the same folder. "": none.
        revision: commit to fetch unless a lock file or --update says otherwise; `None`: the newest.
    """

    repo: str
    file: str
    place_in: Callable[[Path], Callable[[str], str | None]]
    expansion: float = 1.1
    by_tables: bool = False
    folder: str = ""
    nested: str = ""
    revision: str | None = None


HubSource: TypeAlias = Table | Pages | Files | Archive


@dataclass(frozen=True)
class Task:
    """One evaluation task, as a value. `load` reads it from a local data folder.

    Attributes:
        name: as on the leaderboard.
        group: meta-task, e.g. "I-CLS"; a group score is the plain mean over its tasks.
        metric: the main metric.
        load: data folder, frames to show → samples; raises `DataError`, never downloads.
        annotations: glob patterns below the data folder; the files (and names of folders) decide the samples and are
            hashed into the data revision.
        listed: folders below the data folder whose listings decide the samples as well: names alone are hashed.
        num_queries: how many queries the real data has; `None` if not declared.
        likely_queries: how many it probably has, where only the same public data set's number is known: another one is
            counted, not refused.
        num_candidates: distinct candidates (global) or candidates of a query (local), where declared.
        source: hub repository the annotations come from.
        in_distribution: "IND" or "OOD", by the benchmark's own split.
        edition: of the benchmark; "" for a task that has none.
        sources: what `mmeb-eval data get` fetches for it.
        media: what a model has to take for it, beside text; empty where that isn't declared.
        recognise: real samples → the edition they are of, where known rows tell; `None` where they don't.
    """

    name: str
    modality: Modality
    group: str
    metric: MetricName
    load: Callable[[Path, Frames], Samples]
    annotations: tuple[str, ...] = ()
    num_queries: int | None = None
    num_candidates: int | None = None
    source: str = ""
    in_distribution: Literal["IND", "OOD"] | None = None
    edition: str = ""
    sources: tuple[HubSource, ...] = ()
    recognise: Callable[[Samples], str | None] | None = None
    listed: tuple[str, ...] = ()
    media: tuple[Medium, ...] = ()
    likely_queries: int | None = None


@dataclass(frozen=True)
class Suite:
    """Data that can be made on this machine, in the tree that the readers read.

    Attributes:
        make: folder, seed → the files.
        editions: of the benchmark, whose tasks it has.
    """

    name: str
    version: str
    make: Callable[[Path, int], None]
    editions: tuple[str, ...] = ()


@dataclass(frozen=True)
class FolderFormat:
    """A form that people's own data come in: a folder of it holds tasks, without a plugin for each.

    Attributes:
        name: in messages, and of its example.
        files: what such a folder holds, in words.
        find: folder → its tasks; `None` if it isn't of this form. Reads no more than a few rows.
        check: folder, what is told of each picture that is opened → everything that is wrong, a line each, and if
            nothing is, the samples of its tasks, in their order.
        write_example: writes an example into an empty folder.
    """

    name: str
    files: str
    find: Callable[[Path], tuple[Task, ...] | None]
    check: Callable[[Path, Callable[[Path], None]], tuple[Sequence[str], Sequence[Samples]]]
    write_example: Callable[[Path], None]
