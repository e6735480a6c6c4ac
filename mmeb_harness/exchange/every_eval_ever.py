"""A run as records of Every Eval Ever 0.3: scores with intervals, and a row a query.

<folder>/data/<collection>/<org>/<name>/<uuid>.json            one record a run: each task, each mean over all its tasks
<folder>/data/<collection>/<org>/<name>/<uuid>_samples.jsonl   a row a query of each task

The tree is that of its datastore. The uuid follows from the run: the same run gives the same files.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from mmeb_harness.core.benchmark import means_of
from mmeb_harness.core.embedder import REASONING, SHARED
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.files import file_checksum, read_parquet, write_atomically, write_json
from mmeb_harness.core.registry import benchmark_rows
from mmeb_harness.core.tasks import Table
from mmeb_harness.exchange.handed import Handed, refuse_existing, variant_note
from mmeb_harness.results.files import EncodeStats, TaskResult
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.stats.queries import read_queries
from mmeb_harness.stats.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Resampled,
    clusters_of,
    interval,
    mean_over_tasks,
    resample,
)

SCHEMA_VERSION = "0.3.0"
RELATIONSHIPS = ("first_party", "third_party", "collaborative", "other")
Relationship: TypeAlias = Literal["first_party", "third_party", "collaborative", "other"]
#: Places of a ranking that a row has.
SHOWN = 10
_COLUMNS = [
    *("query_id", "score", "first_relevant_rank", "top_ids", "relevant_ids", "path", "gate", "rationale"),
    *("reasoning_tokens", "truncated", "latency_seconds"),
]
_METRICS = {
    "hit@1": ("hit_rate", {"k": 1}),
    "ndcg_linear@5": ("ndcg", {"k": 5, "gain": "linear"}),
}


@dataclass(frozen=True)
class Evaluator:
    """Who ran the evaluation, and what they are to the model's makers."""

    organization: str
    relationship: Relationship


@dataclass(frozen=True)
class Estimate:
    """A score, as far as it is certain.

    Attributes:
        spread: of the scores of single queries.
        error: of the mean, over resamples.
        low, high: of an interval of 95 %; `None` where all queries are of one cluster.
    """

    value: float
    queries: int
    spread: float | None
    error: float
    low: float | None
    high: float | None


def export_every_eval_ever(handed: Handed, output: Path, by: Evaluator) -> list[Path]:
    """Write a run's record and its rows.

    Raises:
        ResultError: a table of queries can't be read; or a file is there already, or can't be written.
        OptionError: an organization without a name, or `output` is named like a file.
    """
    if not by.organization.strip():
        raise OptionError("--eee says who ran an evaluation; give --organization NAME")
    if output.suffix == ".json":
        raise OptionError(f"--eee {output}: its files have names of their own, in a tree; name a folder")
    run = handed.run
    key = hashlib.sha256(f"{run.model_fingerprint} {run.started} {handed.model_name} {run.tasks}".encode()).digest()
    name = str(uuid.UUID(bytes=key[:16], version=4))
    collection = _collection(handed)
    place = f"data/{collection}/{handed.model_name}/{name}"
    record, rows = output / f"{place}.json", output / f"{place}_samples.jsonl"
    refuse_existing([record, rows])
    started = str(int(datetime.fromisoformat(run.started).timestamp())) if run.started else "0"
    evaluation = f"{collection}/{handed.model_name}/{started}"
    values = _record(handed, by, evaluation, started)  # reads every table: nothing is written if one is missing
    count = _write_lines(rows, (row for result in handed.results for row in _rows(handed, result, evaluation)))
    samples = {
        "format": "jsonl",
        "file_path": f"{place}_samples.jsonl",
        "hash_algorithm": "sha256",
        "checksum": file_checksum(rows),
        "total_rows": count,
    }
    write_json(record, {**values, "detailed_evaluation_results": samples})
    return [record, rows]


def _collection(handed: Handed) -> str:
    """What the records stand under: made-up data never under the benchmark's name."""
    if handed.run.data_synthetic:
        return "synthetic"
    collections = {handed.others_collection(result.name) for result in handed.results}
    return collections.pop() if len(collections) == 1 else "mmeb-harness"


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1

    write_atomically(path, write)
    return count


