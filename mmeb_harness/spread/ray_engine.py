"""A run on a Ray cluster: chunks go to whichever actor is free, actors come and go.

    mmeb-eval run … --ray                    a cluster of this machine's own, for the time of the run
    mmeb-eval run … --ray 10.0.0.1:6379      one that runs already (`auto`: the one this machine is part of)

The driver reads, plans, stores and ranks; an actor makes the model and encodes a chunk at a time. What an actor had
under way when it, or its node, died goes to another one. Vectors come back through Ray, so that the nodes share no
folder for them; data and model have to lie at the same path on each.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Embedder, Work
from mmeb_harness.core.errors import DataError, ModelError, ResultError, shortened
from mmeb_harness.core.failures import Failure
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.chunks import Chunk
from mmeb_harness.encode.local import Encoder, Note, Progress, Sink, Usage, flushing, shortly
from mmeb_harness.encode.worker import on_cpu
from mmeb_harness.run.plan import Plan
from mmeb_harness.spread.ray_cluster import Needs, needs_of, room_for
from mmeb_harness.spread.ray_worker import Answer, ChunkWorker, Introduction, Setup
from mmeb_harness.spread.shares import MAKE_EQUAL, processors_remarks, refuse_difference

#: How long to wait for an answer before looking at signals and clocks.
POLL_SECONDS = 0.5
#: How often to look whether nodes have come.
LOOK_SECONDS = 10.0
#: An actor that needs longer for a chunk hangs: longer than the slowest chunk of a large reasoning model.
HANG_SECONDS = 3600.0
#: So long a run may be without any actor.
PATIENCE_SECONDS = 600.0
#: So many actors a chunk may take along, and so often an actor may die in all: then Ray doesn't start it again.
MAX_DEATHS = 3
Reference: TypeAlias = Any  # ray.ObjectRef: Ray is not imported before it is asked for


class RayEncoder:
    """Encodes on the actors of the cluster that this process is connected to.

    Ray starts an actor's process again when it died, wherever a node has room. Its chunk is given out anew here, and
    not by Ray's `max_task_retries`: Ray would keep it for the same actor, even where no node has room for that one any
    more, and counts an attempt at an actor that is only just restarting as one that failed.

    Args:
        workers: how many actors there should be; `None`: as many as there is room for, at any time.
        is_local: the cluster is this machine alone.
        note: told of actors that come and go.
    """

    def __init__(
        self, setup: Setup, workers: int | None, is_local: bool, note: Note, interrupts: Interrupts | None = None
    ) -> None:
        import ray

        self._note, self._interrupts = note, interrupts or Interrupts(note)
        self._setup, self._workers, self._is_local = setup, workers, is_local
        self._needs = needs_of(setup.spec, ray.cluster_resources(), workers)
        self._actors: list[_Actor] = []
        self._waiting: deque[Chunk] = deque()
        self._deaths: Counter[str] = Counter()  # by a chunk's first key
        self._first: Introduction | None = None
        self._stillborn = 0  # actors in a row that died before they were ready
        self._processors: set[str] = set()
        self._next_look = self._last_ready = time.monotonic()
        self.usage = Usage(Work())
        self._modes: tuple[str, ...] = ()  # of the model's those that are asked for; none: all that it has

    def introduction(self) -> Introduction:
        """What the first actor says of itself; waits for it.

        Raises:
            HarnessError: the model can't be made there, or no actor gets ready.
        """
        while self._first is None:
            self._staff(1)
            self._answers()
        return self._first

    @contextmanager
    def opened(self, plans: Sequence[Plan]) -> Iterator[Encoder]:
        """Itself, for the modes of these plans of which something is left to be encoded."""
        if len(plans) > 1:
            self._modes = tuple(str(plan.model.mode) for plan in plans if plan.pending)
        yield self

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress) -> None:
        """Encode what the sink lacks.

        Raises:
            HarnessError: what an actor raised; a chunk that takes actor after actor along; no actors any more.
            KeyboardInterrupt: asked for; what was under way is finished and in the sink.
        """
        missing = (chunk.only(lambda key: key not in sink) for chunk in chunks)
        self._waiting = deque(chunk for chunk in missing if chunk.batches)
        self._next_look = self._last_ready = time.monotonic()
        if self._waiting:
            sink.check_writable()
        with flushing(sink), self._interrupts.deferred():
            while chunks_left := len(self._waiting) + self._busy():
                self._staff(chunks_left)
                for actor in self._actors:
                    if self._waiting and actor.expected is None:
                        actor.give(self._waiting.popleft(), self._modes)
                for chunk, answer in self._answers():
                    for keys, encoded in answer.batches:
                        sink.add(keys, encoded, chunk.role)
                    sink.flush()
                    self.usage.add(answer.usage)
                    on_progress(len(chunk))
                self._interrupts.under_way = f"what {self._busy()} actors are at"
                if self._interrupts.asked:
                    self._waiting.clear()
            self._interrupts.check()

    def _busy(self) -> int:
        return sum(actor.chunk is not None for actor in self._actors)

    def _staff(self, chunks_left: int) -> None:
        """Start the actors that are missing: at first, and when nodes have come."""
        import ray

        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_SECONDS
        room = self._workers or room_for(self._needs, [node["Resources"] for node in ray.nodes() if node["Alive"]])
        missing = min(room, chunks_left) - len(self._actors)
        self._actors += [_Actor.start(self._setup, self._needs) for _ in range(missing)]
        if missing > 0 and self._first is not None:
            self._note(f"{len(self._actors)} actors, {self._needs}")

    def _answers(self) -> list[tuple[Chunk, Answer]]:
        """What has come after a little while; afterwards those are seen to of whom nothing is heard."""
        import ray

        expected = {actor.expected: actor for actor in self._actors if actor.expected is not None}
        if not expected:
            time.sleep(POLL_SECONDS)
        came = ray.wait(list(expected), timeout=POLL_SECONDS)[0] if expected else []
        answers = [answer for reference in came if (answer := self._hear(expected[reference])) is not None]
        now = time.monotonic()
        for actor in self._actors:
            if actor.chunk is not None and now - actor.since > HANG_SECONDS:
                ray.kill(actor.handle, no_restart=False)
                self._lose(actor, f"no answer for {HANG_SECONDS:.0f} s")
        if any(actor.is_ready for actor in self._actors):
            self._last_ready = now
        elif now - self._last_ready > PATIENCE_SECONDS:
            has = ray.cluster_resources()
            raise ResultError(
                f"no actor ({self._needs}) of the Ray cluster has been ready for {PATIENCE_SECONDS:.0f} s, of which it "
                f"has {has.get('CPU', 0):.0f} CPUs and {has.get('GPU', 0):.0f} GPUs; the same command goes on from "
                "what is there"
            )
        return answers

    def _hear(self, actor: _Actor) -> tuple[Chunk, Answer] | None:
        """Take an actor's word; `None` if it is no answer."""
        import ray

        try:
            said: Introduction | Answer | Failure = ray.get(actor.expected)
        except ray.exceptions.RayTaskError:
            raise  # a programming error, with the actor's traceback
        except ray.exceptions.ActorUnavailableError:  # Ray says how it lost the connection, which tells nobody more
            self._lose(actor, "it died or can't be reached")
            return None
        except ray.exceptions.RayError as error:
            self._lose(actor, shortly(error))
            return None
        if isinstance(said, Failure):
            raise self._error(said, actor)
        chunk = actor.finish()
        if isinstance(said, Introduction):
            self._welcome(actor, said)
            self._waiting.extendleft([chunk] if chunk else [])  # it died while it had nothing to do, and is new
            return None
        assert chunk is not None
        for line in said.notes:
            self._note(f"{actor}: {line}")
        return chunk, said

    def _welcome(self, actor: _Actor, said: Introduction) -> None:
        actor.said = said
        self._stillborn = 0
        self._first = self._first or said
        this, first = f"an actor on {said.node} has", f"the first one, on {self._first.node},"
        refuse_difference(said.identity, self._first.identity, this, first, MAKE_EQUAL)
        if said.processors not in self._processors:
            self._processors.add(said.processors)
            for remark in processors_remarks("actors", self._processors):
                self._note(remark)

    def _error(self, failure: Failure, actor: _Actor) -> Exception:
        error = failure.error(f"In an actor on {actor}")
        if self._is_local or not isinstance(error, (DataError, ModelError)):
            return error
        return type(error)(f"{error} (on {actor}; data and model have to lie at the same path on every node)")

    def _lose(self, actor: _Actor, reason: str) -> None:
        """What a dead or hanging actor had goes to the next that is free; Ray starts it again, or has given it up.

        Raises:
            ModelError: it isn't the first that its chunk takes along, or several in a row die whenever they start.
        """
        chunk = actor.finish()
        if chunk is None:
            self._actors.remove(actor)
            self._next_look = 0.0
            if actor.said is None:
                self._stillborn += 1
                if self._first is None or self._stillborn >= MAX_DEATHS:
                    raise ModelError(
                        f"an actor died before it was ready, and Ray has given it up: {reason}. Is the same release "
                        "installed on every node? Ray keeps logs in /tmp/ray/session_latest/logs"
                    )
                self._note(f"an actor died before it was ready ({reason}); the others go on")
            return
        keys, items = zip(*chunk.keyed, strict=True)
        self._deaths[keys[0]] += 1
        self._note(f"an actor on {actor} is gone ({reason}); its chunk of {len(chunk)} items comes again")
        if self._deaths[keys[0]] >= MAX_DEATHS:
            ids = shortened([repr(item.id) for item in items], 3)
            raise ModelError(f"{MAX_DEATHS} actors died of the chunk of items {ids}, the last: {reason}")
        self._waiting.appendleft(chunk)
        actor.ask_who_it_is()


