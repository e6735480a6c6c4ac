"""One value for any set of scores, whatever its origin: a run here, official files, a published table.

Means over the benchmark follow the one rule of `results.mean_scores`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmeb_harness.core.benchmark import BenchmarkRow, MeanOver, benchmark_of, means_of
from mmeb_harness.core.errors import ResultError, shortened
from mmeb_harness.core.items import Medium, Profile
from mmeb_harness.core.reading import JsonFile
from mmeb_harness.results.files import (
    ADDED,
    RUN_FILE_AGAIN,
    Aggregate,
    RunResult,
    TaskResult,
    expected_fingerprint,
    fraction,
    load_run_result,
    load_task_result,
    mean_scores,
    model_fingerprint,
)
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.recomputed import check_follows

SCORES_SCHEMA_VERSION = 1

#: What no more tasks have counted is told of each.
COUNTED_ALONE = 5

Origin = Literal["run", "imported", "published"]


@dataclass(frozen=True)
class TaskScore:
    """The scores of one model on one task.

    Attributes:
        metrics: fractions, as the official code computes them; all of its edition, or what was published.
        num_queries: over how many queries; `None` where the source doesn't say.
        corrected: the main metric with every grade on its own label; `None` where that can't be known.
    """

    metrics: Mapping[str, float]
    num_queries: int | None = None
    corrected: float | None = None


@dataclass(frozen=True)
class Scores:
    """A model's scores, and all that decides what they may be compared with.

    Attributes:
        name: by which people know it.
        edition: of the benchmark; "" for a run of tasks that have none.
        source: folder, file or publication that the scores come from.
        tasks: task → scores.
        profile: the model's choices of input and readout; `None` if the source doesn't state them.
        synthetic: of made-up data.
        limited: over the first queries of each task only.
        data_revision: of the data as a whole, where known.
        means: "overall", modality or group → published mean, of a source that has no scores of single tasks.
        unsupported: task → the media that it needs and the model doesn't take.
        notes: remarks that must stand beside the scores.
        checksum: of all the other fields, as written; "" in older files, and where nothing was written.
    """

    name: str
    edition: str
    origin: Origin
    source: str
    tasks: Mapping[str, TaskScore]
    profile: Profile | None = None
    synthetic: bool = False
    limited: bool = False
    data_revision: str | None = None
    means: Mapping[str, float] = field(default_factory=dict)
    unsupported: Mapping[str, tuple[Medium, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    schema_version: int = SCORES_SCHEMA_VERSION
    checksum: str = field(default="", compare=False)


_SCORES_FILE = JsonFile(
    Scores,
    "a scores file",
    SCORES_SCHEMA_VERSION,
    way_out="name a run's folder, or a file that `mmeb-eval import` wrote",
    if_damaged="write it anew with `mmeb-eval import`",
    mark="origin",
    added=ADDED,
    sparse=frozenset({"unsupported"}),
)


def main_score(scores: Scores, task: str, metric: str) -> float | None:
    """A task's main metric; `None` if the task was not scored.

    Raises:
        ResultError: if it was, but by other metrics.
    """
    score = scores.tasks.get(task)
    if score is None:
        return None
    if metric not in score.metrics:
        raise ResultError(f"{scores.name}: {task} has no {metric}, by which it is ranked ({scores.source})")
    return score.metrics[metric]


def means_over(scores: Scores, rows: Sequence[BenchmarkRow]) -> tuple[Aggregate, ...]:
    """Means over tasks: of their scores, or as published where there are none.

    Args:
        rows: all tasks that the means should cover.

    Raises:
        ResultError: a task that was scored, but not by its main metric.
    """
    if scores.means and not scores.tasks:
        return tuple(_published_mean(over, scores.means) for over in means_of(rows))
    scored = {row.task for row in rows if main_score(scores, row.task, row.metric) is not None}
    return mean_scores({task: scores.tasks[task].metrics for task in scored}, rows, unsupported=scores.unsupported)


def _published_mean(over: MeanOver, published: Mapping[str, float]) -> Aggregate:
    if over.name not in published:
        return Aggregate(over.name, None, None, 0, tuple(over.metrics), over.rule)
    return Aggregate(over.name, published[over.name], None, len(over.metrics), (), over.rule)


def check_comparable(scores: Sequence[Scores], *, allow_editions: bool) -> None:
    """Refuse what must not stand in one table. Incomplete scores may: their means are marked.

    Raises:
        ResultError: synthetic scores beside real ones, limited ones beside any, or several editions.
    """
    synthetic = [column.name for column in scores if column.synthetic]
    if 0 < len(synthetic) < len(scores):
        real = next(benchmark_of(column.edition).name for column in scores if not column.synthetic)
        raise ResultError(
            f"{', '.join(synthetic)}: scores of made-up data never stand beside {real} scores; compare them with one "
            "another"
        )
    if len(scores) > 1 and (limited := [column.name for column in scores if column.limited]):
        raise ResultError(
            f"{', '.join(limited)}: scores of the first queries only are not comparable with any other; run again "
            "without --limit"
        )
    if len({column.edition for column in scores}) > 1 and not allow_editions:
        each = ", ".join(f"{column.name} is of {column.edition or 'none'}" for column in scores)
        why = editions_remark([column.edition for column in scores])
        raise ResultError(
            f"scores of different editions: {each}; {why}. Compare within one, or go on with --allow-editions"
        )


def editions_remark(editions: Iterable[str]) -> str:
    """Why scores of several editions are not of the same thing."""
    if len({benchmark_of(edition) for edition in editions}) > 1:
        return (
            "MMEB-V3 is over 112 tasks more, and of the 78 that share their names with MMEB-V2's it shows short clips "
            "with frames repeated, and labels moment retrieval and recall differently"
        )
    return "up to 60 points of a task lie between editions, not models"


def read_run(folder: Path) -> tuple[RunResult, list[TaskResult]]:
    """A finished run and its tasks' results, in the run's order.

    Raises:
        ResultError: see `read_run_file` and `task_of_run`.
    """
    run = read_run_file(folder)
    return run, [task_of_run(run, name, RunFolder(folder)) for name in run.tasks]


def read_run_file(folder: Path, *, as_it_stands: bool = False, unfinished: bool = False) -> RunResult:
    """A finished run's own file.

    Args:
        as_it_stands: also if it was changed since it was written.
        unfinished: also of a run that isn't finished: its folder may still hold results of earlier settings.

    Raises:
        ResultError: no run folder, or not finished.
    """
    run_file = RunFolder(folder).run_file
    if not run_file.is_file():
        raise ResultError(
            f"{folder} is not a run's folder (no {run_file.name}); name the --output of a run. Official results are "
            "read by `mmeb-eval import`"
        )
    run = load_run_result(run_file, as_it_stands=True)
    if run.status != "finished" and not unfinished:
        raise ResultError(f"the run in {folder} is not finished (status {run.status!r}); the same command goes on")
    identity = (run.model, run.model_revision, run.model_dimensions, run.model_settings, run.profile)
    if run.model_fingerprint != model_fingerprint(*identity):
        raise ResultError(f"{run_file}: model, settings or profile were changed by hand; {RUN_FILE_AGAIN}")
    return run if as_it_stands else load_run_result(run_file)


def task_of_run(run: RunResult, name: str, files: RunFolder) -> TaskResult:
    """One of a run's tasks, as it was written; a result of a release without checksums is recomputed from its tables.

    Raises:
        ResultError: not there, broken, changed, of another run than `run`, or not what its tables say.
    """
    result = stored_task(run, name, files)
    if not result.checksum:
        check_follows(files, result)
    return result


def stored_task(run: RunResult, name: str, files: RunFolder, *, as_it_stands: bool = False) -> TaskResult:
    """One of a run's tasks.

    Args:
        as_it_stands: also if it was changed since the run was written.

    Raises:
        ResultError: not there, broken, changed, or of another run than `run`.
    """
    path = files.task_file(name)
    result = load_task_result(path, as_it_stands=as_it_stands)
    # Of releases that didn't state it, and no part of what names a result.
    profile = dataclasses.replace(result.profile, max_text_tokens=run.profile.max_text_tokens)
    of_run = profile == run.profile and result.limited == (run.limit is not None)
    if (
        result.name != name
        or not of_run
        or result.edition not in ("", run.edition)
        or result.fingerprint != expected_fingerprint(run, result)
    ):
        raise ResultError(f"{path} is not of the run in {files.root}; run the same command again")
    named = run.checksums.get(name, "") if run.checksum else ""
    if not as_it_stands and result.checksum != named:
        raise ResultError(f"{path} is not the one that {files.run_file} names; run the same command again")
    return result


def scores_of_run(folder: Path) -> Scores:
    """The scores of a finished run.

    Raises:
        ResultError: see `read_run`.
    """
    return scores_of_results(folder, *read_run(folder))


def scores_of_results(folder: Path, run: RunResult, results: Sequence[TaskResult]) -> Scores:
    """The scores of a finished run that was read from `folder`."""
    return Scores(
        name=run.name,
        edition=run.edition,
        origin="run",
        source=f"{folder} ({run.model})",
        tasks={
            result.name: TaskScore(dict(result.metrics), result.num_queries, result.corrected_score)
            for result in results
        },
        profile=run.profile,
        synthetic=run.data_synthetic,
        limited=run.limit is not None,
        data_revision=f"{run.data} {run.data_revision}",
        unsupported=run.unsupported,
        notes=_notes_of_run(RunFolder(folder), results),
    )


def _notes_of_run(files: RunFolder, results: Sequence[TaskResult]) -> tuple[str, ...]:
    counted = _counted(results)
    unverified = [
        result.name for result in results if not (result.checksum or files.queries_file(result.name).is_file())
    ]
    notes = [f"counted: {'; '.join(counted)}"] if counted else []
    if unverified:
        notes.append(f"unverified, since neither checksums nor rankings are there: {shortened(unverified)}")
    return tuple(notes)


def _counted(results: Sequence[TaskResult]) -> list[str]:
    """What was counted, by task; what many tasks have, in one sum."""
    counts: dict[str, dict[str, int]] = {}
    for result in results:
        for what, count in result.notes.items():
            counts.setdefault(what, {})[result.name] = count
    few = {what for what, of_task in counts.items() if len(of_task) <= COUNTED_ALONE}
    single = [f"{result.name}: {n:,} {what}" for result in results for what, n in result.notes.items() if what in few]
    sums = [f"{sum(n.values()):,} {what} ({len(n)} tasks)" for what, n in counts.items() if what not in few]
    return [*single, *sums]


def save_scores(path: Path, scores: Scores) -> None:
    """Write scores as JSON, atomically."""
    _SCORES_FILE.write(path, scores)


def load_scores(path: Path) -> Scores:
    """Read scores that `save_scores` wrote.

    Raises:
        ResultError: not readable, not such a file, of a newer release, or with values that are no scores.
    """
    scores = _SCORES_FILE.read(path)
    for task, score in scores.tasks.items():
        corrected = {} if score.corrected is None else {"corrected": score.corrected}
        for name, value in {**score.metrics, **corrected}.items():
            fraction(value, f"{path}: {task}: {name}")
    for name, value in scores.means.items():
        fraction(value, f"{path}: means: {name}")
    return scores
