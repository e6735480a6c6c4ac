"""The engine beside the plain reference, on the same prompts with the same weights, in float32 and in bfloat16.

Greedy tokens can't be compared one to one: where two are nearly as likely any rounding chooses, and all that follows
differs. So the reference reads what the engine wrote, in one pass without a cache: of each token it says how far that
is from the likeliest, and of the whole the vector.

In float32 bounds are fixed. What bfloat16 rounds depends on the kernels, so there the bound is measured: how far the
reference itself is, in bfloat16, from the same weights in float32.

Legend of shapes: I prompts, L columns, D hidden size, T tokens of a rationale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmeb_harness import Mode, Trace
from mmemb_r1_model.decoding import as_the_library_has_it, suppressed
from mmemb_r1_model.embed.engine import Engine, unit_vectors
from mmemb_r1_model.embed.reference import embed_plainly
from mmemb_r1_model.model.collate import collate
from mmemb_r1_model.model.prompt import END_OF_TEXT, Prompt, extended

#: Prompts that are read together.
BATCH = 4
#: Of float32: between two vectors of unit length, between two gates, and of a token's logit below the likeliest one's.
#: Sums in another order make 4e-6 of the first (28 layers), bfloat16 a hundredth.
EXACT, EXACT_LOGIT = 1e-4, 1e-3
#: Of bfloat16: how much farther off than the reference the engine may be. Both are off by chance, and prompts are few.
TIMES = 3.0
#: A gate is one number, and may be right by luck: the reference counts as this far off at least.
GATE = 0.01
#: How much farther than rounding other prompts' vectors must be, or the comparison would say nothing.
TELLS = 6.0


class ListeningEngine(Engine):
    """An engine that notes what its rows were fed: traces have texts, not tokens."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.fed: list[tuple[int, ...]] = []

    def reasoned(self, gate: float, fed: Sequence[int], truncated: bool, seconds: float) -> Trace:
        self.fed.append(tuple(fed))
        return super().reasoned(gate, fed, truncated, seconds)


@dataclass(frozen=True)
class Embedded:
    """What an engine made of some prompts.

    Attributes:
        vectors_ID: of unit length, in float32 on the CPU.
        gates_I: p(reason).
        fed: of each that reasoned: <think>, the rationale, </think>, <emb>.
    """

    vectors_ID: Tensor
    gates_I: Tensor
    rationales: tuple[str | None, ...]
    fed: tuple[tuple[int, ...], ...]


def by_engine(engine: ListeningEngine, prompts: Sequence[Prompt], mode: Mode) -> Embedded:
    """Several batches in one stream."""
    if mode != "always":
        prompts = [extended(prompt, [engine.rule.emb]) for prompt in prompts]
    engine.fed.clear()
    pad = engine.tokenizer.id_of(END_OF_TEXT)
    batches = (collate(prompts[start : start + BATCH], pad) for start in range(0, len(prompts), BATCH))
    results = list(engine.stream(batches, [mode], threshold=0.5))
    traces = [trace for result in results for trace in result.traces or ()]
    return Embedded(
        torch.cat([torch.from_numpy(result.vectors) for result in results]),
        torch.tensor([trace.gate for trace in traces], dtype=torch.float64),
        tuple(trace.rationale for trace in traces),
        tuple(engine.fed),
    )


@dataclass(frozen=True)
class Reading:
    """What the reference makes of prompts and what stands behind them.

    Attributes:
        states_TD: of each prompt, after which states the tokens of its rationale were chosen.
    """

    vectors_ID: Tensor
    gates_I: Tensor
    states_TD: tuple[Tensor, ...]


@torch.inference_mode()
def by_reference(engine: Engine, prompts: Sequence[Prompt], fed: Sequence[Sequence[int]]) -> Reading:
    """Passes of the library's model over whole prompts; no cache, nothing written."""
    vectors, gates, states = [], [], []
    with as_the_library_has_it(engine.model):
        for start in range(0, len(prompts), BATCH):
            tails = fed[start : start + BATCH]
            whole = [extended(*both) for both in zip(prompts[start : start + BATCH], tails, strict=True)]
            states_BLD = engine.prefill(engine.batch(whole), None)
            vectors.append(unit_vectors(states_BLD[:, -1]))
            for states_LD, tail in zip(states_BLD, tails, strict=True):
                answered = len(states_LD) - len(tail) - 1  # padding is on the left
                gates += engine.gates(states_LD[None, answered]).reason
                states.append(states_LD[answered + 1 : -3])  # <think> is fed by rule, </think> and <emb> may be
    return Reading(torch.cat(vectors), torch.tensor(gates, dtype=torch.float64), tuple(states))


@torch.inference_mode()
def _logits(engine: Engine, states_TD: Tensor, dtype: torch.dtype) -> Tensor:
    """Of all tokens in float32, those that can't be written at -inf; multiplied in `dtype`."""
    weight = engine.model.lm_head.weight.to(dtype)
    return functional.linear(states_TD, weight).float() + suppressed(engine.model, engine.rule.never).float()


@dataclass(frozen=True)
class Choice:
    """A rationale's tokens, as the reference sees them.

    Attributes:
        margins_T: of the logits of the likeliest tokens over those that were written.
        gaps_T: of the likeliest over the second.
    """

    margins_T: Tensor
    gaps_T: Tensor