@dataclass(eq=False)
class _Actor:
    """An actor, from the driver's side.

    Attributes:
        expected: what it will say next; `None`: it has nothing to do.
        chunk: what it encodes; `None`: nothing, or it isn't ready.
        since: when that began.
        said: its latest introduction.
    """

    handle: Any
    expected: Reference = None
    chunk: Chunk | None = None
    since: float = 0.0
    said: Introduction | None = None

    @classmethod
    def start(cls, setup: Setup, needs: Needs) -> _Actor:
        """Not ready yet, nor placed: that may take until a node has room."""
        import ray

        remote = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_restarts=MAX_DEATHS - 1)
        actor = cls(remote(ChunkWorker).remote(setup))
        actor.ask_who_it_is()
        return actor

    def __str__(self) -> str:
        return f"node {self.said.node}" if self.said else "a node"

    @property
    def is_ready(self) -> bool:
        """Whether it has introduced itself since it was last started."""
        return self.expected is None or self.chunk is not None

    def ask_who_it_is(self) -> None:
        """It is ready when it has answered. Ray asks until there is an answer, or the last restart is used up."""
        self.expected = self.handle.introduce.options(max_task_retries=-1).remote()

    def give(self, chunk: Chunk, modes: Sequence[str]) -> None:
        """Let it begin with a chunk."""
        self.chunk, self.since, self.expected = chunk, time.monotonic(), self.handle.encode.remote(chunk, modes)

    def finish(self) -> Chunk | None:
        """Its word has come, or never will; returns the chunk that it had."""
        chunk, self.chunk, self.expected = self.chunk, None, None
        return chunk


def driver_model(spec: ModelSpec, first: Introduction, note: Note) -> Embedder:
    """The actors' model as the driver needs it, for the costs that the plan follows from.

    Its weights are never loaded, and this machine needs no GPU.

    Raises:
        ResultError: here is another model, or another release.
    """
    local, versions = on_cpu(spec).load(), environment.package_versions()
    here = {
        "model": local.info.name,
        "model revision": local.info.revision,
        "mmeb-harness": versions.get("mmeb-harness"),
    }
    way_out = "who plans a run and who encodes it need the same"
    there = {name: first.identity.get(name) for name in here}
    refuse_difference(here, there, "this machine has", f"an actor on {first.node}", way_out)
    theirs = {name: first.identity.get(name) for name in versions}
    others = [f"{name} {mine}, there {theirs[name]}" for name, mine in versions.items() if mine != theirs[name]]
    if others:  # a head node without GPUs has another build of torch, say
        note(f"the actors have other packages than this machine, whose the results name: {'; '.join(others)}")
    return local
