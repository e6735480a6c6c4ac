"""One task of the page: its row in the table of tasks, and every query in every run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.items import Item
from mmeb_harness.results.files import TaskResult, percentiles
from mmeb_harness.results.verify import TOLERANCE, checked_table
from mmeb_harness.show.page.collect import FinishedRun, Source
from mmeb_harness.show.page.texts import Texts, content_of, read_texts
from mmeb_harness.show.page.thumbnails import Album
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
    Thumbnails,
)

if TYPE_CHECKING:
    import pyarrow as pa

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
    tables = [_table_of(run, name) if name in run.tasks else None for run in source.runs]
    first = next(number for number, table in enumerate(tables) if table is not None)
    result = source.runs[first].tasks[name]
    texts, note = _texts_of(source, name, first)
    ids = list(dict.fromkeys(query for table in tables if table is not None for query in _column(table, "query_id")))
    runs = [None if table is None else _RunColumns(table, ids) for table in tables]
    relevant = _by_query(ids, tables, "relevant_ids", [])
    shown = [_shown_of(row, relevant[row], runs) for row in range(len(ids))]
    candidates = list(dict.fromkeys(candidate for row in shown for candidate in row))
    positions = {candidate: position for position, candidate in enumerate(candidates)}
    flags = _flags(len(ids), runs, source.pairs)
    queries = None if texts is None else [texts.queries.get(query) for query in ids]
    candidate_items = None if texts is None else [texts.candidates.get(candidate) for candidate in candidates]
    thumbnails = None
    if texts is not None and queries is not None and candidate_items is not None:
        of_row = [[positions[candidate] for candidate in row] for row in shown]
        pictured = _most_telling(flags, runs, queries, candidate_items, of_row, num_pictured)
        flags = [flag | PICTURED * (row in pictured) for row, flag in enumerate(flags)]
        thumbnails = _thumbnails(
            Album(texts.root, result.modality),
            {row: queries[row] for row in pictured},
            {position: candidate_items[position] for row in pictured for position in of_row[row]},
        )
    rationales = list(
        dict.fromkeys(text for run in runs if run is not None for text in run.rationales if text is not None)
    )
    numbers = {rationale: number for number, rationale in enumerate(rationales)}
    labels = _by_query(ids, tables, "difficulty", None)
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
        runs=[None if run is None else run.values(positions, numbers) for run in runs],
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


def _table_of(run: FinishedRun, name: str) -> pa.Table:
    """A task's table of queries, held against the task's result.

    Raises:
        ResultError: missing, broken, or of another result.
    """
    import pyarrow.compute as pc

    path, result = run.files.queries_file(name), run.tasks[name]
    table = checked_table(path, _COLUMNS, _MAY_LACK)
    mean = pc.mean(table.column("score")).as_py()
    if table.num_rows != result.num_queries or mean is None or not abs(mean - result.score) <= TOLERANCE:
        raise ResultError(
            f"{path} is not what {run.files.task_file(name)} was computed from ({table.num_rows:,} queries of mean "
            f"score {mean}, expected {result.num_queries:,} of {result.score}); `mmeb-eval verify` says more"
        )
    if len(set(_column(table, "query_id"))) < table.num_rows:
        raise ResultError(f"{path} holds a query twice; run again with --fresh")
    return table


def _column(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table.column(name).to_pylist()
    return values


def _by_query(ids: Sequence[str], tables: Sequence[pa.Table | None], name: str, missing: Any) -> list[Any]:
    """A column that should be the same in all runs, by the first that has the query."""
    values: dict[str, Any] = {}
    for table in tables:
        if table is not None:
            for query, value in zip(_column(table, "query_id"), _column(table, name), strict=True):
                values.setdefault(query, value)
    return [values.get(query, missing) for query in ids]


def _texts_of(source: Source, name: str, first: int) -> tuple[Texts | None, str]:
    """A task's items, by the first run that has it; and what is to be said about them."""
    results = [run.tasks[name] for run in source.runs if name in run.tasks]
    differ = len({content_of(result.data_revision) for result in results}) > 1
    note = "The runs read different annotations: queries of one id may differ. " if differ else ""
    if isinstance(source.data, str):
        return None, note.strip()
    run = source.runs[first]
    texts, remark = read_texts(source.registered[first].get(name), run.run, run.tasks[name], source.data)
    return texts, (note + remark).strip()


