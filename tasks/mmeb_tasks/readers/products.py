"""MCMR: products, each a picture and what is said of it, for queries that state several conditions at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmeb_harness import Item, Samples, Source
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.corpus import (
    EMPTY_DOCUMENTS,
    EMPTY_QUERIES,
    add_candidate,
    add_query,
    joined_query,
    refuse_unlabelled,
)
from mmeb_tasks.readers.media import MediaFolder
from mmeb_tasks.readers.records import Record, is_whole, iter_records

QUERY_ID, QUERY, LABELS = "qid", "query", "pos_ids"
ID, IMAGES = "candidate_id", "images"
#: What is said of a product, in the order in which it is shown.
SAID = ("title", "description", "features", "price", "Date First Available")
#: Where a picture's entry has its name.
NAMES = ("url", "path", "image")


def read_product_task(folder: str, instruction: str, data: Path) -> Samples:
    """Read the queries and candidates of MCMR.

    Args:
        folder: of its files, below the data folder.
    """
    builder, media = SamplesBuilder(), MediaFolder(data)
    for record in iter_records(data / folder / "candidates.jsonl", (ID, *SAID, IMAGES)):
        candidate_id = _spelled(record, ID)
        if candidate_id:
            add_candidate(builder, candidate_id, partial(_candidate, record, f"{folder}/{IMAGES}", media))
        else:
            builder.notes[EMPTY_DOCUMENTS] += 1
    media.refuse_missing()
    for record in iter_records(data / folder / "query.jsonl", (QUERY_ID, QUERY, LABELS)):
        item = joined_query(_spelled(record, QUERY_ID), instruction, _spelled(record, QUERY))
        if item is None:
            builder.notes[EMPTY_QUERIES] += 1
        else:
            add_query(builder, item, dict.fromkeys(_labels(record), 1.0), record)
    samples = builder.build(pooled=False)
    refuse_unlabelled(samples, data / folder / "query.jsonl")
    return samples


def _spelled(record: Record, name: str) -> str:
    text = spelled(record.values.get(name))
    if not is_whole(text):
        raise record.unfit(name, "text without half characters")
    return text


def spelled(value: Any) -> str:
    """A value as the benchmark writes it: text stripped, a list joined by spaces, an object as sorted ASCII JSON."""
    match value:
        case None:
            return ""
        case str():
            return value.strip()
        case list():
            return " ".join(filter(None, map(spelled, value)))
        case dict():
            return json.dumps(value, sort_keys=True)
        case _:
            return str(value)


def _candidate(record: Record, images: str, media: MediaFolder, candidate_id: str) -> Item:
    said = [f"{name}: {text}" for name in SAID if (text := _spelled(record, name))]
    pictures = [f"{images}/{name}" for name in _pictures(record)]
    if not pictures:
        raise record.unfit(IMAGES, "the address of a picture")
    # The first that is there; without any the task fails, as officially.
    image = media.file(next(filter(media.has, pictures), pictures[0]))
    text = "\n".join(said or [f"{ID}: {candidate_id}"])
    return Item(candidate_id, text=text, images=(image,), source=Source("basic"))


def _pictures(record: Record) -> Iterator[str]:
    """Names of a product's pictures: the last part of each address, up to a question mark."""
    stated = record.values.get(IMAGES)
    for entry in stated if isinstance(stated, list) else [stated]:
        address = next((entry[name] for name in NAMES if entry.get(name)), "") if isinstance(entry, dict) else entry
        if isinstance(address, str) and (name := address.rpartition("/")[2].partition("?")[0]):
            yield name


def _labels(record: Record) -> list[str]:
    """A list of ids, one as JSON, or one id."""
    stated = record.values.get(LABELS)
    if isinstance(stated, str):
        try:
            parsed = json.loads(stated)
        except (ValueError, RecursionError):
            parsed = None
        stated = parsed if isinstance(parsed, list) else stated
    return list(filter(None, map(spelled, stated if isinstance(stated, list) else [stated])))
