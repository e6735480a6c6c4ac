"""Tiny random checkpoints of the real architectures, with patches and tokens of the real sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from mmemb_r1_model.model.tiny_model import build_tokenizer

HIDDEN = 48
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TEXTS = ["Represent the given image. Find an image that matches the given caption: a red circle"] * 4


def save_qwen2_vl(folder: Path, extra_tokens: tuple[str, ...] = (), seed: int = 0) -> Path:
    """A Qwen2-VL: patches of 14, CLIP's mean and deviation."""
    tokenizer, ids = _tokenizer(extra_tokens)
    config = Qwen2VLConfig(
        text_config={**_text(len(tokenizer)), "rope_parameters": _rope({"mrope_section": [2, 3, 3]})},
        vision_config={
            **{"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14, "hidden_size": HIDDEN},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2},
        },
        **ids,
    )
    torch.manual_seed(seed)
    model = _spread(Qwen2VLForConditionalGeneration(config))
    return _save(folder, model, tokenizer, CLIP_MEAN, CLIP_STD)


def save_qwen2_5_vl(folder: Path) -> Path:
    """A Qwen2.5-VL: windows of attention in its vision tower, and patches as Qwen2-VL's."""
    tokenizer, ids = _tokenizer(())
    config = Qwen2_5_VLConfig(
        text_config={**_text(len(tokenizer)), "rope_parameters": _rope({"mrope_section": [2, 3, 3]})},
        vision_config={
            **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 14},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": HIDDEN, "window_size": 112},
            **{"fullatt_block_indexes": [1], "tokens_per_second": 2},
        },
        **ids,
    )
    torch.manual_seed(0)
    return _save(folder, _spread(Qwen2_5_VLForConditionalGeneration(config)), tokenizer, CLIP_MEAN, CLIP_STD)


def save_ume_r1(folder: Path) -> Path:
    """A Qwen2-VL that writes a few tokens, <gen_emb>, sometimes more, and ends."""
    save_qwen2_vl(folder, ("<gen_emb>", "<disc_emb>"))
    return with_rows(folder, {"<gen_emb>": 2.2, "<|im_end|>": 1.6})


def with_rows(folder: Path, factors: dict[str, float]) -> Path:
    """Tokens' rows of the language head multiplied: larger ones are written often, zero ones never."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        for token, factor in factors.items():
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(token)] *= factor
    model.save_pretrained(folder)
    return folder


def save_qwen3_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen3-VL: patches of 16, mean and deviation one half."""
    tokenizer, ids = _tokenizer(())
    rope = _rope({"mrope_section": [2, 3, 3], "mrope_interleaved": True})
    config = Qwen3VLConfig(
        text_config={**_text(len(tokenizer)), "head_dim": 16, "rope_parameters": rope},
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": HIDDEN},
            **{"num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        },
        **ids,
    )
    torch.manual_seed(seed)
    return _save(folder, _spread(Qwen3VLForConditionalGeneration(config)), tokenizer, [0.5] * 3, [0.5] * 3)


def _spread(model: Any) -> Any:
    """Weights large enough that every token moves the last one's state."""
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.15)
    return model


def _tokenizer(extra: tuple[str, ...]) -> tuple[Any, dict[str, int]]:
    tokenizer = build_tokenizer(TEXTS, 400)
    tokenizer.add_tokens(list(extra))
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
    names |= {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    return tokenizer, {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _text(vocabulary: int) -> dict[str, Any]:
    return {
        **{"vocab_size": vocabulary + 8, "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 16384},
    }


def _rope(sections: dict[str, Any]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **sections}


def _save(folder: Path, model: Any, tokenizer: Any, mean: list[float], std: list[float]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_mean": mean, "image_std": std, "min_pixels": 3136, "max_pixels": 12845056}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
