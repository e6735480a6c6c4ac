"""One evaluation: for each task read, encode, rank, score, write. Any part that is already done is kept."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mmeb_harness import environment
from mmeb_harness.compress import compress
from mmeb_harness.data import DataInfo, data_revision, load_samples, query_labels
from mmeb_harness.encode import DEFAULT_BATCH_TOKENS, encode_items
from mmeb_harness.errors import DataError, OptionError, ResultError
from mmeb_harness.files import check_writable, read_json, read_parquet, write_json, write_parquet
from mmeb_harness.media import MEDIA_FOLDER, MediaHashes
from mmeb_harness.progress import Reporter
from mmeb_harness.registry import RegisteredTask, benchmark_rows
from mmeb_harness.results import (
    EncodeStats,
    RunResult,
    TaskResult,
    aggregate,
    encode_stats,
    load_run_result,
    load_task_result,
    model_fingerprint,
    percentiles,
    save_result,
    task_fingerprint,
)
from mmeb_harness.score import candidate_table, mean_metrics, query_table, score_queries
from mmeb_harness.search import require_faiss
from mmeb_harness.store import Encoded, VectorStore
from mmeb_harness.types import Embedder, Frames, Item, Profile, Quantization, Role, Samples, Task, WarmableEmbedder


@dataclass(frozen=True)
class RunFolder:
    """Where a run's files lie."""

    root: Path

    @property
    def run_file(self) -> Path:
        """The run's own description and aggregates."""
        return self.root / "run.json"

    def task_file(self, task: str) -> Path:
        """One task's result. It is written last: where it exists, the task's other files do too."""
        return self.root / "tasks" / f"{task}.json"

    def queries_file(self, task: str) -> Path:
        """One row a query."""
        return self.root / "queries" / f"{task}.parquet"

    def candidates_file(self, task: str) -> Path:
        """One row a candidate."""
        return self.root / "candidates" / f"{task}.parquet"

    @property
    def fresh_file(self) -> Path:
        """When the run was last started over (nanoseconds since the epoch): vectors from before don't count."""
        return self.root / ".fresh"


@dataclass(frozen=True)
class RunSettings:
    """How to evaluate, besides what and with which model.

    Attributes:
        edition: of the benchmark, as the tasks are of; stands in the results.
        frames: frames of a video to show; `None`: as many as the model's profile asks for.
        limit: only the first queries of each task; marks the results, which are then never ranked.
        dimensions: how many of the vectors' first ones to compare; `None`: all.
        quantization: of the vectors compared.
        fresh: forget what the folder holds and start over, encoding too; stored vectors stay for other runs.
        vectors: where vectors are kept; `None`: `.vectors` beside `output`.
    """

    output: Path
    edition: str = ""
    frames: int | None = None
    limit: int | None = None
    seed: int = 0
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    dimensions: int | None = None
    quantization: Quantization = "none"
    fresh: bool = False
    vectors: Path | None = None
    model_args: Mapping[str, str] = field(default_factory=dict)

    @property
    def vectors_folder(self) -> Path:
        """Holds a folder of vectors for every model's fingerprint."""
        return self.vectors or self.output.resolve().parent / ".vectors"