def _choices(engine: Engine, reading: Reading, fed: Sequence[Sequence[int]]) -> Iterator[Choice]:
    for states_TD, ids in zip(reading.states_TD, fed, strict=True):
        logits_TV = _logits(engine, states_TD, torch.float32)
        written_T1 = torch.tensor(ids[1:-2], dtype=torch.int64, device=logits_TV.device)[:, None]
        best_T2 = logits_TV.topk(2).values
        yield Choice(best_T2[:, 0] - logits_TV.gather(1, written_T1)[:, 0], best_T2[:, 0] - best_T2[:, 1])


class UnequalError(Exception):
    """The engine and the reference differ by more than rounding."""


def _hold(figures: dict[str, float], what: str, distance: float, bound: float) -> None:
    """Note a figure, which must not be above its bound."""
    figures[what] = distance
    if not distance <= bound:
        raise UnequalError(f"{what} is {distance:.2g}, and may be {bound:.2g}; so far {_spoken(figures)}")


def _spoken(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2g}" for name, value in figures.items())


def compare_exactly(engine: ListeningEngine, prompts: Sequence[Prompt]) -> dict[str, float]:
    """A float32 engine beside the reference and beside `generate`; figures.

    Raises:
        UnequalError: they differ.
    """
    figures: dict[str, float] = {}
    direct, written = by_engine(engine, prompts, "never"), by_engine(engine, prompts, "always")
    for name, own, fed in (("direct", direct, [[engine.rule.emb]] * len(prompts)), ("reasoned", written, written.fed)):
        read = by_reference(engine, prompts, fed)
        _hold(figures, f"float32: {name} vectors apart", _farthest(own.vectors_ID, read.vectors_ID), EXACT)
        _hold(figures, f"float32: {name} gates apart", float((own.gates_I - read.gates_I).abs().max()), EXACT)
    choices = list(_choices(engine, read, written.fed))
    worst = max(float(choice.margins_T.max()) for choice in choices if len(choice.margins_T))
    _hold(figures, "float32: written below the likeliest by", worst, EXACT_LOGIT)
    _, traces = embed_plainly(engine, prompts, "always", 0.5)
    others = [own != trace.rationale for own, trace in zip(written.rationales, traces, strict=True)]
    near = [bool((choice.gaps_T < EXACT_LOGIT).any()) for choice in choices]
    figures["float32: rationales unlike generate's"] = float(sum(others))
    unexplained = sum(other and not tie for other, tie in zip(others, near, strict=True))
    _hold(figures, "float32: of them without a near tie", float(unexplained), 0.0)
    return figures


def compare_rounded(engine: ListeningEngine, exact: Engine, prompts: Sequence[Prompt]) -> dict[str, float]:
    """A bfloat16 engine beside the reference in bfloat16, both seen from the same weights in float32; figures.

    Raises:
        UnequalError: the engine is farther from them than rounding takes the reference.
    """
    figures: dict[str, float] = {}
    direct, written = by_engine(engine, prompts, "never"), by_engine(engine, prompts, "always")
    for name, own, fed in (("direct", direct, [[engine.rule.emb]] * len(prompts)), ("reasoned", written, written.fed)):
        rounded, truth = by_reference(engine, prompts, fed), by_reference(exact, prompts, fed)
        off = _distance(rounded.vectors_ID, truth.vectors_ID)
        figures[f"bfloat16: {name} vectors, the reference off by"] = off
        others = float(torch.pdist(truth.vectors_ID).median())
        _hold(figures, f"bfloat16: {name} vectors, rounding of other prompts' distance", off / others, 1 / TELLS)
        distance = _distance(own.vectors_ID, truth.vectors_ID)
        _hold(figures, f"bfloat16: {name} vectors, the engine off by", distance, TIMES * off)
        off, distance = (
            float((gates - truth.gates_I).square().mean().sqrt()) for gates in (rounded.gates_I, own.gates_I)
        )
        _hold(figures, f"bfloat16: {name} gates, the engine off by", distance, TIMES * max(off, GATE))
    pairs = zip(rounded.states_TD, truth.states_TD, strict=True)
    errors = [_logits(engine, own, engine.model.dtype) - _logits(exact, true, torch.float32) for own, true in pairs]
    # -inf less -inf: of what is never written. Two logits may be off, each by as much.
    rounding = max(float(error.nan_to_num().abs().max()) for error in errors if len(error))
    figures["bfloat16: logits, the reference off by"] = rounding
    choices = [choice for choice in _choices(exact, truth, written.fed) if len(choice.gaps_T)]
    worst = max(float(choice.margins_T.max()) for choice in choices)
    _hold(figures, "bfloat16: written below the likeliest by", worst, 2 * TIMES * rounding)
    gaps_T = torch.cat([choice.gaps_T for choice in choices])
    figures["bfloat16: share of tokens that rounding could change"] = float((gaps_T < 2 * rounding).float().mean())
    return figures


def _farthest(one_ID: Tensor, other_ID: Tensor) -> float:
    return float((one_ID - other_ID).norm(dim=-1).max())


def _distance(one_ID: Tensor, other_ID: Tensor) -> float:
    """Root of the mean square over prompts."""
    return float((one_ID - other_ID).square().sum(dim=-1).mean().sqrt())
