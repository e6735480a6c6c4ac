"""Answers of a whole Qwen2-VL, one that has its language head, and the state at a token of theirs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from mmeb_baselines.embedder import Batch
from mmeb_baselines.weights import placed
from mmeb_harness import Work
from mmemb_r1_model.decoding import (
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
    likeliest,
    read_in_pieces,
    suppressed,
)


@dataclass(frozen=True)
class Writing:
    """How answers are written; tokens by id. A `decoding.Rule`.

    Attributes:
        limit: longest answer, in tokens.
        stops: any of them ends an answer.
        never: tokens that no answer has.
        mark: whose last one's state is wanted. An answer without any gets one.
    """

    limit: int
    stops: tuple[int, ...]
    never: tuple[int, ...]
    mark: int

    def longest(self, limit: int | None) -> int:
        """With the mark that it may get; no answer has a limit of its own."""
        return self.limit + 1

    def choose(self, row: Row, wanted: int) -> int | None:
        """The model's token, up to one that stops."""
        if row.closing:
            return None
        row.marked |= bool(row.fed) and row.fed[-1] == self.mark
        if wanted not in self.stops and len(row.fed) < self.limit:
            return wanted
        if row.marked:
            return None
        row.closing = row.truncated = True
        return self.mark


@dataclass(frozen=True)
class _Read:
    """A batch after its prefill."""

    rows: int
    tokens: int
    passes: Passes


class Writer:
    """Writes the answers of several batches side by side."""

    def __init__(self, model: Any, writing: Writing, graphs: Graphs) -> None:
        self._model, self._decoder, self._costs = model, Decoder(model, writing, graphs), Costs.of(model)
        self._never_V = suppressed(model, writing.never)

    def stream(self, batches: Iterator[Batch]) -> Iterator[tuple[list[Answer], Work]]:
        """Answers of batches that are padded on the left, in order; greedily.

        An answer's tokens are without the one that stopped it; it is truncated where the model wrote no mark, and one
        was added. Its state is of unit length, float32, on the CPU.

        Raises:
            torch.OutOfMemoryError: with smaller batches, it may go.
        """
        for answered in self._decoder.stream(batches, self._open, lambda batch: batch.inputs["input_ids"].size):
            yield _written(answered), self._work(answered)

    def _open(self, batch: Batch) -> Pieces[Opened[_Read]]:
        model, clock = self._model, self._decoder.clock
        mask_BL = batch.inputs["attention_mask"]
        lengths: list[int] = mask_BL.sum(axis=1).tolist()
        past = DynamicCache(config=model.config.get_text_config())
        with clock.stage("prefill"):
            inputs = placed(batch.inputs, model)
            positions_3BL = _positions(model, inputs)
        prompts = Prompts(inputs.pop("attention_mask"), positions_3BL, inputs)
        hidden_BLD = yield from clock.stages("prefill", read_in_pieces(model, prompts, past, wanted=1))
        with clock.stage("prefill"):
            hidden_BD = hidden_BLD[:, -1]
            wanted: list[int] = likeliest(model.lm_head, hidden_BD, self._never_V).tolist()
        rows, width = mask_BL.shape
        return Opened(
            _Read(rows, sum(lengths), self._costs.prefill(lengths, _grids(batch.inputs))),
            rows=range(rows),
            starts=[width - length for length in lengths],
            lengths=lengths,
            positions=(positions_3BL.amax(dim=(0, 2)) + 1).tolist(),
            wanted=wanted,
            past=past,
        )

    def _work(self, answered: Answered[_Read]) -> Work:
        usage, read = answered.usage, answered.extra
        decode = self._costs.decode(usage.steps, usage.tokens, usage.columns)
        return Work(
            usage.seconds,
            read.tokens,
            usage.tokens,
            read.passes.flops,
            decode.flops,
            read.passes.bytes,
            decode.bytes,
        )


def _written(answered: Answered[_Read]) -> list[Answer]:
    answers = sorted(answered.answers, key=lambda answer: answer.index)
    states_BD = torch.stack([answer.state for answer in answers]).float()
    units_BD = torch.nn.functional.normalize(states_BD, dim=-1).cpu()
    return [dataclasses.replace(answer, state=state) for answer, state in zip(answers, units_BD, strict=True)]


def _positions(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """(3, B, L), the model's own; padding doesn't count."""
    wanted = ("input_ids", "mm_token_type_ids", "attention_mask", "image_grid_thw", "video_grid_thw")
    positions_3BL: Tensor = model.model.get_rope_index(**{name: inputs[name] for name in wanted if name in inputs})[0]
    return positions_3BL * inputs["attention_mask"]


def _grids(inputs: Mapping[str, NDArray[Any]]) -> list[list[int]]:
    return [grid for name, grids in inputs.items() if name.endswith("grid_thw") for grid in grids.tolist()]


def write(model: Any, batch: Batch, writing: Writing) -> list[list[int]]:
    """The same tokens by transformers' `generate`. A row an answer, without the token that ended it, or a mark added.

    Args:
        batch: padded on the left.
    """
    settings = GenerationConfig(
        do_sample=False,
        use_cache=True,
        max_new_tokens=writing.limit,
        eos_token_id=list(writing.stops),
        pad_token_id=writing.stops[0],
        suppress_tokens=list(writing.never),
    )
    with torch.inference_mode():
        whole = model.generate(**placed(batch.inputs, model), generation_config=settings)
    written = whole[:, batch.inputs["input_ids"].shape[1] :].tolist()
    return [list(itertools.takewhile(lambda token: token not in writing.stops, row)) for row in written]
