"""How long one query takes, alone and in batches, in each mode: measured in turns, so that noise falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness import Frames, Item
from mmeb_harness.stats.policies import MODES, Mode
from mmemb_r1_model.data.suite import find_tasks
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load

if TYPE_CHECKING:
    from mmeb_harness import Task

#: Queries of one call where throughput is measured.
BATCH = 64


def measure_latency(model: Path, data: Path, tasks: Sequence[str], count: int) -> dict[str, Any]:
    """Time the first `count` queries of each task, on this machine as it is.

    Returns:
        task → {"seconds": mode → a list, one value a query that was embedded alone, in the order of the split;
        "items_per_second": mode → in batches of 64}; decoding, resizing and tokenising included.
    """
    embedders = {mode: load(path=str(model), reasoning=mode) for mode in MODES}
    for embedder in embedders.values():
        embedder.warm_up()
    return {task.name: _measure(embedders, task, data, count) for task in find_tasks() if task.name in tasks}


def _measure(embedders: dict[Mode, MMEmbR1Embedder], task: Task, data: Path, count: int) -> dict[str, Any]:
    queries = task.load(data, Frames()).queries[:count]
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    for place, query in enumerate(queries):
        for mode in _turn(place):
            seconds[mode].append(_time(embedders[mode], [query]))
    total = dict.fromkeys(MODES, 0.0)
    for place, start in enumerate(range(0, len(queries), BATCH)):
        for mode in _turn(place):
            total[mode] += _time(embedders[mode], queries[start : start + BATCH])
    return {
        "seconds": {mode: [round(value, 6) for value in values] for mode, values in seconds.items()},
        "items_per_second": {mode: round(len(queries) / total[mode], 2) for mode in MODES},
    }


def _turn(place: int) -> tuple[Mode, ...]:
    """Each mode comes first, second and last equally often."""
    shift = place % len(MODES)
    return MODES[shift:] + MODES[:shift]


def _time(embedder: MMEmbR1Embedder, queries: Sequence[Item]) -> float:
    began = time.perf_counter()
    embedder.encode(queries, "query")
    return time.perf_counter() - began
