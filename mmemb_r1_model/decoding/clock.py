"""Seconds on the accelerator, by stage."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import torch

from mmemb_r1_model.decoding.pieces import Pieces, ResultT
from mmemb_r1_model.decoding.place import on_gpu


class StageClock:
    """Adds up what stages take: by CUDA events on a GPU, which wait for nothing, by the wall clock elsewhere.

    Args:
        readers: threads of a CPU that share it for stages of reading; each of them has so much less of it.
    """

    def __init__(self, device: torch.device, readers: int = 1) -> None:
        self._on_gpu = on_gpu(device)
        self._readers, self._lock = readers, threading.Lock()
        self._seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def stage(self, name: str, reading: bool = True) -> Iterator[None]:
        """Time what is started inside. Stages must not be nested; those of reading may run in several threads."""
        if self._on_gpu:
            start, end = (
                torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
                for _ in range(2)
            )
            start.record()
            yield
            end.record()
            self._events.append((name, start, end))
        else:
            started = time.perf_counter()
            yield
            seconds = (time.perf_counter() - started) / (self._readers if reading else 1)
            with self._lock:
                self._seconds[name] += seconds

    def stages(self, name: str, pieces: Pieces[ResultT]) -> Pieces[ResultT]:
        """The same work, each of its pieces timed."""
        while True:
            with self.stage(name):
                try:
                    next(pieces)
                except StopIteration as end:
                    result: ResultT = end.value
                    return result
            yield

    def take(self) -> dict[str, float]:
        """Seconds by stage since the last call. On a GPU it waits for the last stage's end."""
        for name, start, end in self._events:
            end.synchronize()
            self._seconds[name] += start.elapsed_time(end) / 1000
        self._events.clear()
        with self._lock:
            taken = dict(self._seconds)
            self._seconds.clear()
        return taken
