"""Prompts as a Qwen-VL model's inputs, and the state of each prompt's last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.embedder import Batch, UploadedBatch
from mmeb_baselines.qwen.prompt import Prompt
from mmeb_harness import Vectors
from mmeb_harness.adapter.pixels import Pixels

if TYPE_CHECKING:
    import torch

#: "sequential": every token one further than the one before, pictures too (M-RoPE off); "multimodal": the model's own.
Positions = Literal["sequential", "multimodal"]
#: A model and a batch → vectors (n, d) of its rows, of unit length.
Pool: TypeAlias = Callable[[Any, UploadedBatch], Vectors]
#: Of the padding. Left: every row is continued at the same place; for the model's own positions only.
Side = Literal["left", "right"]


def collate(prompts: Sequence[Prompt], pad: int, positions: Positions, side: Side = "right") -> list[Batch]:
    """Batches of prompts that show and hear alike (pictures, videos, sounds, several, nothing), padded on that side.

    Apart, since the model counts a batch's visual tokens against its pictures: a stray visual token in a text, which
    some official prompts have, is an ordinary token only where no other row has pictures.
    """
    kinds: dict[tuple[bool, bool, bool], list[int]] = {}
    for row, prompt in enumerate(prompts):
        kinds.setdefault((bool(prompt.images), bool(prompt.videos), bool(prompt.sounds)), []).append(row)
    alike = [(rows, [prompts[row] for row in rows]) for rows in kinds.values()]
    return [
        Batch(rows, _inputs(some, pad, positions, side), [prompt.left_out for prompt in some]) for rows, some in alike
    ]


def _inputs(prompts: Sequence[Prompt], pad: int, positions: Positions, side: Side) -> dict[str, Any]:
    longest = max(len(prompt.ids) for prompt in prompts)

    def padded(rows: Sequence[list[int]], filler: int) -> NDArray[np.int64]:
        rectangle = np.full((len(rows), longest), filler, dtype=np.int64)
        for place, row in enumerate(rows):
            rectangle[place, slice(len(row)) if side == "right" else slice(longest - len(row), None)] = row
        return rectangle

    inputs: dict[str, Any] = {
        "input_ids": padded([prompt.ids for prompt in prompts], pad),
        "attention_mask": padded([[1] * len(prompt.ids) for prompt in prompts], 0),
    }
    visual = {
        ("pixel_values", "image_grid_thw"): [patches for prompt in prompts for patches in prompt.images],
        ("pixel_values_videos", "video_grid_thw"): [patches for prompt in prompts for patches in prompt.videos],
    }
    for (pixels, grid), shown in visual.items():
        if shown:
            inputs |= {
                pixels: Pixels.joined([patches.pixels for patches in shown]),
                grid: np.array([patches.grid for patches in shown], dtype=np.int64),
            }
    if sounds := [spectrum for prompt in prompts for spectrum in prompt.sounds]:
        inputs |= _spectra(sounds)
    if positions == "sequential":
        # One of three axes each, alike; the model adds no offset of its own.
        inputs["position_ids"] = np.tile(np.arange(longest, dtype=np.int64), (3, len(prompts), 1))
    else:
        inputs["mm_token_type_ids"] = padded([prompt.types for prompt in prompts], 0)
    return inputs


def _spectra(sounds: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Spectra (mels, frames), padded to the longest, and what of them is none of the padding."""
    longest = max(spectrum.shape[1] for spectrum in sounds)
    features = np.zeros((len(sounds), len(sounds[0]), longest), dtype=np.float32)
    mask = np.zeros((len(sounds), longest), dtype=np.int64)
    for place, spectrum in enumerate(sounds):
        features[place, :, : spectrum.shape[1]] = spectrum
        mask[place, : spectrum.shape[1]] = 1
    return {"input_features": features, "feature_attention_mask": mask}


def last_states(model: Any, batch: UploadedBatch) -> Vectors:
    """State (n, d) of each prompt's last token after the final norm, of unit length.

    Args:
        model: with or without a language head, which isn't used.
        batch: padded on the right.
    """
    import torch

    inputs = batch.inputs.ready()
    with torch.inference_mode():
        states = model.base_model(**inputs, use_cache=False).last_hidden_state
    last = inputs["attention_mask"].sum(dim=1) - 1
    return unit_vectors(states[torch.arange(len(last), device=states.device), last])


def mean_of(states: torch.Tensor, mask: torch.Tensor) -> Vectors:
    """Mean of the states (n, t, d) that a mask (n, t) leaves, of unit length."""
    kept = mask[..., None].to(states.dtype)
    return unit_vectors((states * kept).sum(dim=1) / kept.sum(dim=1))


def unit_vectors(pooled: torch.Tensor) -> Vectors:
    """Vectors (n, d) of length 1, off the device."""
    import torch

    vectors: Vectors = torch.nn.functional.normalize(pooled.float(), dim=-1).cpu().numpy()
    return vectors
