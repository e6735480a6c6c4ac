"""What an evaluation writes to disk, and how it is read back. A JSON key is the field's name.

<run>/run.json                  the run: model, settings, data, versions, machine, aggregates
<run>/tasks/<task>.json         one task: score, all metrics, counts, statistics
<run>/queries/<task>.parquet    one row a query: top ids and scores, rank, path, gate, rationale …
<run>/candidates/<task>.parquet one row a candidate: path, gate, rationale, seconds …

Beside the run's folder, shared by all runs there, unless told otherwise:

.vectors/<fingerprint>/         one model's vectors, by content
.vectors/.media/                hashes of media files
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.files import fingerprint, write_json
from mmeb_harness.core.items import MetricName, Modality, Profile, Scalar
from mmeb_harness.core.reading import JsonFile

Result = TypeVar("Result", "TaskResult", "RunResult")

SCHEMA_VERSION = 2

#: Fields of a profile that older files lack, and their defaults. At these they are no part of a fingerprint, so that
#: what was computed before they existed still counts.
_ADDED_TO_PROFILE: Mapping[str, Scalar] = {"dimensions": None, "quantization": "none"}
#: All fields that the first files of a schema version lack.
ADDED = frozenset({*_ADDED_TO_PROFILE, "reused", "model_parameters"})


@dataclass(frozen=True)
class EncodeStats:
    """What encoding cost and which way it went. Adds up: batch → task → run.

    Attributes:
        items: items asked for, duplicates included.
        encoded: distinct items among them.
        seconds: time spent encoding the distinct ones.
        reasoned: items (of all asked for) whose vector came from a rationale.
        reasoning_tokens: generated tokens of these.
        truncated: items whose generation had to be closed by rule.
        reused: distinct items whose vector was there when the task came: from another task or run. Older files
            don't say, and count as none.
    """

    items: int = 0
    encoded: int = 0
    seconds: float = 0.0
    reasoned: int = 0
    reasoning_tokens: int = 0
    truncated: int = 0
    reused: int = 0

    def __add__(self, other: EncodeStats) -> EncodeStats:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return EncodeStats(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def reasoning_rate(self) -> float:
        """Share of items that reasoned, in [0, 1]."""
        return self.reasoned / self.items if self.items else 0.0

    @property
    def items_per_second(self) -> float:
        """Distinct items over encoding time."""
        return self.encoded / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_reasoned(self) -> float:
        """Mean generated tokens of an item that reasoned."""
        return self.reasoning_tokens / self.reasoned if self.reasoned else 0.0


def encode_stats(encoded: Encoded, keys: Sequence[str], reused_keys: Container[str] = ()) -> EncodeStats:
    """Sum up one side of a task; time counts once for items with equal keys.

    Args:
        reused_keys: those whose vectors were there when the task came.
    """
    distinct = {key: index for index, key in enumerate(keys)}
    return EncodeStats(
        items=len(keys),
        encoded=len(distinct),
        seconds=float(encoded.share_seconds[list(distinct.values())].sum()),
        reasoned=sum(trace.path == "reasoned" for trace in encoded.traces),
        reasoning_tokens=sum(trace.reasoning_tokens for trace in encoded.traces),
        truncated=sum(trace.truncated for trace in encoded.traces),
        reused=sum(key in reused_keys for key in distinct),
    )


@dataclass(frozen=True)
class TaskResult:
    """What a run has computed of one task.

    Attributes:
        score: the main metric, in [0, 1], as the official code computes it.
        corrected_score: the same with every grade on its own label; equals `score` unless grades are unequal.
        random_ties_score: `corrected_score`, expected if ties fell at random instead of by position.
        metrics: all 24, means over queries.
        chance: expected score of a random ranking.
        tied_decisions: neighbours in the first k places that only the tie rule ordered, over all queries.
        limited: computed on the first queries only (`--limit`); never ranked.
        notes: what the reader defined rather than refused, counted.
        edition: of the benchmark; "" for a task that has none.
        profile: the model's choices of input and readout, with the frames that were shown.
        versions: of the packages it was computed with; a run may be put together from several invocations.
    """

    name: str
    modality: Modality
    group: str
    metric: MetricName
    score: float
    corrected_score: float
    random_ties_score: float
    metrics: Mapping[str, float]
    chance: float
    num_queries: int
    num_candidates: int
    tied_decisions: int
    limited: bool
    queries: EncodeStats
    candidates: EncodeStats
    data_revision: str
    fingerprint: str
    edition: str
    profile: Profile
    versions: Mapping[str, str]
    notes: Mapping[str, int] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Aggregate:
    """A mean of main metrics over tasks.

    Attributes:
        name: "overall", a modality or a group.
        score: plain mean over the tasks that were scored; `None` if none was.
        tasks: how many were scored.
        missing: names of the tasks that belong to it and were not: then the mean is incomplete.
    """

    name: str
    score: float | None
    chance: float | None
    tasks: int
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every task of the benchmark that belongs here was scored."""
        return not self.missing


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run's description and outcome.

    Attributes:
        data: name of the data; synthetic scores never stand beside MMEB-V2 scores.
        edition, profile: as in its tasks' results.
        status: "running" until the last task is written, then "finished".
        latency_seconds: "queries" and "candidates" → {"p50", "p95"} over all items, duplicates included.
        seconds: wall time of the last invocation.
    """

    name: str
    model: str
    model_revision: str
    model_dimensions: int
    model_parameters: int | None = None
    model_settings: Mapping[str, Scalar]
    model_fingerprint: str
    model_args: Mapping[str, str]
    data: str
    data_synthetic: bool
    data_revision: str
    edition: str
    profile: Profile
    tasks: tuple[str, ...]
    limit: int | None
    seed: int
    batch_tokens: int
    status: str
    aggregates: tuple[Aggregate, ...]
    queries: EncodeStats
    candidates: EncodeStats
    latency_seconds: Mapping[str, Mapping[str, float]]
    seconds: float
    started: str
    git_commit: str | None
    versions: Mapping[str, str]
    machine: Mapping[str, Scalar]
    schema_version: int = SCHEMA_VERSION


def _result_file(contents: type[Result], what: str) -> JsonFile[Result]:
    return JsonFile(
        contents,
        what,
        SCHEMA_VERSION,
        way_out="choose another --output, or run again with --fresh",
        if_damaged="delete it and run again",
        added=ADDED,
    )


def model_fingerprint(
    name: str, revision: str, dimensions: int, settings: Mapping[str, Scalar], profile: Profile
) -> str:
    """Names a model's vectors: its name, revision, every setting, and its profile.

    Frames aren't among it: which ones an item has is in the item's own key. Nor is what is made of the vectors later.
    """
    apart = ("frames", "dimensions", "quantization")
    shown = {key: value for key, value in dataclasses.asdict(profile).items() if key not in apart}
    return fingerprint(name, revision, dimensions, dict(settings), shown)


def task_fingerprint(
    name: str,
    edition: str,
    metric: str,
    *,
    data: str,
    synthetic: bool,
    data_revision: str,
    model: str,
    profile: Profile,
    limit: int | None,
) -> str:
    """Names a task's result: equal ones are of the same data, model and settings. `model`: its fingerprint."""
    added = _ADDED_TO_PROFILE
    shown = {
        key: value for key, value in dataclasses.asdict(profile).items() if key not in added or value != added[key]
    }
    return fingerprint(SCHEMA_VERSION, name, edition, metric, data, synthetic, data_revision, model, shown, limit)


