"""The sides that are measured: a run's own way of encoding and ranking, and plain loops that do the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from mmeb_harness.bench.sample import Block, Sample
from mmeb_harness.core.embedder import (
    AnyVectors,
    BudgetedEmbedder,
    Embedder,
    Encoded,
    EncodeResult,
    ReferenceEmbedder,
    Trace,
    Work,
)
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.items import Item, Role, Samples, Scalar
from mmeb_harness.core.peer import EvaluateTask, Peer, ScoreTask
from mmeb_harness.core.tasks import Task
from mmeb_harness.encode.chunks import Chunk, plan_chunks
from mmeb_harness.encode.local import LocalEncoder, Usage
from mmeb_harness.encode.memory import MemorySink, gathered
from mmeb_harness.encode.windows import ROLES, PlanChunks, ReadTask, one_ahead, windows
from mmeb_harness.ranking.task import mean_metrics, score_queries
from mmeb_harness.run.read import with_keys
from mmeb_harness.store.media import MediaHashes
from mmeb_harness.store.vectors import content_keys

#: Batches of the two references.
PLAIN_BATCH, FIXED_BATCH = 4, 16


@dataclass(frozen=True)
class Outcome:
    """What one way through the sample gave and took.

    Attributes:
        encoded: of every place of the sample, in order; `None`: a peer that evaluates shows no vectors.
        scores: each task's mean main metric.
        prepare_seconds: see `values.Pass`; the same of `stages`.
    """

    encoded: Encoded | None
    scores: tuple[float, ...]
    seconds: float
    stages: Mapping[str, float]
    prepare_seconds: float | None
    work: Work | None


@dataclass(frozen=True)
class Side:
    """One way of encoding and ranking a sample.

    Attributes:
        run: once through all of a sample.
        batch_tokens: budget of a batch; `None` of a side whose batches are fixed.
        batch_items: items of a batch, where it is fixed.
        settings: of a peer; `None` of our own sides.
    """

    name: str
    sample: Sample
    run: Callable[[Sample], Outcome]
    batch_tokens: int | None = None
    batch_items: int | None = None
    settings: Mapping[str, Scalar] | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is a run's own way, which encodes equal items once."""
        return self.batch_tokens is not None

    @property
    def size(self) -> str:
        """Of its batches, in words."""
        return size_of_batches(self.batch_tokens, self.batch_items, self.settings)


def size_of_batches(batch_tokens: int | None, batch_items: int | None, settings: Mapping[str, Scalar] | None) -> str:
    """How a side works, in a few words: its batches, or a peer's settings."""
    if settings is not None:
        return ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{batch_tokens:,} tokens" if batch_tokens is not None else f"{batch_items} items"


def order(sides: int, repeat: int) -> list[int]:
    """First to last, then last to first, and so on: none is always measured after the same one."""
    places = list(range(sides))
    return places if repeat % 2 == 0 else places[::-1]


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """What happens inside counts for this stage."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - started


def ours(embedder: Embedder, encoder: LocalEncoder, sample: Sample, batch_tokens: int) -> Side:
    """Windows, chunks and the local encoder, as in a run; vectors stay in memory."""
    plan = partial(plan_chunks, embedder, batch_tokens=batch_tokens)
    return Side("ours", sample, partial(_run_ours, encoder, plan), batch_tokens=batch_tokens)


def _run_ours(encoder: LocalEncoder, plan: PlanChunks, sample: Sample) -> Outcome:
    encoder.usage = Usage(Work())
    sink, spent, scores = MemorySink(), dict.fromkeys(("plan", "encode", "rank"), 0.0), []
    started = time.perf_counter()
    with sample.hashes() as hashes:
        parts = planned(sample, hashes, plan)
        while True:
            with timed(spent, "plan"):
                part = next(parts, None)
            if part is None:
                break
            chunks, tasks = part
            with timed(spent, "encode"):
                encoder.encode(chunks, sink)
            with timed(spent, "rank"):
                scores += [_ranked(task, sink) for task in tasks]
    seconds = time.perf_counter() - started
    usage = encoder.usage
    own = dict(usage.work.seconds) or {"encode": spent["encode"] - usage.wait_seconds}
    return Outcome(
        encoded=sink.get(sample.keys),
        scores=tuple(scores),
        seconds=seconds,
        stages=whole_time({"plan": spent["plan"], "wait": usage.wait_seconds, **own, "rank": spent["rank"]}, seconds),
        prepare_seconds=usage.prepare_seconds,
        work=usage.work if usage.work != Work() else None,
    )


def _ranked(read: ReadTask, sink: MemorySink) -> float:
    queries, candidates = sink.get(read.query_keys), sink.get(read.candidate_keys)
    return mean_score(read.task, read.samples, queries.vectors, candidates.vectors)


def planned(
    sample: Sample, hashes: MediaHashes, plan: PlanChunks
) -> Iterator[tuple[Sequence[Chunk], Sequence[ReadTask]]]:
    """Chunks, and the tasks that can be ranked once these are encoded; whole tasks exactly as in a run."""
    if sample.tasks:
        for window in one_ahead(windows(with_keys(sample.readings(), hashes), plan)):
            yield window.chunks, window.tasks
        return
    chunks: list[Chunk] = []
    for role in ROLES:
        items = [place.item for place in sample.places if place.role == role]
        distinct = dict(zip(content_keys(items, role, hashes), items, strict=True))
        chunks += plan(list(distinct.items()), role)
    yield sorted(chunks, key=lambda chunk: -chunk.tokens), ()


#: Results of some items of one role, and what preparing them took, where that can be told.
EncodeItems: TypeAlias = Callable[[Sequence[Item], Role], tuple[EncodeResult, float | None]]


def _run_batches(encode: EncodeItems, batch_items: int, score: ScoreTask, sample: Sample) -> Outcome:
    """Every item, duplicates too, in the order of the files, so many at a time, one thing after another."""
    spent: dict[str, float] = {}
    scores = []
    started = time.perf_counter()
    sides = [] if sample.tasks else [_batches(encode, batch_items, block, spent) for block in sample.blocks]
    for place, (task, samples) in enumerate(sample.tasks):
        both = [_batches(encode, batch_items, block, spent) for block in sample.blocks[2 * place : 2 * place + 2]]
        with timed(spent, "rank"):
            queries, candidates = map(_gather, both)
            scores.append(score(task, samples, queries.vectors, candidates.vectors))
        sides += both
    seconds = time.perf_counter() - started
    return _outcome([batch for side in sides for batch in side], scores, spent, seconds)


def _batches(encode: EncodeItems, batch_items: int, block: Block, spent: dict[str, float]) -> list[_Batch]:
    done = []
    for start in range(0, len(block.items), batch_items):
        with timed(spent, "encode"):
            started = time.perf_counter()
            result, prepare_seconds = encode(block.items[start : start + batch_items], block.role)
            done.append(_Batch(result, prepare_seconds, time.perf_counter() - started))
    return done


@dataclass(frozen=True)
class _Batch:
    result: EncodeResult
    prepare_seconds: float | None
    seconds: float

    def encoded(self) -> Encoded:
        """Latency as in a run: preparing the batch, and encoding until an item's vector is ready."""
        n = len(self.result.vectors)
        traces = self.result.traces or (Trace(),) * n
        before = self.prepare_seconds
        latencies = [
            self.seconds if before is None or trace.seconds is None else before + trace.seconds for trace in traces
        ]
        return Encoded(self.result.vectors, traces, np.array(latencies), np.full(n, self.seconds / n))


