"""A run's tasks, read a window at a time: what several share is planned once, and small ones fill batches together.

The plan follows from the tasks, their data and the token budget alone. Tasks that are finished are read as well, as
long as unfinished ones follow: without them the later ones' items would meet in other batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from mmeb_harness.core.items import Item, Role, Samples
from mmeb_harness.core.tasks import Task
from mmeb_harness.core.threads import in_background
from mmeb_harness.encode.chunks import Chunk, Keyed

#: A window ends with the task that brings it to so many items: enough that its last chunk doesn't matter, few enough
#: that a killed run has most of its tasks' results.
WINDOW_ITEMS = 4096

T = TypeVar("T")

#: Items of one role to chunks: `plan_chunks`, told the embedder and the budget.
PlanChunks: TypeAlias = Callable[[Sequence[Keyed], Role], list[Chunk]]

ROLES: tuple[Role, ...] = ("query", "candidate")


@dataclass(frozen=True)
class ReadTask:
    """A task's samples, and the content keys of its items, in order.

    Attributes:
        is_finished: it has its result, and is here only because later tasks' items meet its own in batches.
        content: names all keys.
    """

    task: Task
    samples: Samples
    query_keys: list[str]
    candidate_keys: list[str]
    is_finished: bool = False
    content: str = ""

    @property
    def keys(self) -> dict[Role, list[str]]:
        """Content keys of the queries and of the candidates."""
        return {"query": self.query_keys, "candidate": self.candidate_keys}

    @property
    def items(self) -> dict[Role, tuple[Item, ...]]:
        """The queries and the candidates."""
        return {"query": self.samples.queries, "candidate": self.samples.candidates}


@dataclass(frozen=True)
class Window:
    """Some consecutive tasks of a run.

    Attributes:
        chunks: of the items that no earlier window has.
    """

    tasks: tuple[ReadTask, ...]
    chunks: tuple[Chunk, ...]


def windows(tasks: Iterable[ReadTask], plan: PlanChunks) -> Iterator[Window]:
    """Plan the tasks' chunks; a window is made when it is asked for."""
    planned: set[str] = set()

    def window(together: Sequence[ReadTask]) -> Window:
        chunks = [chunk for role in ROLES for chunk in plan(_new_items(together, role, planned), role)]
        # The longest work first: what is left for the end, when workers run out of it, is short.
        return Window(tuple(together), tuple(sorted(chunks, key=lambda chunk: -chunk.tokens)))

    together: list[ReadTask] = []
    for task in tasks:
        together.append(task)
        if sum(len(keys) for other in together for keys in other.keys.values()) >= WINDOW_ITEMS:
            yield window(together)
            together = []
    if together:
        yield window(together)


def one_ahead(values: Iterator[T]) -> Iterator[T]:
    """The same, each made while the one before it is used; by a thread for which nobody waits at the end."""

    def begin() -> Future[T | None]:
        future: Future[T | None] = Future()

        def make() -> None:
            try:
                future.set_result(next(values, None))
            except BaseException as error:  # is raised where the value is asked for
                future.set_exception(error)

        in_background(make)
        return future

    ahead = begin()
    while (value := ahead.result()) is not None:
        ahead = begin()
        yield value


def _new_items(tasks: Sequence[ReadTask], role: Role, planned: set[str]) -> list[Keyed]:
    """One role's items that aren't planned yet; they are, afterwards."""
    keyed: list[Keyed] = []
    for task in tasks:
        for key, item in zip(task.keys[role], task.items[role], strict=True):
            if key not in planned:
                planned.add(key)
                keyed.append((key, item))
    return keyed
