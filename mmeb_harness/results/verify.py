"""A run, held against its own rankings: does every number follow from what is stored below it?

The tasks' results are recomputed from their tables, the run's own means and sums from the tasks' files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.registry import RegisteredTask, benchmark_rows
from mmeb_harness.results.files import Aggregate, EncodeStats, RunResult, TaskResult, aggregate
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import check_tables
from mmeb_harness.results.recomputed import Outcome, verify_task
from mmeb_harness.results.scores import read_run_file, stored_task


def verify_run(folder: Path, registered: Mapping[str, RegisteredTask]) -> list[Outcome]:
    """Recompute everything in a run that follows from its stored rankings.

    Args:
        registered: the tasks in the run's edition; those of the benchmark decide its means.

    Returns:
        An outcome a task, in the run's order, then one of run.json.

    Raises:
        ResultError: the folder holds no finished run. Whatever else is missing or broken is an outcome.
    """
    run = read_run_file(folder, as_it_stands=True)
    files = RunFolder(folder)
    results: list[TaskResult] = []
    outcomes: list[Outcome] = []
    for name in run.tasks:
        outcomes.append(findings := Outcome(name))
        try:
            result = stored_task(run, name, files, as_it_stands=True)
            results.append(result)
            if name in registered:
                _verify_kind(result, registered[name], findings)
            verify_task(result, files, findings)
            if findings.passed:  # else what was found says more
                stored_task(run, name, files)
                check_tables(files, result)
        except ResultError as error:
            findings.problems.append(str(error))
    findings = _verify_run_file(run, results, registered, files.run_file.name)
    if findings.passed:
        try:
            read_run_file(folder)
        except ResultError as error:
            findings.problems.append(str(error))
    return [*outcomes, findings]


def _verify_kind(result: TaskResult, registered: RegisteredTask, findings: Outcome) -> None:
    task = registered.task
    findings.equal("metric", result.metric, task.metric)
    findings.equal("modality and group", (result.modality, result.group), (task.modality, task.group))


def _verify_run_file(
    run: RunResult, results: Sequence[TaskResult], registered: Mapping[str, RegisteredTask], name: str
) -> Outcome:
    """The run's means and sums, from the tasks' files as they stand."""
    findings = Outcome(name)
    for result in results:
        declared = registered[result.name].task.num_queries if result.name in registered else None
        if not run.data_synthetic and run.limit is None and declared is not None:
            findings.equal(f"{result.name}: num_queries", result.num_queries, declared)
    recomputed = {mean.name: mean for mean in aggregate(results, benchmark_rows(registered.values()), run.unsupported)}
    findings.equal("names of aggregates", [stored.name for stored in run.aggregates], list(recomputed))
    for stored in run.aggregates:
        if stored.name in recomputed:
            _verify_aggregate(stored, recomputed[stored.name], findings)
    for side, stats in (("queries", run.queries), ("candidates", run.candidates)):
        total = sum((getattr(result, side) for result in results), EncodeStats())
        for count in ("items", "encoded", "reasoned", "reasoning_tokens", "truncated"):
            findings.equal(f"{side}: {count}", getattr(stats, count), getattr(total, count))
    return findings


def _verify_aggregate(stored: Aggregate, recomputed: Aggregate, findings: Outcome) -> None:
    findings.equal(f"{stored.name}: tasks", stored.tasks, recomputed.tasks)
    findings.equal(f"{stored.name}: missing", stored.missing, recomputed.missing)
    findings.number(f"{stored.name}: score", stored.score, recomputed.score)
    findings.number(f"{stored.name}: chance", stored.chance, recomputed.chance)
    findings.equal(f"{stored.name}: unsupported", stored.unsupported, recomputed.unsupported)
