"""One task of the page: its row in the table of tasks, and every query in every run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mmeb_harness.core.embedder import SHARED
from mmeb_harness.core.items import Item
from mmeb_harness.results.files import TaskResult, percentiles
from mmeb_harness.results.recomputed import TOLERANCE, checked_table
from mmeb_harness.show.page.collect import Source
from mmeb_harness.show.page.texts import Texts, content_of, read_texts
from mmeb_harness.show.page.thumbnails import thumbnails_of
from mmeb_harness.show.page.values import (
    DIFFER,
    HELPED,
    HURT,
    PICTURED,
    QueryItems,
    RunQueries,
    ShownCandidates,
    TaskCell,
    TaskQueries,
    TaskRow,
)
from mmeb_harness.show.runs import ShownRun

#: A task's table of queries in one run: query → its row. Empty where the run lacks the task.
Rows: TypeAlias = Mapping[str, Mapping[str, Any]]

#: Places of a ranking that the page shows, and how many relevant candidates beyond them.
SHOWN_PLACES = 5
SHOWN_RELEVANT = 3

_COLUMNS = {
    "query_id": "string",
    "score": "double",
    **dict.fromkeys(("first_relevant_rank", "num_ranked", "tied_decisions"), "int64"),
    **dict.fromkeys(("top_ids", "relevant_ids"), "list of string"),
    "top_scores": "list of double",
    **{"path": "string", "reasoning_tokens": "int64", "truncated": "bool", "latency_seconds": "double"},
}
_MAY_LACK = {"difficulty": "string", "gate": "double", "rationale": "string"}

#: What is kept: a page of 78,000 queries has no room for noise.
_DECIMALS = 5


def collect_task(source: Source, name: str, num_pictured: int) -> tuple[TaskRow, TaskQueries]:
    """One task: its row, and all its queries in every run.

    Args:
        num_pictured: of how many queries pictures are shown (see `_most_telling`).

    Raises:
        ResultError: a table of queries is missing or broken, or not the one its task's scores come from.
    """
    runs = [_rows_of(run, name) if name in run.results else {} for run in source.runs]
    first = next(number for number, rows in enumerate(runs) if rows)
    result = source.runs[first].results[name]
    texts, note = _texts_of(source, name, first)
    # What should be the same in all runs is told by the first that has the query.
    by_query = {query: row for rows in reversed(runs) for query, row in rows.items()}
    ids = list(dict.fromkeys(query for rows in runs for query in rows))
    relevant = [by_query[query]["relevant_ids"] for query in ids]
    shown = [_shown_of(query, own, runs) for query, own in zip(ids, relevant, strict=True)]
    candidates = list(dict.fromkeys(candidate for row in shown for candidate in row))
    positions = {candidate: position for position, candidate in enumerate(candidates)}
    flags = [_flag(query, runs, source.pairs) for query in ids]
    queries = None if texts is None else [texts.queries.get(query) for query in ids]
    candidate_items = None if texts is None else [texts.candidates.get(candidate) for candidate in candidates]
    thumbnails = None
    if texts is not None and queries is not None and candidate_items is not None:
        of_row = [[positions[candidate] for candidate in row] for row in shown]
        pictured = _most_telling(flags, ids, runs, queries, candidate_items, of_row, num_pictured)
        flags = [flag | PICTURED * (row in pictured) for row, flag in enumerate(flags)]
        thumbnails = thumbnails_of(
            texts.root,
            result.modality,
            {row: queries[row] for row in pictured},
            {position: candidate_items[position] for row in pictured for position in of_row[row]},
        )
    written = (row["rationale"] for rows in runs for row in rows.values())
    rationales = list(dict.fromkeys(rationale for rationale in written if rationale is not None))
    numbers = {rationale: number for number, rationale in enumerate(rationales)}
    labels = [by_query[query]["difficulty"] for query in ids]
    collected = TaskQueries(
        name=name,
        note=note,
        ids=ids,
        items=None if queries is None else _query_items(queries),
        difficulty=labels if any(labels) else None,
        flags=flags,
        relevant=[
            [positions[candidate] for candidate in row if candidate in set(own)]
            for row, own in zip(shown, relevant, strict=True)
        ],
        num_relevant=[len(own) for own in relevant],
        candidates=_shown_candidates(candidates, candidate_items),
        rationales=rationales,
        thumbnails=thumbnails,
        runs=[_run_queries(rows, ids, positions, numbers) if rows else None for rows in runs],
    )
    return _task_row(source, name, result, runs, flags), collected


def effect_of_reasoning(outcomes: Iterable[tuple[bool, float]]) -> int:
    """HELPED, HURT, both or 0, from what a model's runs made of one query: (whether it reasoned, score).

    Compared is what happened to the query, not the mode: an adaptive run that reasoned here stands with "always".
    """
    outcomes = list(outcomes)
    direct = [score for reasoned, score in outcomes if not reasoned]
    reasoned = [score for reasoned, score in outcomes if reasoned]
    helped = any(after > before + TOLERANCE for after in reasoned for before in direct)
    hurt = any(after < before - TOLERANCE for after in reasoned for before in direct)
    return HELPED * helped | HURT * hurt


def _rows_of(run: ShownRun, name: str) -> Rows:
    """A task's table of queries, held against the task's result; of rankings the places that the page shows.

    Raises:
        ResultError: missing, broken, or of another result.
    """
    import pyarrow.compute as pc

    path, result = run.files.queries_file(name), run.results[name]
    columns = {**_COLUMNS, SHARED: "bool"} if result.queries.shared else _COLUMNS
    table = checked_table(path, columns, _MAY_LACK, result.tables.get("queries", ""))
    for place, column in enumerate(table.column_names):
        if column in ("top_ids", "top_scores"):
            table = table.set_column(place, column, pc.list_slice(table.column(column), 0, SHOWN_PLACES))
    rows = table.to_pylist()
    for row in rows:
        if row.get(SHARED):
            row["latency_seconds"] = None  # which is of several modes at once
    return {row["query_id"]: row for row in rows}


def _texts_of(source: Source, name: str, first: int) -> tuple[Texts | None, str]:
    """A task's items, by the first run that has it; and what is to be said about them."""
    results = [run.results[name] for run in source.runs if name in run.results]
    differ = len({content_of(result.data_revision) for result in results}) > 1
    note = "The runs read different annotations: queries of one id may differ. " if differ else ""
    if isinstance(source.data, str):
        return None, note.strip()
    run = source.runs[first]
    texts, remark = read_texts(source.registered[first].get(name), run.run, run.results[name], source.data)
    return texts, (note + remark).strip()