def _record(handed: Handed, by: Evaluator, evaluation: str, started: str) -> dict[str, Any]:
    run = handed.run
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation,
        "evaluation_timestamp": run.started or started,
        "retrieved_timestamp": started,
        "source_metadata": {
            "source_name": "mmeb-harness",
            "source_type": "evaluation_run",
            "source_organization_name": by.organization,
            "evaluator_relationship": by.relationship,
        },
        "eval_library": {"name": "mmeb-harness", "version": run.versions.get("mmeb-harness", "unknown")},
        "model_info": {
            "name": handed.model_name.rpartition("/")[2],
            "id": handed.model_name,
            "inference_engine": {"name": "transformers", "version": run.versions.get("transformers", "unknown")},
            "additional_details": {
                "deployment_type": "self_deployed",
                "model_availability": "unknown",
                "revision": run.model_revision,
                "registered_name": run.model,
                "variant": variant_note(run),
                "settings": json.dumps(dict(run.model_settings), sort_keys=True),
            },
        },
        "evaluation_results": _results(handed),
    }


def _results(handed: Handed) -> list[dict[str, Any]]:
    """An entry a task, then one for each mean over all of its tasks."""
    rng = np.random.default_rng(handed.run.seed)
    resampled: dict[str, Resampled] = {}
    entries = []
    for result in handed.results:
        queries = read_queries(handed.folder, result)
        resampled[result.name] = drawn = resample(clusters_of(queries.scores, queries.clusters), rng)
        between = interval(result.score, drawn.draws_BK[:, 0], drawn.clusters)
        spread = float(np.std(queries.scores, ddof=1)) if len(queries.scores) > 1 else None
        estimate = _estimate(result.score, len(queries.scores), spread, drawn.draws_BK, between.low, between.high)
        entries.append(_entry(handed, result, estimate))
    entries += _means(handed, resampled, rng)
    return entries


def _estimate(value: float, queries: int, spread: float | None, draws: Any, low: float, high: float) -> Estimate:
    known = bool(np.isfinite(low) and np.isfinite(high))
    error = float(np.std(draws[..., 0], ddof=1))
    return Estimate(value, queries, spread, error, low if known else None, high if known else None)


def _means(handed: Handed, resampled: Mapping[str, Resampled], rng: np.random.Generator) -> list[dict[str, Any]]:
    of_run = {mean.name: mean for mean in handed.run.aggregates if mean.complete and mean.score is not None}
    counts = {result.name: result.num_queries for result in handed.results}
    entries = []
    for over in means_of(benchmark_rows(handed.registered.values())):
        name, tasks = over.name, list(over.metrics)
        whole = over.of_main_metrics and bool(tasks) and all(task in resampled for task in tasks)
        if name not in of_run or not whole:
            continue
        between = mean_over_tasks([resampled[task] for task in tasks], rng)[0].queries
        draws = np.mean([resampled[task].draws_BK for task in tasks], axis=0)
        queries = sum(counts[task] for task in tasks)
        estimate = _estimate(float(of_run[name].score or 0.0), queries, None, draws, between.low, between.high)
        data = {
            "dataset_name": f"{handed.run.data}: {name}",
            "source_type": "other",
            "additional_details": {"tasks": ", ".join(tasks), "mean": "plain mean over tasks, whatever their sizes"},
        }
        metric = {"evaluation_description": f"mean over {len(tasks)} tasks of hit@1 or ndcg_linear@5"}
        entries.append(_entry_of(handed, name, data, metric, estimate, {}))
    return entries


def _entry(handed: Handed, result: TaskResult, estimate: Estimate) -> dict[str, Any]:
    kind, parameters = _METRICS[result.metric]
    metric = {
        "metric_id": result.metric,
        "metric_name": result.metric,
        "metric_kind": kind,
        "metric_parameters": parameters,
    }
    details = {
        "corrected_score": repr(result.corrected_score),
        "chance": repr(result.chance),
        "num_candidates": str(result.num_candidates),
        "tied_decisions": str(result.tied_decisions),
        "edition": result.edition,
        "profile": result.profile.name,
        **{f"metrics.{name}": repr(value) for name, value in result.metrics.items()},
        **_token_use("queries", result.queries),
        **_token_use("candidates", result.candidates),
    }
    return _entry_of(handed, result.name, _source(handed, result), metric, estimate, details)


