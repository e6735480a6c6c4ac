"""Parameter counts against transformers' own models, operations against those that torch counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.shape import MERGED, SHAPES, Shape, shape_of

#: All sizes different, so that none can stand in for another.
TINY = Shape(64, 3, 4, 2, 24, 160, 48, 5, 112, vocabulary=320, patch=8, positions=36, deepstack=2)


def config_of(shape: Shape) -> Qwen3VLConfig:
    third = shape.head_dim // 6
    section = [shape.head_dim // 2 - 2 * third, third, third]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_interleaved": True, "mrope_section": section}
    text: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rope_parameters": rope,
        "tie_word_embeddings": shape.tied,
    }
    vision = {
        "depth": shape.vision_layers,
        "hidden_size": shape.vision_hidden,
        "intermediate_size": shape.vision_intermediate,
        "num_heads": 2,
        "patch_size": shape.patch,
        "out_hidden_size": shape.hidden,
        "num_position_embeddings": shape.positions,
        "deepstack_visual_indexes": list(range(shape.deepstack)),
    }
    ids = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=shape.tied, **ids)


@pytest.mark.parametrize("size", [*SHAPES, "tiny"])
def test_parameters_are_those_of_the_real_model(size: str) -> None:
    shape = SHAPES.get(size, TINY)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config_of(shape))
    model.tie_weights()
    vision = sum(parameter.numel() for parameter in model.model.visual.parameters())
    assert shape.vision_parameters == vision
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_adapters_are_those_of_peft() -> None:
    from peft import LoraConfig, get_peft_model

    targets = ("q_proj", "v_proj", "o_proj", "down_proj")
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config_of(TINY))
        lora = LoraConfig(r=6, target_modules=rf".*language_model.*\.({'|'.join(targets)})")
        adapted = get_peft_model(model, lora)
    learned = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert TINY.adapter_parameters(6, targets) == learned + TINY.hidden  # and the new token's row


def run(shape: Shape, backward: bool, frozen: bool) -> tuple[int, int, int]:
    """(counted operations, tokens, patches) of one picture and some words; vision is never differentiated."""
    torch.manual_seed(0)
    config = config_of(shape)
    config._attn_implementation = "eager"  # whose products torch counts on a CPU; the numbers of operations are equal
    model = Qwen3VLForConditionalGeneration(config)
    model.model.visual.requires_grad_(False)
    if frozen:
        model.requires_grad_(False)
    grid = torch.tensor([[1, 8, 12]])
    patches = int(grid.prod())
    ids = torch.tensor([[5, 3, *[1] * (patches // MERGED), 4, *range(6, 60)]])
    inputs = {
        "input_ids": ids,
        "mm_token_type_ids": (ids == 1).long(),
        "pixel_values": torch.randn(patches, 3 * 2 * shape.patch**2),
        "image_grid_thw": grid,
    }
    if frozen:
        model.enable_input_require_grads()
    counter = FlopCounterMode(display=False)
    with counter, torch.set_grad_enabled(backward):
        logits = model(**inputs, use_cache=False).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops(), ids.shape[1], patches


def forward_parts(shape: Shape, tokens: int, patches: int) -> tuple[float, float, float]:
    """(products with weights, with the last matrix among them; attention; vision)."""
    linear = shape.linear_flops(tokens) + shape.head_flops(tokens)
    return linear, shape.attention_flops(tokens**2), shape.vision_flops(1, patches)


def test_operations_of_a_forward_pass() -> None:
    counted, tokens, patches = run(TINY, backward=False, frozen=False)
    assert sum(forward_parts(TINY, tokens, patches)) == pytest.approx(counted, rel=0.005)


@pytest.mark.parametrize(("frozen", "weights"), [(False, 3), (True, 2)])
def test_operations_of_a_forward_and_a_backward_pass(frozen: bool, weights: int) -> None:
    """Weights that learn cost twice the forward pass going back, frozen ones once; attention always twice."""
    counted, tokens, patches = run(TINY, backward=True, frozen=frozen)
    linear, attention, vision = forward_parts(TINY, tokens, patches)
    assert weights * linear + 3 * attention + vision == pytest.approx(counted, rel=0.01)


def test_a_shape_by_name_or_by_folder(tmp_path: Path) -> None:
    assert shape_of("Qwen/Qwen3-VL-2B-Instruct", "x") == shape_of("students/mmemb-2b", "x") == SHAPES["2b"]
    assert shape_of("Qwen/Qwen3-VL-32B-Instruct", "x") == SHAPES["32b"]
    config_of(TINY).save_pretrained(tmp_path)
    assert shape_of(str(tmp_path), "x") == TINY
    with pytest.raises(OptionError, match=r"student\.checkpoint: 'mine' is no folder, and names none of the sizes 2b"):
        shape_of("mine", "student.checkpoint")
