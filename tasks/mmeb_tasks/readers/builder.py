"""Collects a task's rows into `Samples`, with the benchmark's rule for candidates: the first one of an id counts."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmeb_harness import DataError, Frames, Item, Samples, Table, one_line
from mmeb_tasks.readers.elsewhere import elsewhere
from mmeb_tasks.readers.media import MissingMediaError
from mmeb_tasks.readers.tables import MissingTableError, has_table

#: What the original data set put where an image belongs; the official parsers delete or map it.
LEGACY_IMAGE_TOKEN = "<|image_1|>"
MISMATCHED = "items with another number of image tokens than pictures; pictures are shown first"


class SamplesBuilder:
    """Add queries and candidates in the official order; `build` checks the whole."""

    def __init__(self) -> None:
        self.notes: Counter[str] = Counter()
        self._queries: list[Item] = []
        self._candidates: dict[str, Item] = {}
        self._gains: dict[str, Mapping[str, float]] = {}
        self._pools: dict[str, tuple[str, ...]] = {}
        self._incomplete: set[str] = set()

    def candidate(self, candidate_id: str, make: Callable[[], Item]) -> str:
        """Note a candidate; `make` is called the first time only. Later ones of the same id are ignored.

        Returns:
            The id, as the very object that the first one had: a million ids in the pools of a task with 20,000
            candidates are 20,000 strings in memory.
        """
        known = self._candidates.get(candidate_id)
        if known is None:
            known = self._candidates[candidate_id] = make()
        return known.id

    @property
    def num_queries(self) -> int:
        """How many were added."""
        return len(self._queries)

    def has_candidate(self, candidate_id: str) -> bool:
        """Whether a candidate of this id was added."""
        return candidate_id in self._candidates

    @property
    def candidates(self) -> tuple[Item, ...]:
        """Those that were added."""
        return tuple(self._candidates.values())

    def has_query(self, query_id: str) -> bool:
        """Whether a query of this id was added."""
        return query_id in self._gains

    def query(self, item: Item, own: Sequence[str], gains: Mapping[str, float]) -> None:
        """Add a query and its gains.

        Args:
            own: ids of the row's own candidates, in order, repeats kept.
            gains: relevance of the relevant ones, in the official label order.
        """
        if item.id in self._gains:
            raise DataError(f"query id {item.id!r} stands in the annotations twice")
        if not item.media and not item.text.strip():
            self.notes["queries of nothing but their instruction"] += 1
        self._queries.append(item)
        self._gains[item.id] = gains
        self._pools[item.id] = tuple(own)
        self.notes["repeated candidates"] += len(own) - len(set(own))

    def incomplete(self, query_id: str, what: str) -> None:
        """Mark a query of which the data names no answer, or leaves one out of its candidates; `what` is counted."""
        self._incomplete.add(query_id)
        self.notes[what] += 1

    def build(self, *, pooled: bool) -> Samples:
        """The finished samples; `pooled`: each query ranks its own candidates, else all of them."""
        return Samples(
            queries=tuple(self._queries),
            candidates=self.candidates,
            gains=self._gains,
            pools=self._pools if pooled else None,
            incomplete=frozenset(self._incomplete),
            notes=dict(self.notes),
        )


def clean_instruction(stored: str) -> str:
    """An instruction ready to use: without the legacy image token and outer whitespace."""
    return stored.replace(LEGACY_IMAGE_TOKEN, "").strip()


Read = Callable[[Path, Frames], Samples]


def read_named(
    name: str, edition: str, read: Read, folder: str, other: Mapping[str, Table], data: Path, frames: Frames
) -> Samples:
    """Read a task; every refusal starts with the task's name, says where, and ends with the way out.

    Args:
        folder: of the task's tables, below the data folder.
        edition: that `read` reads.
        other: tables that hold the same task in other editions, by edition.
    """
    where = f"--data {shlex.quote(str(data))} --edition {edition} --tasks {shlex.quote(name)}"
    get, check = f"mmeb-eval data get {where}", f"mmeb-eval data check {where}"
    try:
        return read(data, frames)
    except MissingTableError as error:
        if there := next((known for known, table in other.items() if has_table(data, table)), None):
            raise DataError(
                f"{name}: {data} holds the rows of edition {there} ({other[there].repo}) only; run with "
                f"--edition {there}, or get the others: {get}"
            ) from error
        raise DataError(f"{name}: {one_line(error)}{elsewhere(data, folder)}. Get it: {get}") from error
    except MissingMediaError as error:
        raise DataError(f"{name}: {one_line(error)}. Get it: {get}") from error
    except DataError as error:
        rows = "" if str(data) in str(error) else f" (rows of {data / folder})"
        said = f"{one_line(error)}{rows}"
        raise DataError(f"{name}: {said}{'' if said.endswith(('.', '?')) else '.'} Look closer: {check}") from error
