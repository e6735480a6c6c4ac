"""A task's result, recomputed from the rankings in its tables: does every number follow from what is stored below it?

Each query's metrics, ranks and ties, their means and counts. What needs vectors or data (a pool's chance level, the
expected score over ties) is only held against the stored column that it is the mean of.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import read_parquet
from mmeb_harness.ranking.metrics import edition_metrics, metric_names, official_gains, query_metrics
from mmeb_harness.ranking.task import DEPTH
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.folder import RunFolder

if TYPE_CHECKING:
    import pyarrow as pa

#: What readers call the queries that have an answer which is no candidate, in the notes of a result.
ABSENT_ANSWERS = (
    "answers that are no option",
    "queries with labels that are no candidate",
    "descriptions of a sound that the corpus lacks",
)
#: Far above what the order of a sum moves, far below anything that anybody reports.
TOLERANCE = 1e-9

_TRACE_COLUMNS = {"path": "string", "reasoning_tokens": "int64", "truncated": "bool"}
_QUERY_COLUMNS = {
    "query_id": "string",
    **dict.fromkeys(("score", "corrected_score", "random_ties_score", "chance"), "double"),
    **dict.fromkeys(("first_relevant_rank", "num_ranked", "tied_decisions"), "int64"),
    **dict.fromkeys(("top_ids", "relevant_ids"), "list of string"),
    **dict.fromkeys(("top_scores", "relevant_gains"), "list of double"),
    **_TRACE_COLUMNS,
}
_CANDIDATE_COLUMNS = {"candidate_id": "string", **_TRACE_COLUMNS}


@dataclass
class Outcome:
    """What came of one task, or of the run's own file.

    Attributes:
        name: the task, or "run.json".
        difference: largest difference between a stored number and the recomputed one.
        problems: why it fails; empty if it passes. The first ones are what a reader needs.
    """

    name: str
    difference: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether all that was recomputed is as stored."""
        return not self.problems

    def number(self, what: str, stored: float | None, recomputed: float | None) -> None:
        """Hold a stored number against the recomputed one."""
        if stored is None or recomputed is None:
            self.equal(what, stored, recomputed)
            return
        difference = abs(stored - recomputed)
        self.difference = max(self.difference, difference)
        if not difference <= TOLERANCE:  # so that NaN fails
            self.problems.append(f"{what} is {stored}, recomputed {recomputed}")

    def equal(self, what: str, stored: object, recomputed: object) -> None:
        """Hold a stored value that has no tolerance against the recomputed one."""
        if stored != recomputed:
            self.problems.append(f"{what} is {stored}, recomputed {recomputed}")


def check_follows(files: RunFolder, result: TaskResult) -> None:
    """Refuse a result that doesn't follow from its rankings, where there are some.

    Raises:
        ResultError: a number of it is another one, or a table is broken.
    """
    if not files.queries_file(result.name).is_file():
        return
    findings = Outcome(result.name)
    verify_task(result, files, findings)
    if not findings.passed:
        raise ResultError(
            f"{files.task_file(result.name)} is not what its rankings say ({summary(findings.problems)}); run the same "
            "command again: that task is computed again"
        )


def verify_task(result: TaskResult, files: RunFolder, findings: Outcome) -> None:
    """Hold a task's result against its tables.

    Raises:
        ResultError: a table is missing, broken or another one.
    """
    if result.metric not in metric_names(result.edition):
        raise ResultError(f"no metric is named {result.metric!r}")
    queries = checked_table(files.queries_file(result.name), _QUERY_COLUMNS)
    candidates = checked_table(files.candidates_file(result.name), _CANDIDATE_COLUMNS)
    rows = queries.to_pylist()
    _verify_counts(result, queries, candidates, findings)
    _verify_ids(result, rows, set(candidates.column("candidate_id").to_pylist()), findings)
    if rows:
        _verify_means(result, rows, [_verify_query(row, result, findings) for row in rows], findings)


def _verify_ids(result: TaskResult, rows: Sequence[Mapping[str, Any]], candidates: set[str], findings: Outcome) -> None:
    """Ranked and relevant ids are candidates; whoever ranks all of them ranks each once."""
    unknown_answers = 0
    for row in rows:
        where = f"query {row['query_id']!r}"
        if strange := next((candidate for candidate in row["top_ids"] if candidate not in candidates), None):
            findings.problems.append(f"{where}: {strange!r} is ranked and is no candidate")
        unknown_answers += any(candidate not in candidates for candidate in row["relevant_ids"])
        whole = row["num_ranked"] == result.num_candidates
        if whole and len(set(row["top_ids"])) < len(row["top_ids"]) and "repeated candidates" not in result.notes:
            findings.problems.append(f"{where}: a candidate is ranked twice")
    counted = sum(result.notes.get(name, 0) for name in ABSENT_ANSWERS)
    findings.equal("answers that are no option", counted, unknown_answers)


