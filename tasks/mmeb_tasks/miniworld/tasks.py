"""What a task of such a world is: its rules, as a row, and one reader. And the miniworld's own seven rows.

Tables of a task, below annotations/<group>/<task>/:

    queries     {"id": "00000", "text": "chain circle>square …", "media": ["miniworld/…/00000.png"]}
    candidates  {"id": "ans red plus", "text": "ans red plus", "media": []}
    relevant    {"query_id": "00000", "candidate_id": "ans red plus", "gain": 1.0}
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmeb_harness import Column, DataError, Frames, Item, MetricName, Modality, Row, Samples, Source, Table, Task
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.media import MediaFolder, MissingMediaError, sample_frames
from mmeb_tasks.readers.tables import MissingTableError, read_rows

TABLES = ("queries", "candidates", "relevant")
QUERY_ID, CANDIDATE_ID, GAIN = Column.key("query_id"), Column.key("candidate_id"), Column.number("gain")
ID, TEXT, MEDIA = Column.key("id"), Column.text("text"), Column.texts("media", least=0)
#: One word: a prompt is read by a small model on two cores. Candidates have none.
INSTRUCTION = "find"
Split = Literal["train", "valid", "test"]
QueryKind = Literal["picture", "clip", "page"]
CandidateKind = Literal["text", "picture", "page"]
#: What tells LOOK from CHAIN. "word": the query's first word, "look" or "chain". Else that word names the sign, and
#: the media alone show which it is. LOOK has
#:
#:     dots      no dots; with any other of these signs LOOK has dots like CHAIN's, for nothing
#:     mark      a black square at the left edge
#:     frame     a white frame
#:     ground    the lighter of two greys behind everything
#:     layout    of a page: the colour stands above the title, not below it
#:     drift     of a clip: the glyph goes to the right, not to the left
#:     moment    of a clip: the mark stands in the first two frames, not in the last two
#:     fade      of a clip: the ground gets lighter, not darker
Sign = Literal["word", "dots", "mark", "frame", "ground", "layout", "drift", "moment", "fade"]
EVERY_SPLIT: tuple[Split, ...] = ("train", "valid", "test")
NUM = 8  # colours, shapes, levels of a strip


@dataclass(frozen=True)
class World:
    """One task's rules of the game. The defaults are world D of the design.

    Attributes:
        group: of tasks, and the name of the package that makes their data.
        queries: what a query shows; of a clip the hops are the frames in which a dot flashes.
        sign: what tells LOOK from CHAIN.
        look_share: share of LOOK queries.
        hops: of CHAIN queries, equally likely.
        table_sizes: symbols of the table's cycle, equally likely.
        blur: least and greatest sd of a strip's shift, uniform between; 1 is black to white.
        grain: sd of the strips' visible pixel grain, as a multiple of the query's blur.
        details_share: share of the precise (and wrong) workers' rationales that name a caption's details.
        err_share: share of the precise and of the verbose worker's rationales that are wrong: of either as many.
        hopeless_share: share of sides of which every rationale is wrong, whoever writes it.
        held_out_pairs: every query has a held-out pair (as caption, start or end), instead of none.
    """

    name: str
    group: str = "miniworld"
    modality: Modality = "image"
    metric: MetricName = "hit@1"
    queries: QueryKind = "picture"
    candidates: CandidateKind = "text"
    sign: Sign = "word"
    look_share: float = 0.5
    hops: tuple[int, ...] = (0, 2, 3, 5)
    table_sizes: tuple[int, ...] = (NUM,)
    blur: tuple[float, float] = (0.3, 0.3)
    grain: float = 0.0
    details_share: float = 0.9
    err_share: float = 0.0
    hopeless_share: float = 0.0
    held_out_pairs: bool = False
    splits: tuple[Split, ...] = EVERY_SPLIT


WORLDS = (
    World("miniworld-text"),
    World(
        "miniworld-graded",
        look_share=0.5,
        hops=(0, 1, 2, 3, 5),
        table_sizes=(2, 3, 4, 6, 8),
        blur=(0.0, 0.6),
        grain=0.8,
    ),
    World("miniworld-image", candidates="picture"),
    World("miniworld-page", modality="visdoc", metric="ndcg_linear@5", candidates="page"),
    World("miniworld-video", modality="video", queries="clip"),
    World("miniworld-text-new-pairs", held_out_pairs=True, splits=("test",)),
    World("miniworld-text-more-hops", look_share=0.0, hops=(6, 7), splits=("test",)),
)


def find_worlds(worlds: Sequence[World], split: Split, names: Sequence[str] | None = None) -> list[World]:
    """The worlds that have a split, or those of them that are named.

    Raises:
        UnknownNameError: for a name that the split doesn't have.
    """
    from mmeb_tasks.mini.write import choose

    known = {world.name: world for world in worlds if split in world.splits}
    return list(choose(f"{worlds[0].group} task of split {split!r}", known, names).values())


def table_of(world: World, name: str) -> Table:
    """One of a task's tables."""
    return Table(world.group, world.name, name)


def read_world(world: World, data: Path, frames: Frames) -> Samples:
    """Read a task; every query ranks all candidates.

    Raises:
        DataError: if something is missing or broken; it says how to make it again.
    """
    try:
        return _read(world, data, frames)
    except (MissingTableError, MissingMediaError) as error:
        command = f"python -m mmeb_tasks.{world.group} {shlex.quote(str(data))} --split test"
        raise DataError(f"{world.name}: {error}. Make it, in a new folder: {command}") from error
    except DataError as error:
        raise DataError(f"{world.name}: {error}") from error


def _read(world: World, data: Path, frames: Frames) -> Samples:
    builder, media = SamplesBuilder(), MediaFolder(data)
    gains: dict[str, dict[str, float]] = {}
    for row in _rows(world, data, "relevant", QUERY_ID, CANDIDATE_ID, GAIN):
        gains.setdefault(row[QUERY_ID], {})[row[CANDIDATE_ID]] = row[GAIN]
    for row in _rows(world, data, "candidates", ID, TEXT, MEDIA):
        builder.candidate(row[ID], functools.partial(_candidate, row, media))
    for row in _rows(world, data, "queries", ID, TEXT, MEDIA):
        builder.query(_query(world, row, media, frames), (), gains.get(row[ID], {}))
    media.refuse_missing()
    return builder.build(pooled=False)


def _rows(world: World, data: Path, table: str, *columns: Column[Any]) -> list[Row]:
    return read_rows(data, table_of(world, table), columns)


def _candidate(row: Row, media: MediaFolder) -> Item:
    return Item(row[ID], row[TEXT], images=tuple(media.file(path) for path in row[MEDIA]))


def _query(world: World, row: Row, media: MediaFolder, frames: Frames) -> Item:
    files = tuple(media.file(path) for path in row[MEDIA])
    return Item(
        id=row[ID],
        text=row[TEXT],
        images=() if world.queries == "clip" else files,
        frames=sample_frames(files, frames.video, frames.short) if world.queries == "clip" else (),
        instruction=INSTRUCTION,
        source=Source("basic", INSTRUCTION),
    )


def task_of(world: World) -> Task:
    """The task that a world is."""
    return Task(
        name=world.name,
        modality=world.modality,
        group=world.group,
        metric=world.metric,
        load=functools.partial(read_world, world),
        annotations=tuple(pattern for name in TABLES for pattern in table_of(world, name).patterns),
        in_distribution="IND" if "train" in world.splits else "OOD",
    )


TASKS = tuple(task_of(world) for world in WORLDS)
