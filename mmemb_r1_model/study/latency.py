"""How long one query takes, alone and in batches, in each mode: measured in turns, so that noise falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmeb_harness import MODES, Frames, Item, Mode
from mmemb_r1_model.data.suite import find_tasks
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load

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
    measured = {}
    for task in find_tasks():
        if task.name in tasks:
            queries = task.load(data, Frames()).queries[:count]
            alone = _seconds(embedders, [[query] for query in queries])
            batches = [queries[start : start + BATCH] for start in range(0, len(queries), BATCH)]
            totals = {mode: sum(values) for mode, values in _seconds(embedders, batches).items()}
            measured[task.name] = {
                "seconds": {mode: [round(value, 6) for value in values] for mode, values in alone.items()},
                "items_per_second": {mode: round(len(queries) / total, 2) for mode, total in totals.items()},
            }
    return measured


def _seconds(embedders: dict[Mode, MMEmbR1Embedder], calls: Sequence[Sequence[Item]]) -> dict[Mode, list[float]]:
    """Mode → what each call took. Each mode comes first, second and last equally often."""
    seconds: dict[Mode, list[float]] = {mode: [] for mode in MODES}
    for place, queries in enumerate(calls):
        shift = place % len(MODES)
        for mode in MODES[shift:] + MODES[:shift]:
            began = time.perf_counter()
            embedders[mode].encode(queries, "query")
            seconds[mode].append(time.perf_counter() - began)
    return seconds
