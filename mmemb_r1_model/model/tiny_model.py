"""A tiny Qwen3-VL of the real architecture, with its own tokenizer, for the embedded default and for tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.utils import logging

from mmemb_r1_model.disk.config import Least1
from mmemb_r1_model.disk.files import replacing_folder
from mmemb_r1_model.model.chat_template import write_chat_template
from mmemb_r1_model.model.prompt import (
    END_OF_TEXT,
    IMAGE_PAD,
    TURN_END,
    TURN_START,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Settings, write_settings

SPECIAL = (END_OF_TEXT, TURN_START, TURN_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD, EMB)
MARKERS = (THINK, END_THINK)
_LEAST_TOKENS = 256 + len(SPECIAL) + len(MARKERS)  # every byte has one
#: Words keep their inner signs ("circle>square" can become one token) and so do timestamps; punctuation stands alone.
WORDS = r"""<[0-9.]+ seconds>|\n| ?[^\s.,:;?!()<]+| ?[.,:;?!()<]|\s"""

TINY_SETTINGS = Settings(
    request="embed",
    default_instruction="embed",
    min_pixels=16 * 16,
    max_pixels=96 * 96,
    video_min_pixels=16 * 16,
    video_max_pixels=8 * 64 * 64,
    max_new_tokens=16,
)


@dataclass(frozen=True)
class TinySize:
    """Sizes of the tiny model. One visual token is 16 pixels wide and high."""

    hidden: Least1 = 96
    layers: Least1 = 4
    heads: Least1 = 4
    head_dim: Least1 = 32
    intermediate: Least1 = 256
    vision_hidden: Least1 = 64
    vision_layers: Least1 = 2
    vocabulary: Annotated[int, Ge(_LEAST_TOKENS)] = 1280

    patch = 8
    merge = 2


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on `texts`: frequent words become single tokens, any other text still has tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    size = vocabulary - len(SPECIAL) - len(MARKERS)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=4096,
    )
    fast.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKERS])  # as in Qwen3
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast, size: TinySize, seed: int) -> Any:
    """A randomly initialised Qwen3-VL of that size."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (*SPECIAL, *MARKERS)}
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(tiny_config(size, len(tokenizer), ids))
    model.generation_config.eos_token_id = ids[TURN_END]
    model.generation_config.pad_token_id = ids[END_OF_TEXT]
    return model


def tiny_config(size: TinySize, tokens: int, ids: Mapping[str, int]) -> Qwen3VLConfig:
    """The configuration of a model of that size, for a tokenizer of so many tokens with these special ones."""
    third = size.head_dim // 6
    return Qwen3VLConfig(
        text_config={
            "vocab_size": -(-tokens // 64) * 64,
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.heads,
            "head_dim": size.head_dim,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_interleaved": True,
                "mrope_section": [size.head_dim // 2 - 2 * third, third, third],
            },
            "pad_token_id": ids[END_OF_TEXT],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 2 * size.vision_hidden,
            "num_heads": 2,
            "patch_size": size.patch,
            "spatial_merge_size": size.merge,
            "temporal_patch_size": 2,
            "out_hidden_size": size.hidden,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=ids[IMAGE_PAD],
        video_token_id=ids[VIDEO_PAD],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=ids[TURN_END],
        pad_token_id=ids[END_OF_TEXT],
    )


def save_tiny(model: Any, tokenizer: PreTrainedTokenizerFast, settings: Settings, folder: Path) -> None:
    """Write a checkpoint folder in the layout of the hub's Qwen3-VL, plus our settings; whole or not at all."""
    logging.disable_progress_bar()
    with replacing_folder(folder) as temporary:
        _save(model, tokenizer, settings, temporary)


def _save(model: Any, tokenizer: PreTrainedTokenizerFast, settings: Settings, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vision = model.config.vision_config
    bounds = {"longest_edge": settings.max_pixels, "shortest_edge": settings.min_pixels}
    preprocessor = {
        "size": bounds,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n", encoding="utf-8")
    write_settings(folder, settings)
    write_chat_template(folder, folder)