def _run_queries(
    rows: Rows, ids: Sequence[str], positions: Mapping[str, int], numbers: Mapping[str | None, int]
) -> RunQueries:
    """What the page shows of a run, in its own order; candidates by their positions, rationales by their numbers."""
    own = [rows.get(query) for query in ids]

    def column(name: str) -> list[Any]:
        return [row and row[name] for row in own]

    return RunQueries(
        score=_rounded(column("score")),
        rank=column("first_relevant_rank"),
        ranked=column("num_ranked"),
        tied=column("tied_decisions"),
        reasoned=[None if path is None else path == "reasoned" for path in column("path")],
        gate=_rounded(column("gate")),
        reasoning_tokens=column("reasoning_tokens"),
        truncated=column("truncated"),
        latency_seconds=_rounded(column("latency_seconds")),
        rationale=[numbers.get(rationale) for rationale in column("rationale")],
        top=[None if top is None else [positions[candidate] for candidate in top] for top in column("top_ids")],
        top_scores=[None if top is None else _rounded(top) for top in column("top_scores")],
    )


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    """NaN and infinity are no JSON, and no number to show."""
    return [round(value, _DECIMALS) if value is not None and math.isfinite(value) else None for value in values]


def _shown_of(query: str, relevant: Sequence[str], runs: Sequence[Rows]) -> list[str]:
    """Candidates to show of a query: every run's first places, and some of the relevant ones that are not there."""
    top = [candidate for rows in runs if query in rows for candidate in rows[query]["top_ids"]]
    further = [candidate for candidate in relevant if candidate not in top]
    return list(dict.fromkeys([*top, *further[:SHOWN_RELEVANT]]))


