"""The miniworld's tasks: seven rows, one reader.

Tables of a task, below annotations/miniworld/<task>/:

    queries     {"id": "00000", "text": "chain circle>square …", "media": ["miniworld/…/00000.png"]}
    candidates  {"id": "ans red plus", "text": "ans red plus", "media": []}
    relevant    {"query_id": "00000", "candidate_id": "ans red plus", "gain": 1.0}
"""

from __future__ import annotations

import functools
import shlex
from pathlib import Path

from mmeb_harness import DataError, Frames, Item, Samples, Source, Table, Task
from mmeb_tasks.miniworld.world import WORLDS, World
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.media import MediaFolder, MissingMediaError, sample_frames
from mmeb_tasks.readers.tables import MissingTableError, Row, read_rows

GROUP = "miniworld"
TABLES = ("queries", "candidates", "relevant")
#: One word: a prompt is read by a small model on two cores. Candidates have none.
INSTRUCTION = "find"


def table_of(task: str, name: str) -> Table:
    """One of a task's tables."""
    return Table(GROUP, task, name)


def read_miniworld(world: World, data: Path, frames: Frames) -> Samples:
    """Read a task; every query ranks all candidates.

    Raises:
        DataError: if something is missing or broken; it says how to make it again.
    """
    try:
        return _read(world, data, frames)
    except (MissingTableError, MissingMediaError) as error:
        command = f"python -m mmeb_tasks.miniworld {shlex.quote(str(data))} --split test"
        raise DataError(f"{world.name}: {error}. Make it, in a new folder: {command}") from error
    except DataError as error:
        raise DataError(f"{world.name}: {error}") from error


def _read(world: World, data: Path, frames: Frames) -> Samples:
    builder, media = SamplesBuilder(), MediaFolder(data)
    gains: dict[str, dict[str, float]] = {}
    for row in _rows(world, data, "relevant", "query_id", "candidate_id", "gain"):
        gains.setdefault(row["query_id"], {})[row["candidate_id"]] = row["gain"]
    for row in _rows(world, data, "candidates", "id", "text", "media"):
        builder.candidate(row["id"], functools.partial(_candidate, row, media))
    for row in _rows(world, data, "queries", "id", "text", "media"):
        builder.query(_query(world, row, media, frames), (), gains.get(row["id"], {}))
    media.refuse_missing()
    return builder.build(pooled=False)


def _rows(world: World, data: Path, table: str, *columns: str) -> list[Row]:
    return read_rows(data, table_of(world.name, table), columns)


def _candidate(row: Row, media: MediaFolder) -> Item:
    return Item(row["id"], row["text"], images=tuple(media.file(path) for path in row["media"]))


def _query(world: World, row: Row, media: MediaFolder, frames: Frames) -> Item:
    files = tuple(media.file(path) for path in row["media"])
    return Item(
        id=row["id"],
        text=row["text"],
        images=() if world.clip else files,
        frames=sample_frames(files, frames.video, frames.short) if world.clip else (),
        instruction=INSTRUCTION,
        source=Source("basic", INSTRUCTION),
    )


def _task(world: World) -> Task:
    return Task(
        name=world.name,
        modality=world.modality,
        group=GROUP,
        metric=world.metric,
        load=functools.partial(read_miniworld, world),
        annotations=tuple(pattern for name in TABLES for pattern in table_of(world.name, name).patterns),
        in_distribution="IND" if "train" in world.splits else "OOD",
    )


TASKS = tuple(_task(world) for world in WORLDS)
