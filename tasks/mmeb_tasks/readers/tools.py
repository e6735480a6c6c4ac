"""The 35 tool tasks: what somebody wants, and the documentation of all tools of a category to find it in."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path

from mmeb_harness import Item, Samples
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.corpus import (
    EMPTY_QUERIES,
    add_candidate,
    add_query,
    joined_query,
    refuse_unlabelled,
    text_item,
)
from mmeb_tasks.readers.records import Record, is_whole, iter_records
from mmeb_tasks.readers.tables import MissingTableError

ID, INSTRUCTION, QUERY, DOCUMENTATION = "id", "instruction", "query", "documentation"
LABELS = ("label", "labels")

ESCAPED = "tools whose letters beyond ASCII are escaped"
BLANK = "blank candidates"
LABELS_IN_LISTS = "queries whose labels stand in a list column, where officially none is seen"


def read_tool_task(queries: str, tools: str, data: Path) -> Samples:
    """Read one tool task.

    Args:
        queries, tools: tables below the data folder.
    """
    builder = SamplesBuilder()
    items, notes = _tools_of(data / tools)
    builder.notes.update(notes)
    for tool in items:
        builder.candidate(tool.id, functools.partial(_itself, tool))
    for record in iter_records(data / queries, (ID, INSTRUCTION, QUERY, *LABELS)):
        item = joined_query(record.stated_id(ID), record.text(INSTRUCTION), record.text(QUERY))
        if item is None:
            builder.notes[EMPTY_QUERIES] += 1
        else:
            add_query(builder, item, dict.fromkeys(_labels(record, builder), 1.0), record)
    samples = builder.build(pooled=False)
    if LABELS_IN_LISTS not in samples.notes:
        refuse_unlabelled(samples, data / queries)
    return samples


def _tools_of(path: Path) -> tuple[tuple[Item, ...], Mapping[str, int]]:
    """A category's tools, read once and held once for all of its tasks, while the file is the same."""
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise MissingTableError(f"file {path} is missing") from error
    return _read_tools(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_tools(path: Path, size: int, modified: int) -> tuple[tuple[Item, ...], Mapping[str, int]]:
    tools = SamplesBuilder()
    for record in iter_records(path, (ID, DOCUMENTATION)):
        text = _documentation(record)
        tools.notes[ESCAPED] += "\\u" in text
        tools.notes[BLANK] += not text.strip()
        add_candidate(tools, record.stated_id(ID), functools.partial(text_item, text))
    return tools.candidates, tools.notes


def _itself(tool: Item) -> Item:
    return tool


def _documentation(record: Record) -> str:
    """An object is written again by the official rules, escapes and all; another JSON value as Python shows it."""
    if record.values.get(DOCUMENTATION) is None:
        return "None"
    stored = record.text(DOCUMENTATION)
    try:
        value = json.loads(stored)
    except (ValueError, RecursionError):
        return stored
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    if not is_whole(text):
        raise record.unfit(DOCUMENTATION, "text without half characters")
    return text


def _labels(record: Record, builder: SamplesBuilder) -> list[str]:
    """Ids of a query's tools: a list of objects with an id or of ids, one of them, or text that is an id itself."""
    name = next((name for name in LABELS if record.values.get(name) is not None), LABELS[-1])
    stated = record.values.get(name)
    if isinstance(stated, list):
        builder.notes[LABELS_IN_LISTS] += 1
        return []
    if stated is None or (isinstance(stated, float) and math.isnan(stated)):
        return []
    if not (written := record.text(name).strip()):
        return []
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return [written]
    entries = value if isinstance(value, list) else [value]
    ids = [entry.get(ID) if isinstance(entry, dict) else entry for entry in entries if isinstance(entry, (dict, str))]
    return [str(tool_id) for tool_id in ids if tool_id]
