"""Batches prepared ahead of the accelerator: by a thread of this process, or by processes of their own.

A worker process makes its own embedder and calls `prepare`. What comes of it goes into memory without a name (a memfd)
that the worker hands over by its descriptor: nothing is copied through a pipe, the size of /dev/shm (64 MB in many
containers) is no limit, and the system takes the memory back whoever is killed, and when. The arrays that a consumer
gets are views of it; it is freed with the last of them. Where the system has no memfd it is a file without a name in
the temporary folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import mmap
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import connection, reduction, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any, Protocol, Self, cast

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder
from mmeb_harness.core.errors import ModelError, shortened
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.items import Item, Role
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.local import Unprepared

MAX_WORKERS = 8
#: So often a batch may take its worker along, or may its worker be late, before it is given up.
MAX_DEATHS, MAX_DELAYS = 3, 2
#: So many workers in a row may die before they are ready, and each has so long.
MAX_FAILED_STARTS, START_SECONDS = 3, 600.0
#: Batches in flight beyond one a worker.
SPARE_BATCHES = 2
#: Arrays start at multiples of so many bytes.
ALIGNMENT = 64
#: Of a worker, before it makes its embedder: no GPU; and of the hub what this process found there, though it may have
#: moved on since.
ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
#: How many threads libraries start.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
#: Added to a worker's claim to be killed when memory runs out (-1000 to 1000).
OOM_SCORE = 500


class InlinePreparation:
    """A thread of this process, one batch ahead."""

    def __init__(self, embedder: BudgetedEmbedder) -> None:
        self._embedder = embedder
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, batches: Iterable[Unprepared]) -> Iterator[tuple[Any, float]]:
        """See `Preparation`."""
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

    def close(self) -> None:
        """See `Preparation`; a batch that is just being prepared is finished."""
        self._pool.shutdown(cancel_futures=True)

    def _prepare(self, items: Sequence[Item], role: Role) -> tuple[Any, float]:
        started = time.perf_counter()
        return self._embedder.prepare(items, role), time.perf_counter() - started


class Recipe(Protocol):
    """Makes an embedder; picklable. A `ModelSpec` is one."""

    def load(self) -> Embedder:
        """The embedder, of which a worker needs `prepare` alone."""
        ...


class WorkerPreparation:
    """Processes of their own, started when there is work for them, and kept between runs.

    They end with this process, however it ends, and take no notice of Ctrl-C: what becomes of a run is decided here.
    For one thread at a time; only `close` may come from another one.
    """

    def __init__(
        self,
        spec: Recipe,
        workers: int,
        *,
        seconds: float = 600,
        look_ahead_bytes: int = 1 << 30,
        threads: int = 1,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            spec: how each worker makes its embedder.
            workers: how many at most.
            seconds: a worker that takes longer over a batch hangs.
            look_ahead_bytes: of prepared batches that wait for the consumer, estimated by what batches of their kind
                had a token; one batch is always prepared ahead.
            threads: of each worker.
            note: told of workers that were lost, and what follows.
        """
        if workers < 1:
            raise ValueError(f"{workers} workers prepare nothing; InlinePreparation does without")
        self._recipe, self._threads = pickle.dumps(on_cpu(spec)), threads
        self._limit, self._seconds, self._look_ahead, self._note = workers, seconds, look_ahead_bytes, note
        self._workers: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._token_bytes: dict[str, float] = {}
        self._failed_starts = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, batches: Iterable[Unprepared]) -> Iterator[tuple[Any, float]]:
        """See `Preparation`.

        Raises:
            ModelError: workers die or hang, again and again, on one batch, or before they are ready. What the embedder
                raises comes as it is, with the worker's traceback in a note unless it is a HarnessError.
        """
        jobs = map(_Job.of, batches)
        ahead: deque[_Job] = deque()
        coming = next(jobs, None)
        try:
            while True:
                coming = self._fill(ahead, coming, jobs)
                if not ahead:
                    return
                if ahead[0].answer is None:
                    self._serve()
                    continue
                done = ahead.popleft()
                coming = self._fill(ahead, coming, jobs)  # before the consumer turns to this one
                yield done.take()
        finally:
            for job in ahead:
                job.wanted = False
            self._waiting = deque(job for job in self._waiting if job.wanted)

    def close(self) -> None:
        """See `Preparation`."""
        self._closed = True
        while self._workers:
            self._workers.pop().kill()

    def _fill(self, ahead: deque[_Job], coming: _Job | None, jobs: Iterator[_Job]) -> _Job | None:
        """Give the workers what there is room for. Returns the first batch there is none for."""
        while coming is not None and self._has_room(ahead, coming):
            ahead.append(coming)
            self._waiting.append(coming)
            coming = next(jobs, None)
        self._hand_out()
        return coming

    def _has_room(self, ahead: deque[_Job], coming: _Job) -> bool:
        if not ahead:
            return True
        expected = sum(map(self._bytes, ahead)) + self._bytes(coming)
        return len(ahead) < self._limit + SPARE_BATCHES and expected <= self._look_ahead

    def _bytes(self, job: _Job) -> float:
        """Of a batch once it is prepared. Nothing is known before the first of a kind: two of them may be ahead."""
        if isinstance(job.answer, _Block):
            return len(job.answer.memory)
        rate = self._token_bytes.get(job.kind)
        return self._look_ahead / 2 if rate is None else rate * job.tokens

    def _hand_out(self) -> None:
        """Batches to workers that have none; more workers for the rest."""
        if self._closed:
            raise RuntimeError("this preparation is closed; no more batches can be asked of it")
        idle = [worker for worker in self._workers if worker.job is None]
        while self._waiting and (idle or len(self._workers) < self._limit):
            if not idle:
                idle.append(_Worker.start(self._recipe, self._threads))
                self._workers += idle
            worker = idle.pop()
            if worker.take(self._waiting[0]):
                self._waiting.popleft()
            else:
                self._bury(worker)

    def _serve(self) -> None:
        """Wait for an answer, a death or a worker that is late, and see to it."""
        patience = min((self._patience(worker) for worker in self._workers), default=0.0)
        heard = connection.wait([worker.connection for worker in self._workers], max(0.0, patience))
        if self._closed:
            return
        for worker in list(self._workers):
            if worker.connection in heard:
                self._hear(worker)
            elif self._patience(worker) <= 0:
                self._lose_patience(worker)

    def _patience(self, worker: _Worker) -> float:
        """Seconds until it is late."""
        if worker.job is None:
            return math.inf
        return worker.since + (self._seconds if worker.ready else START_SECONDS) - time.monotonic()

    def _hear(self, worker: _Worker) -> None:
        try:
            answer = worker.hear()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if answer is None:
            worker.ready, worker.since, self._failed_starts = True, time.monotonic(), 0
            return
        if not worker.ready and isinstance(answer, Exception):  # it has no embedder, and neither would the next one
            raise answer
        job, worker.job = worker.job, None
        assert job is not None
        if isinstance(answer, _Block):
            rate = len(answer.memory) / max(1, job.tokens)
            self._token_bytes[job.kind] = max(rate, self._token_bytes.get(job.kind, 0.0))
        if job.wanted:
            job.answer = answer

    def _bury(self, worker: _Worker) -> None:
        """Go on without a worker that died; its batch goes to another one.

        Raises:
            ModelError: it is one of several that were never ready.
        """
        self._workers.remove(worker)
        cause, job = worker.cause_of_death(), worker.job
        self._failed_starts += not worker.ready
        if self._failed_starts == MAX_FAILED_STARTS:
            raise ModelError(
                f"{MAX_FAILED_STARTS} preparation workers died before they were ready ({cause}); use --workers 0. "
                "A script that starts a run needs `if __name__ == '__main__':` around it"
            )
        if job is None or not job.wanted:
            self._note(f"a preparation worker died ({cause}); another one takes its place")
            return
        job.deaths += worker.ready
        if job.deaths == MAX_DEATHS:
            job.answer = ModelError(
                f"{MAX_DEATHS} preparation workers died ({cause}) over one batch: {job}; try fewer --workers, or a "
                "smaller --batch-tokens"
            )
            return
        self._note(f"a preparation worker died ({cause}); its batch is tried again")
        self._waiting.appendleft(job)

    def _lose_patience(self, worker: _Worker) -> None:
        """End a worker that hangs; its batch goes to another one.

        Raises:
            ModelError: it hung before it was ready.
        """
        self._workers.remove(worker)
        worker.kill()
        job, waited = worker.job, f"{self._seconds:g} s"
        if not worker.ready:
            raise ModelError(f"a preparation worker was not ready after {START_SECONDS:g} s; use --workers 0")
        if job is None or not job.wanted:
            return
        job.delays += 1
        if job.delays == MAX_DELAYS:
            job.answer = ModelError(
                f"{MAX_DELAYS} preparation workers gave no answer for {waited} over one batch: {job}; can its media be "
                "read?"
            )
            return
        self._note(f"a preparation worker gave no answer for {waited}; its batch is tried again by another one")
        self._waiting.appendleft(job)


