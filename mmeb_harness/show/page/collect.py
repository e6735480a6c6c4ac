"""From finished run folders to the page's summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.embedder import REASONING
from mmeb_harness.core.errors import counted, leading
from mmeb_harness.core.registry import RegisteredTask, load_tasks
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.results.files import RunResult, unsupported_text
from mmeb_harness.show.compare import Comparison, compare, remarks
from mmeb_harness.show.contests import Entry, benchmark_to_compare, other_metrics
from mmeb_harness.show.page.render import synthetic_warning
from mmeb_harness.show.page.texts import find_data, tasks_there
from mmeb_harness.show.page.values import RunCard, Summary, TaskRow
from mmeb_harness.show.run_table import differing_versions, unsupported_line
from mmeb_harness.show.runs import ShownRun, read_runs
from mmeb_harness.show.tables import profile_line
from mmeb_harness.stats.policies import apart_from

#: Remarks about single tasks that stand in the summary.
SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Source:
    """All that the page is made of.

    Attributes:
        data: the data folder, or why there is none.
        pairs: numbers of runs of one model, in different reasoning modes.
        registered: the tasks in each run's own edition.
    """

    runs: tuple[ShownRun, ...]
    comparison: Comparison
    data: DataInfo | str
    pairs: tuple[tuple[int, ...], ...]
    registered: tuple[Mapping[str, RegisteredTask], ...]

    @property
    def task_names(self) -> list[str]:
        """Tasks of any of the runs: the benchmark's in its order, then others as they come."""
        there = {name for run in self.runs for name in run.results}
        known = [name for registered in self.registered for name in registered if name in there]
        return list(dict.fromkeys([*known, *(name for run in self.runs for name in run.results)]))


def open_runs(
    folders: Sequence[Path], *, data: Path | None = None, allow_editions: bool = False, labels: Sequence[str] = ()
) -> Source:
    """Read what the page needs before any query is looked at.

    Raises:
        ResultError: a folder holds no finished run, or the runs must not stand in one table.
    """
    runs = read_runs(folders, allow_editions=allow_editions, labels=labels)
    there = find_data([run.run for run in runs], data)
    entries = [Entry(run.scores, run.run, results=run.results) for run in runs]
    return Source(
        runs=runs,
        comparison=compare(
            [run.scores for run in runs],
            benchmark_to_compare(entries),
            allow_editions=allow_editions,
            others=other_metrics(entries),
        ),
        data=there,
        pairs=reasoning_pairs([run.run for run in runs]),
        registered=tuple({**load_tasks(run.run.edition or None), **tasks_there(there)} for run in runs),
    )


def reasoning_pairs(runs: Sequence[RunResult]) -> tuple[tuple[int, ...], ...]:
    """Numbers of runs that differ in nothing but when queries reason: only there does a difference mean anything."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, run in enumerate(runs):
        if REASONING in run.model_settings:
            groups.setdefault(apart_from(run), []).append(number)
    return tuple(
        tuple(numbers)
        for numbers in groups.values()
        if len({runs[number].model_settings[REASONING] for number in numbers}) > 1
    )


def summary_of(source: Source, rows: Sequence[TaskRow], written: str, problems: Sequence[str]) -> Summary:
    """What the page shows first.

    Args:
        written: the date.
        problems: what the page lacks of single tasks; only the first ones are told here, each stands with its task.
    """
    edition = next((run.run.edition for run in source.runs if run.run.edition), "")
    benchmark = benchmark_of(edition)
    lines = [*remarks(source.comparison.columns), *_other_revisions(source), *_lacking(source)]
    lines += [f"{run.name}: {unsupported_line(run.run)}" for run in source.runs if run.run.unsupported]
    lines += [f"{run.name}: {line}" for run in source.runs for line in _versions_remark(run)]
    lines += [source.data] if isinstance(source.data, str) else []
    lines += problems[:SHOWN_PROBLEMS]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"… and {len(problems) - SHOWN_PROBLEMS} more tasks with remarks of their own.")
    blocks = source.comparison.blocks
    return Summary(
        runs=tuple(_card(run) for run in source.runs),
        means=tuple(
            kept for block in blocks if (kept := tuple(row for row in block if any(cell.tasks for cell in row.cells)))
        ),
        tasks=tuple(rows),
        remarks=tuple(lines),
        reasoning_pairs=bool(source.pairs),
        written=written,
        overall=source.comparison.overall,
        metrics=benchmark.scores,
        rules=tuple(f"{name}: {rule}." for name, rule in source.comparison.rules.items()),
        warning=synthetic_warning(edition) if source.runs[0].run.data_synthetic else "",
    )


def _other_revisions(source: Source) -> list[str]:
    """Runs that look like one model's and aren't: what reasoning does can't be told between them."""
    revisions: dict[str, dict[str, list[str]]] = {}
    for finished in source.runs:
        run = finished.run
        revisions.setdefault(run.model, {}).setdefault(run.model_revision, []).append(finished.name)
    lines = []
    for model, by_revision in revisions.items():
        each = "; ".join(f"{', '.join(runs)} of {revision}" for revision, runs in by_revision.items())
        lines += [f"revisions of {model} differ: {each}."] if len(by_revision) > 1 else []
    return lines


def _lacking(source: Source) -> list[str]:
    """How the runs' sets of tasks differ."""
    lines = []
    for run in source.runs:
        have = {*run.results, *run.run.unsupported}
        if lacking := [name for name in source.task_names if name not in have]:
            lines.append(f"{run.name} lacks {counted(len(lacking), 'task')} that others have: {leading(lacking)}.")
    return lines


def _versions_remark(run: ShownRun) -> list[str]:
    differing = differing_versions(list(run.results.values()))
    return [f"computed with different versions: {'; '.join(differing)}."] if differing else []


def _card(finished: ShownRun) -> RunCard:
    run = finished.run
    overall = run.overall
    of = 0 if overall is None else overall.tasks + len(overall.missing)
    marks = (
        "synthetic" if run.data_synthetic else "",
        f"limited to {run.limit} queries a task" if run.limit is not None else "",
        f"incomplete: {overall.tasks} of {of} tasks" if overall is not None and overall.missing else "",
        f"unsupported: {unsupported_text(run.unsupported)}" if run.unsupported else "",
    )
    details = {
        "Revision": run.model_revision,
        "Dimensions": str(run.model_dimensions),
        "Data revision": run.data_revision,
        "Seed": str(run.seed),
        "Started": run.started,
        "Commit": run.git_commit or "",
        "Versions": ", ".join(f"{name} {version}" for name, version in run.versions.items()),
        "Machine": ", ".join(f"{name} {value}" for name, value in run.machine.items() if value is not None),
    }
    return RunCard(
        name=finished.name,
        model=run.model,
        edition=run.edition,
        data=run.data,
        profile=profile_line(run.profile, {result.modality for result in finished.results.values()}),
        marks=tuple(mark for mark in marks if mark),
        queries=run.queries,
        candidates=run.candidates,
        latency_seconds=run.latency_seconds,
        details={label: value for label, value in details.items() if value},
        settings=run.model_settings,
        unsupported=run.unsupported,
    )
