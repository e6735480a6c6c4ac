"""Runs to test with: a real one on the mini suite, and one that is only its JSON files, for all 78 tasks."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmeb_harness import Frames, Modality, Profile, Task
from mmeb_harness.core.benchmark import BenchmarkRow, benchmark_of
from mmeb_harness.core.registry import BENCHMARK, benchmark_rows, load_model, load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.ranking.metrics import metric_names
from mmeb_harness.results.files import (
    EncodeStats,
    RunResult,
    TaskResult,
    aggregate,
    expected_fingerprint,
    model_fingerprint,
    save_run_result,
    save_task_result,
)
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import table_checksums
from mmeb_harness.run.plan import RunSettings
from tests.toy import evaluated

PROFILE = Profile("made", pooling="last token", frames=Frames(64))


def benchmark_tasks(edition: str = "page-fixed") -> list[Task]:
    return [one.task for one in load_tasks(edition).values() if one.collection == BENCHMARK]


def plain_rows(*rows: tuple[str, Modality, str]) -> list[BenchmarkRow]:
    """Tasks (name, modality, group) by hit@1, of MMEB-V2."""
    return [BenchmarkRow(*row, "hit@1", "page-fixed") for row in rows]


def task_result(task: Task, seed: int = 0, **changes: object) -> TaskResult:
    draw = random.Random(f"{task.name} {seed}")
    metrics = {name: draw.random() for name in metric_names(task.edition)}
    result = TaskResult(
        name=task.name,
        modality=task.modality,
        group=task.group,
        metric=task.metric,
        score=metrics[task.metric],
        corrected_score=metrics[task.metric],
        random_ties_score=metrics[task.metric],
        metrics=metrics,
        chance=0.1,
        num_queries=task.num_queries or 1,
        num_candidates=8,
        tied_decisions=0,
        limited=False,
        queries=EncodeStats(),
        candidates=EncodeStats(),
        data_revision="r",
        fingerprint="",  # `write_run` gives it that of its run
        edition=task.edition,
        profile=PROFILE,
        versions={},
    )
    return dataclasses.replace(result, **changes)  # type: ignore[arg-type]


def run_result(results: Sequence[TaskResult], **changes: object) -> RunResult:
    """A finished run on real data, its fields changed by `changes`."""
    edition = str(changes.get("edition", "page-fixed"))
    run = RunResult(
        name="made",
        model="made",
        model_revision="1",
        model_dimensions=8,
        model_parameters=None,
        model_settings={},
        model_fingerprint="",
        model_args={},
        data=benchmark_of(edition).name,
        data_synthetic=False,
        data_revision="hub-2026",
        edition=edition,
        profile=PROFILE,
        tasks=tuple(result.name for result in results),
        limit=None,
        seed=0,
        batch_tokens=1,
        status="finished",
        aggregates=aggregate(results, benchmark_rows(load_tasks(edition or None).values())),
        queries=EncodeStats(),
        candidates=EncodeStats(),
        latency_seconds={},
        seconds=0.0,
        started="",
        git_commit=None,
        versions={},
        machine={},
    )
    run = dataclasses.replace(run, **changes)  # type: ignore[arg-type]
    identity = (run.model, run.model_revision, run.model_dimensions, run.model_settings, run.profile)
    return dataclasses.replace(run, model_fingerprint=model_fingerprint(*identity))


def write_run(folder: Path, results: Sequence[TaskResult], **changes: object) -> RunResult:
    """The JSON files of such a run, which bears its folder's name."""
    return save_all(RunFolder(folder), run_result(results, **{"name": folder.name, **changes}), results)


def save_all(files: RunFolder, run: RunResult, results: Sequence[TaskResult]) -> RunResult:
    """Write a run's JSON files with the fingerprints and checksums that belong to them and to the tables there."""
    identity = (run.model, run.model_revision, run.model_dimensions, run.model_settings, run.profile)
    run = dataclasses.replace(run, model_fingerprint=model_fingerprint(*identity))
    checksums = {}
    for result in results:
        name, mark = result.name, expected_fingerprint(run, result)
        tables = table_checksums(files, name) if files.candidates_file(name).is_file() else {}
        saved = save_task_result(files.task_file(name), dataclasses.replace(result, fingerprint=mark, tables=tables))
        checksums[name] = saved.checksum
    return save_run_result(files.run_file, dataclasses.replace(run, checksums=checksums))


def whole_run(folder: Path, edition: str = "page-fixed", **changes: object) -> RunResult:
    """All tasks of an edition, with the declared numbers of queries."""
    results = [task_result(task) for task in benchmark_tasks(edition)]
    return write_run(folder, results, edition=edition, **changes)


def own_run(folder: Path, scores: Mapping[str, float], data: str = "my pages", **changes: object) -> Path:
    """A run over somebody's own tasks, which no installed package has; all but one are of one group."""
    results = [
        task_result(
            dataclasses.replace(
                benchmark_tasks()[0], name=name, group="captions" if name == "captions" else "Mine", edition=""
            ),
            score=score,
            num_queries=50,
        )
        for name, score in scores.items()
    ]
    results = [
        dataclasses.replace(result, metrics={**result.metrics, result.metric: result.score}) for result in results
    ]
    write_run(folder, results, data=data, **changes)
    return folder


def mini_run(cache: Path, output: Path, names: Sequence[str], model: str = "bag_of_features") -> RunResult:
    """A real run on the mini suite."""
    registered = load_tasks()
    info = describe(cache / "mini-v1-seed0")
    settings = RunSettings(output, edition="page-fixed")
    return evaluated(load_model(model, {}, {}), [registered[name] for name in names], registered, info, settings)


def write_queries(folder: Path, task: str, scores: Sequence[float], clusters: Sequence[int] | None = None) -> None:
    """A task's table of queries, as far as comparisons read it."""
    columns: dict[str, object] = {"query_id": [f"q{place}" for place in range(len(scores))], "score": list(scores)}
    if clusters is not None:
        columns["cluster"] = list(clusters)
    path = RunFolder(folder).queries_file(task)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
