"""Training pairs from a data folder in the benchmark's own layout, read by the registered tasks' readers.

The synthetic suites come this way. Rationales of their scripted workers lie in the same folder.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from mmeb_harness import Column, DataError, Frames, Item, Row, Task, UnknownNameError, parquet_rows
from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.pairs import Pair, PairSet, Side, content_key

TASKS_GROUP = "mmeb_harness.tasks"
QUERY_LABELS = "query_labels.parquet"
WORKER_RATIONALES = "worker_rationales.parquet"
#: Columns of labels and of workers' rationales.
TASK, QUERY, ANSWER, DIFFICULTY, KIND, RATIONALE, SIDE, WORKER, TEXT = map(
    Column.text, ("task", "query_id", "answer", "difficulty", "kind", "rationale", "side", "worker", "text")
)
HOPS, SAMPLE = Column.whole_number("hops"), Column.whole_number("sample")
RIGHT = Column.truth("right")
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class TaskPairs:
    """A task's queries, each with one of its best candidates. The whole task is in memory."""

    name: str
    pairs: tuple[Pair, ...]
    distractors: Sequence[Item]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[index]


def open_suite(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    """Tasks of a data folder.

    Raises:
        DataError: no such folder, or one without labels.
        UnknownNameError: a subset that the folder doesn't have.
    """
    folder, subset = root / config.path, config.subset
    labels = read_labels(folder)
    tasks = [task for task in find_tasks() if task.name in labels]
    chosen = [task for task in tasks if subset in ("", task.name, task.group)]
    if not chosen:
        raise UnknownNameError(f"subset of {folder}", subset, {task.name for task in tasks})
    return [read_task(task, folder, labels[task.name], config.limit) for task in chosen]


SUITE = PairKind(open_suite, ("subset",))


def find_tasks() -> list[Task]:
    """All tasks that plugins have registered."""
    tasks: list[Task] = []
    for point in entry_points(group=TASKS_GROUP):
        tasks += list(point.load().TASKS)
    return tasks


def read_labels(data: Path, column: Column[Any] = ANSWER, *more: Column[Any]) -> dict[str, dict[str, Row]]:
    """task → query id → what the world knows of it, in these columns.

    Raises:
        DataError: the folder has none, or others than its tasks need.
    """
    path = data / QUERY_LABELS
    if not path.is_file():
        raise DataError(
            f"{path} is missing: kind suite reads what python -m mmeb_tasks.miniworld FOLDER --split train, or "
            "mmeb_tasks.mini, has made; pairs of your own are of kind pairs, in a file"
        )
    labels: dict[str, dict[str, Row]] = {}
    for rows in parquet_rows(path, (TASK, QUERY, column, *more), _ROWS_AT_ONCE):
        for row in rows:
            labels.setdefault(row[TASK], {})[row[QUERY]] = row
    return labels


def worker_rows(data: Path, *columns: Column[Any]) -> Iterator[Row]:
    """What workers wrote beside a folder's data, row by row.

    Raises:
        DataError: there is nothing, or a cell is not what its column holds.
    """
    path = data / WORKER_RATIONALES
    if not path.is_file():
        raise DataError(f"{path} is missing: {data} has no recorded rationales; name a folder that has them")
    for rows in parquet_rows(path, columns, _ROWS_AT_ONCE):
        yield from rows


def read_task(task: Task, data: Path, labels: Mapping[str, Row], limit: int | None = None) -> TaskPairs:
    """One task's pairs. Of several best candidates a query has the one that its id falls on.

    Raises:
        DataError: a query without a label.
    """
    samples = task.load(data, Frames())
    by_id = {candidate.id: candidate for candidate in samples.candidates}
    pairs = []
    for query in samples.queries[:limit]:
        if query.id not in labels:
            raise DataError(f"{data / QUERY_LABELS} has no label of {task.name}'s query {query.id!r}; make it again")
        gains = samples.gains[query.id]
        best = max(gains.values())
        right = [by_id[one] for one, gain in gains.items() if gain == best]
        pairs.append(
            Pair(
                id=query.id,
                dataset=task.name,
                query=query,
                positive=right[zlib.crc32(query.id.encode()) % len(right)],
                answer=labels[query.id][ANSWER],
                relevant=frozenset(content_key(by_id[candidate]) for candidate in gains),
            )
        )
    # Only bare texts: of two pictures nobody can tell here whether they show the same.
    texts = {content_key(candidate): candidate for candidate in samples.candidates if not candidate.media}
    return TaskPairs(task.name, tuple(pairs), tuple(texts.values()))


def read_texts(data: Path) -> Iterator[str]:
    """Every text of a data folder, for a tokenizer: instructions, queries, candidates, rationales; and timestamps."""
    for step in range(0, 8, 2):
        yield from [f"<{step + 0.5:.1f} seconds>"] * 1000
    labels = read_labels(data)
    for task in find_tasks():
        if task.name in labels:
            samples = task.load(data, Frames())
            for item in (*samples.queries, *samples.candidates):
                yield item.instruction
                yield item.text
    for row in worker_rows(data, TEXT):
        yield " " + row[TEXT]


class TrustedRationales:
    """What one scripted worker wrote where it is right, as training material for an evaluator.

    The world tells which rationales are right. A student never sees this; only its evaluator, whose pairs are
    others, is trained on it, as a strong judge is made by people who know the answers.
    """

    def __init__(self, folders: Sequence[Path], workers: Sequence[str]) -> None:
        self._texts: dict[tuple[str, str, str], list[str]] = {}
        columns = (TASK, QUERY, SIDE, WORKER, TEXT, RIGHT)
        for row in (row for folder in folders for row in worker_rows(folder, *columns)):
            if row[RIGHT] and row[WORKER] in workers:
                self._texts.setdefault((row[TASK], row[QUERY], row[SIDE]), []).append(row[TEXT])

    @property
    def fingerprint(self) -> str:
        """A hash of all texts and of what each belongs to."""
        digest = hashlib.sha256()
        for key, texts in self._texts.items():
            digest.update("\x1f".join([*key, *texts]).encode())
        return digest.hexdigest()[:16]

    def draw(self, pair: Pair, side: Side, rng: Callable[[], np.random.Generator]) -> str | None:
        """One of them; `None` if there is none."""
        texts = self._texts.get((pair.dataset, pair.id, side), [])
        return texts[int(rng().integers(len(texts)))] if texts else None
