"""What a run leaves in its folder: a task's files once it is ranked, and run.json."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.files import name_of, write_parquet
from mmeb_harness.encode.windows import ReadTask
from mmeb_harness.ranking.task import mean_metrics, score_queries
from mmeb_harness.results.files import (
    EncodeStats,
    RunResult,
    Status,
    TaskResult,
    encode_stats,
    save_run_result,
    save_task_result,
)
from mmeb_harness.results.outcome import (
    FinishedTask,
    Run,
    candidate_table,
    finished_task,
    query_table,
    summed_up,
    table_checksums,
)
from mmeb_harness.run.plan import Plan
from mmeb_harness.store.vectors import VectorStore

#: What an item counts as in the notes of a result on which a model that reads found nothing to read.
UNREAD = "items with pictures on which no text was found"
VETOED = "items whose rationales were begun and given up"


@dataclass(frozen=True)
class Start:
    """When an invocation began: by the calendar, and by the clock that nobody adjusts."""

    time: str
    monotonic: float

    @classmethod
    def now(cls) -> Start:
        """The invocation begins here."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic())


@dataclass(frozen=True)
class EncodedTask:
    """A task whose vectors are stored.

    Attributes:
        queries, candidates: the stores that have them.
        reused: keys of those that were there when the task came.
    """

    read: ReadTask
    queries: VectorStore
    candidates: VectorStore
    reused: Container[str]


def finish_task(plan: Plan, encoded: EncodedTask, difficulty: Mapping[str, str]) -> FinishedTask:
    """Rank a task, score it, and write what it leaves.

    Args:
        difficulty: query id → "easy" or "hard", of queries that the data labels.
    """
    read, reused = encoded.read, encoded.reused
    task, samples, planned = read.task, read.samples, plan.tasks[read.task.name]
    queries, candidates = encoded.queries.get(read.query_keys), encoded.candidates.get(read.candidate_keys)
    compared = queries.vectors, candidates.vectors
    if plan.profile.dimensions is not None or plan.profile.quantization != "none":
        from mmeb_harness.ranking.compress import compress

        compared = compress(*compared, plan.profile)
    scored = score_queries(task, samples, *compared)
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
        limited=plan.settings.limit is not None,
        queries=encode_stats(queries, read.query_keys, reused),
        candidates=encode_stats(candidates, read.candidate_keys, reused),
        data_revision=planned.data_revision,
        fingerprint=planned.fingerprint,
        edition=task.edition,
        profile=plan.profile,
        versions=environment.package_versions(),
        notes=dict(Counter(samples.notes) + _left_out(queries, candidates)),
        content=read.content,
    )
    query_rows = query_table(task, samples, scored, queries, difficulty)
    candidate_rows = candidate_table(samples, candidates)
    folder = plan.folder
    folder.task_file(task.name).unlink(missing_ok=True)  # an earlier setting's must not stand beside these rankings
    write_parquet(folder.queries_file(task.name), query_rows)
    write_parquet(folder.candidates_file(task.name), candidate_rows)
    result = dataclasses.replace(result, tables=table_checksums(folder, task.name))
    return finished_task(save_task_result(folder.task_file(task.name), result), query_rows, candidate_rows)


def _left_out(*sides: Encoded) -> Counter[str]:
    """Of how many items the model wasn't shown all, by what it lacked; which it read without finding a text; and of
    which it gave a rationale up.
    """
    traces = [trace for side in sides for trace in side.traces]
    unread = sum(trace.path == "direct" and trace.rationale == "" for trace in traces)
    vetoed = sum(trace.path == "vetoed" for trace in traces)
    return Counter({UNREAD: unread, VETOED: vetoed}) + Counter(trace.left_out for trace in traces if trace.left_out)


def save_run(plan: Plan, finished: Mapping[str, FinishedTask], status: Status, start: Start) -> Run:
    """Write run.json: what the run is, and the means over what is finished."""
    names = [name for name in plan.registered if name in plan.tasks or name in finished]
    tasks = tuple(finished[name] for name in names if name in finished)
    run = RunResult(
        name=name_of(plan.settings.output),
        model=plan.model.name,
        model_revision=plan.model.revision,
        model_dimensions=plan.model.dimensions,
        model_parameters=plan.model.parameters,
        model_settings=dict(plan.model.settings),
        model_fingerprint=plan.fingerprint,
        model_args=dict(plan.settings.model_args),
        data=plan.data.name,
        data_synthetic=plan.data.synthetic,
        data_revision=plan.data.revision,
        edition=plan.settings.edition,
        profile=plan.profile,
        tasks=tuple(names),
        unsupported={name: plan.unsupported[name] for name in plan.registered if name in plan.unsupported},
        limit=plan.settings.limit,
        seed=plan.settings.seed,
        batch_tokens=plan.settings.batch_tokens,
        status=status,
        aggregates=(),
        queries=EncodeStats(),
        candidates=EncodeStats(),
        latency_seconds={},
        seconds=time.monotonic() - start.monotonic,
        started=start.time,
        git_commit=environment.git_commit(),
        versions=environment.package_versions(),
        machine=environment.machine(),
        checksums={task.result.name: task.result.checksum for task in tasks},
    )
    run = summed_up(run, tasks, plan.registered.values())
    return Run(plan.folder.root, save_run_result(plan.folder.run_file, run), tasks)
