"""A run's tables: at its end, and whenever somebody wants to see them again; and what can be done with it next."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from mmeb_harness.core.benchmark import BenchmarkRow, benchmark_of, level_of, means_of
from mmeb_harness.core.errors import leading
from mmeb_harness.core.progress import rate
from mmeb_harness.core.terminal import say_kept
from mmeb_harness.results.files import (
    OF_SEVERAL_MODES,
    Aggregate,
    EncodeStats,
    RunResult,
    TaskResult,
    run_values,
    unsupported_text,
)
from mmeb_harness.results.outcome import Run
from mmeb_harness.show.tables import NONE, UNSUPPORTED, milliseconds, percent, print_lines, print_table, profile_line

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

#: Behind what was measured while several modes were encoded at once.
SEVERAL_MODES = "*"
#: A tenth of a point, as the table prints it.
VISIBLE_DIFFERENCE = 0.001


def print_run(run: Run, console: Console) -> None:
    """Print groups, modalities and overall, what reasoning and encoding took, and where everything lies."""
    result, tasks = run.result, [task.result for task in run.tasks]
    print_lines(console, f"\n{_title(result)}\n")
    if result.status != "finished":
        print_lines(console, f"not finished: {len(tasks)} of {len(result.tasks)} tasks; the same command goes on\n")
    if not tasks:
        return
    _print_scores(run, _blocks(result, tasks), console)
    print_lines(console, "")
    costs = [_cost_cells(result, "queries", result.queries), _cost_cells(result, "candidates", result.candidates)]
    print_table(console, _COST_HEADS, costs)
    print_lines(console, "", *_remarks(result, tasks))
    took = f" ({result.seconds:.0f} s)" if result.status == "finished" else ""
    say_kept(f"results: {run.folder}{took}")


def print_tasks(run: Run, console: Console) -> None:
    """Print a row a task, in the run's order; what isn't supported is last, with the media that it needs."""
    heads = ("task", "score", "metric", "chance", "queries", "candidates", "reasoned")
    rows: list[tuple[str, ...]] = [
        (
            result.name,
            percent(result.score),
            result.metric,
            percent(result.chance),
            f"{result.num_queries:,}",
            f"{result.num_candidates:,}",
            percent(result.queries.reasoning_rate),
        )
        for result in (task.result for task in run.tasks)
    ]
    rows += [(name, UNSUPPORTED, ", ".join(media), *([NONE] * 4)) for name, media in run.result.unsupported.items()]
    print_lines(console, "")
    print_table(console, heads, rows, names=(0, 2))


def run_json(run: Run) -> str:
    """The run and its tasks under the names that they have in their files: run.json's, and `results`, of tasks/."""
    results = [dataclasses.asdict(task.result) for task in run.tasks]
    return json.dumps({**run_values(run.result), "results": results}, indent=2, ensure_ascii=False)


def print_next(runs: Sequence[Run], console: Console) -> None:
    """Print what can be done with runs that have just ended, one or a model's modes, ready to be copied."""
    run, folders = runs[0], [run.folder for run in runs]
    named = " ".join(map(_quoted, folders))
    steps = [f"mmeb-eval show {_quoted(run.folder)} --tasks", f"mmeb-eval report {named} --output report.html"]
    overall = run.result.overall
    others = [file.parent for file in run.folder.parent.glob("*/run.json") if file.parent not in folders]
    if run.result.edition and run.result.limit is None and overall is not None and not overall.complete:
        steps.append(
            f"the same command without --tasks, --groups, --modality: {len(overall.missing)} tasks are missing"
        )
    elif len(runs) > 1:
        steps.append(f"mmeb-eval compare {named}")
    elif others:
        latest = max(others, key=lambda other: (other.stat().st_mtime_ns, other.name))
        steps.append(f"mmeb-eval compare {_quoted(run.folder)} {_quoted(latest)}")
    else:
        steps.append(f"mmeb-eval leaderboard {_quoted(run.folder)}")
    print_lines(console, *(f"{'' if number else 'next:':<6}{step}" for number, step in enumerate(steps)))