@dataclass(eq=False)
class _Job:
    """One batch on its way.

    Attributes:
        answer: `None` until there is one.
        deaths, delays: of workers that had it.
        wanted: its consumer still waits for it.
    """

    items: Sequence[Item]
    role: Role
    tokens: int
    answer: _Block | Exception | None = None
    deaths: int = 0
    delays: int = 0
    wanted: bool = True

    @classmethod
    def of(cls, batch: Unprepared) -> _Job:
        return cls(*batch)

    @property
    def kind(self) -> str:
        """What its bytes a token depend on."""
        first = self.items[0] if self.items else Item("")
        return "frames" if first.frames else "images" if first.images else "text"

    def take(self) -> tuple[Any, float]:
        """What was prepared, and in how many seconds; nothing of it is kept.

        Raises:
            Exception: it could not be prepared.
        """
        answer, self.answer = self.answer, None
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        return answer.open(), answer.seconds

    def __str__(self) -> str:
        media = [str(path) for item in self.items for path in item.media]
        ids = f"items {shortened([repr(item.id) for item in self.items], 3)}"
        return ids + (f" (media {shortened(media, 3)})" if media else "")


@dataclass(eq=False)
class _Worker:
    """A process, from this side.

    Attributes:
        since: when it was started, was ready, or was given its batch: whichever was last.
        ready: it has made its embedder. It is given its first batch before.
    """

    process: BaseProcess
    connection: Connection
    since: float
    ready: bool = False
    job: _Job | None = None

    @classmethod
    def start(cls, recipe: bytes, threads: int) -> _Worker:
        """Not ready yet.

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
        return cls(process, here, time.monotonic())

    def take(self, job: _Job) -> bool:
        """Give it a batch; false if it is dead."""
        try:
            self.connection.send((job.items, job.role))
        except OSError:
            return False
        self.job, self.since = job, time.monotonic()
        return True

    def hear(self) -> _Block | Exception | None:
        """Its answer; `None`: it is ready.

        Raises:
            EOFError, OSError: it is dead.
        """
        answer: _Ready | Failure | _Prepared = self.connection.recv()
        if isinstance(answer, _Prepared):
            return _Block.received(self.connection, answer)
        return answer.error("In a preparation worker") if isinstance(answer, Failure) else None

    def kill(self) -> None:
        """End it, whatever it is at: nothing that others use can be left half done."""
        self.process.kill()
        self.process.join()

    def cause_of_death(self) -> str:
        """Of one whose pipe has come to its end."""
        self.process.join(1.0)  # which happens a little before the process is gone
        self.kill()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        return f"signal {-code}{': out of memory?' if -code == signal.SIGKILL else ''}"


@dataclass(frozen=True)
class _Block:
    """A prepared batch in the memory that its worker wrote, now this process's as well.

    Attributes:
        lengths: of its pickle, and of each array's memory.
    """

    memory: mmap.mmap
    lengths: tuple[int, ...]
    seconds: float

    @classmethod
    def received(cls, worker: Connection, told: _Prepared) -> _Block:
        descriptor = reduction.recv_handle(worker)
        try:
            return cls(mmap.mmap(descriptor, 0), told.lengths, told.seconds)
        finally:
            os.close(descriptor)

    def open(self) -> Any:
        """What was prepared. Its arrays are views, which keep the memory."""
        view, start, pieces = memoryview(self.memory), 0, []
        for length in self.lengths:
            pieces.append(view[start : start + length])
            start += length + -length % ALIGNMENT
        return pickle.loads(pieces[0], buffers=pieces[1:])


@dataclass(frozen=True)
class _Ready:
    """A worker has its embedder."""


@dataclass(frozen=True)
class _Prepared:
    """A batch is prepared; a descriptor of its memory follows. See `_Block`."""

    lengths: tuple[int, ...]
    seconds: float


def _start_deaf(process: BaseProcess) -> None:
    """Start a process to which Ctrl-C never comes: signals that are blocked here stay blocked there."""
    resource_tracker.ensure_running()  # or `start` would start it, which unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def on_cpu(spec: Recipe) -> Recipe:
    """Without the device that was asked for: a worker sees none but the CPU."""
    if not isinstance(spec, ModelSpec):
        return spec
    args = {**spec.args, "device": "cpu"} if "device" in spec.args else spec.args
    options = {**spec.options, "device": "cpu"} if spec.options.get("device") is not None else spec.options
    return dataclasses.replace(spec, args=args, options=options)


def _work(pipe: Connection, recipe: bytes, threads: int) -> None:
    """A worker's life."""
    os.environ.update(ENVIRONMENT | dict.fromkeys(THREADS, str(threads)))
    _stand_in_for_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The pipe breaks when the parent is gone.
    with contextlib.suppress(EOFError, OSError):
        try:
            embedder = cast(BudgetedEmbedder, pickle.loads(recipe).load())
            _keep_torch_to(threads)
        except Exception as error:
            pipe.send(Failure.of(error))
            return
        pipe.send(_Ready())
        while True:
            _answer(pipe, embedder, *pipe.recv())


