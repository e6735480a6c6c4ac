"""One evaluation: window by window of tasks read and encode, then rank, score, write. What is already done is kept."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import read_json, read_parquet, write_parquet
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.items import Profile, Quantization, Samples
from mmeb_harness.core.progress import Reporter
from mmeb_harness.core.registry import ModelSpec, RegisteredTask, benchmark_rows
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo, load_samples, query_labels
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS
from mmeb_harness.encode.local import Encoder, LocalEncoder
from mmeb_harness.encode.whole_workers import encoding_parts
from mmeb_harness.encode.windows import ReadTask, Window, one_ahead, windows
from mmeb_harness.ranking.compress import compress
from mmeb_harness.ranking.corpus import require_faiss
from mmeb_harness.ranking.task import mean_metrics, score_queries
from mmeb_harness.results.files import (
    EncodeStats,
    RunResult,
    TaskResult,
    aggregate,
    encode_stats,
    load_run_result,
    load_task_result,
    percentiles,
    save_result,
)
from mmeb_harness.results.folder import RunFolder, clear, locked
from mmeb_harness.results.tables import candidate_table, query_table
from mmeb_harness.run.identity import Identity, Meeting, run_identity
from mmeb_harness.run.plan import PlannedTask, check_readable, fingerprint_of, plan_task, run_profile
from mmeb_harness.store.media import MEDIA_FOLDER, MediaHashes
from mmeb_harness.store.vectors import VectorStore, content_keys


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
    encoder: Encoder | None = None,
    meeting: Meeting | None = None,
) -> RunResult:
    """Evaluate `embedder` on `tasks` and write everything below `settings.output`.

    Tasks that the folder holds already, of the same model, settings and data, stay part of the run: a run of all 78
    may be put together from several invocations.

    Args:
        registered: all tasks known; those of the benchmark decide which means are complete.
        encoder: who encodes; `None`: this process.
        meeting: of the ranks of which this is the first; `None`: there are no others.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    require_faiss()
    folder = RunFolder(settings.output)
    profile = profile_of(embedder, settings)  # refuses before anything is deleted
    started_at, started = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    with locked(folder):
        if settings.fresh:
            clear(folder)
        elif folder.run_file.is_file():
            _check_same_run(load_run_result(folder.run_file), embedder, info, folder)
        plan = [plan_task(one.task, info, embedder, profile, settings.limit) for one in tasks]
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
            identity = run_identity(embedder, plan, settings.limit, settings.batch_tokens)
            with ExitStack() as stack:
                if meeting is not None:
                    stack.enter_context(meeting.opened(identity))
                encoder = encoder or stack.enter_context(local_encoder(embedder, settings.batch_tokens, reporter))
                results = _evaluate_all(embedder, encoder, plan, done, info, settings, folder, reporter)
                for remark in meeting.remarks() if meeting else []:
                    reporter.note(remark)
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
    found = {task.name: _earlier_result(folder, plan_task(task, info, embedder, profile, limit)) for task in there}
    return [one for one in found.values() if one is not None], [name for name, one in found.items() if one is None]


def _earlier_result(folder: RunFolder, planned: PlannedTask) -> TaskResult | None:
    """The result an earlier invocation left, if it is of the same data, model, settings and schema."""
    name = planned.task.name
    path = folder.task_file(name)
    if not path.is_file():
        return None
    result = load_task_result(path)
    if not (folder.queries_file(name).is_file() and folder.candidates_file(name).is_file()):
        return None
    return result if result.fingerprint == planned.fingerprint else None


def profile_of(embedder: Embedder, settings: RunSettings) -> Profile:
    """The model's profile with the run's own choices; see `run_profile`."""
    return run_profile(embedder, settings.frames, settings.dimensions, settings.quantization)


@contextmanager
def local_encoder(
    embedder: Embedder, batch_tokens: int, reporter: Reporter, spec: ModelSpec | None = None, workers: int = 0
) -> Iterator[LocalEncoder]:
    """This process, with a thread that prepares or, where it is told how the model is made, processes.

    Args:
        workers: how many; 0: a thread.
    """
    encoding, preparation = encoding_parts(embedder, spec, workers, reporter.note)
    with preparation or nullcontext():
        yield LocalEncoder(encoding, preparation, batch_tokens, reporter.note, Interrupts(reporter.note))


