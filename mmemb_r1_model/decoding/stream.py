"""Batches in, answers out: every batch is read in one pass, its rows go on in slots, and who is done makes room.

    batch ──open──▶ rows that go on ──wait──▶ slots ──a token a step──▶ answers, batch by batch, in order
                    (all others are done)

What runs beside what depends on the batches alone, never on time.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from mmemb_r1_model.decoding.clock import StageClock
from mmemb_r1_model.decoding.groups import Group, Groups, reserved
from mmemb_r1_model.decoding.pieces import Pieces, stop_at_language_models
from mmemb_r1_model.decoding.place import on_gpu
from mmemb_r1_model.decoding.quick import quicken
from mmemb_r1_model.decoding.reading import UNFINISHED, Reading, reader_count
from mmemb_r1_model.decoding.slots import KeyValueShape, SlotCache
from mmemb_r1_model.decoding.step import Graphs, Held, Records, Step

#: Most rows at once. On a GPU a step costs little more for many rows than for one; see also `_room`.
SLOTS = {"cuda": 256, "cpu": 64}
#: Bytes of slots on anything but a GPU.
_HOST_BYTES = 4 * 2**30
#: Share of a GPU's free memory for slots; the rest is for reading prompts.
GPU_SHARE = 0.6

BatchT = TypeVar("BatchT")
ExtraT = TypeVar("ExtraT")


@dataclass
class Row:
    """A row that goes on, while it does.

    Attributes:
        index: in its batch.
        fed: tokens fed after the prompt.
        limit: see `Opened.limits`.
        log_probs: of what the model wanted behind each of them, where the rule looks at it.
        closing, marked, truncated, vetoed: for the rule's own use.
    """

    index: int
    fed: list[int] = field(default_factory=list)
    limit: int | None = None
    log_probs: list[float] = field(default_factory=list)
    closing: bool = False
    marked: bool = False
    truncated: bool = False
    vetoed: bool = False


class Rule(Protocol):
    """How an answer goes on, and when it ends."""

    @property
    def mark(self) -> int:
        """A row's state is that of the last token of this kind."""

    @property
    def never(self) -> Sequence[int]:
        """Tokens that the model doesn't choose."""

    def longest(self, limit: int | None) -> int:
        """Tokens fed to a row at most; `limit`: see `Opened.limits`."""

    def choose(self, row: Row, wanted: int) -> int | None:
        """What comes after `row.fed`, if the model wants `wanted`.

        `None`: the answer is complete, its mark was fed; or it is given up, then `row.vetoed` is set.
        """


@dataclass(frozen=True)
class Opened(Generic[ExtraT]):
    """What reading a batch leaves to be done: a list entry a row that goes on.

    Attributes:
        extra: comes back with the answers.
        rows: their indices in the batch; one may go on more than once, with other limits.
        starts, lengths: columns of the prompt in `past`: its first, and how many.
        positions: of the first token after the prompt.
        wanted: what the model wants there.
        past: keys and values of all rows of the batch; `None` if no row goes on.
        limits: for the rule: tokens that a row may write, where it is told; empty: of no row.
    """

    extra: ExtraT
    rows: Sequence[int] = ()
    starts: Sequence[int] = ()
    lengths: Sequence[int] = ()
    positions: Sequence[int] = ()
    wanted: Sequence[int] = ()
    past: DynamicCache | None = None
    limits: Sequence[int | None] = ()


@dataclass(frozen=True)
class Answer:
    """A row's end.

    Attributes:
        index: in its batch.
        fed: tokens after the prompt, the last mark among them unless it is vetoed.
        vetoed: the rule gave it up; its state means nothing.
        seconds: from the start of its batch's reading until the state was there.
        state: (D,) at the last mark, after the final norm; on the device.
        limit: the row's, where it was told one.
    """

    index: int
    fed: tuple[int, ...]
    truncated: bool
    vetoed: bool
    seconds: float
    state: Tensor
    limit: int | None = None


@dataclass(frozen=True)
class Usage:
    """What the device did between two results.

    Attributes:
        seconds: by stage.
        steps: of one token a row.
        tokens: fed in them.
        columns: keys and values these tokens looked at, their own included.
    """

    seconds: dict[str, float]
    steps: int
    tokens: int
    columns: int


@dataclass(frozen=True)
class Answered(Generic[ExtraT]):
    """A batch's answers, in the order in which its rows ended."""

    extra: ExtraT
    answers: tuple[Answer, ...]
    usage: Usage


