"""Chunks to vectors, in this process: prepared ahead, in smaller batches where memory doesn't do, each checked."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import numpy as np

from mmeb_harness.core.embedder import (
    BudgetedEmbedder,
    Embedder,
    Encoded,
    EncodeResult,
    StreamingEmbedder,
    TokenVectors,
    Trace,
    UploadingEmbedder,
    WarmableEmbedder,
    Work,
    infos_of,
)
from mmeb_harness.core.errors import HarnessError, ModelError, ResultError, is_out_of_memory, one_line
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.items import Item, Role, described
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.core.waiting import heartbeat
from mmeb_harness.encode.chunks import Batch, Chunk, smaller_batches
from mmeb_harness.encode.returned import own_results

Progress = Callable[[int], None]  # called with the number of items just encoded
Note = Callable[[str], None]  # called with a line that the user should see
Unprepared: TypeAlias = tuple[Sequence[Item], Role, int]  # a batch: items, their role, its estimated tokens


class Sink(Protocol):
    """Where vectors go: the store, or a list on its way to it."""

    def __contains__(self, key: str) -> bool:
        """Whether a key's vector is there."""
        ...

    def check_writable(self) -> None:
        """Find out before the weights are loaded whether what is added can be kept."""
        ...

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role) -> None:
        """Take the vectors of a batch, or of several."""
        ...

    def flush(self) -> None:
        """Keep what was added, come what may."""
        ...

    def refresh(self) -> None:
        """Take notice of what other processes have added."""
        ...


class Encoder(Protocol):
    """Who encodes a run's chunks: this process, or many."""

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress) -> None:
        """Give the sink every vector of the chunks that it lacks."""
        ...


