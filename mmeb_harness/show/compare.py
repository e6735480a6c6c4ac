"""Several models' scores side by side: the first is the reference, the others show their difference to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from mmeb_harness.core.items import MODALITIES
from mmeb_harness.results.scores import Scores, check_comparable, main_score, means_over
from mmeb_harness.show.contests import Member
from mmeb_harness.show.names import distinct_names
from mmeb_harness.show.tables import NONE, percent, print_lines, print_table, signed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Cell:
    """One model's score in one row.

    Attributes:
        score: fraction; `None` if nothing of the row was scored.
        tasks, of: how many of how many tasks it is the mean of; only a complete one is compared.
        difference: to the reference, in points; `None` where either is incomplete, and for the reference itself.
    """

    score: float | None
    tasks: int
    of: int
    difference: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every task of the row was scored."""
        return self.tasks == self.of


@dataclass(frozen=True)
class Row:
    """A group, a modality, "overall" or a task, with a cell a model."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Comparison:
    """What `mmeb-eval compare` prints.

    Attributes:
        columns: the models; the first is the reference.
        blocks: tasks (if asked for), groups, modalities, overall, where any of them has a task of the benchmark; then
            tasks that are not the benchmark's.
    """

    columns: tuple[Scores, ...]
    blocks: tuple[tuple[Row, ...], ...]


def compare(
    columns: Sequence[Scores],
    tasks: Mapping[str, Member],
    *,
    allow_editions: bool = False,
    with_tasks: bool = False,
    others: Mapping[str, str] = MappingProxyType({}),
) -> Comparison:
    """Put scores side by side.

    Args:
        tasks: of the benchmark, which the means should cover.
        others: tasks that are not → main metric.

    Raises:
        ResultError: they must not stand in one table (see `check_comparable`).
    """
    columns = distinct_names(columns)
    check_comparable(columns, allow_editions=allow_editions)
    covered = [(name, task.modality, task.group) for name, task in tasks.items()]
    metrics = {name: task.metric for name, task in tasks.items()}
    by_name = [
        {
            mean.name: Cell(mean.score, mean.tasks, mean.tasks + len(mean.missing))
            for mean in means_over(scores, covered, metrics)
        }
        for scores in columns
    ]
    names = list(by_name[0])
    blocks: list[list[str]] = [
        [name for name in names if name not in MODALITIES and name != "overall"],
        [name for name in names if name in MODALITIES],
        ["overall"],
    ]
    rows = [tuple(_row(name, [of_model[name] for of_model in by_name]) for name in block) for block in blocks]
    if with_tasks:
        rows.insert(0, tuple(_task_rows(columns, metrics)))
    if further := tuple(_task_rows(columns, others)):
        on_benchmark = any(cell.tasks for row in rows[-1] for cell in row.cells)
        rows = [*(rows if on_benchmark else []), further]
    return Comparison(tuple(columns), tuple(rows))


def _task_rows(columns: Sequence[Scores], metrics: Mapping[str, str]) -> Iterable[Row]:
    for name, metric in metrics.items():
        scores = [main_score(model, name, metric) for model in columns]
        if any(score is not None for score in scores):
            yield _row(name, [Cell(score, int(score is not None), 1) for score in scores])


def _row(name: str, cells: Sequence[Cell]) -> Row:
    reference = cells[0]
    return Row(name, (reference, *(_compared(cell, reference) for cell in cells[1:])))


def _compared(cell: Cell, reference: Cell) -> Cell:
    if cell.score is None or reference.score is None or not (cell.complete and reference.complete):
        return cell
    return dataclasses.replace(cell, difference=100 * (cell.score - reference.score))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what each column is, then the table."""

    for number, scores in enumerate(comparison.columns, start=1):
        print_lines(console, *describe(scores, number, comparison))
    print_lines(console, *remarks(comparison.columns), "")
    _print_table(comparison, console)


def describe(scores: Scores, number: int, comparison: Comparison) -> list[str]:
    """The lines that say what a column is: edition, data, marks, profile, notes."""
    from mmeb_harness.show.tables import profile_line

    rows = [row for block in comparison.blocks for row in block]
    overall = next((row.cells[number - 1] for row in rows if row.name == "overall"), None)
    marks = [
        "synthetic" if scores.synthetic else "",
        "limited to the first queries of each task" if scores.limited else "",
        "" if overall is None or overall.complete else f"incomplete: {overall.tasks} of {overall.of} tasks",
    ]
    data = [f"edition {scores.edition or 'none'}", f"data revision {scores.data_revision or 'unstated'}"]
    return [
        f"[{number}] {scores.name}: {'; '.join(data + [mark for mark in marks if mark])}",
        f"    {scores.origin}: {scores.source}",
        f"    {'profile unstated' if scores.profile is None else profile_line(scores.profile)}",
        *(f"    {note}" for note in scores.notes),
    ]


def remarks(columns: Sequence[Scores]) -> list[str]:
    """What makes a comparison of these columns doubtful, a line each."""
    lines = []
    if len({scores.edition for scores in columns}) > 1:
        lines.append("editions differ: ViDoSeek-page, MMLongBench-page and MomentSeeker are not the same tasks.")
    if len({scores.data_revision for scores in columns if scores.data_revision is not None}) > 1:
        lines.append("data revisions differ: a difference may be the data's.")
    if len({scores.profile for scores in columns if scores.profile is not None}) > 1:
        lines.append("profiles differ: a difference may be that of input or readout.")
    return lines


def _print_table(comparison: Comparison, console: Console) -> None:
    heads = [f"[{number}] {scores.name}" for number, scores in enumerate(comparison.columns, start=1)]
    print_table(
        console,
        ["%", heads[0], *(text for head in heads[1:] for text in (head, "- [1]"))],
        *([_cells(row) for row in block] for block in comparison.blocks),
    )


def _cells(row: Row) -> list[str]:
    texts = [text for cell in row.cells for text in (_score_text(cell), signed(cell.difference))]
    return [row.name, texts[0], *texts[2:]]  # the reference has no difference


def _score_text(cell: Cell) -> str:
    if not cell.complete:
        return f"{cell.tasks} of {cell.of}" if cell.of > 1 else NONE
    return percent(cell.score)
