"""Answers of a whole Qwen-VL model, one that has its language head."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2VLForConditionalGeneration

from mmeb_baselines.qwen.model import Batch, load, memory_errors
from mmeb_baselines.weights import placed
from mmeb_harness.adapter.checkpoints import CheckpointFolder


@dataclass(frozen=True)
class Writing:
    """How answers are written; tokens by id.

    Attributes:
        limit: longest answer, in tokens.
        stops: any of them ends an answer.
        never: tokens that no answer has.
    """

    limit: int
    stops: tuple[int, ...]
    never: tuple[int, ...]


def load_writer(checkpoint: CheckpointFolder, device: str, dtype: str, attention: str) -> Any:
    """A Qwen2-VL that can write, in evaluation mode.

    Raises:
        ModelError: the weights don't fit the configuration or the device.
    """
    model = load(Qwen2VLForConditionalGeneration, checkpoint, device, dtype, attention, head=True)
    # Whatever `write` doesn't set would come from the checkpoint's generation_config.json: penalties, too.
    model.generation_config = GenerationConfig()
    return model


def write(model: Any, batch: Batch, writing: Writing) -> list[list[int]]:
    """The likeliest token, one after the other. A row an answer, without the token that ended it.

    Args:
        batch: padded on the left.

    Raises:
        ModelError: out of memory.
    """
    settings = GenerationConfig(
        do_sample=False,
        use_cache=True,
        max_new_tokens=writing.limit,
        eos_token_id=list(writing.stops),
        pad_token_id=writing.stops[0],
        suppress_tokens=list(writing.never),
    )
    with memory_errors(model, batch), torch.inference_mode():
        found = model.generate(**placed(batch.inputs, model), generation_config=settings)
    written = found[:, batch.inputs["input_ids"].shape[1] :].tolist()
    return [list(itertools.takewhile(lambda token: token not in writing.stops, row)) for row in written]