class _RunColumns:
    """One run's table, its rows in the page's order."""

    def __init__(self, table: pa.Table, ids: Sequence[str]) -> None:
        self._table = table
        own = {query: place for place, query in enumerate(_column(table, "query_id"))}
        self._places = [own.get(query) for query in ids]
        self.scores = self.column("score")
        self.ranks = self.column("first_relevant_rank")
        self.reasoned = [None if path is None else path == "reasoned" for path in self.column("path")]
        self.rationales: list[str | None] = self.column("rationale")
        self.top_ids = self._first_places("top_ids")

    def column(self, name: str) -> list[Any]:
        """A column; `None` for a query that the run lacks."""
        return self._in_order(_column(self._table, name))

    def median_latency(self) -> float | None:
        return percentiles(self._table.column("latency_seconds").to_numpy()).get("p50")

    def values(self, positions: Mapping[str, int], numbers: Mapping[str, int]) -> RunQueries:
        """What the page shows of it; candidates by their positions, rationales by their numbers."""
        scores = self._first_places("top_scores")
        return RunQueries(
            score=_rounded(self.scores),
            rank=self.ranks,
            ranked=self.column("num_ranked"),
            tied=self.column("tied_decisions"),
            reasoned=self.reasoned,
            gate=_rounded(self.column("gate")),
            reasoning_tokens=self.column("reasoning_tokens"),
            truncated=self.column("truncated"),
            latency_seconds=_rounded(self.column("latency_seconds")),
            rationale=[None if rationale is None else numbers[rationale] for rationale in self.rationales],
            top=[None if ids is None else [positions[candidate] for candidate in ids] for ids in self.top_ids],
            top_scores=[None if own is None else _rounded(own) for own in scores],
        )

    def _first_places(self, name: str) -> list[list[Any] | None]:
        import pyarrow.compute as pc

        return self._in_order(pc.list_slice(self._table.column(name), 0, SHOWN_PLACES).to_pylist())

    def _in_order(self, values: Sequence[Any]) -> list[Any]:
        return [None if place is None else values[place] for place in self._places]


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    """NaN and infinity are no JSON, and no number to show."""
    return [round(value, _DECIMALS) if value is not None and math.isfinite(value) else None for value in values]


def _shown_of(row: int, relevant: Sequence[str], runs: Sequence[_RunColumns | None]) -> list[str]:
    """Candidates to show of a query: every run's first places, and some of the relevant ones that are not there."""
    top = [candidate for run in runs if run is not None for candidate in run.top_ids[row] or ()]
    further = [candidate for candidate in relevant if candidate not in top]
    return list(dict.fromkeys([*top, *further[:SHOWN_RELEVANT]]))


def _flags(num_queries: int, runs: Sequence[_RunColumns | None], pairs: Sequence[Sequence[int]]) -> list[int]:
    flags = []
    for row in range(num_queries):
        scores = [run.scores[row] for run in runs if run is not None and run.scores[row] is not None]
        flag = DIFFER * (len(scores) > 1 and max(scores) - min(scores) > TOLERANCE)
        for numbers in pairs:
            there = [run for number in numbers if (run := runs[number]) is not None and run.scores[row] is not None]
            flag |= effect_of_reasoning((bool(run.reasoned[row]), run.scores[row]) for run in there)
        flags.append(flag)
    return flags


def _most_telling(
    flags: Sequence[int],
    runs: Sequence[_RunColumns | None],
    queries: Sequence[Item | None],
    candidates: Sequence[Item | None],
    of_row: Sequence[Sequence[int]],
    most: int,
) -> set[int]:
    """Queries to show with pictures: those over which runs disagree, then wrong ones, then others as they come."""

    def order(row: int) -> int:
        if flags[row] & (HELPED | HURT | DIFFER):
            return 0
        return 1 if any(run is not None and run.ranks[row] not in (None, 1) for run in runs) else 2

    has_media = [
        row
        for row, query in enumerate(queries)
        if _num_media(query) or any(_num_media(candidates[candidate]) for candidate in of_row[row])
    ]
    return set(sorted(has_media, key=order)[:most])


def _thumbnails(album: Album, queries: Mapping[int, Item | None], candidates: Mapping[int, Item | None]) -> Thumbnails:
    of_queries = {row: album.add(item.media) for row, item in queries.items() if item is not None and item.media}
    of_candidates = {
        candidate: album.add(item.media) for candidate, item in candidates.items() if item is not None and item.media
    }
    return Thumbnails(album.uris, of_queries, of_candidates, album.missing)


def _query_items(items: Sequence[Item | None]) -> QueryItems:
    wordings = {item.instruction: 0 for item in items if item is not None}
    wordings = {instruction: number for number, instruction in enumerate(wordings)}
    return QueryItems(
        texts=[None if item is None else item.text for item in items],
        wordings=list(wordings),
        instructions=[None if item is None else wordings[item.instruction] for item in items],
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


def _num_media(item: Item | None) -> int:
    return 0 if item is None else len(item.media)


def _task_row(
    source: Source, name: str, result: TaskResult, runs: Sequence[_RunColumns | None], flags: Sequence[int]
) -> TaskRow:
    return TaskRow(
        name=name,
        modality=result.modality,
        group=result.group,
        metric=result.metric,
        num_queries=len(flags),
        num_candidates=result.num_candidates,
        chance=result.chance,
        cells=tuple(
            None if columns is None else _cell(run.tasks[name], columns)
            for run, columns in zip(source.runs, runs, strict=True)
        ),
        helped=sum(bool(flag & HELPED) for flag in flags),
        hurt=sum(bool(flag & HURT) for flag in flags),
        differ=sum(bool(flag & DIFFER) for flag in flags),
    )


def _cell(result: TaskResult, columns: _RunColumns) -> TaskCell:
    return TaskCell(
        score=result.score,
        corrected=result.corrected_score,
        random_ties=result.random_ties_score,
        reasoning_rate=result.queries.reasoning_rate,
        tokens_per_reasoned=result.queries.tokens_per_reasoned,
        truncated=result.queries.truncated,
        tied=result.tied_decisions,
        latency_seconds=columns.median_latency(),
        notes=result.notes,
    )
