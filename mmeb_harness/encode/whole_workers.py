"""A model on the CPU in several processes, each of which prepares and encodes whole batches.

A small model's passes are thousands of small operations, for which threads of one process wait for each other;
processes don't. They are the workers of `supervisor`, with all that is done there about deaths and delays, only that
what they prepare is the result.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import (
    BudgetedEmbedder,
    Embedder,
    EncodeResult,
    ModelInfo,
    Trace,
    WarmableEmbedder,
    infos_of,
)
from mmeb_harness.core.items import Item, Role
from mmeb_harness.encode.local import Finished, Preparation
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.encode.supervisor import WorkerPreparation
from mmeb_harness.encode.worker import Recipe

MAX_WORKERS = 8


@dataclass(frozen=True)
class WholeRecipe:
    """Makes the model of which a worker does everything."""

    recipe: Recipe

    def load(self) -> Embedder:
        """Its `prepare` encodes as well."""
        return cast(Embedder, _Whole(cast(BudgetedEmbedder, self.recipe.load())))


class _Whole:
    """The model in a worker."""

    def __init__(self, embedder: BudgetedEmbedder) -> None:
        self._embedder, self.info = embedder, embedder.info
        self._is_warm = False

    def prepare(self, items: Sequence[Item], role: Role) -> Finished:
        if not self._is_warm and isinstance(self._embedder, WarmableEmbedder):
            self._embedder.warm_up()
        self._is_warm = True
        prepared = self._embedder.prepare(items, role)
        started = time.perf_counter()
        result = self._embedder.encode_prepared(prepared)
        return Finished(result, time.perf_counter() - started)


class EncodedElsewhere:
    """In the run's own process: takes what workers have encoded. The model itself loads no weights here."""

    def __init__(self, embedder: BudgetedEmbedder, preparation: WorkerPreparation, workers: int) -> None:
        self._embedder, self._preparation, self._workers = embedder, preparation, workers

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""
        return self._embedder.info

    @property
    def infos(self) -> tuple[ModelInfo, ...]:
        """The same in each of its modes."""
        return infos_of(self._embedder)

    def in_modes(self, modes: Sequence[str]) -> None:
        """None but those that its workers have."""

    def warm_up(self) -> None:
        """Start the workers, each with its weights."""
        batches: list[tuple[Sequence[Item], Role, int]] = [([Item("warm-up", text="warm-up")], "query", 1)]
        for _ in self._preparation.run(batches * self._workers):
            pass

    def cost(self, item: Item, role: Role) -> int:
        """What an item costs the model."""
        return self._embedder.cost(item, role)

    def prepare(self, items: Sequence[Item], role: Role) -> Finished:
        """Encode here what a worker would have encoded."""
        return Finished(self._embedder.encode(items, role), 0.0)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Encode with the model of this process."""
        return self._embedder.encode(items, role)

    def encode_prepared(self, prepared: Finished) -> EncodeResult:
        """What a worker has encoded, in the terms of a run in one process."""
        result = prepared.result
        if not isinstance(result, EncodeResult):  # is refused where every result is looked at
            return result
        work = result.work
        if work is not None:  # a worker has its part of the processor
            parts = {stage: part / self._workers for stage, part in work.seconds.items()}
            work = dataclasses.replace(work, seconds=parts)
        return dataclasses.replace(_with_seconds(result, prepared.encode_seconds), work=work)


def _with_seconds(result: EncodeResult, seconds: float) -> EncodeResult:
    """The same; traces that say no seconds of their own have these."""
    traces = tuple(
        dataclasses.replace(trace, seconds=seconds) if trace.seconds is None else trace
        for trace in result.traces or (Trace(),) * len(result.vectors)
    )
    others = tuple(_with_seconds(other, seconds) for other in result.others)
    return dataclasses.replace(result, traces=traces, others=others)


def encoding_parts(
    embedder: Embedder, spec: Recipe | None, workers: int | None, note: Callable[[str], None], processes: int = 1
) -> tuple[Embedder, Preparation | None]:
    """Who encodes and who prepares: with workers and an accelerator they prepare, on the CPU they do both.

    Args:
        spec: how the model is made; `None`: nobody knows, and there are no workers.
        workers: 0: a thread of this process prepares; `None`: as many as suit a machine on which `processes` encode.

    Returns:
        No preparation for a model that doesn't prepare.
    """
    if not isinstance(embedder, BudgetedEmbedder):
        return embedder, None
    if workers is None:
        workers = workers_for(embedder, processes)
    if spec is None or not workers:
        return embedder, InlinePreparation(embedder)
    if not _runs_on_cpu(embedder):
        return embedder, WorkerPreparation(spec, workers, note=note)
    threads = max(1, environment.available_cpus() // workers)
    preparation = WorkerPreparation(WholeRecipe(spec), workers, threads=threads, note=note)
    return EncodedElsewhere(embedder, preparation, workers), preparation


def workers_for(embedder: Embedder, processes: int = 1) -> int:
    """How many workers a model should have; 0: a thread, since one on the CPU wants the cores for itself.

    Args:
        processes: that want some, on this machine.
    """
    own_cpus = max(1, environment.available_cpus() // processes)
    prepares = isinstance(embedder, BudgetedEmbedder)
    return 0 if not prepares or _runs_on_cpu(embedder) else min(MAX_WORKERS, own_cpus - 1)


def _runs_on_cpu(embedder: Embedder) -> bool:
    """Whether a model says so; one that doesn't say needs no accelerator."""
    return str(embedder.info.settings.get("device", "cpu")) == "cpu"
