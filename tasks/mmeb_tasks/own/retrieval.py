"""Queries, a corpus and which of it is relevant, as BEIR's folders have them, with pictures or frames by path.

    queries.jsonl   {"_id": "q1", "text": "…", "image": "images/a.png", "instruction": "…"}
    corpus.jsonl    {"_id": "d1", "title": "…", "text": "…", "frames": "clips/d1"}
    qrels.tsv       query-id, corpus-id, score

Each may be a .csv, .tsv, .jsonl or .parquet; `qrels` may be a folder of splits. A query ranks the whole corpus.
"""

from __future__ import annotations

import glob
import itertools
import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mmeb_harness import DataError, FolderFormat, Frames, Item, Modality, Samples, Task, matching, shown
from mmeb_tasks.own.examples import write_retrieval
from mmeb_tasks.own.items import ItemMaker, modality_of
from mmeb_tasks.own.reading import Look, check, load
from mmeb_tasks.own.rows import TABLES, Problems, Row, file_of, id_text, rows_of
from mmeb_tasks.own.settings import FILE, Settings, name_of_folder, read_settings

QRELS_COLUMNS = ("query-id", "corpus-id", "score")
#: Rows looked at to tell what kind of items a corpus holds.
_ROWS_TO_LOOK_AT = 16


def find_tasks(folder: Path) -> tuple[Task, ...] | None:
    """The folder's task; `None` if it holds no queries or no corpus."""
    if file_of(folder, "queries") is None or file_of(folder, "corpus") is None:
        return None
    settings = read_settings(folder)
    return (
        Task(
            name=settings.name or name_of_folder(folder),
            modality=_modality(folder),
            group="own",
            metric=settings.metric or "ndcg_linear@5",
            load=partial(load, read_retrieval, 0, folder),
            annotations=tuple(_annotations(folder, settings)),
        ),
    )


def _annotations(folder: Path, settings: Settings) -> list[str]:
    names = [path.name for name in ("queries", "corpus") if (path := file_of(folder, name))]
    qrels = _qrels_file(folder, settings)
    return [*names, *([glob.escape(qrels.relative_to(folder).as_posix())] if qrels else []), FILE]


def _modality(folder: Path) -> Modality:
    """Of most of the first rows that show anything, the corpus before the queries."""
    for name in ("corpus", "queries"):
        path = file_of(folder, name)
        assert path is not None
        rows = itertools.islice(rows_of(path, Problems(folder)), _ROWS_TO_LOOK_AT)
        kinds = Counter(kind for row in rows if (kind := modality_of(row.values)) != "text")
        if kinds:
            return kinds.most_common(1)[0][0]
    return "text"


def read_retrieval(folder: Path, frames: Frames, problems: Problems, look: Look = None) -> tuple[Samples, ...]:
    """The folder's samples; none if anything is wrong with it, which is noted. `look`: see `ItemMaker`."""
    settings = read_settings(folder)
    maker = ItemMaker(folder, frames, problems, look)
    queries = _items(folder, "queries", settings.instruction, maker, problems)
    corpus = _items(folder, "corpus", settings.candidate_instruction, maker, problems)
    qrels = _qrels_file(folder, settings)
    if qrels is None:
        problems.add("qrels.tsv", f"is missing; write a line a pair: {', '.join(QRELS_COLUMNS)}")
        return ()
    if not queries or not corpus:  # the file as a whole is wrong, not each label
        return ()
    gains = _read_qrels(qrels, queries, corpus, problems)
    if not gains and not problems.lines:
        problems.add(qrels.relative_to(folder).as_posix(), "labels no query; each needs a row with a score above 0")
    notes: dict[str, int] = {}
    unlabelled = [query_id for query_id in queries if not gains.get(query_id)]
    if qrels.parent != folder:  # queries of other splits
        notes["queries of other splits left out"] = len(unlabelled)
    else:
        for query_id in unlabelled if gains else ():
            place, _ = queries[query_id]
            problems.add(place, f"query {query_id!r} has no relevant row in {qrels.name}; label it, or leave it out")
    answered = [item for query_id, (_, item) in queries.items() if gains.get(query_id)]
    if problems.lines:
        return ()
    present = [item for item in answered if item is not None]
    candidates = tuple(item for _, item in corpus.values() if item is not None)
    return (Samples(tuple(present), candidates, {item.id: gains[item.id] for item in present}, notes=notes),)


def _items(
    folder: Path, name: str, instruction: str, maker: ItemMaker, problems: Problems
) -> dict[str, tuple[str, Item | None]]:
    """By id where it stands, and its item; `None` of a row that can't be one, so that its labels aren't stray."""
    items: dict[str, tuple[str, Item | None]] = {}
    path = file_of(folder, name)
    if path is None:
        problems.add(f"{name}.jsonl", "is missing; write an object a line")
        return items
    for row in rows_of(path, problems):
        item_id = maker.id_of(row)
        if item_id is None:
            continue
        if item_id in items:
            problems.add(row.place, f"_id {item_id!r} stands in {items[item_id][0]} already; ids must be unique")
            continue
        items[item_id] = (row.place, maker.item(row, item_id, instruction))
    if not items and not problems.lines:
        problems.add(path.name, "holds no rows")
    return items


def _qrels_file(folder: Path, settings: Settings) -> Path | None:
    """The file of labels: `qrels.*`, or of the folder `qrels` the split that is named, "test", or the only one.

    Raises:
        DataError: a split that isn't there, or several of which none is named.
    """
    if (single := file_of(folder, "qrels")) is not None:
        return single
    splits = {path.stem: path for path in matching(folder, "qrels/*") if path.suffix in TABLES}
    wanted = settings.split or ("test" if "test" in splits else "")
    if wanted in splits:
        return splits[wanted]
    if wanted or len(splits) > 1:
        known = ", ".join(splits) or "none"
        raise DataError(f"{folder / FILE}: split {wanted!r} is none of those in {folder / 'qrels'}: {known}; name one")
    return next(iter(splits.values()), None)


def _read_qrels(
    path: Path, queries: Mapping[str, object], corpus: Mapping[str, object], problems: Problems
) -> dict[str, dict[str, float]]:
    """Query id → {candidate id → score above 0}; rows of score 0 were judged and found irrelevant."""
    gains: dict[str, dict[str, float]] = {}
    seen: dict[tuple[str, str], str] = {}
    for row in rows_of(path, problems, QRELS_COLUMNS[:2]):
        query_id, candidate_id = (id_text(row.values.get(name)) or "" for name in QRELS_COLUMNS[:2])
        for kind, item_id, known in (("query", query_id, queries), ("corpus", candidate_id, corpus)):
            if item_id not in known:
                problems.add(row.place, f"{kind}-id {shown(item_id)} is in no row of its file; mend the id")
        if (query_id, candidate_id) in seen:
            problems.add(row.place, f"the pair stands in {seen[query_id, candidate_id]} already; keep one")
        seen[query_id, candidate_id] = row.place
        score = _score(row, problems)
        if score > 0:
            gains.setdefault(query_id, {})[candidate_id] = score
    return gains


def _score(row: Row, problems: Problems) -> float:
    value = row.values.get("score", 1)
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = math.nan
    if not 0 <= score < math.inf:
        problems.add(row.place, f"score {shown(value)} is no grade; write a number, 0 for irrelevant")
        return 0.0
    return score


RETRIEVAL = FolderFormat(
    "retrieval",
    "queries.jsonl, corpus.jsonl and qrels.tsv",
    find_tasks,
    partial(check, read_retrieval),
    write_retrieval,
)
