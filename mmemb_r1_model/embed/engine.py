"""The forward pass: one prefill gives the gate, the direct embedding, and the cache in which rationales are written.

    direct    : prompt <emb>                            z = h at <emb>, scaled to unit length
    reasoned  : prompt <think> r </think> <emb>         the same, after a rationale

h is the hidden state after the final norm. <emb> stands behind every prompt in the prefill, unless all rows reason: the
model is causal, so it moves nothing before it. A direct row is done then; a row that reasons goes on after its prompt,
in a slot of the decoder. Of several modes at once each takes its own; what two of them want
is written once.

Legend of shapes: B rows, L tokens, D hidden size.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

from mmeb_harness import EncodeResult, Mode, Trace, Work
from mmemb_r1_model.decoding import (
    LONGEST_PIECE,
    Answer,
    Answered,
    Costs,
    Decoder,
    Graphs,
    Opened,
    Passes,
    Pieces,
    Prompts,
    Row,
    Usage,
    read_in_pieces,
    states_of,
)
from mmemb_r1_model.model.collate import Batch, Collated, Uploaded, collate
from mmemb_r1_model.model.gate import action_logits, gate_words, prefers_short, reason_logit
from mmemb_r1_model.model.prompt import END_OF_TEXT, TURN_END, Prompt, PromptTokenizer
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Budget, Calibration, Short, Veto


def unit_vectors(states_BD: Tensor) -> Tensor:
    """Of unit length, in float32, on the CPU."""
    return torch.nn.functional.normalize(states_BD.float(), dim=-1).cpu()


@dataclass(frozen=True)
class Rationale:
    """How a rationale is written: <think>, at most `limit` tokens, </think>, <emb>. A `decoding.Rule`.

    A row with a limit of its own is closed there as was asked for: that is no truncation.
    """

    think: int
    end_think: int
    emb: int
    turn_end: int
    never: Sequence[int]
    limit: int
    vocabulary: int
    veto: Veto | None = None

    def can_be(self, token: int) -> bool:
        """Whether the model could choose a token here."""
        return 0 <= token < self.vocabulary and token not in self.never

    @property
    def mark(self) -> int:
        """The token <emb>, behind which a row is done."""
        return self.emb

    def longest(self, limit: int | None) -> int:
        """With its three markers."""
        return (self.limit if limit is None else limit) + 3

    def choose(self, row: Row, wanted: int) -> int | None:
        """The model's token, unless the answer has to be closed by rule."""
        if not row.fed:
            return self.think
        if row.fed[-1] == self.emb:
            return None
        written = len(row.fed) - 1 - row.closing  # without <think> and </think>
        if row.closing:
            row.truncated |= wanted != self.emb and written != row.limit
            return self.emb
        limit = self.limit if row.limit is None else row.limit
        if self.veto is not None and written < limit and self.veto.rejects(row.log_probs):
            row.vetoed = True
            return None
        if wanted == self.end_think:
            row.truncated |= written == 0
        elif wanted in (self.emb, self.turn_end) or written >= limit:
            row.truncated = written != row.limit
            wanted = self.end_think
        row.closing = wanted == self.end_think
        return wanted


@dataclass(frozen=True)
class Gates:
    """What the gate says of B rows.

    Attributes:
        reason: p(reason), calibrated if the checkpoint is.
        short: whether a rationale would be a short one.
    """

    reason: list[float]
    short: list[bool]


@dataclass(frozen=True)
class _Read:
    """A batch after its prefill.

    Attributes:
        answered_BD: states where the answer begins, which the gate reads.
        direct_BD: states at <emb>; `None` if all rows reason.
        seconds: that it took.
        tokens: of its prompts.
        passes: what it could not do without.
        limits: of each mode, as `Engine.limits` has them.
    """

    gates: list[float]
    answered_BD: Tensor
    direct_BD: Tensor | None
    seconds: float
    tokens: int
    passes: Passes
    limits: Sequence[Mapping[int, int | None]]


def wanted_of(limits: Sequence[Mapping[int, int | None]]) -> list[tuple[int, int | None]]:
    """Rows of a batch that write for some mode, by their places; twice those that modes end at different limits."""
    return sorted(
        {wanted for of_mode in limits for wanted in of_mode.items()}, key=lambda wanted: (wanted[0], wanted[1] or 0)
    )


def direct_trace(gate: float, seconds: float) -> Trace:
    """How a vector without a rationale came about; NaN is no gate: a checkpoint without a language head has none."""
    return Trace(gate=None if math.isnan(gate) else gate, seconds=seconds)


def with_states(traces: Sequence[Trace], states_BD: NDArray[np.float32]) -> list[Trace]:
    """Traces with the states that the gate has read."""
    return [dataclasses.replace(trace, state=state) for trace, state in zip(traces, states_BD, strict=True)]