def expected_fingerprint(run: RunResult, result: TaskResult) -> str:
    """The fingerprint that a task's result has if it is of this run."""
    return task_fingerprint(
        result.name,
        result.edition,
        result.metric,
        data=run.data,
        synthetic=run.data_synthetic,
        data_revision=result.data_revision,
        model=run.model_fingerprint,
        profile=run.profile,
        limit=run.limit,
    )


def percentiles(latency_seconds: NDArray[np.float64]) -> dict[str, float]:
    """Median and 95th percentile; empty if there is nothing to measure."""
    if len(latency_seconds) == 0:
        return {}
    p50, p95 = np.percentile(latency_seconds, [50, 95])
    return {"p50": float(p50), "p95": float(p95)}


def save_result(path: Path, result: TaskResult | RunResult) -> None:
    """Write a result as JSON, atomically."""
    write_json(path, dataclasses.asdict(result))


def load_task_result(path: Path) -> TaskResult:
    """Read the file that a task's result was written to.

    Raises:
        ResultError: not readable, not a task's result, or written by another release.
    """
    return _result_file(TaskResult, "a task's result").read(path)


def load_run_result(path: Path) -> RunResult:
    """Read the file that says what a run was and what its means are.

    Raises:
        ResultError: not readable, not a run's result, or written by another release.
    """
    return _result_file(RunResult, "a run's result").read(path)


def aggregate(results: Iterable[TaskResult], benchmark: Sequence[tuple[str, Modality, str]]) -> tuple[Aggregate, ...]:
    """`mean_scores` of results: their scores and chance levels."""
    listed = list(results)
    return mean_scores(
        {result.name: result.score for result in listed}, benchmark, {result.name: result.chance for result in listed}
    )


def mean_scores(
    scores: Mapping[str, float],
    benchmark: Sequence[tuple[str, Modality, str]],
    chance: Mapping[str, float] | None = None,
) -> tuple[Aggregate, ...]:
    """Plain means over tasks: overall, the modalities, the groups, in the benchmark's order.

    A modality's score is the mean over its tasks, not over its groups, and overall is the mean over all
    tasks, as on the leaderboard.

    Args:
        scores: task → main metric, of the tasks that were scored.
        benchmark: (task, modality, group) of all tasks that the means should cover.
        chance: task → score of a random ranking, where known.
    """
    return tuple(_mean(name, tasks, scores, chance) for name, tasks in benchmark_members(benchmark).items())


def benchmark_members(benchmark: Sequence[tuple[str, Modality, str]]) -> dict[str, list[str]]:
    """ "overall", the modalities, the groups → names of their tasks, in the benchmark's order."""
    members: dict[str, list[str]] = {"overall": [task for task, _, _ in benchmark]}
    for index in (1, 2):
        for row in benchmark:
            members.setdefault(row[index], []).append(row[0])
    return members


def _mean(
    name: str, tasks: Sequence[str], scores: Mapping[str, float], chance: Mapping[str, float] | None
) -> Aggregate:
    scored = [task for task in tasks if task in scores]
    return Aggregate(
        name=name,
        score=sum(scores[task] for task in scored) / len(scored) if scored else None,
        chance=sum(chance[task] for task in scored) / len(scored) if scored and chance is not None else None,
        tasks=len(scored),
        missing=tuple(task for task in tasks if task not in scores),
    )