class Decoder:
    """A model that continues rows, and the memory in which it does; one stream at a time."""

    def __init__(
        self, model: Any, rule: Rule, graphs: Graphs = "auto", slots: int | None = None, scores: bool = False
    ) -> None:
        """Set up; memory is taken when the first row goes on.

        Args:
            model: Qwen2-VL or Qwen3-VL of transformers, with its language head.
            slots: most rows at once; by default as many as pay on this kind of device.
            scores: whether the rule looks at `Row.log_probs`.

        Raises:
            ValueError: a model that attends to a window only.
        """
        text_model = model.model.language_model
        if any(getattr(layer.self_attn, "sliding_window", None) for layer in text_model.layers):
            raise ValueError("a model with sliding-window attention can't run in slots; turn use_sliding_window off")
        self._model, self.rule, self._scores = model, rule, scores
        quicken(model, model.device)
        stop_at_language_models(model)
        self._shape = KeyValueShape.of(text_model)
        self._bytes: int | None = None
        self._records = Records() if on_gpu(model.device) and graphs != "off" else None
        most_rows = slots if slots is not None else SLOTS["cuda" if on_gpu(model.device) else "cpu"]
        #: The rows that go on. How many there may be at once is halved whenever memory has run out.
        self.groups: Groups[Any] = Groups(
            self._make_step, most_rows, self._room, self._shape.token_bytes, self._records
        )
        #: How many were begun.
        self.streams = 0
        self.readers = reader_count(model.device)
        self.clock = StageClock(model.device, self.readers)

    @torch.inference_mode()
    def stream(
        self,
        batches: Iterator[BatchT],
        open_batch: Callable[[BatchT], Pieces[Opened[ExtraT]]],
        positions_of: Callable[[BatchT], int],
    ) -> Iterator[Answered[ExtraT]]:
        """One result a batch, in order.

        Args:
            open_batch: reads a batch, in stages of `clock`. Between the pieces of a long one others get a token each.
            positions_of: rows times columns of a batch; large ones are read alone.

        Raises:
            torch.OutOfMemoryError: the memory for rows is given back, and the next stream has half as many at once.
            RuntimeError: another stream was begun before this one had ended: they would write to each other's slots.
        """
        self.streams += 1
        self.groups.clear()
        run = _Run(self, batches, open_batch, positions_of)
        try:
            with contextlib.closing(run):
                yield from run.results()
        except torch.OutOfMemoryError:
            run.forget()
            self.groups.most_rows = max(1, self.groups.most_rows // 2)
            self.groups.release()
            if on_gpu(self._model.device):
                torch.cuda.empty_cache()
            self._bytes = self._room() // 2
            raise

    def _make_step(self, slots: int, columns: int, earlier: Step | None, rows: int) -> Step:
        cache = SlotCache(self._shape, slots, columns, None if earlier is None else earlier.cache, rows)
        step = Step(self._model, cache, self.rule.mark, self.rule.never, self._records, self._scores)
        if earlier is not None:
            step.take_over(earlier, rows)
        return step

    def _room(self) -> int:
        device = self._model.device
        if self._bytes is None and on_gpu(device):
            free = torch.cuda.mem_get_info(device)[0]
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            self._bytes = int(GPU_SHARE * (free + unused))
        return _HOST_BYTES if self._bytes is None else self._bytes


@dataclass
class _Ticket(Generic[ExtraT]):
    """A batch whose result is owed."""

    extra: ExtraT
    open_rows: int
    started: float
    answers: list[Answer] = field(default_factory=list)


@dataclass
class _Waiting(Generic[ExtraT]):
    """A batch that was read, and those of its rows that have no slot yet."""

    opened: Opened[ExtraT]
    ticket: _Ticket[ExtraT]
    places: deque[int]  # in the lists of `opened`
    needed: Sequence[int]  # columns of each row


#: A row in a slot.
_Active: TypeAlias = tuple[Row, _Ticket[ExtraT]]


class _Run(Generic[BatchT, ExtraT]):
    """The rows and batches of one stream, while it runs."""

    def __init__(
        self,
        decoder: Decoder,
        batches: Iterator[BatchT],
        open_batch: Callable[[BatchT], Pieces[Opened[ExtraT]]],
        positions_of: Callable[[BatchT], int],
    ) -> None:
        self._decoder, self._number = decoder, decoder.streams
        self._reading = Reading(batches, open_batch, positions_of, decoder.readers)
        self._rule, self._clock = decoder.rule, decoder.clock
        self._clock.take()
        self._groups: Groups[_Active[ExtraT]] = decoder.groups
        self._tickets: deque[_Ticket[ExtraT]] = deque()
        self._waiting: _Waiting[ExtraT] | None = None
        #: Rows that had come to the end of their slots when there was no memory for longer ones.
        self._parked: deque[tuple[_Active[ExtraT], Held]] = deque()
        self._steps = self._tokens = self._looked_at = 0
        self._more = True

    def results(self) -> Iterator[Answered[ExtraT]]:
        while self._more or self._tickets:
            if self._number != self._decoder.streams:
                raise RuntimeError("another stream was begun on this model before this one had ended")
            while self._parked and self._go_on(*self._parked[0]):
                self._parked.popleft()
            if self._waiting and not self._parked:
                self._admit(self._waiting)
            waits = self._waiting or self._parked or self._groups.rows >= self._groups.most_rows
            reads = self._more and not waits
            if not reads or not self._read():
                self._advance()
            while self._tickets and not self._tickets[0].open_rows:
                ticket = self._tickets.popleft()
                usage = Usage(self._clock.take(), self._steps, self._tokens, self._looked_at)
                self._steps = self._tokens = self._looked_at = 0
                yield Answered(ticket.extra, tuple(ticket.answers), usage)

    def close(self) -> None:
        """Stop the thread that reads ahead."""
        self._reading.close()

    def forget(self) -> None:
        """Let go of what lies on the device: an error's traceback may keep this object alive."""
        self._waiting = None
        self._tickets.clear()
        self._parked.clear()

    def _read(self) -> bool:
        """Read on; false: not to the end of a batch."""
        read = self._reading.next()
        if read is None:
            self._more = False
        elif isinstance(read, tuple):
            opened, started = read
            ticket = _Ticket(opened.extra, len(opened.rows), started)
            self._tickets.append(ticket)
            if opened.rows:
                limits = opened.limits or [None] * len(opened.rows)
                rows = zip(opened.lengths, limits, strict=True)
                needed = [reserved(length, 0, self._rule.longest(limit)) for length, limit in rows]
                self._waiting = _Waiting(opened, ticket, deque(range(len(opened.rows))), needed)
        return read is not UNFINISHED

    def _admit(self, waiting: _Waiting[ExtraT]) -> None:
        """Rows that wait into free slots, in order."""
        groups = self._groups
        while waiting.places:
            group = groups.place([waiting.needed[place] for place in waiting.places])
            if group is None:
                return
            free = min(group.free, groups.most_rows - groups.rows)
            places = [waiting.places.popleft()]
            while len(places) < free and waiting.places and group.suits(waiting.needed[waiting.places[0]]):
                places.append(waiting.places.popleft())
            self._enter(group, waiting, places)
        self._waiting = None

    def _enter(self, group: Group[_Active[ExtraT]], waiting: _Waiting[ExtraT], places: Sequence[int]) -> None:
        opened, step, first = waiting.opened, group.step, len(group.active)
        rows, starts, lengths = ([of[place] for place in places] for of in (opened.rows, opened.starts, opened.lengths))
        with self._clock.stage("generate", reading=False):
            step.cache.admit(opened.past, rows, starts, lengths, range(first, first + len(places)))
        for slot, place in enumerate(places, first):
            row = Row(opened.rows[place], limit=opened.limits[place] if opened.limits else None)
            group.active.append((row, waiting.ticket))
            token = self._rule.choose(row, opened.wanted[place])
            if token is None:
                raise ValueError("a rule must feed a row its mark before it ends")
            step.inputs[:, slot] = token, opened.lengths[place], opened.positions[place]

    def _advance(self) -> None:
        """A token for every row."""
        busy = self._groups.busy
        if busy:
            self._reading.pause()
        for group in busy:
            self._advance_group(group)

    def _advance_group(self, group: Group[_Active[ExtraT]]) -> None:
        step, rows = group.step, len(group.active)
        tokens, lengths, positions = step.inputs[:, :rows]
        fed = tokens.tolist()
        with self._clock.stage("generate", reading=False):
            step(rows)
            chosen: list[int] = step.chosen_S[:rows].tolist()  # the one wait for the device
            log_probs: list[float] = [] if step.log_probs_S is None else step.log_probs_S[:rows].tolist()
        self._steps += 1
        self._tokens += rows
        self._looked_at += int(lengths.sum()) + rows
        lengths += 1
        positions += 1
        done, full = [], (lengths == group.columns).nonzero()[0].tolist()
        for slot, (row, _) in enumerate(group.active):
            row.fed.append(fed[slot])
            if log_probs:
                row.log_probs.append(log_probs[slot])
            token = self._rule.choose(row, chosen[slot])
            if token is None:
                done.append(slot)
            else:
                tokens[slot] = token
        if done:
            self._answer(group, done)
        for slot in (full := [slot for slot in full if slot not in done]):
            active, held = group.active[slot], step.take(slot)
            if not self._go_on(active, held, moving=True):
                self._parked.append((active, held.on_host()))
        group.leave([*done, *full])

    def _go_on(self, active: _Active[ExtraT], held: Held, moving: bool = False) -> bool:
        """Let a row go on in a longer slot; false: there is no memory for one."""
        row, _ = active
        needed = reserved(int(held.inputs[1]), len(row.fed), self._rule.longest(row.limit))
        group = self._groups.place([needed], moving)
        if group is None:
            return False
        with self._clock.stage("generate", reading=False):
            group.put(active, held)
        return True

    def _answer(self, group: Group[_Active[ExtraT]], done: list[int]) -> None:
        """Answers of rows that are complete."""
        with self._clock.stage("readout", reading=False):
            states = group.step.kept_SD[torch.tensor(done, device=group.step.kept_SD.device)]
        now = time.perf_counter()
        for slot, state in zip(done, states, strict=True):
            row, ticket = group.active[slot]
            ticket.open_rows -= 1
            ticket.answers.append(
                Answer(row.index, tuple(row.fed), row.truncated, row.vetoed, now - ticket.started, state, row.limit)
            )
