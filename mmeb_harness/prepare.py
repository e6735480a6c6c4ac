"""Batches prepared ahead of the accelerator."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from mmeb_harness.types import BudgetedEmbedder, Item, Role


class Preparation(Protocol):
    """Who prepares."""

    def run(self, batches: Iterable[tuple[Sequence[Item], Role, int]]) -> Iterator[tuple[Any, float]]:
        """Prepared batches in order, with the seconds that preparing each took."""
        ...


class InlinePreparation:
    """A thread of this process, one batch ahead."""

    def __init__(self, embedder: BudgetedEmbedder) -> None:
        self._embedder = embedder

    def run(self, batches: Iterable[tuple[Sequence[Item], Role, int]]) -> Iterator[tuple[Any, float]]:
        """As the protocol says."""

        def prepare(items: Sequence[Item], role: Role) -> tuple[Any, float]:
            started = time.perf_counter()
            return self._embedder.prepare(items, role), time.perf_counter() - started

        waiting = iter(batches)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
            first = next(waiting, None)
            ahead = pool.submit(prepare, first[0], first[1]) if first else None
            while ahead is not None:
                done = ahead.result()
                following = next(waiting, None)
                ahead = pool.submit(prepare, following[0], following[1]) if following else None
                yield done
                del done
