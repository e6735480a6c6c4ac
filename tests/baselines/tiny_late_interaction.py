"""Tiny random checkpoints of ColPali and ColQwen2, with the files that those on the hub have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    ColPaliConfig,
    ColPaliForRetrieval,
    ColPaliProcessor,
    ColQwen2Config,
    ColQwen2ForRetrieval,
    GemmaTokenizer,
    PaliGemmaConfig,
    Qwen2Tokenizer,
    Qwen2VLConfig,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

DIMENSIONS = 8
SIDE, PATCH = 56, 14  # of ColPali's pictures: 16 tokens
_SPREAD = 0.5  # weights large enough that every token moves the others
_LETTERS = "▁\nabcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?"
_QWEN_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}


def save_colpali(folder: Path) -> Path:
    """No processor_config.json, as on the hub."""
    pictures = SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE})
    pictures.image_seq_length = (SIDE // PATCH) ** 2
    processor = ColPaliProcessor(image_processor=pictures, tokenizer=_gemma_tokenizer())  # adds its own tokens
    config = PaliGemmaConfig(
        text_config={
            **{"model_type": "gemma", "vocab_size": len(processor.tokenizer), "hidden_size": 32, "head_dim": 16},
            **{"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
            **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "initializer_range": _SPREAD},
        },
        vision_config={
            **{"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "image_size": SIDE},
            **{"patch_size": PATCH, "num_hidden_layers": 1, "num_attention_heads": 2, "vision_use_head": False},
        },
        **{"image_token_index": processor.image_token_id, "projection_dim": 32, "hidden_size": 32},
    )
    torch.manual_seed(0)
    model = ColPaliForRetrieval(ColPaliConfig(vlm_config=config, embedding_dim=DIMENSIONS))
    return _save(folder, model, processor.tokenizer, pictures)


def save_colqwen2(folder: Path, longest_edge: int = 768 * 28 * 28) -> Path:
    """Pictures with patches of the real size.

    Args:
        longest_edge: pixels of a picture at most, as the checkpoint's file says.
    """
    pictures = Qwen2VLImageProcessorPil(size={"shortest_edge": 4 * 28 * 28, "longest_edge": longest_edge})
    tokenizer = _qwen_tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = Qwen2VLConfig(
        text_config={
            **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 2048},
            **{"initializer_range": _SPREAD, "rope_parameters": rope},
        },
        vision_config={
            **{"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2},
        },
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in _QWEN_TOKENS.items()},
    )
    torch.manual_seed(0)
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=config, embedding_dim=DIMENSIONS))
    return _save(folder, model, tokenizer, pictures)


def _save(folder: Path, model: Any, tokenizer: Any, pictures: Any) -> Path:
    for part in (model, tokenizer, pictures):
        part.save_pretrained(folder)
    return folder


def _gemma_tokenizer() -> Any:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS]
    return GemmaTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=[], padding_side="right")


def _qwen_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_pad|>", *_QWEN_TOKENS.values()]
    return Qwen2Tokenizer(
        vocab={byte: place for place, byte in enumerate(alphabet)},
        merges=[],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
        padding_side="left",
    )
