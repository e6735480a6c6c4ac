"""Workers on the CPU that encode whole batches give what one process gives, and times that mean the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, Role, Trace, Work
from mmeb_harness.core.environment import available_cpus
from mmeb_harness.encode.chunks import plan_chunks
from mmeb_harness.encode.local import Finished, LocalEncoder
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.encode.supervisor import WorkerPreparation
from mmeb_harness.encode.whole_workers import EncodedElsewhere, encoding_parts, workers_for
from mmeb_harness.store.vectors import VectorStore
from tests.harness.encode.test_local import BudgetedHash
from tests.toy import HashEmbedder


class Counting(BudgetedHash):
    """Says what it did."""

    def encode_prepared(self, prepared: Any) -> EncodeResult:
        result = super().encode_prepared(prepared)
        traces = tuple(Trace(seconds=0.25) for _ in prepared[0])
        return EncodeResult(result.vectors, traces, Work({"prefill": 1.0}, prompt_tokens=len(traces)))


@dataclass(frozen=True)
class Recipe:
    def load(self) -> Counting:
        return Counting()


def encoded(embedder: BudgetedHash, workers: int, folder: Path) -> tuple[VectorStore, LocalEncoder, list[str]]:
    keyed = [(f"key {n}", Item(str(n), text="x" * (20 + n % 7))) for n in range(60)]
    chunks = plan_chunks(embedder, keyed, "query", 100)
    encoding, preparation = encoding_parts(embedder, Recipe(), workers, lambda _: None)
    assert preparation is not None
    store = VectorStore(folder)
    with preparation:
        encoder = LocalEncoder(encoding, preparation, 100)
        encoder.encode(chunks, store)
    return store, encoder, [key for key, _ in keyed]


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    alone, local, keys = encoded(Counting(), 0, tmp_path / "one")
    shared, remote, _ = encoded(Counting(), 2, tmp_path / "two")
    assert np.array_equal(alone.get(keys).vectors, shared.get(keys).vectors)
    assert local.usage.work.prompt_tokens == remote.usage.work.prompt_tokens == 60
    # Each of two workers has half of the processor.
    assert remote.usage.work.seconds["prefill"] == pytest.approx(local.usage.work.seconds["prefill"] / 2)
    assert remote.usage.wait_seconds == 0
    latency = shared.get(keys).latency_seconds
    assert ((latency >= 0.25) & (latency < 0.75)).all()  # the trace's own, and what preparing took


def test_without_workers_or_without_a_recipe_this_process_prepares() -> None:
    embedder = BudgetedHash()
    for spec, workers in ((None, 2), (Recipe(), 0)):
        encoding, preparation = encoding_parts(embedder, spec, workers, lambda _: None)
        assert encoding is embedder
        assert isinstance(preparation, InlinePreparation)
    assert encoding_parts(HashEmbedder(), Recipe(), 2, lambda _: None)[1] is None


def on_accelerator() -> BudgetedHash:
    embedder = BudgetedHash()
    embedder.info = type(embedder.info)("hash", "1", embedder.info.dimensions, {"device": "cuda"})
    return embedder


def test_with_an_accelerator_workers_only_prepare() -> None:
    embedder = on_accelerator()
    encoding, preparation = encoding_parts(embedder, Recipe(), 2, lambda _: None)
    assert encoding is embedder
    assert isinstance(preparation, WorkerPreparation)


def test_a_trace_without_seconds_gets_those_of_its_batch() -> None:
    class Untimed(BudgetedHash):
        def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
            return EncodeResult(super().encode(items, role).vectors)

    embedder = Untimed()
    result = embedder.encode([Item("a", text="a")], "query")
    with WorkerPreparation(Recipe(), 1) as preparation:
        passed = EncodedElsewhere(embedder, preparation, 1).encode_prepared(Finished(result, 0.5))
    assert passed.traces is not None
    assert passed.traces[0].seconds == 0.5


def test_no_workers_where_they_would_compete_with_the_model() -> None:
    assert workers_for(BudgetedHash()) == 0
    assert workers_for(on_accelerator()) == min(8, available_cpus() - 1)
    assert workers_for(on_accelerator(), processes=available_cpus()) == 0