def evaluate(
    embedder: Embedder,
    tasks: Sequence[RegisteredTask],
    registered: Mapping[str, RegisteredTask],
    info: DataInfo,
    settings: RunSettings,
    reporter: Reporter,
) -> RunResult:
    """Evaluate `embedder` on `tasks` and write everything below `settings.output`.

    Tasks that the folder holds already, of the same model, settings and data, stay part of the run: a run of all 78
    may be put together from several invocations.

    Args:
        registered: all tasks known; those of the benchmark decide which means are complete.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    require_faiss()
    folder = RunFolder(settings.output)
    profile = run_profile(embedder, settings)  # refuses before anything is deleted
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with _locked(folder):
        if settings.fresh:
            _clear(folder)
        elif folder.run_file.is_file():
            _check_same_run(load_run_result(folder.run_file), embedder, info, folder)
        plan = [_plan(one.task, info, embedder, profile, settings.limit) for one in tasks]
        others, left_out = _results_of_other_tasks(folder, tasks, registered, info, embedder, profile, settings.limit)
        reporter.start_run(len(plan))
        if left_out:
            names = ", ".join(left_out[:5]) + (" …" if len(left_out) > 5 else "")
            reporter.note(f"{len(left_out)} earlier results are of other settings or data and leave the run: {names}")
        try:
            done = {one.task.name: result for one in plan if (result := _earlier_result(folder, one)) is not None}
            check_readable([one.task for one in plan if one.task.name not in done], info, profile.frames)

            def write_run(results: Sequence[TaskResult], status: str) -> RunResult:
                names = {one.task.name for one in tasks} | {result.name for result in others}
                in_order = [name for name in registered if name in names]
                everything = sorted([*results, *others], key=lambda result: in_order.index(result.name))
                run = _run_result(embedder, info, settings, in_order, registered, everything, status)
                run = dataclasses.replace(run, started=started_at, seconds=time.monotonic() - started)
                save_result(folder.run_file, run)
                return run

            write_run(list(done.values()), "running")
            results = _evaluate_all(embedder, plan, done, info, settings, folder, reporter)
            return write_run(results, "finished")
        finally:
            reporter.stop()


def _check_same_run(earlier: RunResult, embedder: Embedder, info: DataInfo, folder: RunFolder) -> None:
    """Refuse to take over another model's folder; another revision or setting of the same one is computed again."""
    for what, there, now in (("model", earlier.model, embedder.info.name), ("data", earlier.data, info.name)):
        if there != now:
            raise ResultError(
                f"{folder.root} holds a run of {what} {there!r}, not {now!r}; choose another --output, or start it "
                "over with --fresh"
            )


def _results_of_other_tasks(
    folder: RunFolder,
    tasks: Sequence[RegisteredTask],
    registered: Mapping[str, RegisteredTask],
    info: DataInfo,
    embedder: Embedder,
    profile: Profile,
    limit: int | None,
) -> tuple[list[TaskResult], list[str]]:
    """What earlier invocations finished of tasks that this one isn't asked for: what still counts, and what not."""
    asked_for = {one.task.name for one in tasks}
    there = [one.task for name, one in registered.items() if name not in asked_for and folder.task_file(name).is_file()]
    found = {task.name: _earlier_result(folder, _plan(task, info, embedder, profile, limit)) for task in there}
    return [one for one in found.values() if one is not None], [name for name, one in found.items() if one is None]


@dataclass(frozen=True)
class _PlannedTask:
    task: Task
    data_revision: str
    fingerprint: str
    profile: Profile


def _plan(task: Task, info: DataInfo, embedder: Embedder, profile: Profile, limit: int | None) -> _PlannedTask:
    revision = data_revision(task, info)
    mark = task_fingerprint(
        task.name,
        task.edition,
        task.metric,
        data=info.name,
        synthetic=info.synthetic,
        data_revision=revision,
        model=fingerprint_of(embedder),
        profile=profile,
        limit=limit,
    )
    return _PlannedTask(task, revision, mark, profile)


def run_profile(embedder: Embedder, settings: RunSettings) -> Profile:
    """The model's profile, with the run's own choices: frames, dimensions, quantization.

    A clip is never shown with more frames than the model's profile has for one: few were saved.

    Raises:
        OptionError: the model's vectors can't be shortened or quantised so.
    """
    profile = embedder.info.profile
    if settings.frames is not None:
        clip = min(settings.frames, profile.frames.clip)
        shown = dataclasses.replace(profile.frames, video=settings.frames, clip=clip)
        profile = dataclasses.replace(profile, frames=shown)
    if settings.dimensions is None and settings.quantization == "none":
        return profile
    _check_compressible(embedder, settings.dimensions)
    dimensions = None if settings.dimensions == embedder.info.dimensions else settings.dimensions
    return dataclasses.replace(profile, dimensions=dimensions, quantization=settings.quantization)


def _check_compressible(embedder: Embedder, dimensions: int | None) -> None:
    name, width = embedder.info.name, embedder.info.dimensions
    if embedder.info.similarity == "max_sim":
        raise OptionError(
            f"--dim and --quantize are for models of one vector an item; {name!r} gives several (late interaction)"
        )
    if dimensions is not None and not 1 <= dimensions <= width:
        raise OptionError(f"--dim {dimensions}: the vectors of {name!r} have {width} dimensions; choose 1 to {width}")


def fingerprint_of(embedder: Embedder) -> str:
    """Names a model's vectors."""
    info = embedder.info
    return model_fingerprint(info.name, info.revision, info.dimensions, info.settings, info.profile)


