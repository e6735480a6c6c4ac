"""Tiny random checkpoints of CLIP and of both kinds of SigLIP 2, with the files that those on the hub have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    GemmaTokenizer,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "patch_size": 16,
    "num_hidden_layers": 1,
}
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))


def make_clip(folder: Path) -> None:
    """The files of openai/clip-vit-large-patch14, the old names in its preprocessor_config.json too."""
    signs = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*signs, *(sign + "</w>" for sign in signs), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = CLIPTokenizer(vocab=ids, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=77)
    tokenizer.save_pretrained(folder)
    end = ids["<|endoftext|>"]
    text = dict(vocab_size=len(ids), max_position_embeddings=77, eos_token_id=end, bos_token_id=end - 1, **TEXT)
    config = CLIPConfig(text_config=text, vision_config=dict(image_size=32, **VISION), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": 32,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": 32,
        },
    )


def gemma_vocabulary() -> dict[str, int]:
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:?"
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "ca"]
    return {token: index for index, token in enumerate(tokens)}


def siglip_text(vocabulary_size: int) -> dict[str, Any]:
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    return dict(vocab_size=vocabulary_size, max_position_embeddings=64, projection_size=32, **TEXT, **ids)


def make_siglip2(folder: Path) -> None:
    """SigLIP 2 of fixed resolution as on the hub: SigLIP's architecture with Gemma's tokenizer."""
    ids = gemma_vocabulary()
    tokenizer = GemmaTokenizer(vocab=ids, merges=[("c", "a")], add_bos_token=False, add_eos_token=True)
    tokenizer.save_pretrained(folder)
    settings = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right", "model_max_length": 64}
    names = {"tokenizer_class": "GemmaTokenizer", "processor_class": "SiglipProcessor"}
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    write_json(folder / "tokenizer_config.json", settings | names | special)
    write_siglip_processor(folder)
    config = SiglipConfig(text_config=siglip_text(len(ids)), vision_config=dict(image_size=32, **VISION))
    SiglipModel(config).save_pretrained(folder)


def write_siglip_processor(folder: Path) -> None:
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "image_processor_type": "SiglipImageProcessor",
            "processor_class": "SiglipProcessor",
            "resample": 2,
            "rescale_factor": 1 / 255,
            "size": {"height": 32, "width": 32},
        },
    )


def make_naflex(folder: Path) -> None:
    """SigLIP 2 NaFlex: another architecture, pictures of any shape."""
    ids = gemma_vocabulary()
    tokenizer = Siglip2Tokenizer(vocab=ids, merges=[], padding_side="right", add_bos_token=False, add_eos_token=True)
    tokenizer.save_pretrained(folder)
    Siglip2ImageProcessorPil(patch_size=16, max_num_patches=16).save_pretrained(folder)
    config = Siglip2Config(text_config=siglip_text(len(ids)), vision_config=dict(num_patches=16, **VISION))
    Siglip2Model(config).save_pretrained(folder)
