"""Several models' scores side by side: the first is the reference, the others show their difference to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from mmeb_harness.core.benchmark import MMEB_V3, Level, benchmark_of, level_of
from mmeb_harness.core.items import MODALITIES
from mmeb_harness.results.files import Aggregate, unsupported_text
from mmeb_harness.results.official_names import MOMENT_SEEKER, PAGE_TASKS
from mmeb_harness.results.scores import Scores, check_comparable, editions_remark, main_score, means_over
from mmeb_harness.show.contests import Member, rows_of
from mmeb_harness.show.names import distinct_names
from mmeb_harness.show.tables import (
    NONE,
    UNSUPPORTED,
    percent,
    print_lines,
    print_table,
    profile_line,
    signed,
    text_limit,
)

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Cell:
    """One model's score in one row.

    Attributes:
        score: fraction; `None` if nothing of the row was scored.
        tasks, of: how many of how many tasks it is the mean of; only a complete one is compared.
        difference: to the reference, in points; `None` where either is incomplete or unsupported, and for the reference
            itself.
        unsupported: the model takes none of the tasks.
    """

    score: float | None
    tasks: int
    of: int
    difference: float | None = None
    unsupported: bool = False

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
        overall: name of the mean over all tasks.
        rules: mean → the rule that makes it, where it isn't the plain one.
    """

    columns: tuple[Scores, ...]
    blocks: tuple[tuple[Row, ...], ...]
    overall: str = "overall"
    rules: Mapping[str, str] = field(default_factory=dict)


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
    metrics = {name: task.metric for name, task in tasks.items()}
    means = [{mean.name: mean for mean in means_over(scores, rows_of(tasks))} for scores in columns]
    by_name = [{name: _cell(mean) for name, mean in of_model.items()} for of_model in means]
    names = list(by_name[0])
    levels: tuple[Level, ...] = ("group", "modality", "overall")
    blocks = [[name for name in names if level_of(name) == level] for level in levels]
    rows = [tuple(_row(name, [of_model[name] for of_model in by_name]) for name in block) for block in blocks]
    if with_tasks:
        rows.insert(0, tuple(_task_rows(columns, metrics)))
    if further := tuple(_task_rows(columns, others)):
        on_benchmark = any(cell.tasks for row in rows[-1] for cell in row.cells)
        rows = [*(rows if on_benchmark else []), further]
    rules = {name: mean.rule for name, mean in means[0].items() if mean.rule}
    return Comparison(tuple(columns), tuple(rows), names[0] if names else "overall", rules)


def _cell(mean: Aggregate) -> Cell:
    unsupported = 0 < mean.tasks == mean.unsupported
    return Cell(mean.score, mean.tasks, mean.tasks + len(mean.missing), unsupported=unsupported)


def _task_rows(columns: Sequence[Scores], metrics: Mapping[str, str]) -> Iterable[Row]:
    for name, metric in metrics.items():
        scores = [main_score(model, name, metric) for model in columns]
        if any(score is not None for score in scores):
            yield _row(
                name,
                [
                    Cell(score, int(score is not None), 1, unsupported=name in model.unsupported)
                    for model, score in zip(columns, scores, strict=True)
                ],
            )


def _row(name: str, cells: Sequence[Cell]) -> Row:
    reference = cells[0]
    return Row(name, (reference, *(_compared(cell, reference) for cell in cells[1:])))


def _compared(cell: Cell, reference: Cell) -> Cell:
    if cell.score is None or reference.score is None or not (cell.complete and reference.complete):
        return cell
    if cell.unsupported or reference.unsupported:
        return cell
    return dataclasses.replace(cell, difference=100 * (cell.score - reference.score))


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what each column is, then the table."""

    for number, scores in enumerate(comparison.columns, start=1):
        print_lines(console, *describe(scores, number, comparison))
    rules = [f"{name}: {rule}." for name, rule in comparison.rules.items()]
    print_lines(console, *rules, *remarks(comparison.columns), "")
    _print_table(comparison, console)


def describe(scores: Scores, number: int, comparison: Comparison) -> list[str]:
    """The lines that say what a column is: edition, data, marks, profile, notes."""
    rows = [row for block in comparison.blocks for row in block]
    overall = next((row.cells[number - 1] for row in rows if row.name == comparison.overall), None)
    marks = [
        "synthetic" if scores.synthetic else "",
        "limited to the first queries of each task" if scores.limited else "",
        "" if overall is None or overall.complete else f"incomplete: {overall.tasks} of {overall.of} tasks",
    ]
    if scores.unsupported:
        marks.append(f"unsupported: {unsupported_text(scores.unsupported)}")
    modalities = MODALITIES if benchmark_of(scores.edition) == MMEB_V3 else ()
    unstated = f"profile unstated; {text_limit(None)}" if modalities else "profile unstated"
    data = [f"edition {scores.edition or 'none'}", f"data revision {scores.data_revision or 'unstated'}"]
    return [
        f"[{number}] {scores.name}: {'; '.join(data + [mark for mark in marks if mark])}",
        f"    {scores.origin}: {scores.source}",
        f"    {unstated if scores.profile is None else profile_line(scores.profile, modalities)}",
        *(f"    {note}" for note in scores.notes),
    ]


def remarks(columns: Sequence[Scores]) -> list[str]:
    """What makes a comparison of these columns doubtful, a line each."""
    lines = []
    editions = {scores.edition for scores in columns}
    if len({benchmark_of(edition) for edition in editions}) > 1:
        lines.append(f"editions differ: {editions_remark(editions)}.")
    elif len(editions) > 1:
        differ = PAGE_TASKS if editions & {*MMEB_V3.editions} else (*PAGE_TASKS, MOMENT_SEEKER)
        lines.append(f"editions differ: {', '.join(differ[:-1])} and {differ[-1]} are not the same tasks.")
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
        bold=comparison.overall,
    )


def _cells(row: Row) -> list[str]:
    texts = [text for cell in row.cells for text in (_score_text(cell), signed(cell.difference))]
    return [row.name, texts[0], *texts[2:]]  # the reference has no difference


def _score_text(cell: Cell) -> str:
    if cell.unsupported:
        return UNSUPPORTED
    if not cell.complete:
        return f"{cell.tasks} of {cell.of}" if cell.of > 1 else NONE
    return percent(cell.score)
