"""Batches prepared by workers: handed out and brought in order, within bounds, whatever becomes of a worker."""

from __future__ import annotations

import itertools
import math
import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Self

from mmeb_harness.core.errors import ModelError, shortened
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.items import Item, Role
from mmeb_harness.encode.chunks import media_kind
from mmeb_harness.encode.local import Unprepared
from mmeb_harness.encode.transport import Block
from mmeb_harness.encode.worker import Ready, Recipe, Worker, on_cpu

#: So many workers in a row may die before they are ready, and each has so long.
MAX_FAILED_STARTS, START_SECONDS = 3, 600.0
#: Batches in flight beyond one a worker.
SPARE_BATCHES = 2


@dataclass(frozen=True)
class Loss:
    """A way to lose workers.

    Attributes:
        most: how often a batch may lose its worker so, before it is given up.
        advice: for the user whose batch is given up.
    """

    most: int
    advice: str


DEATH = Loss(3, "try fewer --workers, or a smaller --batch-tokens")
DELAY = Loss(2, "can its media be read?")


class WorkerPreparation:
    """A `Preparation` by workers, started when there is work for them, and kept between runs.

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
        """Take note of what workers will need; none is started yet.

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
        self._posts: list[_Post] = []
        self._waiting: deque[_Job] = deque()
        self._token_bytes: dict[str, float] = {}
        self._failed_starts = 0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, batches: Iterable[Unprepared]) -> Iterator[tuple[Any, float]]:
        """Prepare batches as `Preparation` promises.

        Raises:
            ModelError: workers die or hang, again and again, on one batch, or before they are ready. What the embedder
                raises comes as it is, with the worker's traceback in a note unless it is a HarnessError.
        """
        jobs = itertools.starmap(_Job, batches)
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
        """End all workers, whatever they are at."""
        self._closed = True
        while self._posts:
            self._posts.pop().worker.kill()

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
        if isinstance(job.answer, Block):
            return len(job.answer.memory)
        rate = self._token_bytes.get(job.kind)
        return self._look_ahead / 2 if rate is None else rate * job.tokens

    def _hand_out(self) -> None:
        """Batches to workers that have none; more workers for the rest."""
        if self._closed:
            raise RuntimeError("this preparation is closed; no more batches can be asked of it")
        idle = [post for post in self._posts if post.job is None]
        while self._waiting and (idle or len(self._posts) < self._limit):
            if not idle:
                idle.append(_Post(Worker.start(self._recipe, self._threads)))
                self._posts += idle
            post, job = idle.pop(), self._waiting[0]
            try:
                post.worker.ask(job.items, job.role)
            except OSError:
                self._bury(post)
                continue
            post.job, post.since = self._waiting.popleft(), time.monotonic()

    def _serve(self) -> None:
        """Wait for an answer, a death or a worker that is late, and see to it."""
        patience = min(map(self._patience, self._posts), default=0.0)
        heard = connection.wait([post.worker.connection for post in self._posts], max(0.0, patience))
        if self._closed:
            return
        for post in list(self._posts):
            if post.worker.connection in heard:
                self._hear(post)
            elif self._patience(post) <= 0:
                self._lose_patience(post)

    def _patience(self, post: _Post) -> float:
        """Seconds until a worker is late."""
        if post.job is None:
            return math.inf
        return post.since + (self._seconds if post.ready else START_SECONDS) - time.monotonic()

    def _hear(self, post: _Post) -> None:
        try:
            word = post.worker.hear()
        except (EOFError, OSError):
            self._bury(post)
            return
        if isinstance(word, Ready):
            post.ready, post.since, self._failed_starts = True, time.monotonic(), 0
            return
        answer = word.error("In a preparation worker") if isinstance(word, Failure) else word
        if not post.ready and isinstance(answer, Exception):  # it has no embedder, and neither would the next one
            raise answer
        job, post.job = post.job, None
        assert job is not None
        if isinstance(answer, Block):
            rate = len(answer.memory) / max(1, job.tokens)
            self._token_bytes[job.kind] = max(rate, self._token_bytes.get(job.kind, 0.0))
        if job.wanted:
            job.answer = answer

    def _bury(self, post: _Post) -> None:
        """Go on without a worker that died.

        Raises:
            ModelError: it is one of several that were never ready.
        """
        self._posts.remove(post)
        cause = post.worker.cause_of_death()
        self._failed_starts += not post.ready
        if self._failed_starts == MAX_FAILED_STARTS:
            raise ModelError(
                f"{MAX_FAILED_STARTS} preparation workers died before they were ready ({cause}); use --workers 0. "
                "A script that starts a run needs `if __name__ == '__main__':` around it"
            )
        self._replace(post, f"died ({cause})", DEATH)

    def _lose_patience(self, post: _Post) -> None:
        """End a worker that hangs, and go on without it.

        Raises:
            ModelError: it hung before it was ready.
        """
        self._posts.remove(post)
        post.worker.kill()
        if not post.ready:
            raise ModelError(f"a preparation worker was not ready after {START_SECONDS:g} s; use --workers 0")
        self._replace(post, f"gave no answer for {self._seconds:g} s", DELAY)

    def _replace(self, post: _Post, how: str, loss: Loss) -> None:
        """The batch of a worker that was lost goes to another one, unless it has cost too many."""
        job = post.job
        if job is None or not job.wanted:
            self._note(f"a preparation worker {how}; another one takes its place")
            return
        job.losses[loss] += post.ready
        if job.losses[loss] == loss.most:
            job.answer = ModelError(f"{loss.most} preparation workers {how} over one batch: {job}; {loss.advice}")
            return
        self._note(f"a preparation worker {how}; its batch is tried again")
        self._waiting.appendleft(job)


@dataclass(eq=False)
class _Job:
    """One batch on its way.

    Attributes:
        answer: `None` until there is one.
        losses: of workers that had it.
        wanted: its consumer still waits for it.
    """

    items: Sequence[Item]
    role: Role
    tokens: int
    answer: Block | Exception | None = None
    losses: Counter[Loss] = field(default_factory=Counter)
    wanted: bool = True

    @property
    def kind(self) -> str:
        """What its bytes a token depend on."""
        first = self.items[0] if self.items else Item("")
        return media_kind(first)

    def take(self) -> tuple[Any, float]:
        """What was prepared, and in how many seconds; nothing of it is kept.

        Raises:
            Exception: it could not be prepared.
        """
        answer, self.answer = self.answer, None
        assert answer is not None
        if isinstance(answer, Exception):
            raise answer
        return answer.open(), answer.told.seconds

    def __str__(self) -> str:
        media = [str(path) for item in self.items for path in item.media]
        ids = f"items {shortened([repr(item.id) for item in self.items], 3)}"
        return ids + (f" (media {shortened(media, 3)})" if media else "")


@dataclass(eq=False)
class _Post:
    """A worker, and what it is at.

    Attributes:
        since: when it was started, was ready, or was given its batch: whichever was last.
        ready: it has made its embedder. It is given its first batch before.
    """

    worker: Worker
    since: float = field(default_factory=time.monotonic)
    ready: bool = False
    job: _Job | None = None