def _gather(batches: Sequence[_Batch]) -> Encoded:
    each = [batch.encoded() for batch in batches]
    return gathered([(encoded, row) for encoded in each for row in range(len(encoded.traces))])


def _outcome(batches: Sequence[_Batch], scores: list[float], watched: Mapping[str, float], seconds: float) -> Outcome:
    prepared = [batch.prepare_seconds for batch in batches if batch.prepare_seconds is not None]
    prepare = sum(prepared) if len(prepared) == len(batches) else None
    counted = [batch.result.work for batch in batches if batch.result.work is not None]
    work = sum(counted, Work()) if len(counted) == len(batches) else None
    own = dict(work.seconds) if work else {}
    encode = own or {"encode": watched["encode"] - (prepare or 0.0)}
    stages = {"wait": prepare or 0.0, **encode, "rank": watched.get("rank", 0.0)}
    return Outcome(_gather(batches), tuple(scores), seconds, whole_time(stages, seconds), prepare, work)


def plain_loop(embedder: Embedder, sample: Sample) -> Side:
    """Batches of 4 through the library's own `generate`, where the model has that."""
    encode = embedder.encode_reference if isinstance(embedder, ReferenceEmbedder) else embedder.encode
    run = partial(_run_batches, lambda items, role: (encode(items, role), None), PLAIN_BATCH, mean_score)
    return Side("plain loop", sample, run, batch_items=PLAIN_BATCH)


def fixed_batches(embedder: Embedder, sample: Sample) -> Side:
    """Batches of 16 through the model's own `encode`."""

    def encode(items: Sequence[Item], role: Role) -> tuple[EncodeResult, float | None]:
        if not isinstance(embedder, BudgetedEmbedder):
            return embedder.encode(items, role), None
        started = time.perf_counter()
        prepared = embedder.prepare(items, role)  # the two halves of `encode`
        seconds = time.perf_counter() - started
        return embedder.encode_prepared(prepared), seconds

    return Side(
        "fixed batches", sample, partial(_run_batches, encode, FIXED_BATCH, mean_score), batch_items=FIXED_BATCH
    )


def beside(name: str, peer: Peer, sample: Sample) -> Side:
    """A peer that encodes or evaluates.

    Raises:
        OptionError: it evaluates whole tasks, and the sample has none.
    """
    if peer.evaluate is not None:
        if not sample.tasks:
            raise OptionError(f"--beside {name} evaluates whole tasks; leave --reference-items out")
        run = partial(_evaluate, peer.evaluate)
    else:
        encode = peer.encode
        assert encode is not None
        at_once = peer.at_once or max(len(block.items) for block in sample.blocks)
        run = partial(_run_batches, lambda items, role: (encode(items, role), None), at_once, peer.score or mean_score)
    return Side(name, sample, run, batch_items=peer.at_once, settings=peer.settings)


def _evaluate(evaluate: EvaluateTask, sample: Sample) -> Outcome:
    started = time.perf_counter()
    scores = tuple(evaluate(task, samples) for task, samples in sample.tasks)
    seconds = time.perf_counter() - started
    return Outcome(None, scores, seconds, {"other": seconds}, None, None)


def mean_score(task: Task, samples: Samples, queries: AnyVectors, candidates: AnyVectors) -> float:
    """Rank one task; the mean of its main metric."""
    return mean_metrics(score_queries(task, samples, queries, candidates))[task.metric]


def whole_time(stages: Mapping[str, float], seconds: float) -> dict[str, float]:
    """With what is left as "other"; below zero where the accelerator worked while something waited."""
    return {**stages, "other": seconds - sum(stages.values())}