def _token_use(side: str, stats: EncodeStats) -> dict[str, str]:
    """What reasoning took; tokens of prompts aren't counted by a run."""
    return {
        f"{side}.reasoning_rate": repr(stats.reasoning_rate),
        f"{side}.reasoning_tokens": str(stats.reasoning_tokens),
        f"{side}.reasoning_tokens_per_reasoned": repr(stats.tokens_per_reasoned),
        f"{side}.seconds": repr(stats.seconds),
    }


def _entry_of(
    handed: Handed,
    name: str,
    data: Mapping[str, Any],
    metric: Mapping[str, Any],
    estimate: Estimate,
    details: Mapping[str, str],
) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {
        "standard_error": {"value": estimate.error, "method": "bootstrap over clusters of queries"},
        "num_samples": estimate.queries,
        "num_bootstrap_samples": RESAMPLES,
    }
    if estimate.spread is not None:
        uncertainty["standard_deviation"] = estimate.spread
    if estimate.low is not None and estimate.high is not None:
        uncertainty["confidence_interval"] = {
            "lower": estimate.low,
            "upper": estimate.high,
            "confidence_level": CONFIDENCE,
            "method": "bootstrap over clusters of queries that share a picture, video or page; expanded percentiles",
        }
    entry = {
        "evaluation_result_id": name,
        "evaluation_name": name,
        "source_data": dict(data),
        "metric_config": {
            **metric,
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {"score": estimate.value, "details": dict(details), "uncertainty": uncertainty},
    }
    if REASONING in handed.run.model_settings:
        reasoned = handed.run.queries.reasoned > 0
        entry["generation_config"] = {"generation_args": {"reasoning": reasoned}}
    return entry


def _source(handed: Handed, result: TaskResult) -> dict[str, Any]:
    """The hub's table, of real data that came from there; anything else by name alone."""
    details = {"data": handed.run.data, "data_revision": result.data_revision}
    row = handed.registered.get(result.name)
    tables = [source for source in (row.task.sources if row else ()) if isinstance(source, Table)]
    if handed.run.data_synthetic or not tables:
        made_up = {"synthetic": "made-up data: no score of the task that it is named after"}
        return {
            "dataset_name": result.name,
            "source_type": "other",
            "additional_details": {**details, **(made_up if handed.run.data_synthetic else {})},
        }
    return {
        "dataset_name": result.name,
        "source_type": "hf_dataset",
        "hf_repo": tables[0].repo,
        "hf_split": tables[0].split,
        "samples_number": result.num_queries,
        "additional_details": details,
    }


def _rows(handed: Handed, result: TaskResult, evaluation: str) -> Iterator[dict[str, Any]]:
    columns = [*_COLUMNS, SHARED] if result.queries.shared else _COLUMNS
    table = read_parquet(RunFolder(handed.folder).queries_file(result.name), columns, result.tables.get("queries", ""))
    for row in table.to_pylist():
        yield _row(handed.model_name, result.name, evaluation, row)


def _row(model: str, task: str, evaluation: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """One query: what it was to find, and what came first. A run has the ids of texts and media, not these."""
    first: Sequence[str] = row["top_ids"][:SHOWN]
    references: Sequence[str] = row["relevant_ids"]
    output: dict[str, Any] = {"raw": list(first)}
    if row["rationale"] is not None:
        output["reasoning_trace"] = [row["rationale"]]
    hashed = hashlib.sha256("\n".join([row["query_id"], *references]).encode(errors="surrogatepass")).hexdigest()
    about = {"path": row["path"], "truncated": str(row["truncated"]).lower(), "gate": row["gate"]}
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": evaluation,
        "model_id": model,
        "evaluation_name": task,
        "evaluation_result_id": task,
        "sample_id": row["query_id"],
        "sample_hash": hashed,
        "interaction_type": "single_turn",
        "input": {"raw": row["query_id"], "reference": list(references)},
        "output": output,
        "messages": None,
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": first[0] if first else "",
                "extraction_method": "first of the ranking",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": row["score"], "is_correct": row["first_relevant_rank"] == 1},
        "performance": {
            **({} if row.get(SHARED) else {"latency_ms": 1000 * row["latency_seconds"]}),  # which is not the mode's own
            "additional_details": {"reasoning_tokens": str(row["reasoning_tokens"])},
        },
        "metadata": {name: str(value) for name, value in about.items() if value is not None},
    }