def _evaluate_all(
    embedder: Embedder,
    encoder: Encoder,
    plan: Sequence[PlannedTask],
    done: Mapping[str, TaskResult],
    info: DataInfo,
    settings: RunSettings,
    folder: RunFolder,
    reporter: Reporter,
) -> list[TaskResult]:
    if done:
        reporter.note(f"{len(done)} of {len(plan)} tasks were finished before and are kept (--fresh starts over)")
        reporter.skip_tasks(len(done))
    stale = [one.task.name for one in plan if one.task.name not in done and folder.task_file(one.task.name).is_file()]
    if stale:
        reporter.note(f"{len(stale)} earlier results are of another model, setting or data revision: computed again")
    results = dict(done)
    if len(done) < len(plan):
        store, hashes = open_store(embedder, settings, folder), open_hashes(info, settings)
        labels = query_labels(info)
        planned = {one.task.name: one for one in plan}
        for window in read_windows(embedder, plan, done, info, settings, hashes):
            stored_before = _encode_window(encoder, window, done, store, reporter)
            for one in window.tasks:
                name = one.task.name
                if name not in done:
                    difficulty = labels.get(name, {})
                    results[name] = _score_task(planned[name], one, settings, folder, store, stored_before, difficulty)
                    reporter.finish_task(_task_line(results[name]))
                stored_before |= {*one.query_keys, *one.candidate_keys}
        hashes.save()
        if hashes.problem is not None:
            reporter.note(f"hashes of media are not remembered: {hashes.problem}")
    return [results[one.task.name] for one in plan]


def encode_share(
    embedder: Embedder,
    tasks: Sequence[RegisteredTask],
    info: DataInfo,
    settings: RunSettings,
    reporter: Reporter,
    encoder: Encoder,
    meeting: Meeting | None = None,
) -> Identity:
    """Encode a share of a run that somebody else ranks.

    Args:
        meeting: of the ranks of which this is not the first; `None` for one of `--shard`.

    Returns:
        What the run is, for those who put the shares together.

    Raises:
        HarnessError: as `evaluate`.
    """
    folder = RunFolder(settings.output)
    profile = profile_of(embedder, settings)
    plan = [plan_task(one.task, info, embedder, profile, settings.limit) for one in tasks]
    identity = run_identity(embedder, plan, settings.limit, settings.batch_tokens)
    if meeting is not None:
        meeting.join(identity)
    done = {one.task.name: result for one in plan if (result := _earlier_result(folder, one)) is not None}
    check_readable([one.task for one in plan if one.task.name not in done], info, profile.frames)
    store, hashes = open_store(embedder, settings, folder), open_hashes(info, settings)
    for window in read_windows(embedder, plan, done, info, settings, hashes):
        _encode_window(encoder, window, done, store, reporter)
    hashes.save()
    return identity


def read_windows(
    embedder: Embedder,
    plan: Sequence[PlannedTask],
    done: Mapping[str, TaskResult],
    info: DataInfo,
    settings: RunSettings,
    hashes: MediaHashes,
) -> Iterator[Window]:
    """What is to be encoded, up to the last task that isn't done."""
    last = max((position for position, one in enumerate(plan) if one.task.name not in done), default=-1)
    frames = profile_of(embedder, settings).frames

    def read(task: Task) -> ReadTask:
        samples = load_samples(task, info, frames, settings.limit)
        return ReadTask(
            task,
            samples,
            content_keys(samples.queries, "query", hashes),
            content_keys(samples.candidates, "candidate", hashes),
        )

    # Media of large tasks take minutes to hash, in which the accelerator needn't wait.
    return one_ahead(windows([one.task for one in plan[: last + 1]], read, embedder, settings.batch_tokens))


def _encode_window(
    encoder: Encoder, window: Window, done: Mapping[str, TaskResult], store: VectorStore, reporter: Reporter
) -> set[str]:
    """See to it that the store has what the window's unfinished tasks need; what of it was there before."""
    waiting = [one for one in window.tasks if one.task.name not in done]
    needed = {key for one in waiting for keys in one.keys.values() for key in keys}
    stored = {key for key in needed if key in store}
    reporter.start_encoding([one.task.name for one in waiting], len(needed) - len(stored))
    # Chunks of which nothing is needed keep their place: shares are given out by it.
    encoder.encode([chunk.only(needed.__contains__) for chunk in window.chunks], store, reporter.advance)
    return stored


def open_store(embedder: Embedder, settings: RunSettings, folder: RunFolder) -> VectorStore:
    """The model's vectors.

    Raises:
        ResultError: those that are there can't be used.
    """
    vectors = settings.vectors_folder / fingerprint_of(embedder)
    since = read_json(folder.fresh_file) if folder.fresh_file.is_file() else 0
    return VectorStore(vectors, embedder.info.similarity, since, embedder.info)


def open_hashes(info: DataInfo, settings: RunSettings) -> MediaHashes:
    """Hashes of the data's media, remembered beside the vectors."""
    return MediaHashes(settings.vectors_folder / MEDIA_FOLDER, info.root)


def _score_task(
    planned: PlannedTask,
    read: ReadTask,
    settings: RunSettings,
    folder: RunFolder,
    store: VectorStore,
    stored_before: Container[str],
    difficulty: Mapping[str, str],
) -> TaskResult:
    task, samples = planned.task, read.samples
    queries, candidates = store.get(read.query_keys), store.get(read.candidate_keys)
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
        queries=encode_stats(queries, read.query_keys, stored_before),
        candidates=encode_stats(candidates, read.candidate_keys, stored_before),
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
        profile=profile_of(embedder, settings),
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