def _answer(pipe: Connection, embedder: BudgetedEmbedder, items: Sequence[Item], role: Role) -> None:
    started = time.perf_counter()
    with _nameless_file() as file:
        try:
            lengths = _write(file, embedder.prepare(items, role))
        except Exception as error:
            pipe.send(Failure.of(error))
            return
        pipe.send(_Prepared(lengths, time.perf_counter() - started))
        reduction.send_handle(pipe, file.fileno(), os.getppid())


def _write(file: IO[bytes], prepared: Any) -> tuple[int, ...]:
    """Write a pickle and the memory of its arrays; returns their lengths."""
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(prepared, protocol=5, buffer_callback=arrays.append)
    pieces = [memoryview(body), *(array.raw() for array in arrays)]
    for piece in pieces:
        file.write(piece)
        file.write(bytes(-len(piece) % ALIGNMENT))
    file.flush()
    return tuple(map(len, pieces))


def _nameless_file() -> IO[bytes]:
    """Gone with the last process that has it open or mapped."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("prepared"), "w+b")
    return cast(IO[bytes], tempfile.TemporaryFile())


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


def default_workers(on_accelerator: bool, processes: int = 1) -> int:
    """How many workers there should be; 0: a thread, since a model on the CPU wants the cores for itself.

    Args:
        processes: that want some, on this machine.
    """
    return min(MAX_WORKERS, max(1, available_cpus() // processes) - 1) if on_accelerator else 0


def workers_for(embedder: Embedder, processes: int = 1) -> int:
    """The same, by where the model says that it runs."""
    return default_workers(not runs_on_cpu(embedder), processes)


def runs_on_cpu(embedder: Embedder) -> bool:
    """By what the model says; one that doesn't say needs no accelerator."""
    return str(embedder.info.settings.get("device", "cpu")) == "cpu"


def available_cpus() -> int:
    """CPUs that this process may use, by its affinity and its control groups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cgroup_cpus())))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs' time that control groups (version 2) grant; infinite without a limit.

    Args:
        root: where the groups are mounted.
        own: names this process's group, in a line "0::/path".
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    group = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    folders = [root.joinpath(*Path(group).parts[:depth]) for depth in range(len(Path(group).parts) + 1)]
    files = [folder / "cpu.max" for folder in folders]
    return min((_granted(file.read_text()) for file in files if file.is_file()), default=math.inf)


def _granted(limit: str) -> float:
    """Of "200000 100000" or "max 100000": microseconds in a period, and the period."""
    quota, period = limit.split()
    return math.inf if quota == "max" else int(quota) / int(period)
