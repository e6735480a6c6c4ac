"""The table and the picture of runs over the real pages, for results/real_pages.

python -m tests.benchmarks.real_pages.report "ocr=runs/a" "text layer=runs/b" … --output results/real_pages

Both tasks have the same queries in the same order, so that runs of either are compared query by query, with the
harness's own bootstrap and permutation test; differences are from the run that is named first.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from mmeb_harness import OptionError, ResultError, run_command
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.scores import read_run
from mmeb_harness.show.pictures.picture import Picture, save_pictures
from mmeb_harness.stats.paired import SEED
from mmeb_harness.stats.queries import QueryScores, read_queries
from mmeb_harness.stats.resampling import (
    Interval,
    clusters_of,
    flip_signs,
    holm,
    mean_over_tasks,
    p_of_no_difference,
    resample,
)
from tests.benchmarks.real_pages.make import LABELS, TASKS

ANSWERS = ("text", "table", "figure", "code")


@dataclass(frozen=True)
class Entry:
    """A run of one of the two tasks, under the name that it has in the table."""

    name: str
    folder: Path
    result: TaskResult
    queries: QueryScores


@dataclass(frozen=True)
class Against:
    """How far an entry is from the first one: nDCG@5 and its interval, and on how many queries it is better or worse.

    Attributes:
        p: that there is no difference, adjusted by Holm for all entries.
    """

    difference: Interval
    p: float
    better: int
    worse: int


def read_entry(named: str) -> Entry:
    """NAME=FOLDER, read.

    Raises:
        OptionError: another form.
        ResultError: no run, or one of other tasks.
    """
    name, equals, path = named.partition("=")
    if not (name and equals and path):
        raise OptionError(f"{named!r}: a run is named as NAME=FOLDER")
    folder = Path(path)
    ours = [result for result in read_run(folder)[1] if result.name in TASKS]
    if len(ours) != 1:
        raise ResultError(f"{folder} has {len(ours)} results of {' or '.join(TASKS)}, expected 1")
    return Entry(name, folder, ours[0], read_queries(folder, ours[0]))


def interval_of(queries: QueryScores) -> Interval:
    """The mean score and where it lies, queries resampled."""
    rng = np.random.default_rng(SEED)
    return mean_over_tasks([resample(clusters_of(queries.scores, queries.clusters), rng)], rng)[0].queries


def compared(entries: Sequence[Entry]) -> list[Against]:
    """Each of the entries but the first, against that one."""
    first = entries[0].queries
    if odd := next((entry for entry in entries if entry.queries.ids != first.ids), None):
        raise ResultError(f"{odd.folder} is of other queries than {entries[0].folder}")
    changes = [clusters_of(entry.queries.scores - first.scores, first.clusters) for entry in entries[1:]]
    rngs = [np.random.default_rng(SEED) for _ in changes]
    p_values = holm([p_of_no_difference([flip_signs(change, rng)]) for change, rng in zip(changes, rngs, strict=True)])
    differences = [
        mean_over_tasks([resample(change, rng)], rng)[0].queries for change, rng in zip(changes, rngs, strict=True)
    ]
    return [
        Against(
            difference,
            p,
            better=int((entry.queries.scores > first.scores).sum()),
            worse=int((entry.queries.scores < first.scores).sum()),
        )
        for difference, p, entry in zip(differences, p_values, entries[1:], strict=True)
    ]


def table_of(entries: Sequence[Entry]) -> list[str]:
    """Lines of Markdown: scores with intervals, and what each is against the first."""
    lines = [
        f"| | nDCG@5 [95 %] | hit@1 | hit@5 | against {entries[0].name} | better, worse | p |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for entry, against in zip(entries, [None, *compared(entries)], strict=True):
        score, metrics = interval_of(entry.queries), entry.result.metrics
        cells = [
            entry.name,
            f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]",
            f"{metrics['hit@1']:.3f}",
            f"{metrics['hit@5']:.3f}",
        ]
        if against is None:
            cells += ["", "", ""]
        else:
            apart = against.difference
            cells += [
                f"{apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]",
                f"{against.better}, {against.worse}",
                f"{against.p:.4f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table_by_answer(entries: Sequence[Entry]) -> list[str]:
    """Lines of Markdown: nDCG@5 over the queries whose answer is text, a table, a figure, code."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        answer_of = {row["id"]: row["answer"] for row in csv.DictReader(file)}
    answers = np.array([answer_of[query] for query in entries[0].queries.ids])
    heads = [f"{answer} ({int((answers == answer).sum())})" for answer in ANSWERS]
    lines = [f"| nDCG@5 where the answer is | {' | '.join(heads)} |", f"|---|{'---:|' * len(ANSWERS)}"]
    for entry in entries:
        means = [f"{entry.queries.scores[answers == answer].mean():.3f}" for answer in ANSWERS]
        lines.append(f"| {entry.name} | {' | '.join(means)} |")
    return lines


def draw(entries: Sequence[Entry]) -> Picture:
    """A point and its interval for each entry."""
    from mmeb_harness.show.pictures.style import colour, house_style, new_figure, settle

    title = "Retrieval of real pages"
    scores = [interval_of(entry.queries) for entry in entries]
    chance = entries[0].result.chance
    with house_style():
        queries, pages = entries[0].result.num_queries, entries[0].result.num_candidates
        under = f"nDCG@5 over {queries} queries and {pages} pages of a manual; 95 % intervals; dashed: chance"
        figure = new_figure(6.5, 1.2 + 0.4 * len(entries), title, under)
        axes = figure.subplots()
        for place, score in enumerate(scores):
            spread = [[score.value - score.low], [score.high - score.value]]
            axes.errorbar(score.value, place, xerr=spread, fmt="o", color=colour(place), capsize=3)
        axes.axvline(chance, ls=(0, (4, 2)), lw=1.1, color="grey")
        axes.set_yticks(range(len(entries)), [entry.name for entry in entries])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        settle(figure)
    told = "; ".join(
        f"{entry.name} {score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        for entry, score in zip(entries, scores, strict=True)
    )
    return Picture("real-pages", title, f"{title}, nDCG@5: {told}.", figure)


@click.command(help=__doc__)
@click.argument("runs", nargs=-1, required=True)
@click.option("--output", type=click.Path(path_type=Path), default="results/real_pages", show_default=True)
def main(runs: tuple[str, ...], output: Path) -> None:
    entries = [read_entry(named) for named in runs]
    lines = [*table_of(entries), "", *table_by_answer(entries)]
    output.mkdir(parents=True, exist_ok=True)
    (output / "table.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    for entry in entries:
        stored = {"run.json": "", f"tasks/{entry.result.name}.json": f"-{entry.result.name}"}
        for file, what in stored.items():
            shutil.copyfile(entry.folder / file, output / f"{entry.folder.name}{what}.json")
    save_pictures([draw(entries)], output)
    click.echo("\n".join(lines))


if __name__ == "__main__":
    run_command(main)
