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
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.benchmark import BenchmarkRow, MeanOver, means_of
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.errors import ResultError, counted, leading
from mmeb_harness.core.files import fingerprint
from mmeb_harness.core.items import Medium, MetricName, Modality, Profile, Scalar
from mmeb_harness.core.reading import JsonFile

SCHEMA_VERSION = 2

Status: TypeAlias = Literal["running", "finished"]

#: Of a run's latencies: those of queries, and what stands there instead where some are of several modes at once.
OF_QUERIES, OF_SEVERAL_MODES = "queries", "queries of several modes"

#: Fields of a profile that older files lack, and their defaults. At these they are no part of a fingerprint, so that
#: what was computed before they existed still counts.
_ADDED_TO_PROFILE: Mapping[str, Scalar] = {
    "dimensions": None,
    "quantization": "none",
    "max_text_tokens": None,
    "audio_seconds": 30.0,
}
_ADDED_TO_FRAMES: Mapping[str, Scalar] = {"pages": "stored"}
#: All fields that the first files of a schema version lack.
ADDED = frozenset(
    {
        *_ADDED_TO_PROFILE,
        *_ADDED_TO_FRAMES,
        *("reused", "model_parameters", "content", "media", "tables", "checksums", "checksum"),
        *("rule", "unsupported", "query_settings", "state_dimensions", "keep_states", "shared", "candidate_profile"),
    }
)
#: What sums and divisions may be off by.
_ROUNDING = 1e-9
_LARGEST_COUNT = 1 << 53


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
        shared: items that were encoded in several modes at once, so that their seconds are not one mode's.
    """

    items: int = 0
    encoded: int = 0
    seconds: float = 0.0
    reasoned: int = 0
    reasoning_tokens: int = 0
    truncated: int = 0
    reused: int = 0
    shared: int = 0

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
        shared=sum(trace.shared for trace in encoded.traces),
    )


@dataclass(frozen=True)
class TaskResult:
    """What a run has computed of one task.

    Attributes:
        score: the main metric, in [0, 1], as the official code computes it.
        corrected_score: the same with every grade on its own label; equals `score` unless grades are unequal.
        random_ties_score: `corrected_score`, expected if ties fell at random instead of by position.
        metrics: all of its edition (24 of MMEB-V2), means over queries.
        chance: expected score of a random ranking.
        tied_decisions: neighbours in the first k places that only the tie rule ordered, over all queries.
        limited: computed on the first queries only (`--limit`); never ranked.
        notes: what the reader defined rather than refused, counted.
        edition: of the benchmark; "" for a task that has none.
        profile: the model's choices of input and readout, with the frames that were shown.
        versions: of the packages it was computed with; a run may be put together from several invocations.
        content: hash of what the items' vectors depend on, words and bytes of media; "" in older files.
        tables: "queries" and "candidates" → checksum of the table's file; empty in older files.
        checksum: of all the other fields; "" in older files, which are recomputed from their tables instead.
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
    content: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION
    checksum: str = field(default="", compare=False)


@dataclass(frozen=True)
class Aggregate:
    """A mean of main metrics over tasks.

    Attributes:
        name: "overall" (of MMEB-V3 three of them, see `core.benchmark`), a modality or a group.
        score: mean over the tasks that count; `None` if none does.
        chance: the same of a random ranking; `None` where it isn't known for all of them.
        tasks: how many count: those that were scored, and the unsupported.
        missing: names of the tasks that belong to it and don't: then the mean is incomplete.
        rule: in words, where it isn't the plain mean of main metrics.
        unsupported: how many tasks the model can't take, which count 0.
    """

    name: str
    score: float | None
    chance: float | None
    tasks: int
    missing: tuple[str, ...]
    rule: str = ""
    unsupported: int = 0

    @property
    def complete(self) -> bool:
        """Whether every task of the benchmark that belongs here was scored."""
        return not self.missing


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run's description and outcome.

    Attributes:
        data: name of the data; synthetic scores never stand beside the benchmark's.
        edition, profile: as in its tasks' results.
        unsupported: task → the media that it needs and the model doesn't take: it was asked for, and neither read nor
            encoded.
        aggregates: means; the first is over all tasks.
        status: "running" until the last task is written, then "finished".
        latency_seconds: "queries" and "candidates" → {"p50", "p95"} over all items, duplicates included; of queries
            under "queries of several modes" where some are shared (see `EncodeStats`).
        seconds: wall time of the last invocation.
        checksums: task → the checksum in its file; empty in older files.
        checksum: as in its tasks' results.
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
    status: Status
    aggregates: tuple[Aggregate, ...]
    queries: EncodeStats
    candidates: EncodeStats
    latency_seconds: Mapping[str, Mapping[str, float]]
    seconds: float
    started: str
    git_commit: str | None
    versions: Mapping[str, str]
    machine: Mapping[str, Scalar]
    unsupported: Mapping[str, tuple[Medium, ...]] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict, compare=False)
    schema_version: int = SCHEMA_VERSION
    checksum: str = field(default="", compare=False)

    @property
    def overall(self) -> Aggregate | None:
        """The mean over all tasks, by which models are ranked; `None` before any is finished."""
        return next(iter(self.aggregates), None)


