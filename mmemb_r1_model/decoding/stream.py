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
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache

from mmemb_r1_model.decoding.clock import StageClock
from mmemb_r1_model.decoding.patches import multiply_patches
from mmemb_r1_model.decoding.pictures import find_ends_once
from mmemb_r1_model.decoding.place import on_gpu
from mmemb_r1_model.decoding.reading import Reading, reader_count
from mmemb_r1_model.decoding.slots import KeyValueShape, SlotCache
from mmemb_r1_model.decoding.step import ROW_BUCKETS, Graphs, Records, Step, rounded

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

    @property
    def longest(self) -> int:
        """Tokens fed to a row at most."""

    def choose(self, row: Row, wanted: int) -> int | None:
        """What comes after `row.fed`, if the model wants `wanted`.

        `None`: the answer is complete, its mark was fed; or it is given up, then `row.vetoed` is set.
        """


@dataclass(frozen=True)
class Opened(Generic[ExtraT]):
    """What reading a batch leaves to be done: a list entry a row that goes on.

    Attributes:
        extra: comes back with the answers.
        rows: their indices in the batch.
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
    """

    index: int
    fed: tuple[int, ...]
    truncated: bool
    vetoed: bool
    seconds: float
    state: Tensor


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
        multiply_patches(model)
        find_ends_once(model)
        self._shape = KeyValueShape.of(text_model)
        #: Upper bound of rows at once; halved whenever memory has run out.
        self.most_rows = slots if slots is not None else SLOTS["cuda" if on_gpu(model.device) else "cpu"]
        self._last = self.most_rows
        self._bytes: int | None = None
        self._memory: Tensor | None = None
        self._steps: dict[tuple[int, int], Step] = {}
        self._records = Records() if on_gpu(model.device) and graphs != "off" else None
        #: How many were begun.
        self.streams = 0
        self.readers = reader_count(model.device)
        self.clock = StageClock(model.device, self.readers)

    @torch.inference_mode()
    def stream(
        self, batches: Iterator[BatchT], open_batch: Callable[[BatchT], Opened[ExtraT]]
    ) -> Iterator[Answered[ExtraT]]:
        """One result a batch, in order.

        Args:
            open_batch: reads a batch, in stages of `clock`.

        Raises:
            torch.OutOfMemoryError: the memory for rows is given back, and the next stream has half as many at once.
            RuntimeError: another stream was begun before this one had ended: they would write to each other's slots.
        """
        self.streams += 1
        run = _Run(self, batches, open_batch)
        try:
            with contextlib.closing(run):
                yield from run.results()
        except torch.OutOfMemoryError:
            run.forget()
            self._release()
            self.most_rows = max(1, min(self.most_rows, self._last) // 2)
            self._bytes = self._room() // 2
            raise

    def step_for(self, longest_prompt: int) -> Step:
        """The step over slots, all free, for prompts up to that length."""
        columns = rounded(longest_prompt + self.rule.longest, parts=4)
        slots = self._last = self._slots(columns)
        if (slots, columns) not in self._steps:
            if self._memory is not None and self._memory.numel() < slots * columns * self._shape.token_numbers:
                self._release()
            cache = SlotCache(self._shape, slots, columns, self._memory)
            self._memory = cache.memory
            step = Step(self._model, cache, self.rule.mark, self.rule.never, self._records, self._scores)
            self._steps[slots, columns] = step
        return self._steps[slots, columns]

    def _slots(self, columns: int) -> int:
        slot_bytes = columns * self._shape.token_numbers * self._shape.dtype.itemsize
        wanted = min(self.most_rows, max(1, self._room() // slot_bytes))
        if not on_gpu(self._model.device):
            return wanted
        # Few numbers, so that a little more or less of free memory makes no difference.
        return max((bucket for bucket in ROW_BUCKETS if bucket <= wanted), default=wanted)

    def _room(self) -> int:
        device = self._model.device
        if self._bytes is None and on_gpu(device):
            free = torch.cuda.mem_get_info(device)[0]
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            self._bytes = int(GPU_SHARE * (free + unused))
        return _HOST_BYTES if self._bytes is None else self._bytes

    def _release(self) -> None:
        """Give the slots' memory back, with the recordings that hold on to it."""
        self._steps.clear()
        self._memory = None
        if self._records is not None:
            self._records.clear()
        if on_gpu(self._model.device):
            torch.cuda.empty_cache()


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

    @property
    def longest(self) -> int:
        return max(self.opened.lengths)


class _Run(Generic[BatchT, ExtraT]):
    """The rows and batches of one stream, while it runs."""

    def __init__(
        self, decoder: Decoder, batches: Iterator[BatchT], open_batch: Callable[[BatchT], Opened[ExtraT]]
    ) -> None:
        self._decoder, self._number = decoder, decoder.streams
        self._reading = Reading(batches, open_batch, decoder.readers)
        self._rule, self._clock = decoder.rule, decoder.clock
        self._clock.take()
        self._tickets: deque[_Ticket[ExtraT]] = deque()
        self._waiting: _Waiting[ExtraT] | None = None
        #: Rows in the slots, from the first one on without a gap.
        self._active: list[tuple[Row, _Ticket[ExtraT]]] = []
        self._step: Step | None = None
        self._steps = self._tokens = self._looked_at = 0
        self._more = True

    def results(self) -> Iterator[Answered[ExtraT]]:
        while self._more or self._tickets:
            if self._number != self._decoder.streams:
                raise RuntimeError("another stream was begun on this model before this one had ended")
            if self._waiting:
                if not self._active:
                    self._step = None  # or its memory couldn't be given back for more
                    self._step = self._decoder.step_for(self._waiting.longest)
                self._admit(self._waiting, range(len(self._active), self.step.cache.slots))
            if self._more and not self._waiting and (not self._active or len(self._active) < self.step.cache.slots):
                self._read()
            elif self._active:
                self._reading.pause()
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
        self._step = self._waiting = None
        self._active.clear()
        self._tickets.clear()

    def _read(self) -> None:
        batch = self._reading.next()
        if batch is None:
            self._more = False
            return
        opened, started = batch
        ticket = _Ticket(opened.extra, len(opened.rows), started)
        self._tickets.append(ticket)
        if opened.rows:
            self._waiting = _Waiting(opened, ticket, deque(range(len(opened.rows))))

    @property
    def step(self) -> Step:
        """Over the slots in use."""
        assert self._step is not None, "no row was admitted"
        return self._step

    def _admit(self, waiting: _Waiting[ExtraT], free: Sequence[int]) -> Sequence[int]:
        """Rows that wait into free slots, the first of these first.

        Returns:
            The slots that are still free.
        """
        opened = waiting.opened
        if not free or waiting.longest + self._rule.longest > self.step.cache.columns:
            return free  # longer than the slots: those are made anew when the last row has left
        places = [waiting.places.popleft() for _ in range(min(len(free), len(waiting.places)))]
        if not waiting.places:
            self._waiting = None
        slots = free[: len(places)]
        rows, starts, lengths = ([of[place] for place in places] for of in (opened.rows, opened.starts, opened.lengths))
        with self._clock.stage("generate", reading=False):
            self.step.cache.admit(opened.past, rows, starts, lengths, slots)
        for slot, place in zip(slots, places, strict=True):
            row = Row(opened.rows[place], limit=opened.limits[place] if opened.limits else None)
            self._active[slot : slot + 1] = [(row, waiting.ticket)]
            token = self._rule.choose(row, opened.wanted[place])
            if token is None:
                raise ValueError("a rule must feed a row its mark before it ends")
            self.step.inputs[:, slot] = token, opened.lengths[place], opened.positions[place]
        return free[len(places) :]

    def _advance(self) -> None:
        """A token for every row."""
        step, rows = self.step, len(self._active)
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
        done = []
        for slot, (row, _) in enumerate(self._active):
            row.fed.append(fed[slot])
            if log_probs:
                row.log_probs.append(log_probs[slot])
            token = self._rule.choose(row, chosen[slot])
            if token is None:
                done.append(slot)
            else:
                tokens[slot] = token
        if done:
            self._leave(done)

    def _leave(self, done: list[int]) -> None:
        """Answers of rows that are complete; their slots go to rows that wait, or to the last ones."""
        with self._clock.stage("readout", reading=False):
            states = self.step.kept_SD[torch.tensor(done, device=self.step.kept_SD.device)]
        now = time.perf_counter()
        for slot, state in zip(done, states, strict=True):
            row, ticket = self._active[slot]
            ticket.open_rows -= 1
            ticket.answers.append(
                Answer(row.index, tuple(row.fed), row.truncated, row.vetoed, now - ticket.started, state)
            )
        free = self._admit(self._waiting, done) if self._waiting else done
        self._close_gaps(free)

    def _close_gaps(self, free: Sequence[int]) -> None:
        gone = set(free)
        for slot in free:
            while len(self._active) - 1 in gone:
                self._active.pop()
            last = len(self._active) - 1
            if slot < last:
                self.step.move(last, slot, int(self.step.inputs[1, last]))
                self._active[slot] = self._active.pop()
                gone.remove(slot)
        self.step.inputs[:, len(self._active) :] = 0