def _flag(query: str, runs: Sequence[Rows], pairs: Sequence[Sequence[int]]) -> int:
    scores = [rows[query]["score"] for rows in runs if query in rows]
    flag: int = DIFFER * (max(scores) - min(scores) > TOLERANCE)
    for numbers in pairs:
        there = [runs[number][query] for number in numbers if query in runs[number]]
        flag |= effect_of_reasoning((row["path"] == "reasoned", row["score"]) for row in there)
    return flag


def _most_telling(
    flags: Sequence[int],
    ids: Sequence[str],
    runs: Sequence[Rows],
    queries: Sequence[Item | None],
    candidates: Sequence[Item | None],
    of_row: Sequence[Sequence[int]],
    most: int,
) -> set[int]:
    """Queries to show with pictures: those over which runs disagree, then wrong ones, then others as they come."""

    def order(row: int) -> int:
        if flags[row] & (HELPED | HURT | DIFFER):
            return 0
        ranks = [rows[ids[row]]["first_relevant_rank"] for rows in runs if ids[row] in rows]
        return 1 if any(rank != 1 for rank in ranks) else 2

    has_media = [
        row
        for row, query in enumerate(queries)
        if _has_media(query) or any(_has_media(candidates[candidate]) for candidate in of_row[row])
    ]
    return set(sorted(has_media, key=order)[:most])


def _query_items(items: Sequence[Item | None]) -> QueryItems:
    return QueryItems(
        texts=[None if item is None else item.text for item in items],
        instructions=[None if item is None else item.instruction for item in items],
        media=[_num_media(item) for item in items],
    )


def _shown_candidates(ids: Sequence[str], items: Sequence[Item | None] | None) -> ShownCandidates:
    return ShownCandidates(
        ids=ids,
        texts=None if items is None else [_further_text(item) for item in items],
        media=None if items is None else [_num_media(item) for item in items],
    )


def _further_text(item: Item | None) -> str | None:
    """A candidate's text; `None` where it is empty, or the id says it already (labels and answers)."""
    return None if item is None or not item.text or item.text == item.id else item.text


def _has_media(item: Item | None) -> bool:
    return item is not None and bool(item.media)


def _num_media(item: Item | None) -> int:
    """How many pictures; a sound is shown by its name."""
    return 0 if item is None else len(item.pictures)


def _task_row(source: Source, name: str, result: TaskResult, runs: Sequence[Rows], flags: Sequence[int]) -> TaskRow:
    return TaskRow(
        name=name,
        modality=result.modality,
        group=result.group,
        metric=result.metric,
        num_queries=len(flags),
        num_candidates=result.num_candidates,
        chance=result.chance,
        cells=tuple(
            _cell(run.results[name], rows) if rows else None for run, rows in zip(source.runs, runs, strict=True)
        ),
        helped=sum(bool(flag & HELPED) for flag in flags),
        hurt=sum(bool(flag & HURT) for flag in flags),
        differ=sum(bool(flag & DIFFER) for flag in flags),
    )


def _median(seconds: Sequence[float | None]) -> float | None:
    known = np.array([each for each in seconds if each is not None])
    return percentiles(known).get("p50") if len(known) == len(seconds) else None


def _cell(result: TaskResult, rows: Rows) -> TaskCell:
    return TaskCell(
        score=result.score,
        corrected=result.corrected_score,
        random_ties=result.random_ties_score,
        queries=result.queries,
        tied=result.tied_decisions,
        latency_seconds=_median([row["latency_seconds"] for row in rows.values()]),
        notes=result.notes,
    )
