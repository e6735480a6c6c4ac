"""A submission file for the MMEB leaderboard, from a run: written only if it would be a whole and true one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from mmeb_harness.core.errors import OptionError, ResultError
from mmeb_harness.core.files import write_json
from mmeb_harness.core.items import MODALITIES
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.official_names import submission_key
from mmeb_harness.results.scores import fraction, read_run

DataSource = Literal["Self-Reported", "TIGER-Lab"]
#: What a data folder that `mmeb-eval data get` didn't fetch has for a revision.
UNPINNED = "unpinned"

_ENTRY_KEYS = (*METRIC_NAMES, "num_pred", "num_data")


@dataclass(frozen=True)
class Metadata:
    """What the leaderboard says of a model, in the order of its files; the date of the report is added.

    Attributes:
        model_size: free text, "2B parameters" or "2.13".
        max_length_tokens: longest input, media included.
        model_release_date: ISO 8601.
    """

    model_name: str
    model_backbone: str
    model_size: str
    embedding_dimension: int
    max_length_tokens: int
    model_release_date: str
    data_source: DataSource
    url: str


METADATA_KEYS = (*(field.name for field in dataclasses.fields(Metadata)), "report_generated_date")


def write_submission(folder: Path, metadata: Metadata, output: Path, tasks: Sequence[Task]) -> list[str]:
    """Write the submission file of a finished run over all of the benchmark.

    Args:
        tasks: the benchmark's, in the run's edition.

    Returns:
        What a submitter should know, a line each.

    Raises:
        ResultError: the run is not finished, not complete, limited, or of synthetic data; or see
            `validate_submission`.
        OptionError: metadata that say nothing.
    """
    run, results = read_run(folder)
    _check_fit(run, results, tasks)
    scored = {result.name: result for result in results}
    values = {
        "metadata": {**dataclasses.asdict(metadata), "report_generated_date": _now()},
        "metrics": {
            modality: {
                submission_key(task.name, run.edition): _entry(scored[task.name])
                for task in tasks
                if task.modality == modality
            }
            for modality in MODALITIES
        },
    }
    validate_submission(values, tasks)
    write_json(output, values)
    return _warnings(run)


def validate_submission(values: object, tasks: Sequence[Task]) -> None:
    """Hold a submission's content against the official form and the tasks' declared numbers of queries.

    Args:
        tasks: the benchmark's, in the edition that the submission is of.

    Raises:
        OptionError: a field of the metadata is empty or not of its kind.
        ResultError: a key is missing, unknown or out of order, a value is no fraction, or a task's number of
            queries is not the declared one.
    """
    parts = _with_keys("submission", values, ("metadata", "metrics"))
    _check_metadata(parts["metadata"])
    by_modality = _with_keys("metrics", parts["metrics"], MODALITIES)
    for modality in MODALITIES:
        by_key = {submission_key(task.name, task.edition): task for task in tasks if task.modality == modality}
        entries = _with_keys(modality, by_modality[modality], tuple(by_key))
        for key, task in by_key.items():
            _check_entry(key, entries[key], task)


def check_submittable(folder: Path, tasks: Sequence[Task]) -> None:
    """Whether a run is whole and real; asked before anything about metadata.

    Raises:
        ResultError: as `write_submission`.
    """
    run, results = read_run(folder)
    _check_fit(run, results, tasks)


def _check_fit(run: RunResult, results: Sequence[TaskResult], tasks: Sequence[Task]) -> None:
    if run.data_synthetic:
        raise ResultError(f"{run.name} is of synthetic data; only scores of the real MMEB-V2 can be submitted")
    if run.limit is not None:
        raise ResultError(f"{run.name} is limited to {run.limit} queries a task; run again without --limit")
    scored = {result.name for result in results}
    if missing := [task.name for task in tasks if task.name not in scored]:
        raise ResultError(
            f"{run.name} is incomplete, {len(missing)} of {len(tasks)} tasks are missing: {', '.join(missing)}; run "
            "them into the same folder"
        )
    if other := next((task for task in tasks if task.edition != run.edition), None):
        raise ResultError(f"{run.name} is of edition {run.edition}, the tasks are of {other.edition}")


def _entry(result: TaskResult) -> dict[str, float | int]:
    """One task's metrics, as the official code defines them, in its order of keys."""
    metrics = {name: result.metrics[name] for name in METRIC_NAMES if name in result.metrics}
    return {**metrics, "num_pred": result.num_queries, "num_data": result.num_queries}


def _warnings(run: RunResult) -> list[str]:
    lines = []
    if run.data_revision == UNPINNED:
        lines.append("the data's revision is unpinned: nobody can tell later which rows these scores are of")
    if run.profile.name == "unstated":
        lines.append("the model doesn't state its profile: nobody can tell what input these scores are of")
    return lines


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check_metadata(metadata: object) -> None:
    fields = _with_keys("metadata", metadata, METADATA_KEYS)
    if empty := [name for name, value in fields.items() if value in ("", 0)]:
        raise OptionError(f"metadata: {', '.join('--' + name.replace('_', '-') for name in empty)} must be given")
    for name, value in fields.items():
        positive = name in ("embedding_dimension", "max_length_tokens")
        if positive and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise OptionError(f"metadata: {name} is {value!r}, expected a whole number above 0")
        if not positive and (not isinstance(value, str) or not value.strip()):
            raise OptionError(f"metadata: {name} is {value!r}, expected some text")
    if fields["data_source"] not in get_args(DataSource):
        raise OptionError(
            f"metadata: data_source is {fields['data_source']!r}, not {' or '.join(get_args(DataSource))}"
        )
    for name in ("model_release_date", "report_generated_date"):
        _check_date(name, str(fields[name]))


def _check_date(name: str, value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise OptionError(f"metadata: {name} {value!r} is not a date, as in 2026-01-31") from None


def _check_entry(key: str, values: object, task: Task) -> None:
    entry = _with_keys(key, values, _ENTRY_KEYS)
    for name in METRIC_NAMES:
        fraction(entry[name], f"{key}: {name}")
    for name in ("num_pred", "num_data"):
        if entry[name] != task.num_queries:
            raise ResultError(
                f"{key}: {name} is {entry[name]}, the task has {task.num_queries} queries (another data revision?)"
            )


def _with_keys(where: str, part: object, expected: Sequence[str]) -> Mapping[str, object]:
    """A part of the file, if its keys are just the expected ones, in this order."""
    if not isinstance(part, dict):
        raise ResultError(f"{where} is {part!r}, expected {', '.join(expected)}")
    if missing := [key for key in expected if key not in part]:
        raise ResultError(f"{where}: missing: {', '.join(missing)}")
    if unknown := [key for key in part if key not in expected]:
        raise ResultError(f"{where}: unknown: {', '.join(unknown)}")
    if list(part) != list(expected):
        raise ResultError(f"{where}: keys are out of order; expected {', '.join(expected)}")
    return part
