"""Rows in groups of equal slots: memory is taken for what each row has come to, not for the longest of all.

A row reserves columns for its prompt and for some tokens; one that writes more moves to a longer slot, and reserves as
many again as it has written. Its group has slots of up to half as much again, and takes a step of its own: rows of
similar length share one, and a long one beside them costs its own columns alone. A group grows with its rows; one
without any goes where memory is wanted. Where there is none a row waits, on the host, until others have left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mmemb_r1_model.decoding.step import ROW_BUCKETS, Held, Records, Step, rounded

#: Tokens that a row reserves columns for at first; a rationale is rarely longer.
AHEAD = 256
#: A slot has at most so many times the columns that its row reserves, or as many as a short row may have.
MOST_TIMES, SHORT = 1.5, 512

_SLOTS = (1, 2, 4, *ROW_BUCKETS)

RowT = TypeVar("RowT")


def reserved(length: int, fed: int, longest: int) -> int:
    """Columns for a row that holds `length` of them.

    Args:
        fed: tokens after the prompt.
        longest: that it may be fed.
    """
    return length + min(longest - fed, max(AHEAD, fed))


def columns_for(needed: int) -> int:
    """Columns of a slot for a row that needs so many."""
    return rounded(needed, parts=8)


def most_columns(needed: int) -> int:
    """Columns of the longest slot for a row that needs so many."""
    return max(columns_for(int(MOST_TIMES * needed)), SHORT)


def affordable(fitting: int) -> int:
    """Slots of those that memory has room for: as many as a step is made for, or all where these are fewer."""
    return max((slots for slots in ROW_BUCKETS if slots <= fitting), default=fitting)


def slots_for(rows: int, most: int) -> int:
    """Slots for so many rows: few numbers, as steps are recorded for each."""
    return min(next((slots for slots in _SLOTS if rows <= slots), most), most)


@dataclass
class Group(Generic[RowT]):
    """Rows that take their steps together.

    Attributes:
        active: the rows, in the slots from the first one on without a gap.
    """

    step: Step
    active: list[RowT] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """Columns of each slot."""
        return self.step.cache.columns

    @property
    def bytes(self) -> int:
        """Bytes of its slots."""
        return self.step.cache.bytes

    @property
    def free(self) -> int:
        """Slots that no row is in."""
        return self.step.cache.slots - len(self.active)

    def suits(self, needed: int) -> bool:
        """Whether its slots are long enough for a row, and not much too long."""
        return needed <= self.columns <= most_columns(needed)

    def put(self, row: RowT, held: Held) -> None:
        """A row from elsewhere, into the first free slot."""
        self.step.put(len(self.active), held)
        self.active.append(row)

    def leave(self, slots: Sequence[int]) -> None:
        """Let the last rows move to the slots of those that are done."""
        gone = set(slots)
        for slot in slots:
            while len(self.active) - 1 in gone:
                self.active.pop()
            last = len(self.active) - 1
            if slot < last:
                self.step.put(slot, self.step.take(last))
                self.active[slot] = self.active.pop()
                gone.remove(slot)
        self.step.inputs[:, len(self.active) :] = 0


class Groups(Generic[RowT]):
    """All groups of a model, within a bound of memory.

    Attributes:
        most_rows: at once, over all of them.
    """

    def __init__(
        self,
        make_step: Callable[[int, int, Step | None, int], Step],
        most_rows: int,
        room: Callable[[], int],
        token_bytes: int,
        records: Records | None,
    ) -> None:
        """Set up; memory is taken when the first row comes.

        Args:
            make_step: over so many slots of so many columns, instead of an earlier one whose first rows go on in it.
            room: bytes that all of them may take together.
            token_bytes: of a column of a slot.
            records: of recorded steps.
        """
        self._make_step, self._room, self._token_bytes, self._records = make_step, room, token_bytes, records
        self.most_rows = most_rows
        self._groups: list[Group[RowT]] = []

    @property
    def busy(self) -> list[Group[RowT]]:
        """Groups that have rows."""
        return [group for group in self._groups if group.active]

    @property
    def rows(self) -> int:
        """Rows of all groups."""
        return sum(len(group.active) for group in self._groups)

    @property
    def bytes(self) -> int:
        """Bytes of all slots."""
        return sum(group.bytes for group in self._groups)

    def place(self, needed: Sequence[int], moving: bool = False) -> Group[RowT] | None:
        """A group with a free slot for the first of the rows that wait; `None`: it waits until others have left.

        Args:
            needed: columns that each of them reserves.
            moving: the first has a slot, and leaves it.
        """
        first, left = needed[0], self.most_rows - self.rows + moving
        if not left:
            return None
        suitable = sorted((group for group in self._groups if group.suits(first)), key=lambda group: group.columns)
        alike = [columns for columns in needed if columns_for(columns) <= most_columns(first)]
        rows = min(len(alike), left)
        return (
            next((group for group in suitable if group.free), None)
            or (self._grown(suitable[0], rows) if suitable else self._made(columns_for(max(alike)), rows))
            or next((group for group in self._groups if group.free and first <= group.columns), None)
            or (None if self.rows else self._made(columns_for(first), 1, least=True))
        )

    def clear(self) -> None:
        """Let go of all rows: nobody waits for them any more."""
        for group in self._groups:
            group.active.clear()
            group.step.inputs[:] = 0

    def release(self) -> None:
        """Give all memory back, with the recordings that hold on to it."""
        for group in list(self._groups):
            self._drop(group)

    def _made(self, columns: int, rows: int, least: bool = False) -> Group[RowT] | None:
        slots = 1 if least else self._affordable(columns, rows, 1)
        if not slots:
            return None
        group = Group[RowT](self._make_step(slots, columns, None, 0))
        self._groups.append(group)
        return group

    def _grown(self, group: Group[RowT], rows: int) -> Group[RowT] | None:
        """A group with slots for so many rows more, if there is memory for them."""
        held = len(group.active)
        slots = self._affordable(group.columns, held + rows, held + 1, group.bytes)
        if not slots:
            return None
        self._forget(group.columns)
        group.step = self._make_step(slots, group.columns, group.step, held)
        return group

    def _affordable(self, columns: int, rows: int, least: int, given_up: int = 0) -> int:
        """Slots for so many rows, or as many as there is memory for; 0: not even the least.

        Args:
            given_up: bytes of the slots that these replace.
        """
        slot_bytes = columns * self._token_bytes
        wanted = slots_for(rows, self.most_rows)
        room = self._room() + given_up
        if self.bytes + wanted * slot_bytes > room:
            for group in [group for group in self._groups if not group.active]:
                self._drop(group)
        fitting = (room - self.bytes) // slot_bytes
        if fitting < wanted:
            wanted = affordable(fitting)
        return wanted if wanted >= least else 0

    def _drop(self, group: Group[RowT]) -> None:
        self._groups.remove(group)
        self._forget(group.columns)

    def _forget(self, columns: int) -> None:
        if self._records is not None:
            self._records.forget(columns)
