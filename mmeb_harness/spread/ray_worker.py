"""What an actor of a Ray cluster does. It imports nothing of Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder, Encoded, ModelInfo, Work, in_modes, infos_of
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.chunks import Chunk
from mmeb_harness.encode.local import LocalEncoder, Usage
from mmeb_harness.encode.memory import MemorySink
from mmeb_harness.encode.whole_workers import encoding_parts
from mmeb_harness.run.identity import Identity, model_identity
from mmeb_harness.run.plan import fingerprint_of


@dataclass(frozen=True)
class Setup:
    """What an actor has to know before its first chunk.

    Attributes:
        workers: processes of an actor that read media ahead; `None`: as many as suit its node.
        folder: where the run was started: paths in the model's arguments may be relative to it.
    """

    spec: ModelSpec
    batch_tokens: int
    workers: int | None
    folder: Path


@dataclass(frozen=True)
class Introduction:
    """What an actor says of itself once it has made its model.

    Attributes:
        node: its machine's name.
        infos: in each of its modes.
        identity: what has to be the same of all actors.
    """

    node: str
    pid: int
    infos: tuple[ModelInfo, ...]
    identity: Identity
    processors: str


@dataclass(frozen=True)
class Answer:
    """What an actor made of a chunk.

    Attributes:
        batches: content keys and what they became, as they go to a store.
        notes: lines that the user should see.
    """

    batches: tuple[tuple[Sequence[str], Encoded], ...]
    usage: Usage
    notes: tuple[str, ...]


class ChunkWorker:
    """Makes the model, then encodes a chunk at a time. Errors come back as values: none ends the actor."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._notes: list[str] = []
        self._embedder: Embedder | None = None
        self._encoder: LocalEncoder | None = None

    def introduce(self) -> Introduction | Failure:
        """Make the model; the weights are loaded with the first chunk."""
        if self._setup.folder.is_dir():
            os.chdir(self._setup.folder)
        try:
            self._embedder = self._setup.spec.load()
            info = self._embedder.info
            identity = model_identity(info, fingerprint_of(info))
        except Exception as error:
            return Failure.of(error)
        processors = environment.processors()
        return Introduction(socket.gethostname(), os.getpid(), infos_of(self._embedder), identity, processors)

    def encode(self, chunk: Chunk, modes: Sequence[str] = ()) -> Answer | Introduction | Failure:
        """The chunk's vectors; an introduction instead of them where the driver doesn't know this process yet.

        Ray may have started it again while the actor had nothing to do, on another machine.

        Args:
            modes: of the model's those that are asked for, the same ones each time; none: all that it has.
        """
        if self._embedder is None:
            return self.introduce()
        if self._encoder is None:
            self._encoder = self._local_encoder(self._embedder, modes)
        batches = MemorySink()
        self._encoder.usage = Usage(Work())
        try:
            self._encoder.encode([chunk], batches)
        except Exception as error:
            return Failure.of(error)
        notes, self._notes[:] = tuple(self._notes), []
        return Answer(tuple(batches.taken), self._encoder.usage, notes)

    def _local_encoder(self, made: Embedder, modes: Sequence[str]) -> LocalEncoder:
        setup, note = self._setup, self._notes.append
        embedder = in_modes(made, modes) if modes else made
        spec = setup.spec if embedder is made else setup.spec.in_modes(modes)
        neighbours = max(1, len(environment.gpu_names()))  # an actor a GPU
        encoding, preparation = encoding_parts(embedder, spec, setup.workers, note, neighbours)
        return LocalEncoder(encoding, preparation, setup.batch_tokens, note, Undisturbed())


class Undisturbed(Interrupts):
    """Signals are the business of whoever hands out chunks."""

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Leave the handlers of signals as they are."""
        yield
