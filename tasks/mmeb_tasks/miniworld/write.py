"""Writes a split: pictures, tables, labels, what workers wrote. Facts, pictures and workers draw separately."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mmeb_tasks.mini.world import Picture
from mmeb_tasks.mini.write import Difficulty, QueryLabel, SuiteWriter
from mmeb_tasks.miniworld.render import draw_clips, draw_pictures, draw_target_pages, draw_target_pictures
from mmeb_tasks.miniworld.tasks import table_of
from mmeb_tasks.miniworld.workers import precise, query_sights, target_sights, work
from mmeb_tasks.miniworld.world import (
    EVERY_SPLIT,
    Queries,
    Rng,
    Split,
    Targets,
    World,
    draw_pool,
    draw_queries,
    in_pool,
    query_text,
    target_text,
    targets_of,
)

Row = dict[str, Any]
#: Pictures that are drawn at once.
CHUNK = 512
_PURPOSES = ("facts", "pictures", "workers")


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


@dataclass(frozen=True)
class Gallery:
    """The candidates of one task.

    Attributes:
        targets: what each shows or says, in order.
        own: (n,) the place of each query's own.
    """

    targets: Targets
    own: Sequence[int]


def write_task(world: World, seed: int, split: Split, num_queries: int, writer: SuiteWriter) -> None:
    """Write one task of a split."""
    facts, pictures, workers = (_stream(world, seed, split, purpose) for purpose in range(len(_PURPOSES)))
    queries, gallery = _draw(world, split, num_queries, facts)
    query_rows = _write_queries(world, queries, pictures, writer)
    candidate_rows = _write_candidates(world, gallery.targets, pictures, writer)
    ids = [row["id"] for row in candidate_rows]
    relevant = [
        {"query_id": row["id"], "candidate_id": ids[place], "gain": 1.0}
        for row, place in zip(query_rows, gallery.own, strict=True)
    ]
    writer.table(table_of(world.name, "queries"), query_rows)
    writer.table(table_of(world.name, "candidates"), list({row["id"]: row for row in candidate_rows}.values()))
    writer.table(table_of(world.name, "relevant"), relevant)
    writer.labels(world.name, _labels(queries, [row["id"] for row in query_rows]))
    if split != "test":
        _write_rationales(world, queries, [row["id"] for row in query_rows], workers, writer)


def _stream(world: World, seed: int, split: Split, purpose: int) -> Rng:
    entropy = (seed, EVERY_SPLIT.index(split), zlib.crc32(world.name.encode()), purpose)
    return np.random.default_rng(np.random.SeedSequence(entropy))


def _draw(world: World, split: Split, n: int, rng: Rng) -> tuple[Queries, Gallery]:
    """Training: a candidate for each query. Else a pool, whose captions have the levels that the queries show."""
    if split == "train":
        queries = draw_queries(world, n, rng)
        return queries, Gallery(targets_of(queries), range(n))
    pool = draw_pool(rng)
    queries, places = in_pool(draw_queries(world, n, rng), pool)
    return queries, Gallery(pool, places.tolist())


def _write_queries(world: World, queries: Queries, rng: Rng, writer: SuiteWriter) -> list[Row]:
    rows: list[Row] = []
    for picture in _draw_queries(world, queries, rng):
        query_id = f"{len(rows):05d}"
        media = _write_media(f"miniworld/{world.name}/queries/{query_id}", picture, writer)
        rows.append({"id": query_id, "text": query_text(queries, len(rows)), "media": media})
    return rows


def _draw_queries(world: World, queries: Queries, rng: Rng) -> Iterator[Picture]:
    """A picture (h, w, 3) or a clip (frames, h, w, 3) each."""
    for start in range(0, len(queries), CHUNK):
        chunk = queries[start : start + CHUNK]
        yield from draw_clips(chunk, rng) if world.clip else draw_pictures(chunk, world.grain, rng)


def _write_media(stem: str, picture: Picture, writer: SuiteWriter) -> list[str]:
    """A picture (h, w, 3) as a file, or a clip (frames, h, w, 3) as a folder of files."""
    if picture.ndim == 3:
        return [writer.picture(f"{stem}.png", picture)]
    return [writer.picture(f"{stem}/frame_{number}.png", frame) for number, frame in enumerate(picture, start=1)]


def _write_candidates(world: World, targets: Targets, rng: Rng, writer: SuiteWriter) -> list[Row]:
    """One row a target; the id of a text is the text, so equal texts are one candidate."""
    if world.candidates == "text":
        texts = [target_text(targets, index) for index in range(len(targets))]
        return [{"id": text, "text": text, "media": []} for text in texts]
    rows: list[Row] = []
    for picture in _draw_targets(world, targets, rng):
        candidate_id = f"{len(rows):05d}"
        media = _write_media(f"miniworld/{world.name}/candidates/{candidate_id}", picture, writer)
        rows.append({"id": candidate_id, "text": "", "media": media})
    return rows


def _draw_targets(world: World, targets: Targets, rng: Rng) -> Iterator[Picture]:
    draw = draw_target_pages if world.candidates == "page" else draw_target_pictures
    for start in range(0, len(targets), CHUNK):
        yield from draw(targets[start : start + CHUNK], rng)


def _labels(queries: Queries, query_ids: Sequence[str]) -> list[WorldLabel]:
    targets = targets_of(queries)
    return [
        WorldLabel(
            query_id=query_id,
            difficulty=_difficulty(int(queries.hops[index])),
            rationale=precise(sight, details=bool(sight.details)),
            answer=target_text(targets, index),
            kind="look" if queries.looks[index] else "chain",
            hops=int(queries.hops[index]),
            table=int(queries.table_sizes[index]),
            blur=float(queries.blurs[index]),
        )
        for index, (query_id, sight) in enumerate(zip(query_ids, query_sights(queries), strict=True))
    ]


def _difficulty(hops: int) -> Difficulty:
    return "hard" if hops else "easy"


def _write_rationales(world: World, queries: Queries, query_ids: Sequence[str], rng: Rng, writer: SuiteWriter) -> None:
    rationales = work("query", query_ids, query_sights(queries), rng)
    if world.candidates != "text":
        rationales += work("positive", query_ids, target_sights(targets_of(queries)), rng)
    writer.rationales(world.name, rationales)
