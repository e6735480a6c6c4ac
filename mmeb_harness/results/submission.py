"""A submission file for the MMEB leaderboard, from a run: written only if it would be a whole and true one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from mmeb_harness.core.benchmark import V3_EDITIONS, V3_UNFIXED
from mmeb_harness.core.errors import OptionError, ResultError, shortened
from mmeb_harness.core.files import write_json
from mmeb_harness.core.items import MODALITIES
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.metrics import metric_names
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.official_names import MISSING_MARKS, PAGE_TASKS, submission_key
from mmeb_harness.results.scores import read_run

DataSource = Literal["Self-Reported", "TIGER-Lab"]
#: What a data folder that `mmeb-eval data get` didn't fetch has for a revision.
UNPINNED = "unpinned"


@dataclass(frozen=True)
class Metadata:
    """What the leaderboard says of a model, in the order of its files; the date of the report is added.

    Attributes:
        model_size: free text, "2B parameters" or "2.13"; of MMEB-V3 billions of parameters, digits only.
        max_length_tokens: longest input, media included.
        model_release_date: ISO 8601.
        contact: who answers for the scores; in MMEB-V3's file only.
    """

    model_name: str
    model_backbone: str
    model_size: str
    embedding_dimension: int
    max_length_tokens: int
    model_release_date: str
    data_source: DataSource
    url: str
    contact: str = ""


def write_submission(folder: Path, metadata: Metadata, output: Path, tasks: Sequence[Task]) -> list[str]:
    """Write the submission file of a finished run over all of the benchmark.

    Args:
        tasks: the benchmark's, in the run's edition.

    Returns:
        What a submitter should know, a line each.

    Raises:
        ResultError: the run is not finished, not complete, limited, or of synthetic data; or one of its tasks lacks a
            metric, or is not over the declared number of queries.
        OptionError: metadata that say nothing.
    """
    run, results = read_run(folder)
    _check_fit(run, results, tasks)
    check_metadata(metadata, run.edition)
    scored = {result.name: result for result in results}
    said = {name: value for name, value in dataclasses.asdict(metadata).items() if name != "contact" or value}
    written_at = datetime.now(UTC).isoformat(timespec="seconds")
    values = {
        "metadata": {**said, "report_generated_date": written_at},
        "metrics": {
            modality: {
                (key := submission_key(task.name, run.edition)): official_entry(key, scored[task.name], task)
                if task.name in scored
                else MISSING_MARKS[0]  # as the official report has what was never scored: the model can't take it
                for task in tasks
                if task.modality == modality
            }
            for modality in MODALITIES
            if any(task.modality == modality for task in tasks)
        },
    }
    write_json(output, values)
    return _warnings(run)


def _check_fit(run: RunResult, results: Sequence[TaskResult], tasks: Sequence[Task]) -> None:
    check_real(run)
    done = {*(result.name for result in results), *run.unsupported}
    if missing := [task.name for task in tasks if task.name not in done]:
        raise ResultError(
            f"{run.name} is incomplete, {len(missing)} of {len(tasks)} tasks are missing: {', '.join(missing)}; run "
            "them into the same folder"
        )
    if other := next((task for task in tasks if task.edition != run.edition), None):
        raise ResultError(f"{run.name} is of edition {run.edition}, the tasks are of {other.edition}")


def check_real(run: RunResult, *, synthetic: bool = False) -> None:
    """Refuse a run that others would take for more than it is.

    Args:
        synthetic: made-up data may be, since what is written says so.

    Raises:
        ResultError: of synthetic data, or limited.
    """
    if run.data_synthetic and not synthetic:
        raise ResultError(
            f"{run.name} is of synthetic data; only scores of real data can be handed on: run again with --data FOLDER"
        )
    if run.limit is not None:
        raise ResultError(f"{run.name} is limited to {run.limit} queries a task; run again without --limit")


def check_whole_task(key: str, result: TaskResult, task: Task) -> None:
    """Refuse a score over another number of queries than declared.

    Raises:
        ResultError: it is.
    """
    if task.num_queries is not None and result.num_queries != task.num_queries:
        raise ResultError(
            f"{key}: num_pred is {result.num_queries}, the task has {task.num_queries} queries (another data revision?)"
        )


def official_entry(key: str, result: TaskResult, task: Task) -> dict[str, float | int]:
    """One task's metrics, as the official code defines them, in its order of keys.

    Raises:
        ResultError: one of them is missing, or they are over another number of queries than declared.
    """
    names = metric_names(task.edition)
    if missing := [name for name in names if name not in result.metrics]:
        raise ResultError(f"{key}: missing: {', '.join(missing)}; run the task again")
    check_whole_task(key, result, task)
    metrics = {name: result.metrics[name] for name in names}
    return {**metrics, "num_pred": result.num_queries, "num_data": result.num_queries}


def _warnings(run: RunResult) -> list[str]:
    lines = []
    if run.data_revision == UNPINNED:
        lines.append("the data's revision is unpinned: nobody can tell later which rows these scores are of")
    if run.profile.name == "unstated":
        lines.append("the model doesn't state its profile: nobody can tell what input these scores are of")
    if run.unsupported:
        lines.append(f"{MISSING_MARKS[0]}, since the model can't take them: {shortened(list(run.unsupported))}")
    if run.edition == V3_UNFIXED:
        lines.append(f"{' and '.join(PAGE_TASKS)} go by these names, which the leaderboard takes for the old pages")
    return lines


def check_metadata(metadata: Metadata, edition: str) -> None:
    """Refuse metadata that say nothing, or what the file of this edition has no place for.

    Raises:
        OptionError: a field is empty, below 1, or no date or number where it should be one.
    """
    fields = dataclasses.asdict(metadata)
    if edition not in V3_EDITIONS and fields.pop("contact"):
        raise OptionError(f"metadata: --contact {metadata.contact!r} is given, but MMEB-V2's file has no place for it")
    if empty := [name for name, value in fields.items() if value == 0 or not str(value).strip()]:
        raise OptionError(f"metadata: {', '.join('--' + name.replace('_', '-') for name in empty)} must be given")
    for name in ("embedding_dimension", "max_length_tokens"):
        if fields[name] < 1:
            raise OptionError(f"metadata: {name} is {fields[name]}, expected a whole number above 0")
    if edition in V3_EDITIONS and not re.fullmatch(r"\d+(\.\d+)?", metadata.model_size):
        raise OptionError(
            f"metadata: model_size is {metadata.model_size!r}; MMEB-V3's file takes digits only, billions of "
            "parameters: 2 or 0.4"
        )
    try:
        datetime.fromisoformat(metadata.model_release_date)
    except ValueError:
        date = metadata.model_release_date
        raise OptionError(f"metadata: model_release_date {date!r} is not a date, as in 2026-01-31") from None
