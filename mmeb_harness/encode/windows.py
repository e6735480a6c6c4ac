"""A run's tasks, read a window at a time: what several share is planned once, and small ones fill batches together.

The plan follows from the tasks, their data and the token budget alone. Tasks that are finished are read as well, as
long as unfinished ones follow: without them the later ones' items would meet in other batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.items import Item, Role, Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.encode.chunks import Chunk, Keyed, plan_chunks

#: A window ends with the task that brings it to so many items: enough that its last chunk doesn't matter, few enough
#: that a killed run has most of its tasks' results.
WINDOW_ITEMS = 4096

T = TypeVar("T")

ROLES: tuple[Role, ...] = ("query", "candidate")


@dataclass(frozen=True)
class ReadTask:
    """A task's samples, and the content keys of its items, in order."""

    task: Task
    samples: Samples
    query_keys: list[str]
    candidate_keys: list[str]

    @property
    def keys(self) -> dict[Role, list[str]]:
        """Both sides'."""
        return {"query": self.query_keys, "candidate": self.candidate_keys}

    @property
    def items(self) -> dict[Role, tuple[Item, ...]]:
        """Both sides'."""
        return {"query": self.samples.queries, "candidate": self.samples.candidates}


@dataclass(frozen=True)
class Window:
    """Some consecutive tasks of a run.

    Attributes:
        chunks: of the items that no earlier window has.
    """

    tasks: tuple[ReadTask, ...]
    chunks: tuple[Chunk, ...]


def windows(
    tasks: Sequence[Task], read: Callable[[Task], ReadTask], embedder: Embedder, batch_tokens: int
) -> Iterator[Window]:
    """Read and plan; a window is made when it is asked for.

    Args:
        read: one task's samples and keys.
        batch_tokens: see `plan_chunks`.
    """
    planned: set[str] = set()
    together: list[ReadTask] = []
    for position, task in enumerate(tasks):
        together.append(read(task))
        full = sum(len(keys) for one in together for keys in one.keys.values()) >= WINDOW_ITEMS
        if full or position == len(tasks) - 1:
            chunks = [chunk for role in ROLES for chunk in _plan(together, role, planned, embedder, batch_tokens)]
            # The longest work first: what is left for the end, when workers run out of it, is short.
            yield Window(tuple(together), tuple(sorted(chunks, key=lambda chunk: -chunk.tokens)))
            together = []


def one_ahead(values: Iterator[T]) -> Iterator[T]:
    """The same, each made while the one before it is used; by a thread for which nobody waits at the end."""

    def begin() -> Future[T | None]:
        future: Future[T | None] = Future()

        def make() -> None:
            try:
                future.set_result(next(values, None))
            except BaseException as error:  # is raised where the value is asked for
                future.set_exception(error)

        threading.Thread(target=make, name="read ahead", daemon=True).start()
        return future

    ahead = begin()
    while (value := ahead.result()) is not None:
        ahead = begin()
        yield value


def _plan(
    tasks: Sequence[ReadTask], role: Role, planned: set[str], embedder: Embedder, batch_tokens: int
) -> list[Chunk]:
    """Chunks of one role's items that aren't planned yet; they are, afterwards."""
    keyed: list[Keyed] = []
    for one in tasks:
        for key, item in zip(one.keys[role], one.items[role], strict=True):
            if key not in planned:
                planned.add(key)
                keyed.append((key, item))
    return plan_chunks(embedder, keyed, role, batch_tokens)
