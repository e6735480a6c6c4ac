"""The 53 text tasks: queries, a corpus and graded qrels, whose fields each data set spells in its own way.

A query's instruction comes before it in two families; documents have none. Queries without a label, and labels that
are no document, count as officially: what is not there is never found.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from mmeb_harness import DataError, Item, Samples, Source
from mmeb_tasks.readers.builder import LEGACY_IMAGE_TOKEN, MISMATCHED, SamplesBuilder, clean_instruction
from mmeb_tasks.readers.records import Record, iter_records
from mmeb_tasks.text import INSTRUCTIONS, TextFiles, TextRow

QUERY_ID = ("_id", "id", "qid", "query_id", "query-id")
QUERY_TEXT = ("text", "query", "query_content", "short_query")
DOCUMENT_ID = ("_id", "id", "doc_id", "document_id", "corpus-id")
TITLE, DOCUMENT_TEXT = "title", ("text", "content")
QRELS_QUERY = ("query_id", "query-id", "qid", "q_id", "id")
QRELS_DOCUMENT = ("corpus_id", "corpus-id", "doc_id", "document_id", "p_id")
#: The first that is there, even with nothing in it.
SCORE = ("label", "score")
#: Of BRIGHT, whose queries hold their labels.
GOLD_IDS, EXCLUDED_IDS = ("gold_ids", "gold_ids_long"), "excluded_ids"
ORIGINAL, CHANGED = INSTRUCTIONS["FollowIR"], INSTRUCTIONS["InfoSearch"]

Grades = dict[str, dict[str, float]]

UNLABELLED = "queries without a label"
NOT_IN_POOL = "queries with labels that are no candidate"
GRADES_KEPT = "grades kept on their labels in queries where officially PYTHONHASHSEED pairs them"
REPEATED_QUERIES, REPEATED_CANDIDATES = "repeated query ids", "rows of a candidate id seen before"
EMPTY_QUERIES = "rows of queries without id or text, dropped"
EMPTY_DOCUMENTS = "rows of candidates without id or text, dropped"
USELESS_QRELS = "rows of qrels without two ids, dropped"
STRANGE_SCORES = "qrels whose score is no number, taken as 1"
STILL_IN_POOL = "documents that BRIGHT excludes for a query and that stay in its pool"
UNINSTRUCTED = "queries without an instruction"
CHANGED_INSTRUCTIONS = "queries with a changed instruction and the labels of the original one"

BARE = Source("bare")


def read_text_task(row: TextRow, files: TextFiles, data: Path) -> Samples:
    """Read one text task.

    Raises:
        DataError: also if no query has a label, as officially.
    """
    builder = SamplesBuilder()
    grades = None if files.qrels is None else read_qrels(data / files.qrels, builder.notes)
    add_documents(builder, data / files.corpus)
    path, instruction = data / files.queries, INSTRUCTIONS.get(row.family, "")
    for record in iter_records(path, (*QUERY_ID, *QUERY_TEXT, ORIGINAL, CHANGED, *GOLD_IDS, EXCLUDED_IDS)):
        query_id = record.key(*QUERY_ID)
        before = record.text(instruction) if instruction else ""
        item = joined_query(query_id, before, record.text(*QUERY_TEXT))
        if item is None:
            builder.notes[EMPTY_QUERIES] += 1
            continue
        builder.notes[UNINSTRUCTED] += bool(instruction and not before)
        _count_traps(row, record, builder)
        add_query(builder, item, _gold(record) if grades is None else grades.get(query_id, {}), record)
    samples = builder.build(pooled=False)
    refuse_unlabelled(samples, data / (files.qrels or files.queries))
    return samples


def add_documents(builder: SamplesBuilder, path: Path, prefix: str = "") -> None:
    """Add a corpus in its order; the first row of an id counts.

    Args:
        prefix: of the ids, where several corpora make one pool.
    """
    for record in iter_records(path, (*DOCUMENT_ID, TITLE, *DOCUMENT_TEXT)):
        document_id, text = record.key(*DOCUMENT_ID), record.text(*DOCUMENT_TEXT)
        if not document_id or not text:
            builder.notes[EMPTY_DOCUMENTS] += 1
            continue
        title = record.text(TITLE)
        add_candidate(builder, prefix + document_id, partial(text_item, f"{title}\n{text}" if title else text))
    if not builder.candidates:
        raise DataError(f"{path} has no document with an id and a text")


def text_item(text: str, item_id: str) -> Item:
    """An item that is its text and nothing else."""
    return Item(item_id, text=text, source=BARE)


def add_candidate(builder: SamplesBuilder, candidate_id: str, make: Callable[[str], Item]) -> None:
    """Add a candidate of a corpus, or count that its id was there before."""
    if builder.has_candidate(candidate_id):
        builder.notes[REPEATED_CANDIDATES] += 1
    else:
        builder.candidate(candidate_id, partial(make, candidate_id))


def joined_query(query_id: str, instruction: str, text: str) -> Item | None:
    """Instruction, a space and the text, stripped; a text without instruction is untouched. `None`: nothing is left."""
    shown = f"{instruction} {text}".strip() if instruction else text
    if not query_id or not shown:
        return None
    source = Source("joined", instruction) if instruction else BARE
    if LEGACY_IMAGE_TOKEN in shown:  # officially an image's token, without an image
        source, text = Source("interleaved", shown), text.replace(LEGACY_IMAGE_TOKEN, "")
    return Item(query_id, text=text, instruction=clean_instruction(instruction), source=source)


def add_query(builder: SamplesBuilder, item: Item, gains: Mapping[str, float], record: Record) -> None:
    """Add a query after all candidates, and count what of its labels is unusual.

    A second row of an id is a query as well, with the same labels; here its id is another one.
    """
    if builder.has_query(item.id):
        builder.notes[REPEATED_QUERIES] += 1
        item = dataclasses.replace(item, id=f"{item.id} ({record.place})")
    builder.query(item, (), gains)
    if not gains:
        builder.incomplete(item.id, UNLABELLED)
    elif not all(map(builder.has_candidate, gains)):
        builder.incomplete(item.id, NOT_IN_POOL)
    builder.notes[MISMATCHED] += LEGACY_IMAGE_TOKEN in item.source.instruction
    if len(set(gains.values())) > 1:
        builder.notes[GRADES_KEPT] += 1


def refuse_unlabelled(samples: Samples, path: Path) -> None:
    """A task of which no query has a label is refused, as officially for texts: every score of it would be 0.

    So it would be where no label is a candidate, which officially goes on.

    Args:
        path: of the labels.

    Raises:
        DataError: there is none.
    """
    if not any(samples.gains.values()):
        raise DataError(f"{path} has no label for any of the {len(samples.queries):,} queries; do their ids fit?")
    pool = {candidate.id for candidate in samples.candidates}
    if all(pool.isdisjoint(gains) for gains in samples.gains.values()):
        stated = next(label for gains in samples.gains.values() for label in gains)
        found = f"labels as {stated!r}, candidates as {samples.candidates[0].id!r}"
        raise DataError(f"{path}: no label is one of the {len(pool):,} candidates ({found}); do their ids fit?")


def read_qrels(path: Path, notes: Counter[str]) -> Grades:
    """query id → {document id → grade above 0}, in the order of their first rows; the last grade of a pair counts."""
    grades: Grades = {}
    for record in iter_records(path, (*QRELS_QUERY, *QRELS_DOCUMENT, *SCORE)):
        stated = next((record.values[name] for name in SCORE if name in record.values), 1)
        add_grade(grades, record.key(*QRELS_QUERY), record.key(*QRELS_DOCUMENT), stated, notes)
    return grades


def add_grade(grades: Grades, query_id: str, document_id: str, stated: object, notes: Counter[str]) -> None:
    """Add a row of qrels; a score that is no number is a 1, as officially.

    Raises:
        DataError: the score is infinite, or "not a number".
    """
    try:
        score = float(stated)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        notes[STRANGE_SCORES] += 1
        score = 1.0
    if not math.isfinite(score):
        raise DataError(f"qrels of query {query_id!r} hold a score of {score}, expected a finite number")
    if not query_id or not document_id:
        notes[USELESS_QRELS] += 1
    elif score > 0:
        grades.setdefault(query_id, {})[document_id] = score


def _gold(record: Record) -> dict[str, float]:
    """The labels in a query of BRIGHT: a list, or one as JSON."""
    name, stated = record.first(GOLD_IDS)
    try:
        labels = json.loads(stated) if isinstance(stated, str) else stated or []
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list):
        raise record.unfit(name, "a list of document ids")
    return dict.fromkeys(map(str, labels), 1.0)


def _count_traps(row: TextRow, record: Record, builder: SamplesBuilder) -> None:
    """What a score of the family hangs on, and is as it is officially."""
    if row.family == "BRIGHT":
        excluded = record.values.get(EXCLUDED_IDS) or []
        if not isinstance(excluded, list):
            raise record.unfit(EXCLUDED_IDS, "a list of document ids")
        builder.notes[STILL_IN_POOL] += sum(map(builder.has_candidate, map(str, excluded)))
    elif row.family == "InfoSearch":
        builder.notes[CHANGED_INSTRUCTIONS] += record.values.get(CHANGED) != record.values.get(ORIGINAL)
