"""One prompt, several continuations, one forward pass: the prompt and its pictures are computed once.

    row   : padding | prompt | branch 0 | branch 1 | … | padding
    sees  : a branch sees the prompt and itself, never another branch; its positions go on from the prompt's end

Equal to a forward pass of its own for each continuation, but for rounding (tested). The direct and the reasoned
path of an item, or all rationales of a group, are branches of its prompt.

Legend of shapes: B rows, L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmemb_r1_model.decoding import states_of
from mmemb_r1_model.model.collate import Batch, lay_out
from mmemb_r1_model.model.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a continuation lies in the packed batch: columns [start, end) of its row."""

    row: int
    start: int
    end: int


@dataclass(frozen=True)
class Packed:
    """Prompts with their continuations.

    Attributes:
        part_BL: which piece of its row a token belongs to: 0 the prompt, 1 … its branches, -1 padding.
        prompt_length: prompts end at this column, exclusive, in every row.
        branches: all continuations, row by row.
    """

    batch: Batch
    part_BL: Tensor
    prompt_length: int
    branches: tuple[Branch, ...]


def run_packed(model: Any, packed: Packed) -> Tensor:
    """States (B, L, D) after the final norm.

    Args:
        model: Qwen3VLForConditionalGeneration.
    """
    batch = packed.batch
    return states_of(model, _allowed(packed.part_BL), batch.positions_3BL, **batch.inputs)


def pack(prompts: Sequence[Prompt], branches: Sequence[Sequence[Prompt]], pad_id: int, device: torch.device) -> Packed:
    """Lay out prompts and the branches of each; a branch's positions count from 0 and may carry a picture."""
    batch, part = lay_out([[prompt, *own] for prompt, own in zip(prompts, branches, strict=True)], pad_id)
    prompt_length = max(len(prompt) for prompt in prompts)
    placed: list[Branch] = []
    for row, own in enumerate(branches):
        ends = itertools.accumulate((len(branch) for branch in own), initial=prompt_length)
        placed += [Branch(row, start, end) for start, end in itertools.pairwise(ends)]
    # The mask is made there: it is as large as the square of the row, and what it is made of is a row.
    part_BL = torch.from_numpy(part).to(device)
    return Packed(batch.to(device, torch.float32), part_BL, prompt_length, tuple(placed))


def _allowed(part_BL: Tensor) -> Tensor:
    """Where a token may look (B, 1, L, L): causal; at its own part and the prompt.

    Padding sees itself: no row of the soft-max is empty.
    """
    length, device = part_BL.shape[1], part_BL.device
    looks_from, looks_at = part_BL[:, :, None], part_BL[:, None, :]
    same = (looks_from == looks_at) | (looks_at == 0)
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    real = (looks_from >= 0) & (looks_at >= 0)
    return ((same & causal & real) | torch.eye(length, dtype=torch.bool, device=device))[:, None]
