"""Models of the published sizes, without weights.

The numbers are those of config.json of Qwen/Qwen3-VL-{2B,4B,8B,32B}-Instruct on the hub; Thinking models have the same.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mmemb_r1_model.model.prompt import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, PromptTokenizer
from mmemb_r1_model.rehearsal.accelerator import DEVICE

_SMALL_TOWER = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_LARGE_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
#: Name → hidden size, width of the MLP, layers, heads, whether the head is the embedding table again, vision tower.
_PUBLISHED: dict[str, tuple[int, int, int, int, bool, dict[str, Any]]] = {
    "2B": (2048, 6144, 28, 16, True, _SMALL_TOWER),
    "4B": (2560, 9728, 36, 32, True, _SMALL_TOWER),
    "8B": (4096, 12288, 36, 32, False, _LARGE_TOWER),
    "32B": (5120, 25600, 64, 64, False, _LARGE_TOWER),
}


def published_size(name: str) -> str | None:
    """The size of a Qwen3-VL that a folder or hub id is named after: "2B" of "./students/Qwen3-VL-2B"."""
    match = re.search(r"Qwen3-VL-(\d+B)\b", name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return match[1] if match and match[1] in _PUBLISHED else None


def published_config(size: str) -> Qwen3VLConfig:
    """The configuration of that size, as published."""
    hidden, intermediate, layers, heads, tied, tower = _PUBLISHED[size]
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151_936,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262_144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_interleaved": True,
                "mrope_section": [24, 20, 20],
            },
            "tie_word_embeddings": tied,
        },
        vision_config={
            **tower,
            "num_heads": 16,
            "out_hidden_size": hidden,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 2304,
        },
        tie_word_embeddings=tied,
    )


def model_on(device: torch.device, config: Qwen3VLConfig, tokenizer: PromptTokenizer, dtype: torch.dtype) -> Any:
    """A model that takes prompts of a tokenizer: on the accelerator that isn't there without weights, else random."""
    config = copy.deepcopy(config)
    config.image_token_id, config.video_token_id = tokenizer.id_of(IMAGE_PAD), tokenizer.id_of(VIDEO_PAD)
    config.vision_start_token_id, config.vision_end_token_id = map(tokenizer.id_of, (VISION_START, VISION_END))
    config._attn_implementation = "sdpa"
    with torch.device("meta") if device.type == DEVICE else device:
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=dtype)
    if device.type == DEVICE:
        model.to_empty(device=device)
        model.tie_weights()
    return model
