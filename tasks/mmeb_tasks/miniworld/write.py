"""Writes a split: pictures, tables, labels, what workers wrote. Facts, pictures and workers draw separately."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmeb_tasks.mini.world import Picture, Rng, stream
from mmeb_tasks.mini.write import QueryLabel, Side, SuiteWriter, whole_suite
from mmeb_tasks.miniworld.render import (
    Pictures,
    draw_clips,
    draw_pages,
    draw_pictures,
    draw_target_pages,
    draw_target_pictures,
)
from mmeb_tasks.miniworld.tasks import EVERY_SPLIT, QueryKind, Split, World, find_worlds, table_of
from mmeb_tasks.miniworld.workers import Sight, precise, query_sights, target_sights, work
from mmeb_tasks.miniworld.world import (
    Queries,
    Targets,
    Things,
    draw_pool,
    draw_queries,
    in_pool,
    query_text,
    rows_of,
    target_text,
    targets_of,
)

Row = dict[str, Any]
#: Pictures that are drawn at once.
CHUNK = 512
DRAW: dict[QueryKind, Callable[[World, Queries, Rng], Pictures]] = {
    "picture": draw_pictures,
    "clip": draw_clips,
    "page": draw_pages,
}
_PURPOSES = ("facts", "pictures", "workers", "slips")


@dataclass(frozen=True, slots=True)
class WorldLabel(QueryLabel):
    """What the world knows of a query.

    Attributes:
        kind: "look" or "chain".
        hops: 0 for "look".
        table: symbols of its rule table.
        blur: sd of its strips' shifts.
    """

    kind: Literal["look", "chain"]
    hops: int
    table: int
    blur: float


def write_split(
    worlds: Sequence[World],
    version: str,
    folder: Path,
    seed: int,
    split: Split,
    num_queries: int,
    tasks: Sequence[str] | None,
) -> None:
    """Write a split of worlds of one group, whole or not at all; see `miniworld.make_split`."""
    chosen, name = find_worlds(worlds, split, tasks), worlds[0].group
    with whole_suite(folder) as writer:
        for world in chosen:
            write_task(world, seed, split, num_queries, writer)
        writer.finish(name, f"{name}-{version}-{split}-{seed}-{num_queries}", seed)


def write_task(world: World, seed: int, split: Split, num_queries: int, writer: SuiteWriter) -> None:
    """Write one task of a split."""
    facts, pictures, workers, slips = (
        stream(seed, EVERY_SPLIT.index(split), world.name, purpose) for purpose in range(len(_PURPOSES))
    )
    queries, targets, places = _draw(world, split, num_queries, facts)
    query_rows = _query_rows(world, queries, pictures, writer)
    candidate_rows = _candidate_rows(world, targets, pictures, writer)
    query_ids, candidate_ids = ([row["id"] for row in rows] for rows in (query_rows, candidate_rows))
    relevant = [
        {"query_id": query_id, "candidate_id": candidate_ids[place], "gain": 1.0}
        for query_id, place in zip(query_ids, places, strict=True)
    ]
    writer.table(table_of(world, "queries"), query_rows)
    writer.table(table_of(world, "candidates"), list({row["id"]: row for row in candidate_rows}.values()))
    writer.table(table_of(world, "relevant"), relevant)
    writer.labels(world.name, _labels(queries, query_ids))
    if split != "test":
        sides: dict[Side, list[Sight]] = {"query": query_sights(queries)}
        if world.candidates != "text":
            sides["positive"] = target_sights(targets_of(queries))
        written = [work(side, query_ids, sights, world, workers, slips) for side, sights in sides.items()]
        writer.rationales(world.name, list(itertools.chain(*written)))


def _draw(world: World, split: Split, n: int, rng: Rng) -> tuple[Queries, Targets, Sequence[int]]:
    """Queries, candidates, and the place of each query's own among them.

    Training: a candidate for each query. Else a pool, whose captions have the levels that the queries show.
    """
    if split == "train":
        queries = draw_queries(world, n, rng)
        return queries, targets_of(queries), range(n)
    pool = draw_pool(rng)
    queries, places = in_pool(draw_queries(world, n, rng), pool)
    return queries, pool, places.tolist()


def _query_rows(world: World, queries: Queries, rng: Rng, writer: SuiteWriter) -> list[Row]:
    def draw(chunk: Queries, rng: Rng) -> Pictures:
        return DRAW[world.queries](world, chunk, rng)

    media = _write_media(f"{world.group}/{world.name}/queries", _in_chunks(queries, draw, rng), writer)
    return [
        {"id": query_id, "text": query_text(world, queries, index), "media": paths}
        for index, (query_id, paths) in enumerate(media)
    ]


def _candidate_rows(world: World, targets: Targets, rng: Rng, writer: SuiteWriter) -> list[Row]:
    """One row a target; the id of a text is the text, so equal texts are one candidate."""
    if world.candidates == "text":
        texts = [target_text(targets, index) for index in range(len(targets))]
        return [{"id": text, "text": text, "media": []} for text in texts]
    draw = draw_target_pages if world.candidates == "page" else draw_target_pictures
    media = _write_media(f"{world.group}/{world.name}/candidates", _in_chunks(targets, draw, rng), writer)
    return [{"id": candidate_id, "text": "", "media": paths} for candidate_id, paths in media]


def _in_chunks(things: Things, draw: Callable[[Things, Rng], Pictures], rng: Rng) -> Iterator[Picture]:
    """A picture (h, w, 3) or a clip (frames, h, w, 3) each."""
    for start in range(0, len(things), CHUNK):
        yield from draw(rows_of(things, slice(start, start + CHUNK)), rng)


def _write_media(folder: str, pictures: Iterable[Picture], writer: SuiteWriter) -> Iterator[tuple[str, list[str]]]:
    """Write a picture (h, w, 3) as a file, a clip (frames, h, w, 3) as a folder of files; an id and paths each."""
    for number, picture in enumerate(pictures):
        stem = f"{folder}/{number:05d}"
        files = {f"{stem}.png": picture}
        if picture.ndim == 4:
            files = {f"{stem}/frame_{frame}.png": pixels for frame, pixels in enumerate(picture, start=1)}
        yield f"{number:05d}", [writer.picture(path, pixels) for path, pixels in files.items()]


def _labels(queries: Queries, query_ids: Sequence[str]) -> list[WorldLabel]:
    targets = targets_of(queries)
    return [
        WorldLabel(
            query_id=query_id,
            difficulty="hard" if queries.hops[index] else "easy",
            rationale=precise(sight, details=bool(sight.details)),
            answer=target_text(targets, index),
            kind="look" if queries.looks[index] else "chain",
            hops=int(queries.hops[index]),
            table=int(queries.table_sizes[index]),
            blur=float(queries.blurs[index]),
        )
        for index, (query_id, sight) in enumerate(zip(query_ids, query_sights(queries), strict=True))
    ]
