"""All sides in turn, several times over, in an order that alternates; medians of what they took."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmeb_harness.adapter.memory import forget_peak, peak_memory
from mmeb_harness.bench.agreement import compare_encoded
from mmeb_harness.bench.rankers import corpora_for, measure_rankers
from mmeb_harness.bench.sample import Sample
from mmeb_harness.bench.sides import Outcome, Side, beside, fixed_batches, order, ours, plain_loop
from mmeb_harness.bench.speed import efficiency_of
from mmeb_harness.bench.values import Measured, ModeResult, Pass, RankingRatio, Ratio, Speed, Spread
from mmeb_harness.core.embedder import Embedder, Encoded, MemoryEmbedder
from mmeb_harness.core.registry import open_peer
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.ranking.corpus import rank_corpus

#: The mode of a model that can't reason.
DIRECT = "direct"
#: Modes in which every vector is read directly; fixed batches have a meaning there.
DIRECT_MODES = (DIRECT, "never")
#: What every side encodes before anything is measured.
WARM_UP_ITEMS = 64

MakeEncoder = Callable[[int], LocalEncoder]  # token budget → encoder


@dataclass(frozen=True)
class Plan:
    """What is measured of a model, and how.

    Attributes:
        batch_tokens: budgets; ours is measured with each.
        references: whether the plain loops run at all.
        reference_items: how many items these get; `None`: all.
        beside: names of peers, or NAME=VALUE.
        modes: values of --reasoning; none: the model's own choice.
        frames, limit: as in a run.
        workers: see `mmeb-eval run`; `None`: its default.
        peak_teraflops, bandwidth_gigabytes: a second, of the machine; `None`: known or measured here.
    """

    batch_tokens: tuple[int, ...]
    repeats: int
    references: bool = True
    reference_items: int | None = None
    beside: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    frames: int | None = None
    limit: int | None = None
    workers: int | None = None
    peak_teraflops: float | None = None
    bandwidth_gigabytes: float | None = None


@dataclass(frozen=True)
class _Runs:
    """One side's outcomes, the vectors of the first repeat only."""

    side: Side
    passes: tuple[Pass, ...]
    encoded: Encoded | None
    score: float | None


def measure_mode(
    embedder: Embedder,
    mode: str,
    sample: Sample,
    plan: Plan,
    make_encoder: MakeEncoder,
    speed: Speed | None,
    note: Callable[[str], None],
) -> ModeResult:
    """Measure one mode of a model.

    Args:
        note: told what is going on.
    """
    part = sample if plan.reference_items is None else sample.part(plan.reference_items)
    peers = [(wanted.partition("=")[0], open_peer(embedder, wanted)) for wanted in plan.beside]
    sides = _sides(embedder, mode, sample, part, plan, make_encoder)
    sides += [beside(name, peer, part) for name, peer in peers if peer.rank is None]
    rankers = {name: peer for name, peer in peers if peer.rank is not None}
    corpora = corpora_for(rankers, sample, embedder.info)
    note(f"{mode}: warming up")
    for side in sides:
        side.run(sample.part(WARM_UP_ITEMS))
    _warm_up_ranking()
    runs = _run_all(embedder, mode, sides, plan.repeats, note)
    ranking: tuple[RankingRatio, ...] = ()
    if corpora and (ours_first := runs[0].encoded) and isinstance(ours_first.vectors, np.ndarray):
        ranking = tuple(measure_rankers(rankers, corpora, ours_first.vectors, plan.repeats, note))
    return ModeResult(
        mode=mode,
        model_settings=dict(embedder.info.settings),
        part_items=len(part) if len(part) < len(sample) else None,
        sides=tuple(_measured(side_runs, side_runs.side.sample is sample, speed) for side_runs in runs),
        ratios=tuple(_ratios(runs, part)),
        ranking=ranking,
    )


def _sides(
    embedder: Embedder, mode: str, sample: Sample, part: Sample, plan: Plan, make_encoder: MakeEncoder
) -> list[Side]:
    encoders = {tokens: make_encoder(tokens) for tokens in plan.batch_tokens}
    sides = [ours(embedder, encoder, sample, tokens) for tokens, encoder in encoders.items()]
    if not plan.references:
        return sides
    if part is not sample:
        sides += [ours(embedder, encoder, part, tokens) for tokens, encoder in encoders.items()]
    sides.append(plain_loop(embedder, part))
    if mode in DIRECT_MODES:
        sides.append(fixed_batches(embedder, part))
    return sides


def _warm_up_ranking() -> None:
    """Load FAISS before a clock runs."""
    vectors = np.eye(8, dtype=np.float32)
    rank_corpus(vectors, vectors, [np.array([0])] * len(vectors), depth=1, cut=1)


