"""The four memory tasks: sub-tasks in folders, each with queries and qrels, over the union of all their corpora.

Where documents of one scene would be enough to search (LMEB's lists of candidates), all are searched, as officially.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb_harness import DataError, Samples, matching, one_line, read_json
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.corpus import (
    EMPTY_QUERIES,
    QUERY_ID,
    QUERY_TEXT,
    UNINSTRUCTED,
    USELESS_QRELS,
    Grades,
    add_documents,
    add_grade,
    add_query,
    joined_query,
    read_qrels,
    refuse_unlabelled,
)
from mmeb_tasks.readers.records import iter_records
from mmeb_tasks.readers.tables import MissingTableError

#: What files are called, in the order in which they are looked for.
QUERIES = ("queries.jsonl", "query.jsonl", "queries.parquet", "query.parquet")
QRELS = ("qrels.tsv", "qrels.jsonl", "qrels.parquet", "qrels/test.jsonl", "qrels/test.parquet")
CORPUS = ("corpus.jsonl", "corpus.parquet", "documents.jsonl", "documents.parquet")

NO_QRELS = "folders left out: queries without qrels"


@dataclass(frozen=True)
class SubTask:
    """Queries, their qrels, and the corpus beside or above them; `key` and `corpus_key` go before ids."""

    key: str
    queries: Path
    qrels: Path
    corpus_key: str
    corpus: Path


def read_memory_task(folder: str, data_set: str, instructions: str, data: Path) -> Samples:
    """Read one memory task: all sub-tasks in a folder.

    Args:
        folder: below the data folder.
        data_set: as the file of instructions calls it.
        instructions: that file, below the data folder.
    """
    builder, root = SamplesBuilder(), data / folder
    sub_tasks = list(_sub_tasks(root, builder.notes))
    for corpus, key in {sub_task.corpus: sub_task.corpus_key for sub_task in sub_tasks}.items():
        add_documents(builder, corpus, _prefix(key))
    of_set = _instructions(data / instructions, data_set)
    for sub_task in sub_tasks:
        _add_queries(sub_task, _instruction(sub_task.key, data_set, of_set), builder)
    samples = builder.build(pooled=False)
    refuse_unlabelled(samples, root)
    return samples


def _sub_tasks(root: Path, notes: Counter[str]) -> Iterator[SubTask]:
    """Folders with queries, in the official order: by the name of the file of queries, then by path."""
    seen: set[Path] = set()
    for queries in (path for name in QUERIES for path in matching(root, f"**/{name}")):
        folder = queries.parent
        if folder in seen:
            continue
        seen.add(folder)
        qrels = _first(folder, QRELS)
        if qrels is None:
            notes[NO_QRELS] += 1
            continue
        above = (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))
        corpus = next(filter(None, (_first(place, CORPUS) for place in above)), None)
        if corpus is None:
            raise MissingTableError(f"corpus of {queries} is missing, there and above it ({', '.join(CORPUS)})")
        yield SubTask(_key(folder, root), queries, qrels, _key(corpus.parent, root), corpus)
    if not seen:
        raise MissingTableError(f"files of queries ({', '.join(QUERIES)}) below {root} are missing")
    if notes[NO_QRELS] == len(seen):
        raise MissingTableError(f"qrels of all {len(seen)} folders of queries below {root} are missing")


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for name in names if (path := folder / name).is_file()), None)


def _key(folder: Path, root: Path) -> str:
    return "" if folder == root else folder.relative_to(root).as_posix()


def _prefix(key: str) -> str:
    return f"{key}::" if key else ""


def _add_queries(sub_task: SubTask, instruction: str, builder: SamplesBuilder) -> None:
    grades = _grades(sub_task, builder.notes)
    before = _prefix(sub_task.corpus_key)
    for record in iter_records(sub_task.queries, (*QUERY_ID, *QUERY_TEXT)):
        query_id = record.key(*QUERY_ID)
        item = joined_query(query_id and _prefix(sub_task.key) + query_id, instruction, record.text(*QUERY_TEXT))
        if item is None:
            builder.notes[EMPTY_QUERIES] += 1
            continue
        builder.notes[UNINSTRUCTED] += not instruction
        labels = {before + document_id: grade for document_id, grade in grades.get(query_id, {}).items()}
        add_query(builder, item, labels, record)


def _grades(sub_task: SubTask, notes: Counter[str]) -> Grades:
    if sub_task.qrels.suffix != ".tsv":
        return read_qrels(sub_task.qrels, notes)
    grades: Grades = {}
    try:
        with sub_task.qrels.open(encoding="utf-8-sig") as file:
            for line in filter(str.strip, file):
                _add_line(grades, line.rstrip("\n"), notes)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{sub_task.qrels} can't be read as text in UTF-8: {one_line(error)}") from error
    return grades


def _add_line(grades: Grades, line: str, notes: Counter[str]) -> None:
    """A line of TREC's order or of three fields; a header is a line as any other, with a score of 1, as officially."""
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) < 3:
        notes[USELESS_QRELS] += 1
        return
    query_id, document_id, score = (fields[0], *fields[2:4]) if fields[1] == "Q0" and len(fields) > 3 else fields[:3]
    add_grade(grades, query_id, document_id, score, notes)


def _instructions(path: Path, data_set: str) -> Mapping[str, Any]:
    """Of a data set's sub-tasks; none where the file has none, or is not there."""
    stored = read_json(path, DataError, "get it again") if path.exists() else {}
    if not isinstance(stored, dict):
        raise DataError(f"{path} holds no JSON object")
    of_set = stored.get(data_set)
    return of_set if isinstance(of_set, dict) else {}


def _instruction(key: str, data_set: str, instructions: Mapping[str, Any]) -> str:
    """By the last folder's name, else by the data set's, else, of a task in the root, the only one there is."""
    only = next(iter(instructions.values())) if not key and len(instructions) == 1 else None
    stated = instructions.get(key.rpartition("/")[2]) or instructions.get(data_set) or only
    return stated if isinstance(stated, str) else ""