def check_readable(tasks: Sequence[Task], info: DataInfo, frames: Frames) -> None:
    """Read every task once before the first item is encoded: what is missing shows now, not after hours.

    Raises:
        DataError: the first task's problem, and the names of the others that have one.
    """
    problems: list[tuple[str, DataError]] = []
    for task in tasks:
        try:
            load_samples(task, info, frames)
        except DataError as error:
            problems.append((task.name, error))
    if problems:
        others = ", ".join(name for name, _ in problems[1:6]) + (" …" if len(problems) > 6 else "")
        more = f" ({len(problems) - 1} more tasks can't be read: {others})" if len(problems) > 1 else ""
        raise DataError(f"{problems[0][1]}{more}") from problems[0][1]


def _earlier_result(folder: RunFolder, planned: _PlannedTask) -> TaskResult | None:
    """The result an earlier invocation left, if it is of the same data, model, settings and schema."""
    name = planned.task.name
    path = folder.task_file(name)
    if not path.is_file():
        return None
    result = load_task_result(path)
    if not (folder.queries_file(name).is_file() and folder.candidates_file(name).is_file()):
        return None
    return result if result.fingerprint == planned.fingerprint else None


def _evaluate_all(
    embedder: Embedder,
    plan: Sequence[_PlannedTask],
    done: Mapping[str, TaskResult],
    info: DataInfo,
    settings: RunSettings,
    folder: RunFolder,
    reporter: Reporter,
) -> list[TaskResult]:
    if done:
        reporter.note(f"{len(done)} of {len(plan)} tasks were finished before and are kept (--fresh starts over)")
    stale = [one.task.name for one in plan if one.task.name not in done and folder.task_file(one.task.name).is_file()]
    if stale:
        reporter.note(f"{len(stale)} earlier results are of another model, setting or data revision: computed again")
    results: list[TaskResult] = []
    store: VectorStore | None = None
    hashes = MediaHashes(settings.vectors_folder / MEDIA_FOLDER, info.root)
    labels = query_labels(info)
    for planned in plan:
        result = done.get(planned.task.name)
        if result is None:
            if store is None:
                store = _open_store(embedder, settings, folder)
                if isinstance(embedder, WarmableEmbedder):
                    embedder.warm_up()
            difficulty = labels.get(planned.task.name, {})
            result = _evaluate_task(embedder, planned, info, settings, folder, store, hashes, difficulty, reporter)
            reporter.finish_task(_task_line(result))
        else:
            reporter.skip_task()
        results.append(result)
    if hashes.problem is not None:
        reporter.note(f"hashes of media are not remembered: {hashes.problem}")
    return results


def _open_store(embedder: Embedder, settings: RunSettings, folder: RunFolder) -> VectorStore:
    vectors = settings.vectors_folder / fingerprint_of(embedder)
    since = read_json(folder.fresh_file) if folder.fresh_file.is_file() else 0
    return VectorStore(vectors, embedder.info.similarity, since, embedder.info)


def _evaluate_task(
    embedder: Embedder,
    planned: _PlannedTask,
    info: DataInfo,
    settings: RunSettings,
    folder: RunFolder,
    store: VectorStore,
    hashes: MediaHashes,
    difficulty: Mapping[str, str],
    reporter: Reporter,
) -> TaskResult:
    task = planned.task
    samples = load_samples(task, info, planned.profile.frames, settings.limit)
    reporter.start_task(task.name, len(samples.queries) + len(samples.candidates))
    queries, query_stats = _encode(embedder, samples.queries, "query", store, hashes, settings, reporter)
    candidates, candidate_stats = _encode(embedder, samples.candidates, "candidate", store, hashes, settings, reporter)
    scored = score_queries(task, samples, *compress(queries.vectors, candidates.vectors, planned.profile))
    metrics = mean_metrics(scored)
    result = TaskResult(
        name=task.name,
        modality=task.modality,
        group=task.group,
        metric=task.metric,
        score=metrics[task.metric],
        corrected_score=float(np.mean([query.corrected for query in scored])),
        random_ties_score=float(np.mean([query.random_ties for query in scored])),
        metrics=metrics,
        chance=float(np.mean([query.chance for query in scored])),
        num_queries=len(samples.queries),
        num_candidates=len(samples.candidates),
        tied_decisions=sum(query.tied_decisions for query in scored),
        limited=settings.limit is not None,
        queries=query_stats,
        candidates=candidate_stats,
        data_revision=planned.data_revision,
        fingerprint=planned.fingerprint,
        edition=task.edition,
        profile=planned.profile,
        versions=environment.package_versions(),
        notes=_counted(samples),
    )
    folder.task_file(task.name).unlink(missing_ok=True)  # an earlier setting's must not stand beside these rankings
    write_parquet(folder.queries_file(task.name), query_table(task, samples, scored, queries, difficulty))
    write_parquet(folder.candidates_file(task.name), candidate_table(samples, candidates))
    save_result(folder.task_file(task.name), result)
    return result