class Preparation(Protocol):
    """Prepares batches while others are encoded.

    A context manager: leaving it ends what runs, without waiting for batches nobody asked for.
    """

    def run(self, batches: Iterable[Unprepared]) -> Iterator[tuple[Any, float]]:
        """Prepared batches, in order, each with the seconds that preparing it took.

        A batch that can't be prepared raises its error when its turn comes. No more is held of a batch than what the
        consumer holds. Batches that were prepared ahead are dropped when the iterator is closed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True)
class Finished:
    """A batch that its worker has not only prepared but encoded (see `whole_workers`).

    Attributes:
        encode_seconds: that the worker took after it had prepared the batch.
    """

    result: EncodeResult
    encode_seconds: float


@dataclass
class Usage:
    """What encoding took so far.

    Attributes:
        work: on the accelerator, of models that count it.
        prepare_seconds: reading media and tokenising, summed over workers.
        wait_seconds: the accelerator had nothing to do because of it.
    """

    work: Work
    prepare_seconds: float = 0.0
    wait_seconds: float = 0.0

    def add(self, other: Usage) -> None:
        """Count what encoding took elsewhere as well."""
        self.work += other.work
        self.prepare_seconds += other.prepare_seconds
        self.wait_seconds += other.wait_seconds


class LocalEncoder:
    """Encodes chunks one after another, in this process.

    Args:
        preparation: of an embedder that prepares; `None` for one that doesn't.
        batch_tokens: the budget that chunks were planned with.
        note: told when the budget had to shrink.
    """

    def __init__(
        self,
        embedder: Embedder,
        preparation: Preparation | None,
        batch_tokens: int,
        note: Note = lambda _: None,
        interrupts: Interrupts | None = None,
    ) -> None:
        self._embedder, self._preparation, self._note = embedder, preparation, note
        self._infos = infos_of(embedder)
        self._interrupts = interrupts or Interrupts(note)
        self._planned_tokens = self.batch_tokens = batch_tokens
        self._warm = False
        self.usage = Usage(Work())

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress = lambda _: None) -> None:
        """Encode what the sink lacks.

        Raises:
            ModelError: vectors that can't be ranked, or an item that doesn't fit in memory by itself.
            ResultError: the sink can't keep them.
            KeyboardInterrupt: asked for; what was under way is finished and in the sink.
        """
        queue = deque(left for chunk in chunks if (left := self._left(chunk, sink)).batches)
        if queue:
            sink.check_writable()
            self._warm_up()
        while queue:
            if (problem := self._encode_queue(queue, sink, on_progress)) is None:
                return
            self._halve(problem, queue[0])
            queue = deque(left for chunk in queue if (left := self._left(chunk, sink)).batches)

    def _left(self, chunk: Chunk, sink: Sink) -> Chunk:
        missing = chunk.only(lambda key: key not in sink)
        if self.batch_tokens == self._planned_tokens:
            return missing
        return smaller_batches(self._embedder, missing, self.batch_tokens)

    def _warm_up(self) -> None:
        if not self._warm and isinstance(self._embedder, WarmableEmbedder):
            with self._models_code([], "query"), heartbeat("loading weights", self._note):
                self._embedder.warm_up()
        self._warm = True

    def _halve(self, problem: str, chunk: Chunk) -> None:
        gc.collect()  # what the failed batch held may hang in cycles
        largest = max(chunk.batches, key=lambda batch: batch.tokens)
        if self.batch_tokens <= 1:
            item = largest.keyed[0][1]
            raise ModelError(
                f"out of memory even with one item at a time, {item.id!r} (about {largest.tokens} tokens): {problem}. "
                "A smaller --dtype, fewer --frames, or the model's own bounds of pixels and new tokens would help"
            ).about([largest.keyed[0][0]])
        # A budget above what the failed batch needed would only repeat it.
        self.batch_tokens = max(1, min(self.batch_tokens, largest.tokens) // 2)
        self._note(f"out of memory ({problem}); going on with batches of at most {self.batch_tokens:,} tokens")

    def _encode_queue(self, queue: deque[Chunk], sink: Sink, on_progress: Progress) -> str | None:
        """Work the queue off; what is done leaves it. Out of memory: what the library said, in one line."""
        try:
            with flushing(sink), self._interrupts.deferred(), closing(self._prepared(list(queue))) as prepared:
                while queue:
                    self._encode_chunk(queue[0], prepared, sink, on_progress)
                    sink.flush()
                    queue.popleft()
                    self._interrupts.check()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return shortly(error)  # not the error itself: its traceback holds the tensors that have to go
        return None

    def _prepared(self, chunks: list[Chunk]) -> Generator[tuple[Any, float]]:
        if self._preparation is None:
            yield from ((batch.items, 0.0) for chunk in chunks for batch in chunk.batches)
            return
        asked = ((batch.items, chunk.role, batch.tokens) for chunk in chunks for batch in chunk.batches)
        prepared = self._preparation.run(asked)
        yield from _uploaded(prepared, self._upload) if isinstance(self._embedder, UploadingEmbedder) else prepared

    def _upload(self, payload: Any) -> Any:
        assert isinstance(self._embedder, UploadingEmbedder)
        with plugin_code(f"model {self._infos[0].name!r}", lambda: " while it uploaded a batch"):
            return self._embedder.upload(payload)

    def _encode_chunk(
        self, chunk: Chunk, prepared: Iterator[tuple[Any, float]], sink: Sink, on_progress: Progress
    ) -> None:
        if isinstance(self._embedder, StreamingEmbedder):
            self._interrupts.under_way = f"{len(chunk.batches)} batches of {_named(chunk)}"
            self._stream_chunk(self._embedder, chunk, prepared, sink, on_progress)
            return
        for batch in chunk.batches:
            self._interrupts.under_way = f"a batch of {_named(batch)}"
            with _about(batch):
                encoded = self._encode_batch(batch, chunk.role, prepared)
            sink.add(batch.keys, encoded, chunk.role)
            on_progress(len(batch))
            self._interrupts.check()

    def _encode_batch(self, batch: Batch, role: Role, prepared: Iterator[tuple[Any, float]]) -> Encoded:
        started = time.perf_counter()
        payload, prepare_seconds = self._next(prepared)
        ready = time.perf_counter()
        with self._models_code([batch], role):
            if isinstance(self._embedder, BudgetedEmbedder):
                result = self._embedder.encode_prepared(payload)
            else:
                result = self._embedder.encode(payload, role)
        del payload  # before the next one is asked for
        done = time.perf_counter()
        owned = own_results(self._infos, result, batch.keyed, role)
        return self._counted(owned, prepare_seconds, done - ready, (done - started) / len(batch))

    def _stream_chunk(
        self,
        embedder: StreamingEmbedder,
        chunk: Chunk,
        prepared: Iterator[tuple[Any, float]],
        sink: Sink,
        on_progress: Progress,
    ) -> None:
        """All of a chunk or nothing reaches the sink: its batches were encoded together."""
        seconds: list[float] = []

        def take() -> Any:
            payload, prepare_seconds = self._next(prepared)
            seconds.append(prepare_seconds)
            return payload

        # Not a generator that names what it gives: it would hold a batch's pixels until the next one is asked for.
        payloads = (take() for _ in chunk.batches)

        started, shown = time.perf_counter(), 0
        results: list[EncodeResult] = []
        try:
            with _about(chunk), closing(self._stream(embedder, payloads, chunk)) as stream:
                for batch, result in zip(chunk.batches, stream, strict=False):
                    results.append(own_results(self._infos, result, batch.keyed, chunk.role))
                    shown += len(batch)
                    on_progress(len(batch))
                if len(results) != len(seconds) or len(seconds) != len(chunk.batches) or next(stream, None) is not None:
                    raise ModelError(
                        f"model {self._infos[0].name!r} took {len(seconds)} and returned {len(results)} results for "
                        f"{len(chunk.batches)} batches, or more of them"
                    )
        except Exception:
            on_progress(-shown)
            raise
        wall = time.perf_counter() - started
        encoded = [
            self._counted(result, prepare_seconds, wall, wall / len(chunk))
            for result, prepare_seconds in zip(results, seconds, strict=True)
        ]
        # One addition: a process killed between two would leave a part, and the rest would be encoded without it.
        sink.add([key for batch in chunk.batches for key in batch.keys], _joined(encoded), chunk.role)

    def _next(self, prepared: Iterator[tuple[Any, float]]) -> tuple[Any, float]:
        started = time.perf_counter()
        payload, prepare_seconds = next(prepared)
        if isinstance(payload, Finished):
            prepare_seconds -= payload.encode_seconds  # and nobody waited: it was computed meanwhile
        else:
            self.usage.wait_seconds += time.perf_counter() - started
        self.usage.prepare_seconds += prepare_seconds
        return payload, prepare_seconds

    def _stream(self, embedder: StreamingEmbedder, payloads: Iterator[Any], chunk: Chunk) -> Generator[Any]:
        """What the model gives, piece by piece, each asked for as a plugin's code."""
        with self._models_code(chunk.batches, chunk.role):
            stream = iter(embedder.encode_stream(payloads))
        while True:
            with self._models_code(chunk.batches, chunk.role):
                result = next(stream, _END)
            if result is _END:
                return
            yield result

    def _models_code(self, batches: Sequence[Batch], role: Role) -> AbstractContextManager[None]:
        """Inside, code of the model's runs; what goes wrong there names these items."""
        items = [item for batch in batches for item in batch.items]
        return plugin_code(f"model {self._infos[0].name!r}", lambda: f" over {described(items, role)}")

    def _counted(self, result: EncodeResult, prepare: float, encode: float, share: float) -> Encoded:
        if result.work is not None:
            self.usage.work += result.work
        return _timed(result, prepare, encode, share)


