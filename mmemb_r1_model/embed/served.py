"""Embeddings whose rationales a server writes: two passes here, and the writing elsewhere, meanwhile.

    batch ──pass──▶ gate, direct vectors ──rows that reason──▶ server ──rationales──▶ pass ──▶ reasoned vectors

The second pass reads prompt <think> r </think> <emb> anew, in batches of similar length. Which rows share one depends
on prompts and rationales alone, never on when these come back. If all rows reason, it gives the gate as well, and there
is no first pass. A rationale ends by the rule of the local engine.

Legend of shapes: B rows, L tokens, D hidden size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeAlias

import torch
from torch import Tensor

from mmeb_harness import EncodeResult, Mode, Trace
from mmemb_r1_model.decoding import Passes, Row, Usage, at_once
from mmemb_r1_model.disk.errors import ModelError
from mmemb_r1_model.embed.engine import (
    Engine,
    Gates,
    Rationale,
    direct_trace,
    states_of_gates,
    unit_vectors,
    wanted_of,
    with_states,
)
from mmemb_r1_model.model.collate import Batch, Collated, Uploaded, prompts_of
from mmemb_r1_model.model.prompt import Prompt, extended
from mmemb_r1_model.vllm.client import Client, Order, Question, Send

#: Tokens that a server wrote.
Ids: TypeAlias = tuple[int, ...]
#: A batch, and what the server must know of each of its items.
Asked: TypeAlias = tuple[Collated | Uploaded, Sequence[Question]]

#: Pixels kept for second passes; above it, no further batch is read until rationales have come back.
HELD_BYTES = 8 * 2**30
#: Of the rationale by which a server shows that it has the same weights.
_PROBE_TOKENS = 16
#: By which the server's token may be less likely here than the likeliest: precisions differ, the same weights not more.
_PROBE_NATS = 1.0


@dataclass(frozen=True)
class ServedEngine:
    """`Engine`'s results, with rationales from a server.

    Attributes:
        planned_rationale: tokens that were allowed for a row's rationale when batches were planned.
    """

    engine: Engine
    client: Client[Ids]
    planned_rationale: int

    def stream(self, batches: Iterator[Asked], modes: Sequence[Mode], threshold: float) -> Iterator[EncodeResult]:
        """As `Engine.stream`.

        Raises:
            ModelError: no rationale could be had.
            torch.OutOfMemoryError: with smaller batches, it may go.
        """
        with self.client.sending() as send:
            yield from _Run(self.engine, send, modes, threshold, self.planned_rationale).results(batches)

    def learn_clips(self, prompt: Prompt, question: Question) -> None:
        """Find out by a clip how the server has to be asked for one; see `Client.learn_clips`."""
        self.client.learn_clips(Order(question, [*prompt.ids.tolist(), self.engine.rule.think], 1))

    def check(self, prompt: Prompt, question: Question) -> None:
        """Let the server begin a rationale, and see whether these weights would have written it.

        Args:
            prompt: of a text, up to where the model answers.

        Raises:
            ModelError: they wouldn't, or the server can't be used at all.
        """
        rule, tokenizer = self.engine.rule, self.engine.tokenizer
        begun = extended(prompt, [rule.think])
        wanted = min(_PROBE_TOKENS, rule.limit)
        with self.client.sending() as send:
            (ids,) = send(Order(question, begun.ids.tolist(), wanted)).result()
        written = list(takewhile(rule.can_be, ids))
        if not written:
            raise ModelError(
                f"rationales: the server begins a rationale with tokens {list(ids[:3])}, which none can contain: it "
                "must heed `logit_bias` and serve this checkpoint"
            )
        for place, (token, missing) in enumerate(zip(written, self._missing_nats(begun, written), strict=True)):
            if missing > _PROBE_NATS:
                raise ModelError(
                    "rationales: the server doesn't write what this checkpoint would: of token "
                    f"{place + 1}, {tokenizer.decode([token])!r}, the logarithm of the probability is {missing:.1f} "
                    f"below that of the likeliest one here (up to {_PROBE_NATS:g} could be rounding). Let it serve the "
                    "same folder, not quantised"
                )

    @torch.inference_mode()
    def _missing_nats(self, begun: Prompt, written: Sequence[int]) -> list[float]:
        """How much less likely each token is here than the likeliest one, as log-probabilities."""
        engine = self.engine
        states_BLD = engine.prefill(engine.batch([extended(begun, written)]), None)
        logits_LV = engine.model.lm_head(states_BLD[0, -len(written) - 1 : -1]).float()
        logits_LV[:, list(engine.rule.never)] = -torch.inf
        chosen_L = logits_LV.gather(1, torch.tensor(written, device=logits_LV.device)[:, None])[:, 0]
        missing: list[float] = (logits_LV.max(dim=1).values - chosen_L).tolist()
        return missing


#: A row of a batch, and the limit of its rationale's tokens, as `Engine.limit` has it.
Wanted: TypeAlias = tuple[int, int | None]


@dataclass
class _Ticket:
    """A batch whose result is owed.

    Attributes:
        tokens: that it was planned with, padding included.
        direct_BD, answered_BD, gates, seconds: of the first pass, where there was one; else filled by the second.
        limits: of each mode, as `Engine.limits` has them.
        promised: rationales under way: row and limit, prompt, and what the server will have written.
        reasoned: vectors (D,) behind rationales, and how each came about.
    """

    started: float
    tokens: int
    direct_BD: Tensor
    answered_BD: Tensor
    gates: list[float | None]
    seconds: float = 0.0
    limits: Sequence[Mapping[int, int | None]] = ()
    promised: list[tuple[Wanted, Prompt, Future[list[Ids]]]] = field(default_factory=list)
    reasoned: dict[Wanted, tuple[Tensor, Trace]] = field(default_factory=dict)

    @property
    def is_written(self) -> bool:
        """Whether all its rationales are there."""
        return all(future.done() for *_, future in self.promised)

    @property
    def is_finished(self) -> bool:
        """Whether all its vectors are."""
        return all(wanted in self.reasoned for limits in self.limits for wanted in limits.items())

    def in_mode(self, limits: Mapping[int, int | None]) -> tuple[Tensor, list[Trace]]:
        """Vectors (B, D) and traces of a mode with these limits."""
        vectors_BD, traces = self.direct_BD.clone(), []
        for row, gate in enumerate(self.gates):
            assert gate is not None, "a row of which nothing is known"
            trace = direct_trace(gate, self.seconds)
            if row in limits:
                vectors_BD[row], trace = self.reasoned[row, limits[row]]
            traces.append(trace)
        return vectors_BD, traces


@dataclass(frozen=True)
class _Written:
    """A row with its rationale, which waits for its second pass."""

    ticket: _Ticket
    wanted: Wanted
    prompt: Prompt  # without the rationale
    answer: Row

    @property
    def whole(self) -> Prompt:
        return extended(self.prompt, self.answer.fed)

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer.fed)


@dataclass
class _Run:
    """The batches of one stream, while their rationales are written elsewhere."""

    engine: Engine
    send: Send[Ids]
    modes: Sequence[Mode]
    threshold: float
    planned_rationale: int
    owed: deque[_Ticket] = field(default_factory=deque)
    #: Those of the same batches whose rationales weren't taken yet.
    unwritten: deque[_Ticket] = field(default_factory=deque)
    wave: list[_Written] = field(default_factory=list)
    budget: int = 0
    held: int = 0
    prompt_tokens: int = 0
    spent: Passes = field(default_factory=Passes)

    def results(self, batches: Iterator[Asked]) -> Iterator[EncodeResult]:
        self.engine.decoder.clock.take()
        for batch, questions in batches:
            self._read(batch, questions)
            while self.unwritten and (self.unwritten[0].is_written or self.held > HELD_BYTES):
                self._take(self.unwritten.popleft())
            yield from self._finished()
        while self.unwritten:
            self._take(self.unwritten.popleft())
            yield from self._finished()
        self._read_wave()
        yield from self._finished()

    def _finished(self) -> Iterator[EncodeResult]:
        while self.owed and self.owed[0].is_finished:
            ticket = self.owed.popleft()
            states_BD = states_of_gates(ticket.answered_BD)
            each = [ticket.in_mode(limits) for limits in ticket.limits]
            usage = Usage(self.engine.decoder.clock.take(), 0, 0, 0)
            tokens, spent = self.prompt_tokens, self.spent
            self.prompt_tokens, self.spent = 0, Passes()
            of_modes = [(vectors_BD, with_states(traces, states_BD)) for vectors_BD, traces in each]
            yield self.engine.result(of_modes, tokens, spent, usage)

    def _read(self, batch: Collated | Uploaded, questions: Sequence[Question]) -> None:
        """The first pass, where there is one; rows that reason go to the server."""
        arrays = batch if isinstance(batch, Collated) else batch.arrays
        rows, width = arrays.ids_BL.shape
        size = self.engine.model.config.get_text_config().hidden_size
        tokens, begun = rows * (width + self.planned_rationale), time.perf_counter()
        empty_BD = torch.empty(rows, size)
        ticket = _Ticket(begun, tokens, empty_BD, empty_BD.clone(), [None] * rows)
        self.owed.append(ticket)
        self.unwritten.append(ticket)
        all_reason = set(self.modes) == {"always"}
        if all_reason:
            ticket.limits = [dict.fromkeys(range(rows), self.engine.limit("always")) for _ in self.modes]
        else:
            self._read_directly(batch, ticket)
        wanted = wanted_of(ticket.limits)
        # The prompts end in <emb> where there was a first pass.
        prompts = prompts_of(arrays, [row for row, _ in wanted], 0 if all_reason else 1)
        for (row, limit), prompt in zip(wanted, prompts, strict=True):
            ids = [*prompt.ids.tolist(), self.engine.rule.think]
            order = Order(questions[row], ids, limit or self.engine.rule.limit)
            ticket.promised.append(((row, limit), prompt, self.send(order)))
            self.held += _pixel_bytes(prompt)

    def _read_directly(self, batch: Collated | Uploaded, ticket: _Ticket) -> None:
        """Gates, and vectors at <emb>; the rows that reason, and their limits."""
        engine = self.engine
        vectors_BD, answered_BD, gates = self._pass(
            "prefill", lambda: batch.to(engine.model.device, engine.model.dtype), answered=-2
        )
        ticket.direct_BD.copy_(vectors_BD)
        ticket.answered_BD.copy_(answered_BD)
        ticket.gates[:] = gates.reason
        ticket.seconds = time.perf_counter() - ticket.started
        ticket.limits = [engine.limits(gates, mode, self.threshold) for mode in self.modes]

    @torch.inference_mode()
    def _pass(self, stage: str, batch: Callable[[], Batch], answered: int | list[int]) -> tuple[Tensor, Tensor, Gates]:
        """Vectors (B, D) at <emb>, states (B, D) that the gate reads, and the gates.

        Args:
            batch: brings it to the device.
            answered: columns where the answers begin.
        """
        engine = self.engine
        with engine.decoder.clock.stage(stage):
            read = batch()
            states_BLD = at_once(engine.read(read, None))
            vectors_BD = unit_vectors(states_BLD[:, -1])
        with engine.decoder.clock.stage("gate"):
            every = torch.arange(len(states_BLD), device=states_BLD.device)
            columns = torch.tensor(answered, device=states_BLD.device)
            answered_BD = states_BLD[every, columns]
            gates = engine.gates(answered_BD)
        passes = engine.costs.prefill(read.arrays.lengths, read.arrays.grids)
        self.spent = Passes(self.spent.flops + passes.flops, self.spent.bytes + passes.bytes)
        self.prompt_tokens += sum(read.arrays.lengths)
        return vectors_BD, answered_BD.float().cpu(), gates

    def _take(self, ticket: _Ticket) -> None:
        """Wait for a batch's rationales; a second pass when enough have come together for one."""
        for wanted, prompt, future in ticket.promised:
            (ids,) = future.result()
            self.wave.append(
                _Written(ticket, wanted, prompt, closed_by_rule(ids, wanted[0], self.engine.rule, wanted[1]))
            )
        ticket.promised.clear()
        self.budget = max(self.budget, ticket.tokens)
        if sum(map(len, self.wave)) >= self.budget:
            self._read_wave()

    def _read_wave(self) -> None:
        for group in by_length([len(written) for written in self.wave], self.budget):
            self._read_out([self.wave[index] for index in group])
        self.wave.clear()

    def _read_out(self, written: Sequence[_Written]) -> None:
        """Read rows with their rationales: one second pass."""
        engine = self.engine
        answered = [-len(row.answer.fed) - 1 for row in written]
        vectors_BD, answered_BD, gates = self._pass(
            "readout", lambda: engine.batch([row.whole for row in written]), answered
        )
        now = time.perf_counter()
        rows = zip(written, vectors_BD, answered_BD, gates.reason, strict=True)
        for row, vector_D, answered_D, gate in rows:
            self.held -= _pixel_bytes(row.prompt)
            ticket, answer, index = row.ticket, row.answer, row.wanted[0]
            decided = ticket.gates[index]  # that of the first pass, by which the row reasons
            if decided is None:
                ticket.gates[index] = decided = gate
                ticket.answered_BD[index] = answered_D
            trace = engine.reasoned(decided, answer.fed, answer.truncated, now - ticket.started)
            ticket.reasoned[row.wanted] = vector_D, trace


def closed_by_rule(ids: Sequence[int], index: int, rule: Rationale, limit: int | None = None) -> Row:
    """A row as if it had been written here: what a server wrote behind <think>, up to its end, closed if need be.

    Args:
        limit: of its tokens, if it has one of its own.
    """
    row, left = Row(index, limit=limit), iter(ids)
    token: int | None = rule.choose(row, rule.think)
    while token is not None:
        row.fed.append(token)
        wanted = next(left, rule.turn_end)
        # What can't be written here ends a rationale as the end of the turn does.
        token = rule.choose(row, wanted if rule.can_be(wanted) else rule.turn_end)
    return row


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in batches of similar length, which take at most `budget` tokens with padding, or have one row."""
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        # The last of a group is its longest.
        if groups and (len(groups[-1]) + 1) * lengths[index] <= budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _pixel_bytes(prompt: Prompt) -> int:
    return sum(patches.pixels.bytes.nbytes for patches in prompt.patches)
