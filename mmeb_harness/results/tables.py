"""A run's tables: one row a query and one a candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.embedder import Encoded, Trace
from mmeb_harness.core.items import Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.task import ScoredQuery

if TYPE_CHECKING:
    import pyarrow as pa


def query_table(
    task: Task,
    samples: Samples,
    scored: Sequence[ScoredQuery],
    encoded: Encoded,
    difficulty: Mapping[str, str],
) -> pa.Table:
    """One row a query: everything needed to recompute its score, and how its vector came about."""
    import pyarrow as pa

    gains = [samples.gains[query.query_id] for query in scored]
    columns: dict[str, Any] = {
        "query_id": pa.array([query.query_id for query in scored], pa.string()),
        "cluster": pa.array(query_clusters(samples), pa.int64()),
        "difficulty": pa.array([difficulty.get(query.query_id) for query in scored], pa.string()),
        "score": pa.array([query.metrics[task.metric] for query in scored], pa.float64()),
        "corrected_score": pa.array([query.corrected for query in scored], pa.float64()),
        "random_ties_score": pa.array([query.random_ties for query in scored], pa.float64()),
        "chance": pa.array([query.chance for query in scored], pa.float64()),
        "first_relevant_rank": pa.array([query.first_relevant for query in scored], pa.int64()),
        "num_ranked": pa.array([query.num_ranked for query in scored], pa.int64()),
        "tied_decisions": pa.array([query.tied_decisions for query in scored], pa.int64()),
        "top_ids": pa.array([query.top_ids for query in scored], pa.list_(pa.string())),
        "top_scores": pa.array([query.top_scores for query in scored], pa.list_(pa.float64())),
        "relevant_ids": pa.array([list(gain) for gain in gains], pa.list_(pa.string())),
        "relevant_gains": pa.array([list(gain.values()) for gain in gains], pa.list_(pa.float64())),
    }
    return pa.table(columns | _trace_columns(encoded))


def query_clusters(samples: Samples) -> list[int]:
    """Of each query, the number of its cluster: queries about the same picture, video or page are no independent ones.

    The same is: of queries with media, those; else the media of the first among the most relevant candidates (the
    image that several captions describe, the page or the document that several questions are about).
    """
    media_of = {candidate.id: candidate.media for candidate in samples.candidates}
    numbers: dict[object, int] = {}
    clusters = []
    for query in samples.queries:
        gains = samples.gains[query.id]
        best = max(gains, key=lambda candidate: gains[candidate])
        shared = query.media or media_of.get(best) or query.id
        clusters.append(numbers.setdefault(shared, len(numbers)))
    return clusters


def candidate_table(samples: Samples, encoded: Encoded) -> pa.Table:
    """One row a candidate: how its vector came about."""
    import pyarrow as pa

    ids = pa.array([candidate.id for candidate in samples.candidates], pa.string())
    return pa.table({"candidate_id": ids} | _trace_columns(encoded))


def _trace_columns(encoded: Encoded) -> dict[str, Any]:
    import pyarrow as pa

    def column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind)

    traces: tuple[Trace, ...] = encoded.traces
    return {
        "path": column([trace.path for trace in traces], pa.string()),
        "gate": column([trace.gate for trace in traces], pa.float64()),
        "rationale": column([trace.rationale for trace in traces], pa.string()),
        "reasoning_tokens": column([trace.reasoning_tokens for trace in traces], pa.int64()),
        "truncated": column([trace.truncated for trace in traces], pa.bool_()),
        "latency_seconds": pa.array(encoded.latency_seconds, pa.float64()),
    }