def _run_all(
    embedder: Embedder, mode: str, sides: Sequence[Side], repeats: int, note: Callable[[str], None]
) -> list[_Runs]:
    passes: list[list[Pass]] = [[] for _ in sides]
    first: list[Outcome | None] = [None] * len(sides)
    for repeat in range(repeats):
        for turn, place in enumerate(order(len(sides), repeat)):
            side = sides[place]
            outcome, taken = _run_one(embedder, side, turn)
            passes[place].append(taken)
            first[place] = first[place] or outcome
            note(f"{mode}: repeat {repeat + 1} of {repeats}, {side.name} ({side.size}): {outcome.seconds:.2f} s")
    return [
        _Runs(side, tuple(taken), outcome.encoded, float(np.mean(outcome.scores)) if outcome.scores else None)
        for side, taken, outcome in zip(sides, passes, first, strict=True)
        if outcome is not None
    ]


def _run_one(embedder: Embedder, side: Side, turn: int) -> tuple[Outcome, Pass]:
    gc.collect()
    forget_peak()
    _device_peak(embedder)
    before = time.process_time()
    outcome = side.run(side.sample)
    cpu_seconds = time.process_time() - before
    places = side.sample.places
    of_queries = np.array([place.role == "query" for place in places])
    return outcome, Pass(
        turn=turn,
        seconds=outcome.seconds,
        cpu_seconds=cpu_seconds,
        stages=outcome.stages,
        prepare_seconds=outcome.prepare_seconds,
        written_tokens=_written(side, outcome),
        latency_seconds=_percentiles(outcome.encoded.latency_seconds[of_queries]) if outcome.encoded else {},
        work=outcome.work,
        memory=peak_memory(),
        device_memory=_device_peak(embedder),
    )


def _device_peak(embedder: Embedder) -> int | None:
    """Bytes of the accelerator since the last call; `None` where the model doesn't tell."""
    return embedder.peak_device_memory() if isinstance(embedder, MemoryEmbedder) else None


def _written(side: Side, outcome: Outcome) -> int:
    """Tokens of the rationales that were written; ours writes those of equal items once."""
    tokens = [trace.reasoning_tokens for trace in outcome.encoded.traces] if outcome.encoded else []
    if side.is_ours:
        return sum(dict(zip(side.sample.keys, tokens, strict=True)).values())
    return sum(tokens)


def _percentiles(seconds: np.ndarray) -> dict[str, float]:
    if len(seconds) == 0:
        return {}
    names = ("p50", "p95", "p99")
    return dict(zip(names, np.percentile(seconds, [50, 95, 99]).tolist(), strict=True))


def _measured(runs: _Runs, whole: bool, speed: Speed | None) -> Measured:
    side, passes = runs.side, runs.passes
    items = len(side.sample)
    encoded = len(set(side.sample.keys)) if side.is_ours else items
    worked = [(taken.work, taken.encode_seconds) for taken in passes if taken.work is not None]
    prompts = [work.prompt_tokens / seconds for work, seconds in worked if work.prompt_tokens]
    prepared = [taken.prepare_seconds for taken in passes if taken.prepare_seconds is not None]
    return Measured(
        side=side.name,
        sample="whole" if whole else "part",
        batch_tokens=side.batch_tokens,
        batch_items=side.batch_items,
        settings=side.settings,
        items=items,
        encoded=encoded,
        score=runs.score,
        seconds=Spread.of([taken.seconds for taken in passes]),
        cpu_seconds=float(np.median([taken.cpu_seconds for taken in passes])),
        items_per_second=Spread.of([items / taken.seconds for taken in passes]),
        encoded_per_second=Spread.of([encoded / taken.encode_seconds for taken in passes]),
        prompt_tokens_per_second=Spread.of(prompts) if prompts else None,
        written_tokens_per_second=Spread.of([taken.written_tokens / taken.encode_seconds for taken in passes]),
        stages=_medians([taken.stages for taken in passes]),
        prepare_seconds=float(np.median(prepared)) if prepared else None,
        latency_seconds=_medians([taken.latency_seconds for taken in passes]),
        efficiency=efficiency_of(passes, speed),
        memory=max((taken.memory for taken in passes if taken.memory is not None), default=None),
        device_memory=max((taken.device_memory for taken in passes if taken.device_memory is not None), default=None),
        passes=passes,
    )


def _medians(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in each for name in values)
    return {name: float(np.median([values.get(name, 0.0) for values in each])) for name in names}


def _ratios(runs: Sequence[_Runs], part: Sample) -> list[Ratio]:
    return [
        Ratio(
            reference=reference.side.name,
            batch_tokens=own.side.batch_tokens,
            times=Spread.of(
                [theirs.seconds / mine.seconds for mine, theirs in zip(own.passes, reference.passes, strict=True)]
            ),
            score_difference=_difference(own.score, reference.score),
            agreement=compare_encoded(own.encoded, reference.encoded) if own.encoded and reference.encoded else None,
        )
        for reference in runs
        if not reference.side.is_ours
        for own in runs
        if own.side.batch_tokens is not None and own.side.sample is part
    ]


def _difference(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else theirs - ours
