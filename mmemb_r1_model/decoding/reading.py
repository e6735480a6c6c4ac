"""Batches read side by side, where cores would otherwise wait for each other within one.

A pass over a batch is some thousand small operations, and on a CPU its threads meet after each of them. Two passes with
half of the threads each take less time than one after the other with all; and what comes out no longer depends on how
many cores there are.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import torch

BatchT = TypeVar("BatchT")
OpenedT = TypeVar("OpenedT")

#: More would each hold a batch in memory and gain little.
CPU_READERS = 2


def reader_count(device: torch.device) -> int:
    """How many batches to read at once; on a GPU a batch has the device for itself."""
    return min(CPU_READERS, torch.get_num_threads()) if device.type == "cpu" else 1


class Reading(Generic[BatchT, OpenedT]):
    """Opens batches, in order; with several readers, the next ones while the caller looks at the last."""

    def __init__(self, batches: Iterator[BatchT], open_batch: Callable[[BatchT], OpenedT], readers: int) -> None:
        self._batches, self._open_batch, self._readers = batches, open_batch, readers
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="read") if readers > 1 else None
        self._under_way: deque[Future[tuple[OpenedT, float]]] = deque()

    def next(self) -> tuple[OpenedT, float] | None:
        """An opened batch, and when its reading began; `None` after the last."""
        if self._pool is None:
            batch = next(self._batches, None)
            return None if batch is None else self._open(batch)
        waiting = list(itertools.islice(self._batches, self._readers - len(self._under_way)))
        if len(waiting) == 1 and not self._under_way:
            return self._open(waiting[0])  # alone: with all threads
        self._under_way += [self._pool.submit(self._open_in_thread, batch) for batch in waiting]
        del waiting
        return self._under_way.popleft().result() if self._under_way else None

    def pause(self) -> None:
        """Wait until nobody reads: the caller is going to use the model in another way."""
        if self._pool is not None:
            wait(self._under_way)
            torch.set_num_threads(self._threads)  # readers have changed what holds for all

    def close(self) -> None:
        """Give up what is under way."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def _open(self, batch: BatchT) -> tuple[OpenedT, float]:
        started = time.perf_counter()
        return self._open_batch(batch), started

    def _open_in_thread(self, batch: BatchT) -> tuple[OpenedT, float]:
        torch.set_num_threads(max(1, self._threads // self._readers))
        with torch.inference_mode():  # which is each thread's own
            return self._open(batch)