def _encode(
    embedder: Embedder,
    items: Sequence[Item],
    role: Role,
    store: VectorStore,
    hashes: MediaHashes,
    settings: RunSettings,
    reporter: Reporter,
) -> tuple[Encoded, EncodeStats]:
    encoded, keys, reused = encode_items(
        embedder, items, role, store, hashes, batch_tokens=settings.batch_tokens, on_progress=reporter.advance
    )
    return encoded, encode_stats(encoded, keys, reused)


def _counted(samples: Samples) -> dict[str, int]:
    return {name: count for name, count in samples.notes.items() if count}


def _task_line(result: TaskResult) -> str:
    reasoned = f", {100 * result.queries.reasoning_rate:.0f} % of queries reasoned" if result.queries.reasoned else ""
    notes = "".join(f", {count} {name}" for name, count in result.notes.items())
    return (
        f"{result.name}: {result.metric} {100 * result.score:.1f} % (chance {100 * result.chance:.1f} %)"
        f"{reasoned}{notes}"
    )


def _run_result(
    embedder: Embedder,
    info: DataInfo,
    settings: RunSettings,
    tasks: Sequence[str],
    registered: Mapping[str, RegisteredTask],
    results: Sequence[TaskResult],
    status: str,
) -> RunResult:
    return RunResult(
        name=settings.output.name,
        model=embedder.info.name,
        model_revision=embedder.info.revision,
        model_dimensions=embedder.info.dimensions,
        model_parameters=embedder.info.parameters,
        model_settings=dict(embedder.info.settings),
        model_fingerprint=fingerprint_of(embedder),
        model_args=dict(settings.model_args),
        data=info.name,
        data_synthetic=info.synthetic,
        data_revision=info.revision,
        edition=settings.edition,
        profile=run_profile(embedder, settings),
        tasks=tuple(tasks),
        limit=settings.limit,
        seed=settings.seed,
        batch_tokens=settings.batch_tokens,
        status=status,
        aggregates=aggregate(results, benchmark_rows(registered.values())),
        queries=sum((result.queries for result in results), EncodeStats()),
        candidates=sum((result.candidates for result in results), EncodeStats()),
        latency_seconds={
            side: percentiles(_latencies(RunFolder(settings.output), side, results))
            for side in ("queries", "candidates")
        },
        seconds=0.0,
        started="",
        git_commit=environment.git_commit(),
        versions=environment.package_versions(),
        machine=environment.machine(),
    )


def _latencies(folder: RunFolder, side: str, results: Sequence[TaskResult]) -> np.ndarray:
    file_of = folder.queries_file if side == "queries" else folder.candidates_file
    columns = [read_parquet(file_of(result.name), ["latency_seconds"]).column(0).to_numpy() for result in results]
    return np.concatenate(columns) if columns else np.empty(0)


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder; a second run on it stops at once instead of mixing with the first."""
    lock = folder.root / ".lock"
    check_writable(folder.root)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultError(
                f"another run is writing to {folder.root}; wait for it or choose another --output"
            ) from error
        yield


def _is_run_file(path: Path) -> bool:
    """Of whatever release: one that can't be read any more may still be started over."""
    values = read_json(path) if path.is_file() else None
    return isinstance(values, dict) and {"schema_version", "model", "tasks"} <= values.keys()


def _clear(folder: RunFolder) -> None:
    """Empty a run's folder. Vectors, which other runs may share, stay, but no longer count for this one.

    Raises:
        ResultError: if it isn't one: what lies there is somebody else's.
    """
    names = ("tasks", "queries", "candidates")
    if not _is_run_file(folder.run_file) and any((folder.root / name).exists() for name in names):
        raise ResultError(f"{folder.root} is not a run's folder (no run.json of one), so --fresh deletes nothing there")
    write_json(folder.fresh_file, time.time_ns())  # first: what is deleted below must not come back from old vectors
    for name in names:
        if (folder.root / name).is_dir():
            shutil.rmtree(folder.root / name)
    folder.run_file.unlink(missing_ok=True)