def unsupported_text(unsupported: Mapping[str, tuple[Medium, ...]]) -> str:
    """Tasks that a model doesn't take, and what it would have to take: "11 tasks that need audio (ESC-50, …)"."""
    media = dict.fromkeys(medium for lacked in unsupported.values() for medium in lacked)
    need = "need" if len(unsupported) > 1 else "needs"
    return f"{counted(len(unsupported), 'task')} that {need} {' or '.join(media)} ({leading(list(unsupported))})"


def fraction(value: object, where: str) -> float:
    """A score as read from a file.

    Raises:
        ResultError: not a number in [0, 1], but for rounding; NaN is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_ROUNDING <= value <= 1 + _ROUNDING:
        raise ResultError(f"{where} is {value!r}, expected a fraction in [0, 1]")
    return float(value)


def _check_amounts(amounts: Mapping[str, float]) -> None:
    """Counts and seconds: NaN is none, nor is what no machine counts up to."""
    for where, amount in amounts.items():
        if not 0 <= amount <= _LARGEST_COUNT:
            raise ResultError(f"{where} is {amount!r}, expected a number from 0 on")


def _check_task(result: TaskResult) -> None:
    for name in ("score", "corrected_score", "random_ties_score", "chance"):
        fraction(getattr(result, name), name)
    for name, value in result.metrics.items():
        fraction(value, f"metrics.{name}")
    counts = {name: getattr(result, name) for name in ("num_queries", "num_candidates", "tied_decisions")}
    _check_amounts({**counts, **{f"notes.{name}": count for name, count in result.notes.items()}})
    _check_sides(result)


def _check_run(run: RunResult) -> None:
    for mean in run.aggregates:
        for name in ("score", "chance"):
            if (value := getattr(mean, name)) is not None:
                fraction(value, f"{mean.name}: {name}")
    for side, latencies in run.latency_seconds.items():
        _check_amounts({f"latency_seconds.{side}.{name}": seconds for name, seconds in latencies.items()})
    sizes = {"model_dimensions": run.model_dimensions, "model_parameters": run.model_parameters or 0}
    _check_amounts({**sizes, "seconds": run.seconds, "limit": run.limit or 0})
    _check_sides(run)


def _check_sides(result: TaskResult | RunResult) -> None:
    for side in ("queries", "candidates"):
        stats = dataclasses.asdict(getattr(result, side))
        _check_amounts({f"{side}.{name}": amount for name, amount in stats.items()})


_SHARED = frozenset({"queries.shared", "candidates.shared"})
_TASK_FILE = JsonFile(
    TaskResult,
    "a task's result",
    SCHEMA_VERSION,
    way_out="choose another --output, or run again with --fresh",
    if_damaged="run the same command again: that task is computed again",
    added=ADDED,
    sparse=_SHARED,
    check=_check_task,
)
#: Each task says itself which run it is of.
RUN_FILE_AGAIN = "delete this file and run the same command again, which keeps the finished tasks; --fresh starts over"
_RUN_FILE = JsonFile(
    RunResult,
    "a run's result",
    SCHEMA_VERSION,
    way_out="choose another --output, or run again with --fresh",
    if_damaged=RUN_FILE_AGAIN,
    added=ADDED,
    sparse=_SHARED | {"unsupported", "aggregates.rule", "aggregates.unsupported"},
    check=_check_run,
)


def model_fingerprint(
    name: str, revision: str, dimensions: int, settings: Mapping[str, Scalar], profile: Profile
) -> str:
    """Names a model's vectors: its name, revision, every setting, and its profile.

    Frames and the seconds of a sound aren't among it: which ones an item has is in the item's own key. Nor is what is
    made of the vectors later.
    """
    apart = ("frames", "audio_seconds", "dimensions", "quantization")
    shown = {key: value for key, value in _shown_profile(profile).items() if key not in apart}
    return fingerprint(name, revision, dimensions, dict(settings), shown)


def _shown_profile(profile: Profile) -> dict[str, Any]:
    """Of a profile what a fingerprint names: fields that were added later only where they are not at their default.

    The limit of a text isn't among it: models had theirs before it was stated, and what can be chosen is a setting.
    """
    fields = dataclasses.asdict(profile)
    del fields["max_text_tokens"]
    return _without_added({**fields, "frames": _without_added(fields["frames"], _ADDED_TO_FRAMES)}, _ADDED_TO_PROFILE)


def _without_added(fields: Mapping[str, Any], added: Mapping[str, Scalar]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in added or value != added[key]}


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
    shown = _shown_profile(profile)
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


def save_task_result(path: Path, result: TaskResult) -> TaskResult:
    """Write a task's result as JSON, atomically; returns it with its checksum.

    Raises:
        ResultError: it can't be written, or holds what couldn't be read again.
    """
    return _TASK_FILE.write(path, result)


def save_run_result(path: Path, run: RunResult) -> RunResult:
    """Write a run's own file as JSON, atomically; returns it with its checksum.

    Raises:
        ResultError: as `save_task_result`; a plugin's model may have settings that are no scalars.
    """
    return _RUN_FILE.write(path, run)


def run_values(run: RunResult) -> dict[str, Any]:
    """A run under the names of its file."""
    return _RUN_FILE.values(run)


def load_task_result(path: Path, *, as_it_stands: bool = False) -> TaskResult:
    """Read the file that a task's result was written to.

    Args:
        as_it_stands: also if it was changed since.

    Raises:
        ResultError: not readable, not a task's result, changed, or written by another release.
    """
    return _TASK_FILE.read(path, as_it_stands=as_it_stands)


def load_run_result(path: Path, *, as_it_stands: bool = False) -> RunResult:
    """Read the file that says what a run was and what its means are.

    Raises:
        ResultError: as `load_task_result`.
    """
    return _RUN_FILE.read(path, as_it_stands=as_it_stands)


def aggregate(
    results: Iterable[TaskResult], benchmark: Sequence[BenchmarkRow], unsupported: Collection[str] = ()
) -> tuple[Aggregate, ...]:
    """`mean_scores` of results: their scores and chance levels. Where none is of the benchmark, over all of them."""
    listed = list(results)
    if listed and not {result.name for result in listed} & {row.task for row in benchmark}:
        benchmark = [
            BenchmarkRow(result.name, result.modality, result.group, result.metric, result.edition) for result in listed
        ]
    scores = {result.name: {**result.metrics, result.metric: result.score} for result in listed}
    return mean_scores(scores, benchmark, {result.name: result.chance for result in listed}, unsupported)


def mean_scores(
    scores: Mapping[str, Mapping[str, float]],
    benchmark: Sequence[BenchmarkRow],
    chance: Mapping[str, float] | None = None,
    unsupported: Collection[str] = (),
) -> tuple[Aggregate, ...]:
    """Means over tasks: those over all of them, the modalities, the groups, in the benchmark's order.

    A modality's score is the mean over its tasks, not over its groups, and overall is the mean over all
    tasks, as on the leaderboard.

    Args:
        scores: task → metric → score, of the tasks that were scored.
        benchmark: all tasks that the means should cover.
        chance: task → score of a random ranking, by the main metric, where known.
        unsupported: tasks that the model can't take.
    """
    return tuple(_mean(over, scores, chance, unsupported) for over in means_of(benchmark))


def _mean(
    over: MeanOver,
    scores: Mapping[str, Mapping[str, float]],
    chance: Mapping[str, float] | None,
    unsupported: Collection[str],
) -> Aggregate:
    scored = {task: scores[task][by] for task, by in over.metrics.items() if by in scores.get(task, {})}
    nothing = [task for task in over.metrics if over.unsupported_count and task in unsupported and task not in scored]
    tasks = len(scored) + len(nothing)
    by_chance = chance if over.of_main_metrics and not nothing else None
    return Aggregate(
        name=over.name,
        score=sum(scored.values()) / tasks if tasks else None,
        chance=sum(by_chance[task] for task in scored) / tasks if tasks and by_chance is not None else None,
        tasks=tasks,
        missing=tuple(task for task in over.metrics if task not in scored and task not in nothing),
        rule=over.rule,
        unsupported=len(nothing),
    )
