"""A process that makes its own embedder and prepares batches: its life, and the handle by which others hold it.

It ends with the process that started it, however that ends, and takes no notice of Ctrl-C.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, cast

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder
from mmeb_harness.core.errors import ModelError
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.items import Item, Role
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.core.threads import in_background
from mmeb_harness.encode.prepare import preparing
from mmeb_harness.encode.transport import Announcement, Block, nameless_file, receive, send, write

#: Of a worker, before it makes its embedder: no GPU; and of the hub what this process found there, though it may have
#: moved on since.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
#: How many threads libraries start.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
#: Added to a worker's claim to be killed when memory runs out (-1000 to 1000).
OOM_SCORE = 500


class Recipe(Protocol):
    """Makes an embedder; picklable. A `ModelSpec` is one."""

    def load(self) -> Embedder:
        """The embedder, of which a worker needs `prepare` alone."""
        ...


def on_cpu(spec: Recipe) -> Recipe:
    """The same recipe without the device that was asked for: a worker sees none but the CPU."""
    if not isinstance(spec, ModelSpec):
        return spec
    args = {**spec.args, "device": "cpu"} if "device" in spec.args else spec.args
    options = {**spec.options, "device": "cpu"} if spec.options.get("device") is not None else spec.options
    return dataclasses.replace(spec, args=args, options=options)


@dataclass(frozen=True)
class Ready:
    """What a worker sends once it has its embedder."""


@dataclass(frozen=True)
class Worker:
    """A worker, as the process that started it holds it."""

    process: BaseProcess
    connection: Connection

    @classmethod
    def start(cls, recipe: bytes, threads: int) -> Worker:
        """Start a process, which isn't ready yet.

        Args:
            recipe: pickled.

        Raises:
            ModelError: the system has no room for it.
        """
        context = multiprocessing.get_context("spawn")  # a fork of a process that uses CUDA can't use it
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, recipe, threads), name="prepare", daemon=True)
        try:
            _start_deaf(process)
        except OSError as error:
            raise ModelError(f"a preparation worker can't be started: {error}; use fewer --workers") from error
        there.close()  # the worker has its own: once it is gone, `here` comes to its end
        return cls(process, here)

    def ask(self, items: Sequence[Item], role: Role) -> None:
        """Let it prepare a batch.

        Raises:
            OSError: it is dead.
        """
        self.connection.send((items, role))

    def hear(self) -> Block | Failure | Ready:
        """Wait for its next word.

        Raises:
            EOFError, OSError: it is dead.
        """
        word: Announcement | Failure | Ready = self.connection.recv()
        return receive(self.connection, word) if isinstance(word, Announcement) else word

    def kill(self) -> None:
        """End it, whatever it is at: nothing that others use can be left half done."""
        self.process.kill()
        self.process.join()

    def cause_of_death(self) -> str:
        """Why the process ended whose pipe has come to its end."""
        self.process.join(1.0)  # which happens a little before the process is gone
        self.kill()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        return f"signal {-code}{': out of memory?' if -code == signal.SIGKILL else ''}"


def _start_deaf(process: BaseProcess) -> None:
    """Start a process to which Ctrl-C never comes: signals that are blocked here stay blocked there."""
    resource_tracker.ensure_running()  # or `start` would start it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection, recipe: bytes, threads: int) -> None:
    """The life of a worker, in its own process."""
    os.environ.update(ENVIRONMENT | dict.fromkeys(THREADS, str(threads)))
    _stand_in_for_parent()
    in_background(_end_with_parent)
    # The pipe breaks when the parent is gone.
    with contextlib.suppress(EOFError, OSError):
        try:
            embedder = cast(BudgetedEmbedder, pickle.loads(recipe).load())
            model = embedder.info.name
            _keep_torch_to(threads)
        except Exception as error:
            pipe.send(Failure.of(error))
            return
        pipe.send(Ready())
        while True:
            _answer(pipe, embedder, model, *pipe.recv())


def _answer(pipe: Connection, embedder: BudgetedEmbedder, model: str, items: Sequence[Item], role: Role) -> None:
    started = time.perf_counter()
    with nameless_file() as file:
        try:
            with preparing(model, items, role):
                lengths = write(file, embedder.prepare(items, role))
        except Exception as error:
            pipe.send(Failure.of(error))
            return
        send(pipe, file, Announcement(lengths, time.perf_counter() - started))


def _end_with_parent() -> None:
    """However the parent ends, and whatever this process is at."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _stand_in_for_parent() -> None:
    """When memory runs out the system kills a worker, which can be replaced, rather than the run."""
    with contextlib.suppress(OSError):  # there is no such file but on Linux
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _keep_torch_to(threads: int) -> None:
    """For a torch that was imported before the environment was set, by the main module."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
