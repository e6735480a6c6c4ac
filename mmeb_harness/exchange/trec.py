"""A run's rankings in TREC format, so that anybody's tool can score them again.

<output>/<task>.run     query Q0 candidate rank score model     the first 100 places; synthetic or limited runs are
                                                                marked as such in the last column
<output>/<task>.qrels   query 0 candidate gain

Fields are separated by blanks, and ids may hold some (labels do) or be empty: whitespace and % are written as
%20, %25 …, the empty id as %; `decode_id` undoes it.

trec_eval ignores the rank column: it sorts by score, read as a 32-bit float, and breaks ties by id. So scores are
written as float32 that strictly decrease, tied ones nudged down by the least step: the harness's order survives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import matching, read_parquet, write_text
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run

_COLUMNS = ["query_id", "top_ids", "top_scores", "relevant_ids", "relevant_gains"]
_EMPTY_ID = "%"  # no other id is written so: a % is always followed by two digits
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ExportedTask:
    """What was written for one task.

    Attributes:
        repeats: places left out because the candidate stands further up already: some pools list one twice, and
            a TREC run can't. Metrics over such a ranking differ from the official ones, which count both.
    """

    name: str
    num_queries: int
    repeats: int


def export_trec(folder: Path, output: Path) -> list[ExportedTask]:
    """Write a finished run's rankings and relevance judgements, a pair of files a task.

    Raises:
        ResultError: not a finished run, a table is missing or broken, or a gain is not a whole number.
    """
    run, results = read_run(folder)
    files = RunFolder(folder)
    there = {path.relative_to(output).as_posix().removesuffix(".run") for path in matching(output, "**/*.run")}
    if foreign := sorted(there - set(run.tasks)):
        raise ResultError(f"{output} holds other rankings already ({foreign[0]}.run …); choose an empty folder")
    marks = ("-synthetic" if run.data_synthetic else "") + ("-limited" if run.limit is not None else "")
    tag = encode_id(run.model + marks)
    return [_export_task(result, files.queries_file(result.name), output, tag) for result in results]


def encode_id(text: str) -> str:
    """An id without whitespace, never empty; distinct ids stay distinct."""
    if not text:
        return _EMPTY_ID
    return re.sub(r"[\s%]", lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def decode_id(text: str) -> str:
    """What `encode_id` made `text` of."""
    return "" if text == _EMPTY_ID else unquote(text)


def decreasing_scores(scores: Sequence[float]) -> list[float]:
    """float32 values that strictly decrease, as near to `scores` (best first) as that allows."""
    written: list[float] = []
    for score in scores:
        value = float(np.float32(score))
        written.append(value if not written or value < written[-1] else _next_below(written[-1]))
    return written


def _next_below(value: float) -> float:
    """The next float32 below; never a subnormal one, which a parser may take for 0."""
    below = float(np.nextafter(np.float32(value), np.float32(-np.inf)))
    return below if abs(below) >= _TINY else -_TINY


def _export_task(result: TaskResult, table: Path, output: Path, tag: str) -> ExportedTask:
    rows = read_parquet(table, _COLUMNS, result.tables.get("queries", "")).to_pylist()
    name = result.name
    run_lines: list[str] = []
    qrels: list[str] = []
    repeats = 0
    for row in rows:
        query = encode_id(row["query_id"])
        first: dict[str, float] = {}
        for candidate, score in zip(row["top_ids"], row["top_scores"], strict=True):
            first.setdefault(candidate, score)
        repeats += len(row["top_ids"]) - len(first)
        for rank, (candidate, score) in enumerate(zip(first, decreasing_scores([*first.values()]), strict=True), 1):
            run_lines.append(f"{query} Q0 {encode_id(candidate)} {rank} {score:.9g} {tag}")
        for candidate, gain in zip(row["relevant_ids"], row["relevant_gains"], strict=True):
            qrels.append(f"{query} 0 {encode_id(candidate)} {_whole_gain(gain, name, row['query_id'])}")
    for kind, lines in (("run", run_lines), ("qrels", qrels)):
        write_text(output / f"{name}.{kind}", "".join(f"{line}\n" for line in lines))
    return ExportedTask(name, len(rows), repeats)


def _whole_gain(gain: float, task: str, query: str) -> int:
    if not float(gain).is_integer():
        raise ResultError(
            f"{task}: query {query!r} has gain {gain}; TREC judgements are whole numbers, so it can't be exported"
        )
    return int(gain)
