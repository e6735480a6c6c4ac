"""Tiny random checkpoints of the real architectures, with patches and tokens of the real sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from transformers import (
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from mmemb_r1_model.model.tiny_model import build_tokenizer

HIDDEN = 48
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TEXTS = ["Represent the given image. Find an image that matches the given caption: a red circle"] * 4


def save_qwen2_vl(
    folder: Path,
    extra_tokens: tuple[str, ...] = (),
    seed: int = 0,
    *,
    heads: int = 1,
    vision_layers: int = 1,
    vision_heads: int = 1,
) -> Path:
    """A Qwen2-VL: patches of 14, CLIP's mean and deviation. Over 1,024 patches heads of attention are dear."""
    tokenizer, ids = _tokenizer(extra_tokens)
    config = Qwen2VLConfig(
        text_config={
            **_text(len(tokenizer), heads),
            "rope_parameters": _rope({"mrope_section": [6 // heads, 9 // heads, 9 // heads]}),
        },
        vision_config={
            **{"depth": vision_layers, "embed_dim": 32, "num_heads": vision_heads, "mlp_ratio": 2, "patch_size": 14},
            **{"hidden_size": HIDDEN},
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
        text_config={**_text(len(tokenizer)), "rope_parameters": _rope({"mrope_section": [6, 9, 9]})},
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
    save_qwen2_vl(folder, ("<gen_emb>", "<disc_emb>"), heads=3, vision_layers=2, vision_heads=2)
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


def save_wemm(folder: Path) -> Path:
    """A Qwen3.5, linear attention and all, as WeMM-Embedding publishes it: its settings for pictures stand in
    processor_config.json, its tokenizer drops a line break at the end of a stretch of text.
    """
    tokenizer, ids = _tokenizer(("<embedding>",))
    rope = _rope({"mrope_section": [1, 1, 0], "mrope_interleaved": True, "partial_rotary_factor": 0.25})
    config = Qwen3_5Config(
        text_config={
            **_text(len(tokenizer)),
            **{"head_dim": 16, "rope_parameters": rope, "layer_types": ["linear_attention", "full_attention"]},
            **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8},
            **{"linear_value_head_dim": 8, "linear_conv_kernel_dim": 2},
        },
        vision_config={
            **{"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": HIDDEN},
            **{"num_position_embeddings": 64},
        },
        **ids,
    )
    torch.manual_seed(0)
    _save(folder, _spread(Qwen3_5ForConditionalGeneration(config)), tokenizer, [0.5] * 3, [0.5] * 3)
    pictures = folder / "preprocessor_config.json"
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": json.loads(pictures.read_text())}))
    pictures.unlink()
    trained = Tokenizer.from_file(str(folder / "tokenizer.json"))
    trained.add_special_tokens([AddedToken("<embedding>", normalized=False, special=True)])
    trained.normalizer = normalizers.Replace(Regex("\n$"), "")
    trained.save(str(folder / "tokenizer.json"))
    return folder


OMNI_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% elif c.type == 'image' %}<|vision_bos|><|IMAGE|>"
    "<|vision_eos|>{% elif c.type == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}<|vision_bos|><|VIDEO|><|vision_eos|>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)


def save_omni(folder: Path) -> Path:
    """A thinker of Qwen2.5-Omni as omni-embed-nemotron publishes it: of another model type."""
    tokenizer, _ = _tokenizer(
        ("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    )
    ids = {f"{kind}_token_index": f"<|{kind.upper()}|>" for kind in ("image", "video", "audio")}
    ids |= {"vision_start_token_id": "<|vision_bos|>", "vision_end_token_id": "<|vision_eos|>"}
    ids |= {"audio_start_token_id": "<|audio_bos|>", "audio_end_token_id": "<|audio_eos|>"}
    config = Qwen2_5OmniThinkerConfig(
        text_config={**_text(len(tokenizer)), "rope_parameters": _rope({"mrope_section": [6, 9, 9]})},
        vision_config={
            **{"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "patch_size": 14},
            **{"spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": HIDDEN, "window_size": 112},
            **{"fullatt_block_indexes": [1]},
        },
        audio_config={
            **{"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16},
            **{"output_dim": HIDDEN, "n_window": 10, "num_mel_bins": 8},
        },
        position_id_per_seconds=2,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()},
    )
    torch.manual_seed(0)
    model = _spread(Qwen2_5OmniThinkerForConditionalGeneration(config))
    _save(folder, model, tokenizer, CLIP_MEAN, CLIP_STD)
    written = json.loads((folder / "config.json").read_text())
    own = {
        "model_type": "nvomniembed",
        "architectures": ["NVOmniEmbedModel"],
        "auto_map": {"AutoModel": "x.NVOmniEmbedModel"},
    }
    (folder / "config.json").write_text(json.dumps({**written, **own}))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": OMNI_TEMPLATE}))
    return folder


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


def _text(vocabulary: int, heads: int = 1) -> dict[str, Any]:
    return {
        **{"vocab_size": vocabulary + 8, "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 16384},
    }


def _rope(sections: dict[str, Any]) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": 10000.0, **sections}


def _save(folder: Path, model: Any, tokenizer: Any, mean: list[float], std: list[float]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {"image_mean": mean, "image_std": std, "min_pixels": 3136, "max_pixels": 12845056}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
