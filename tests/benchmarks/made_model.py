"""Checkpoints of a real model's shape with random weights, where none can be downloaded.

The tokenizer is the embedded checkpoint's, filled up with made-up words to as many as the table has rows: a model of
the real shape then chooses among as many tokens as the real one.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3VLConfig
from transformers.utils import logging

from mmemb_r1_model.model.checkpoint import EMBEDDED
from mmemb_r1_model.model.prompt import PromptTokenizer
from mmemb_r1_model.model.settings import Settings, write_settings
from mmemb_r1_model.rehearsal.sizes import model_on, published_config


@dataclass(frozen=True)
class Shape:
    """A Qwen3-VL by its numbers, and how its weights are drawn.

    Attributes:
        added: what layers add to the residual stream, of what they would.
        sharpness: what attention's scores are multiplied by.
    """

    config: Qwen3VLConfig
    added: float
    sharpness: float


QWEN3_VL_2B = Shape(published_config("2B"), added=0.1, sharpness=2.0)

#: The same in all that decides which code runs (grouped heads, deepstack, a patch's size), and tiny.
TINY = Shape(
    Qwen3VLConfig(
        text_config={
            "vocab_size": 1536,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_interleaved": True,
                "mrope_section": [6, 5, 5],
            },
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 2,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
    ),
    added=0.5,
    sharpness=3.0,
)


def make_checkpoint(folder: Path, shape: Shape, settings: Settings, device: torch.device) -> Path:
    """Write a checkpoint folder of MMEmb-R1 in bfloat16, its weights drawn on `device`; the folder."""
    folder.mkdir(parents=True)
    _write_tokenizer(folder, shape.config.text_config.vocab_size)
    torch.manual_seed(0)
    model = model_on(device, shape.config, PromptTokenizer.from_folder(folder), torch.bfloat16)
    _liven(model, shape)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    pictures = json.loads((EMBEDDED / "preprocessor_config.json").read_text(encoding="utf-8"))
    pictures |= {"patch_size": shape.config.vision_config.patch_size}
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(EMBEDDED / name, folder / name)
    write_settings(folder, settings)
    return folder


@torch.no_grad()
def _liven(model: Any, shape: Shape) -> None:
    """Let what is written depend on every token before it, and on where it stands.

    As transformers draws weights, layers drown the tokens in their average, and a head that is the embedding table
    again repeats the last one: rationales of one word, which a wrong position or a lost token hardly changes.
    """
    text = model.model.language_model
    for layer in text.layers:
        layer.self_attn.q_norm.weight *= shape.sharpness
        for last in (layer.self_attn.o_proj, layer.mlp.down_proj):
            last.weight *= shape.added
    text.norm.weight.copy_(torch.randint_like(text.norm.weight, 2) * 2 - 1)


def _write_tokenizer(folder: Path, rows: int) -> None:
    """As many tokens as the table has rows, the added ones last, as in Qwen3-VL."""
    described = json.loads((EMBEDDED / "tokenizer.json").read_text(encoding="utf-8"))
    words: dict[str, int] = described["model"]["vocab"]
    added = described["added_tokens"]
    first = rows - len(added)
    words |= {f"~{number}": number for number in range(len(words), first)}
    for number, token in enumerate(added, start=first):
        token["id"] = number
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