def states_of_gates(answered_BD: Tensor) -> NDArray[np.float32]:
    """States (B, D) that the gate has read, on the CPU."""
    states_BD: NDArray[np.float32] = answered_BD.float().cpu().numpy()
    return states_BD


class Engine:
    """A loaded model and what its answers are made of."""

    def __init__(
        self,
        model: Any,
        tokenizer: PromptTokenizer,
        max_new_tokens: int,
        graphs: Graphs = "auto",
        slots: int | None = None,
        calibration: Calibration | None = None,
        short: Short | None = None,
        budget: Budget = "graded",
        veto: Veto | None = None,
        piece: int = LONGEST_PIECE,
    ) -> None:
        """Set up; nothing is computed.

        Args:
            model: Qwen3VLForConditionalGeneration.
            max_new_tokens: longest rationale; then it is closed and counted as truncated.
            graphs: see `decoding.step`; auto: on a GPU.
            slots: most rationales at once; by default as many as pay.
            calibration: of the gate; `None`: it is raw.
            short: of a graded gate; `None`: it is binary.
            budget: of rationales, if it is graded.
            veto: of rationales in mode adaptive, where the direct vector is at hand; `None`: none is given up.
            piece: columns of a prompt that are read at once, at most.
        """
        self.model, self.piece = model.eval(), piece
        self.tokenizer = tokenizer
        think, end_think, emb, turn_end = (tokenizer.id_of(token) for token in (THINK, END_THINK, EMB, TURN_END))
        num_rows = model.lm_head.weight.shape[0]
        never = tokenizer.unwritable((end_think, emb, turn_end), num_rows)
        self.rule = Rationale(think, end_think, emb, turn_end, never, max_new_tokens, num_rows, veto)
        self.decoder = Decoder(model, self.rule, graphs, slots, scores=veto is not None)
        self.costs = Costs.of(model)
        self._gate_tokens = torch.tensor([tokenizer.id_of(word) for word in gate_words(short)], device=model.device)
        self._calibration, self._short, self._budget = calibration, short, budget

    def stream(
        self, batches: Iterator[Collated | Uploaded], modes: Sequence[Mode], threshold: float
    ) -> Iterator[EncodeResult]:
        """Embed batches, one result each, in order; `others` are those of the further modes.

        Args:
            batches: their prompts end in <emb> unless "always" is the only mode.
            modes: adaptive: reason where the gate is above `threshold`.

        Raises:
            torch.OutOfMemoryError: with smaller batches, it may go.
        """
        for answered in self.decoder.stream(
            batches, lambda batch: self._open(batch, modes, threshold), lambda batch: batch.positions
        ):
            yield self._result_of(answered)

    def _open(self, collated: Collated | Uploaded, modes: Sequence[Mode], threshold: float) -> Pieces[Opened[_Read]]:
        started = time.perf_counter()
        clock = self.decoder.clock
        all_reason, none_reasons = set(modes) == {"always"}, set(modes) == {"never"}
        with clock.stage("prefill"):
            batch = collated.to(self.model.device, self.model.dtype)
            arrays = batch.arrays
        past = None if none_reasons else DynamicCache(config=self.model.config.get_text_config())
        hidden_BLD = yield from clock.stages("prefill", self.read(batch, past, wanted=2))
        with clock.stage("gate"):
            answered_BD = hidden_BLD[:, -1 if all_reason else -2].clone()
            direct_BD = None if all_reason else hidden_BLD[:, -1].clone()
            gates = self.gates(answered_BD)
        passes = self.costs.prefill(arrays.lengths, arrays.grids)
        limits = [self.limits(gates, mode, threshold) for mode in modes]
        read = _Read(
            *(gates.reason, answered_BD, direct_BD, time.perf_counter() - started, sum(arrays.lengths), passes, limits)
        )
        writing = wanted_of(limits)
        if not writing:
            return Opened(read)
        rows = [row for row, _ in writing]
        extra = 0 if all_reason else 1  # <emb>, over which <think> is written
        width, lengths, positions = batch.ids_BL.shape[1], arrays.lengths, arrays.next_position_B.tolist()
        return Opened(
            read,
            rows=rows,
            starts=[width - lengths[row] for row in rows],
            lengths=[lengths[row] - extra for row in rows],
            positions=[positions[row] - extra for row in rows],
            wanted=[self.rule.think] * len(rows),
            limits=[limit for _, limit in writing],
            past=past,
        )

    def batch(self, prompts: Sequence[Prompt]) -> Batch:
        """Prompts as one batch, where the weights are."""
        return collate(prompts, self.tokenizer.id_of(END_OF_TEXT)).to(self.model.device, self.model.dtype)

    def prefill(self, batch: Batch, past: DynamicCache | None) -> Tensor:
        """States (B, L, D), after the final norm, in one pass, however long the prompts are."""
        return states_of(self.model, batch.mask_BL, batch.positions_3BL, past, **batch.inputs)

    def read(self, batch: Batch, past: DynamicCache | None, wanted: int | None = None) -> Pieces[Tensor]:
        """The same of the last `wanted` columns, by default of all; long prompts in pieces."""
        prompts = Prompts(batch.mask_BL, batch.positions_3BL, batch.inputs)
        return read_in_pieces(self.model, prompts, past, self.piece, wanted)

    def gates(self, hidden_BD: Tensor) -> Gates:
        """The soft-max over the actions' logits where the answer begins, p(reason | x) calibrated.

        In float32: logits that bfloat16 has rounded differ in steps of up to 1/8.
        """
        weight_AD = self.model.lm_head.weight[self._gate_tokens]
        logits_BA = torch.nn.functional.linear(hidden_BD.float(), weight_AD.float())
        logits_BA = action_logits(logits_BA, self._short)
        logit_B = reason_logit(logits_BA)
        if self._calibration is not None:
            logit_B = self._calibration.slope * logit_B + self._calibration.intercept
        short = [False] * len(logit_B) if self._short is None else prefers_short(logits_BA).tolist()
        return Gates(torch.sigmoid(logit_B).tolist(), short)

    def limits(self, gates: Gates, mode: Mode, threshold: float) -> dict[int, int | None]:
        """Rows of a batch that write a rationale, and the limit of each one's tokens; `None`: the rule's."""
        rows = zip(gates.reason, gates.short, strict=True)
        return {
            row: self.limit(mode, short)
            for row, (gate, short) in enumerate(rows)
            if mode == "always" or (mode == "adaptive" and gate > threshold)
        }

    def limit(self, mode: Mode, short: bool = False) -> int | None:
        """Limit of a rationale's tokens; `None`: the rule's. `short`: whether the gate would have a short one."""
        is_short = self._budget == "short" or (self._budget == "graded" and mode == "adaptive" and short)
        return self._short.tokens if self._short is not None and is_short else None

    @torch.inference_mode()
    def _result_of(self, answered: Answered[_Read]) -> EncodeResult:
        read, written = answered.extra, {(answer.index, answer.limit): answer for answer in answered.answers}
        states_BD = states_of_gates(read.answered_BD)
        results = []
        for limits in read.limits:
            of_row = {row: written[row, limit] for row, limit in limits.items()}
            whole = [answer for answer in of_row.values() if not answer.vetoed]
            hidden_BD = read.direct_BD
            if whole:
                new_BD = torch.stack([answer.state for answer in whole])
                rows = torch.tensor([answer.index for answer in whole], device=new_BD.device)
                hidden_BD = torch.empty_like(new_BD) if hidden_BD is None else hidden_BD.clone()
                hidden_BD[rows] = new_BD
            assert hidden_BD is not None, "a batch without rows"
            traces = [
                self._trace(gate, of_row[row]) if row in of_row else direct_trace(gate, read.seconds)
                for row, gate in enumerate(read.gates)
            ]
            results.append((unit_vectors(hidden_BD), with_states(traces, states_BD)))
        return self.result(results, read.tokens, read.passes, answered.usage)

    def result(
        self, of_modes: Sequence[tuple[Tensor, Sequence[Trace]]], prompt_tokens: int, prefill: Passes, usage: Usage
    ) -> EncodeResult:
        """A batch's outcome.

        Args:
            of_modes: vectors (B, D) and traces of each. Truncated: no </think>, no <emb> after it, or nothing between
                the markers.
            prefill: what reading it could not do without.
            usage: what the device did since the result before this one, for whatever batch.
        """
        decode = self.costs.decode(usage.steps, usage.tokens, usage.columns)
        work = Work(
            *(usage.seconds, prompt_tokens, usage.tokens),
            *(prefill.flops, decode.flops, prefill.bytes, decode.bytes),
        )
        first, *others = (EncodeResult(vectors_BD.numpy(), tuple(traces)) for vectors_BD, traces in of_modes)
        return dataclasses.replace(first, work=work, others=tuple(others))

    def _trace(self, gate: float, answer: Answer) -> Trace:
        if not answer.vetoed:
            return self.reasoned(gate, answer.fed, answer.truncated, answer.seconds)
        begun = self.tokenizer.decode(list(answer.fed[1:])).strip()
        return Trace("vetoed", gate, begun, len(answer.fed), seconds=answer.seconds)

    def reasoned(self, gate: float, fed: Sequence[int], truncated: bool, seconds: float) -> Trace:
        """How a vector behind a rationale came about; `fed`: <think>, the rationale, </think>, <emb>."""
        rationale = self.tokenizer.decode(list(fed[1:-2])).strip()
        return Trace("reasoned", gate, rationale, len(fed), truncated, seconds)
