"""Batches prepared ahead of the accelerator, by a thread of this process; `supervisor` has processes for it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Self

from mmeb_harness.core.embedder import BudgetedEmbedder
from mmeb_harness.core.items import Item, Role, described
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.encode.local import Unprepared


class InlinePreparation:
    """A thread of this process, one batch ahead."""

    def __init__(self, embedder: BudgetedEmbedder) -> None:
        self._embedder, self._model = embedder, embedder.info.name
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End as `Preparation` promises; a batch that is just being prepared is finished."""
        self._pool.shutdown(cancel_futures=True)

    def run(self, batches: Iterable[Unprepared]) -> Iterator[tuple[Any, float]]:
        """Prepare batches as `Preparation` promises."""
        source = iter(batches)
        ahead: deque[Future[tuple[Any, float]]] = deque()
        try:
            while True:
                for items, role, _ in itertools.islice(source, 2 - len(ahead)):
                    ahead.append(self._pool.submit(self._prepare, items, role))
                if not ahead:
                    return
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _prepare(self, items: Sequence[Item], role: Role) -> tuple[Any, float]:
        started = time.perf_counter()
        with preparing(self._model, items, role):
            prepared = self._embedder.prepare(items, role)
        return prepared, time.perf_counter() - started


def preparing(model: str, items: Sequence[Item], role: Role) -> AbstractContextManager[None]:
    """Inside, a model prepares a batch; what goes wrong in its code names the items."""
    return plugin_code(f"model {model!r}", lambda: f" while it prepared {described(items, role)}")