#: Ends a model's stream, in which anything may come.
_END = object()


@contextmanager
def _about(part: Batch | Chunk) -> Iterator[None]:
    """What goes wrong inside is about these items, unless it names some of them."""
    try:
        yield
    except HarnessError as error:
        error.about(key for key, _ in part.keyed)
        raise


def _named(part: Batch | Chunk) -> str:
    (_, first), *_ = part.keyed
    return f"1 item, {first.id!r}" if len(part) == 1 else f"{len(part)} items, {first.id!r} and others"


@contextmanager
def flushing(sink: Sink) -> Iterator[None]:
    """Flush at the end, come what may: an error or Ctrl-C in one batch doesn't cost the batches before it.

    Of two errors the first is raised.
    """
    try:
        yield
    except BaseException as error:
        try:
            sink.flush()
        except ResultError as second:
            error.add_note(str(second))
        raise
    sink.flush()


def _uploaded(prepared: Iterator[tuple[Any, float]], upload: Callable[[Any], Any]) -> Generator[tuple[Any, float]]:
    """Batches on their way to the accelerator: while one is computed there, a thread starts the copy of the next."""

    def take() -> tuple[Any, float] | None:
        payload, seconds = next(prepared, (None, None))
        return None if seconds is None else (upload(payload), seconds)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload") as pool:
        ahead = pool.submit(take)
        while (uploaded := ahead.result()) is not None:
            ahead = pool.submit(take)
            yield uploaded
            del uploaded


def shortly(error: BaseException) -> str:
    """The first sentence of what an error says, in one line; its kind if it says nothing."""
    return one_line(error).split(". ")[0][:200]


def _timed(result: EncodeResult, prepare: float, encode: float, share: float) -> Encoded:
    """Latency counts the preparation too: who sends one batch waits for both."""
    n = len(result.vectors)
    traces = result.traces or (Trace(),) * n
    latencies = [encode if trace.seconds is None else trace.seconds for trace in traces]
    return Encoded(
        vectors=result.vectors,
        traces=traces,
        latency_seconds=prepare + np.array(latencies, dtype=np.float64),
        share_seconds=np.full(n, share),
        others=tuple(_timed(other, prepare, encode, share) for other in result.others),
    )


def _joined(parts: Sequence[Encoded]) -> Encoded:
    """One after another; at least one."""
    tokens = [part.vectors for part in parts if isinstance(part.vectors, TokenVectors)]
    flat = [part.vectors for part in parts if isinstance(part.vectors, np.ndarray)]
    return Encoded(
        vectors=TokenVectors.of_items([part[item] for part in tokens for item in range(len(part))])
        if tokens
        else np.concatenate(flat),
        traces=tuple(trace for part in parts for trace in part.traces),
        latency_seconds=np.concatenate([part.latency_seconds for part in parts]),
        share_seconds=np.concatenate([part.share_seconds for part in parts]),
        others=tuple(map(_joined, zip(*(part.others for part in parts), strict=True))),
    )