def _quoted(folder: Path) -> str:
    return shlex.quote(str(folder))


def _print_scores(run: Run, blocks: Sequence[Sequence[Aggregate]], console: Console) -> None:
    has_labels = any(task.easy is not None or task.hard is not None for task in run.tasks)
    heads = ("", "tasks", "score", "chance", *(("easy", "hard") if has_labels else ()), "reasoned", "tokens")
    result = run.result
    rows = [
        BenchmarkRow(own.name, own.modality, own.group, own.metric, result.edition)
        for own in (task.result for task in run.tasks)
    ]
    members = {over.name: over.metrics.keys() for over in means_of(rows)}
    cells = [
        [_cells(run, mean, members.get(mean.name, {mean.name}), with_labels=has_labels) for mean in block]
        for block in blocks
    ]
    print_table(console, heads, *cells, bold=result.overall.name if result.overall else "")


def _title(run: RunResult) -> str:
    data = f"{run.data}, synthetic" if run.data_synthetic else run.data
    data += f", edition {run.edition}" if run.edition else ""
    limited = f", first {run.limit} queries of each task only" if run.limit is not None else ""
    modes = [
        f"{name.replace('_', ' ')} {run.model_settings[name]}"
        for name in ("reasoning", "candidate_reasoning")
        if name in run.model_settings
    ]
    return f"{run.model} on {data}{limited}" + (f"  ({', '.join(modes)})" if modes else "")


def _blocks(run: RunResult, results: Sequence[TaskResult]) -> list[list[Aggregate]]:
    """Groups, then modalities, then overall; tasks outside the benchmark come last, by themselves.

    Of a run without the benchmark's tasks the tasks, and overall if there are several.
    """
    scored = [aggregate for aggregate in run.aggregates if aggregate.tasks]
    groups, modalities, overall = (
        [aggregate for aggregate in scored if level_of(aggregate.name) == level]
        for level in ("group", "modality", "overall")
    )
    covered = {aggregate.name for aggregate in groups}
    alone = [Aggregate(result.name, result.score, result.chance, 1, ()) for result in results]
    if not run.edition:
        return [block for block in (alone, overall if len(alone) > 1 else []) if block]
    others = [aggregate for aggregate, result in zip(alone, results, strict=True) if result.group not in covered]
    return [block for block in (groups, modalities, overall, others) if block]


def _cells(run: Run, aggregate: Aggregate, names: Collection[str], *, with_labels: bool) -> list[str]:
    members = [task for task in run.tasks if task.result.name in names]
    queries = sum((task.result.queries for task in members), EncodeStats())
    total = aggregate.tasks + len(aggregate.missing)
    scored = aggregate.tasks - aggregate.unsupported
    count = f"{scored}+{aggregate.unsupported}" if aggregate.unsupported else str(scored)
    alike = members if aggregate.chance is not None else []  # else it is a mean of something else
    labelled = (_mean([task.easy for task in alike]), _mean([task.hard for task in alike]))
    return [
        aggregate.name,
        count if aggregate.complete else f"{count} of {total}",
        percent(aggregate.score) if scored else UNSUPPORTED,
        percent(aggregate.chance),
        *(map(percent, labelled) if with_labels else ()),
        percent(queries.reasoning_rate),
        f"{queries.tokens_per_reasoned:.1f}" if queries.reasoned else NONE,
    ]


_COST_HEADS = ("encoding", "items", "distinct", "items/s", "p50 ms", "p95 ms", "reasoned", "truncated")


def _cost_cells(run: RunResult, side: str, stats: EncodeStats) -> list[str]:
    mark = SEVERAL_MODES if stats.shared else ""
    latency = run.latency_seconds.get(OF_SEVERAL_MODES if stats.shared else side, {})
    return [
        side,
        f"{stats.items:,}",
        f"{stats.encoded:,}",
        rate(stats.items_per_second) + mark,
        *(milliseconds(latency.get(name)) + mark for name in ("p50", "p95")),
        percent(stats.reasoning_rate),
        f"{stats.truncated:,}",
    ]


