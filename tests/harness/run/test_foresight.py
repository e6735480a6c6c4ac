"""The time left follows from the cost of what is left; start-up and what is stored don't count."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from mmeb_harness.core.embedder import Encoded, Trace
from mmeb_harness.core.items import Item, Role, Samples
from mmeb_harness.encode.chunks import Batch, Chunk
from mmeb_harness.encode.windows import ReadTask, Window
from mmeb_harness.run.foresight import Foresight
from mmeb_harness.run.read import Reading
from tests.toy import HashEmbedder, toy_task


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Store:
    def __contains__(self, key: str) -> bool:
        return False

    def check_writable(self) -> None: ...
    def flush(self) -> None: ...
    def refresh(self) -> None: ...

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role = "query") -> None:
        assert len(keys) == len(encoded.share_seconds)


def samples(name: str, texts: int) -> Samples:
    queries = tuple(Item(f"q{n}", f"{name} {n}") for n in range(texts))
    return Samples(queries, (Item("c", "same for all"),), {query.id: {"c": 1.0} for query in queries})


def played(trace: Trace, ranking: float = 0.1, between: float = 0.0) -> tuple[list[float], list[str]]:
    """Two tasks of 100 texts at 2 s each, after a minute of loading; the second in a window of its own.

    Args:
        ranking, between: seconds that ranking a task takes, and whatever comes before the next one is encoded.
    """
    clock = Clock()
    told: list[float] = []
    notes: list[str] = []
    foresight = Foresight(HashEmbedder(), told.append, notes.append, clock)
    read = [samples("one", 100), samples("two", 100)]
    tasks = [toy_task("one"), toy_task("two")]
    foresight.expect([Reading(task, each) for task, each in zip(tasks, read, strict=True)])
    for task, each in zip(tasks, read, strict=True):
        keys = [item.text for item in each.queries]
        batches = [
            Batch(tuple(zip(keys, each.queries, strict=True))[start : start + 10], 10) for start in range(0, 100, 10)
        ]
        window = Window((ReadTask(task, each, keys, ["same"]),), (Chunk("query", tuple(batches)),))
        sink = foresight.begin(window, window.chunks, Store())
        if not told:
            clock.now += 60  # weights are loaded
        for batch in batches:
            clock.now += 20
            seconds = np.full(10, 2.0)
            sink.add(batch.keys, Encoded(np.ones((10, 1), np.float32), (trace,) * 10, seconds, seconds), "query")
        foresight.end()
        clock.now += ranking
        foresight.ranked(ranking)
        clock.now += between
    return told, notes


def test_the_time_left_is_what_is_left() -> None:
    told, _ = played(Trace())
    assert told[0] == pytest.approx(2.0 * 180, rel=0.01)
    assert len(told) == 21
    assert all(one >= other - 1e-6 for one, other in itertools.pairwise(told))
    assert told[-1] == 0.0


def test_ranking_and_what_lies_between_windows_count_once() -> None:
    ranked, paused = (played(Trace(), **slow)[0] for slow in ({"ranking": 30.0}, {"between": 100.0}))
    assert ranked[8] == pytest.approx(200.0, rel=0.01)  # nothing is known of a ranking yet
    assert ranked[9] == pytest.approx(200.0 + 29.5)
    assert ranked[10] == pytest.approx(180.0 + 29.5)
    assert paused[10] == pytest.approx(180.0 * (200 + 100) / 200, rel=0.01)


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (Trace("reasoned", 1.0, "a b", 2, truncated=True), 1),
        (Trace("reasoned", 1.0, "a b", 2), 0),
        (Trace(), 0),
    ],
)
def test_rationales_that_are_all_cut_are_told_of_once(trace: Trace, said: int) -> None:
    notes = played(trace)[1]
    assert len(notes) == said
    assert all("none of 50 rationales ended by itself" in note for note in notes)