def checked_table(
    path: Path, columns: Mapping[str, str], may_lack: Mapping[str, str] | None = None, checksum: str = ""
) -> pa.Table:
    """A table with these columns (name → type) and no gap in them; in those of `may_lack` there may be gaps.

    Args:
        checksum: of the file as it was written; "": not known.

    Raises:
        ResultError: it is missing, broken or changed, or a column is missing, of another type, or lacks a value.
    """
    table = read_parquet(path, checksum=checksum)
    types = {field.name: _type_name(field.type) for field in table.schema}
    wanted = {**columns, **(may_lack or {})}
    if odd := [f"{name} ({kind})" for name, kind in wanted.items() if types.get(name) != kind]:
        raise ResultError(f"{path} lacks {', '.join(odd)}; run again with --fresh")
    table = table.select(list(wanted))
    if gaps := [name for name in columns if _num_gaps(table.column(name))]:
        raise ResultError(f"{path} has rows without {', '.join(gaps)}; run again with --fresh")
    return table


def _type_name(kind: pa.DataType) -> str:
    import pyarrow as pa

    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)


def _num_gaps(column: pa.ChunkedArray) -> int:
    import pyarrow as pa
    import pyarrow.compute as pc

    inner = pc.list_flatten(column).null_count if pa.types.is_list(column.type) else 0
    return int(column.null_count + inner)


def _verify_counts(result: TaskResult, queries: pa.Table, candidates: pa.Table, findings: Outcome) -> None:
    findings.equal("num_queries", result.num_queries, queries.num_rows)
    findings.equal("num_candidates", result.num_candidates, candidates.num_rows)
    for what, table in (("query_id", queries), ("candidate_id", candidates)):
        findings.equal(f"number of distinct {what}", len(set(table.column(what).to_pylist())), table.num_rows)
    for side, stats, table in (
        ("queries", result.queries, queries),
        ("candidates", result.candidates, candidates),
    ):
        traces = table.select(list(_TRACE_COLUMNS)).to_pydict()
        findings.equal(f"{side}: items", stats.items, table.num_rows)
        findings.equal(f"{side}: reasoned", stats.reasoned, traces["path"].count("reasoned"))
        findings.equal(f"{side}: reasoning_tokens", stats.reasoning_tokens, sum(traces["reasoning_tokens"]))
        findings.equal(f"{side}: truncated", stats.truncated, sum(traces["truncated"]))


def _verify_query(row: Mapping[str, Any], result: TaskResult, findings: Outcome) -> dict[str, float]:
    """One query's metrics, recomputed; what its row says of them is held against that."""
    where = f"query {row['query_id']!r}"
    gains = dict(zip(row["relevant_ids"], row["relevant_gains"], strict=False))
    findings.equal(f"{where}: number of gains", len(row["relevant_gains"]), len(gains))
    official, metric = official_gains(result.edition, result.modality, gains), result.metric
    rank = row["first_relevant_rank"]
    first_rank = rank if rank <= row["num_ranked"] else None
    metrics = edition_metrics(result.edition, row["top_ids"], official, first_rank)
    findings.number(f"{where}: score", row["score"], metrics[metric])
    corrected = metrics if official == gains else query_metrics(row["top_ids"], gains)
    findings.number(f"{where}: corrected_score", row["corrected_score"], corrected[metric])
    _verify_ranking(where, row, gains, int(metric.split("@")[1]), findings)
    return metrics


def _verify_ranking(
    where: str, row: Mapping[str, Any], gains: Mapping[str, float], cut: int, findings: Outcome
) -> None:
    ids, scores = row["top_ids"], row["top_scores"]
    findings.equal(f"{where}: number of places", len(ids), min(row["num_ranked"], DEPTH))
    findings.equal(f"{where}: number of scores", len(scores), len(ids))
    if any(not upper >= lower for upper, lower in itertools.pairwise(scores)):
        findings.problems.append(f"{where}: its scores don't decrease")
    tied = sum(
        scores[place] == scores[place + 1] and ids[place] != ids[place + 1]
        for place in range(min(cut, len(ids) - 1, len(scores) - 1))
    )
    findings.equal(f"{where}: tied_decisions", row["tied_decisions"], tied)
    rank = row["first_relevant_rank"]
    first = next((place for place, candidate in enumerate(ids, start=1) if candidate in gains), None)
    if first is not None:
        findings.equal(f"{where}: first_relevant_rank", rank, first)
    elif not len(ids) < rank <= row["num_ranked"] + 1:
        findings.problems.append(f"{where}: first_relevant_rank is {rank}, but no relevant candidate stands there")


def _verify_means(
    result: TaskResult, rows: Sequence[Mapping[str, Any]], metrics: Sequence[Mapping[str, float]], findings: Outcome
) -> None:
    names = metric_names(result.edition)
    findings.equal("names of metrics", sorted(result.metrics), sorted(names))
    for name in names:
        mean = float(np.mean([of_query[name] for of_query in metrics]))
        findings.number(f"metrics: {name}", result.metrics.get(name), mean)
        if name == result.metric:
            findings.number("score", result.score, mean)
    for name in ("corrected_score", "random_ties_score", "chance"):
        findings.number(name, getattr(result, name), float(np.mean([row[name] for row in rows])))
    findings.equal("tied_decisions", result.tied_decisions, sum(row["tied_decisions"] for row in rows))


def summary(problems: Iterable[str], limit: int = 3) -> str:
    """The first problems in one line, and how many more there are."""
    listed = list(problems)
    more = f"; and {len(listed) - limit} more" if len(listed) > limit else ""
    return "; ".join(listed[:limit]) + more