def _remarks(run: RunResult, results: Sequence[TaskResult]) -> list[str]:
    benchmark = benchmark_of(run.edition)
    metrics = benchmark.scores
    if not run.edition:
        metrics = ", ".join(dict.fromkeys(result.metric for result in results))
    lines = [f"score: mean over tasks of {metrics}, in %. latency: of an item in its batch, duplicates included."]
    if run.queries.shared:
        lines.append(
            f"{SEVERAL_MODES}: {run.queries.shared:,} of {run.queries.items:,} queries were encoded in several modes "
            "at once; what this mode takes by itself, a run of it alone with --fresh says."
        )
    lines += [f"{mean.name}: {mean.rule}." for mean in run.aggregates if mean.rule and mean.tasks]
    if run.unsupported:
        lines.append(unsupported_line(run))
    lines.append(profile_line(run.profile, {result.modality for result in results}))
    stats = run.queries + run.candidates
    if stats.reused:
        lines.append(
            f"reused: {percent(stats.reused / stats.encoded)} % of {stats.encoded:,} distinct items had been encoded "
            "before, for another task or in another run."
        )
    if counted := sum((Counter(result.notes) for result in results), Counter()):
        lines.append("counted: " + ", ".join(f"{count:,} {name}" for name, count in sorted(counted.items())) + ".")
    if run.data_synthetic:
        lines.append(f"{run.data}, synthetic: made-up pictures and pages; these are not {benchmark.name} scores.")
    if run.limit is not None:
        lines.append(f"limited to {run.limit} queries a task: not comparable with any other score.")
    overall = run.overall
    if overall is not None and not overall.complete and overall.tasks:
        missing = overall.missing
        lines.append(f"incomplete: {len(missing)} of the benchmark's tasks were not run ({leading(missing)}).")
    ties = sum(result.tied_decisions for result in results)
    by_position, at_random = (
        sum(getattr(result, name) for result in results) / len(results)
        for name in ("corrected_score", "random_ties_score")
    )
    lines.append(f"{ties:,} top-k decisions were ties, settled by candidate position.")
    if abs(by_position - at_random) >= VISIBLE_DIFFERENCE:
        with_images = bool(run.edition) and any(result.modality == "image" for result in results)
        lines.append(
            f"ties matter: settled at random instead, the mean over the tasks would be {percent(at_random)}, not "
            f"{percent(by_position)}"
            + (" (image tasks list the answer first, and position favours it)." if with_images else ".")
        )
    if differing := differing_versions(results):
        lines.append(f"computed with different versions: {'; '.join(differing)}.")
    moved = [result for result in results if abs(result.score - result.corrected_score) > 1e-12]
    lines += [
        f"{result.name}: {percent(result.score)} as officially computed, {percent(result.corrected_score)} with "
        "every grade on its own page."
        for result in moved
    ]
    return lines


def unsupported_line(run: RunResult) -> str:
    """Which tasks the model doesn't take, and how they count."""
    counts = "; each counts 0 (tasks: scored + unsupported)" if benchmark_of(run.edition).unsupported_count else ""
    return f"unsupported by the model, neither read nor encoded: {unsupported_text(run.unsupported)}{counts}."


def differing_versions(results: Sequence[TaskResult]) -> list[str]:
    """Packages of which a run's tasks were computed with several versions, and which."""
    names = dict.fromkeys(name for result in results for name in result.versions)
    versions_of = {name: sorted({result.versions.get(name, "none") for result in results}) for name in names}
    return [f"{name} {', '.join(versions)}" for name, versions in versions_of.items() if len(versions) > 1]


def _mean(scores: Sequence[float | None]) -> float | None:
    """The mean over those that have one."""
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if known else None
