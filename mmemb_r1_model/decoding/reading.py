"""Batches read side by side, where cores would otherwise wait for each other within one.

A pass over a batch is some thousand small operations, and on a CPU its threads meet after each of them. Two passes with
half of the threads each take less time than one after the other with all. Large ones don't, and would take twice the
memory: each of them is read alone. Which those are depends on the batches, not on how many cores there are. Of a long
batch each turn reads one piece, however long that takes: what runs beside what depends on the batches alone.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar

import torch

from mmemb_r1_model.decoding.pieces import Pieces

BatchT = TypeVar("BatchT")
OpenedT = TypeVar("OpenedT")

#: More would each hold a batch in memory and gain little.
CPU_READERS = 2
#: Positions, padding included, of a batch that is read alone.
LARGE = 12_288
#: A piece was read, and not the last of its batch.
UNFINISHED: Final = "unfinished"
#: An opened batch, and when its reading began; `None` after the last.
Read: TypeAlias = tuple[OpenedT, float] | Literal["unfinished"] | None


def reader_count(device: torch.device) -> int:
    """How many batches to read at once; on a GPU a batch has the device for itself."""
    return min(CPU_READERS, torch.get_num_threads()) if device.type == "cpu" else 1


@dataclass
class _UnderWay(Generic[OpenedT]):
    """A batch that isn't handed out yet."""

    pieces: Pieces[OpenedT]
    started: float
    is_large: bool
    turn: Future[Read[OpenedT]] | None = None

    def is_unfinished(self) -> bool:
        """Whether its turn was not its last; waits for it."""
        return self.turn is not None and self.turn.exception() is None and self.turn.result() is UNFINISHED

    def read(self) -> Read[OpenedT]:
        """Read a piece of it."""
        try:
            next(self.pieces)
        except StopIteration as end:
            return end.value, self.started
        return UNFINISHED


class Reading(Generic[BatchT, OpenedT]):
    """Opens batches, in order; with several readers, the next ones while the caller looks at the last."""

    def __init__(
        self,
        batches: Iterator[BatchT],
        open_batch: Callable[[BatchT], Pieces[OpenedT]],
        positions_of: Callable[[BatchT], int],
        readers: int,
    ) -> None:
        self._batches, self._open_batch, self._positions_of, self._readers = batches, open_batch, positions_of, readers
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="read") if readers > 1 else None
        self._under_way: deque[_UnderWay[OpenedT]] = deque()
        #: A large batch that waits until nothing else is read.
        self._held: BatchT | None = None

    def next(self) -> Read[OpenedT]:
        """Read a piece of each batch that is under way; the first of them, if that was its last."""
        self._admit()
        if not self._under_way:
            return None
        first = self._under_way[0]
        if self._pool is None or (len(self._under_way) == 1 and first.turn is None):
            if self._pool is not None:
                torch.set_num_threads(self._threads)
            read = first.read()
        else:
            read = self._take_turns(self._pool)
        if read is not UNFINISHED:
            self._under_way.popleft()
        return read

    def pause(self) -> None:
        """Wait until nobody reads: the caller is going to use the model in another way."""
        if self._pool is not None:
            wait([begun.turn for begun in self._under_way if begun.turn is not None])
            torch.set_num_threads(self._threads)  # readers have changed what holds for all

    def close(self) -> None:
        """Give up what is under way."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    def _admit(self) -> None:
        """Take up what may be read beside what is under way."""
        while len(self._under_way) < self._readers and not any(begun.is_large for begun in self._under_way):
            batch = next(self._batches, None) if self._held is None else self._held
            if batch is None:
                return
            is_large = self._positions_of(batch) >= LARGE
            if is_large and self._under_way:
                self._held = batch
                return
            self._held = None
            self._under_way.append(_UnderWay(self._open_batch(batch), time.perf_counter(), is_large))

    def _take_turns(self, pool: ThreadPoolExecutor) -> Read[OpenedT]:
        """A turn for each batch that isn't read; the first one's outcome. Those of the last turn are waited for."""
        earlier = [begun for begun in self._under_way if begun.turn is not None]
        fresh = [begun for begun in self._under_way if begun.turn is None]
        # Fresh ones run while an earlier one is waited for: whether it has more to read is known when its turn ends.
        for begun in itertools.chain(fresh, filter(_UnderWay.is_unfinished, earlier)):
            begun.turn = pool.submit(self._read_in_thread, begun)
        first = self._under_way[0].turn
        assert first is not None
        return first.result()

    def _read_in_thread(self, begun: _UnderWay[OpenedT]) -> Read[OpenedT]:
        torch.set_num_threads(max(1, self._threads // self._readers))
        with torch.inference_mode():  # which is each thread's own
            return begun.read()
