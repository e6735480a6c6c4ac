"""Operations and bytes of a Qwen3-VL against those that torch counts and keeps."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mmemb_r1_model.decoding.costs import Costs

WORDS, GRID = 56, (1, 8, 12)
MERGED, PICTURE = 4, 1


@pytest.fixture(scope="module")
def model() -> Qwen3VLForConditionalGeneration:
    """All sizes different, so that none can stand in for another."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_interleaved": True,
            "mrope_section": [4] * 3,
        },
    }
    vision = {
        "depth": 5,
        "hidden_size": 48,
        "intermediate_size": 112,
        "num_heads": 2,
        "patch_size": 8,
        "out_hidden_size": 64,
        "num_position_embeddings": 36,
        "deepstack_visual_indexes": [0, 1],
    }
    ids = {"image_token_id": PICTURE, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    config._attn_implementation = "eager"  # torch counts its products on a CPU, over the whole square
    return Qwen3VLForConditionalGeneration(config).eval()


@pytest.mark.parametrize("shows", [False, True])
@torch.no_grad()
def test_a_pass_over_a_prompt_takes_the_operations_that_torch_counts(
    model: Qwen3VLForConditionalGeneration, shows: bool
) -> None:
    costs, patches = Costs.of(model), GRID[1] * GRID[2]
    ids = torch.tensor([[5, *([3, *[PICTURE] * (patches // MERGED), 4] if shows else []), *range(6, 6 + WORDS)]])
    inputs = {"input_ids": ids}
    if shows:
        inputs |= {"mm_token_type_ids": (ids == PICTURE).long(), "image_grid_thw": torch.tensor([GRID])}
        inputs["pixel_values"] = torch.randn(patches, 3 * 2 * 8**2)
    with FlopCounterMode(display=False) as counter:
        model(**inputs, use_cache=False)
    tokens = ids.shape[1]
    prefill = costs.prefill([tokens], [GRID] if shows else []).flops
    head = 2 * costs.vocabulary_matrix * tokens
    unseen = 4 * costs.layers * costs.attention_width * tokens * (tokens - 1) / 2  # later tokens, computed and masked
    unwanted = 2 * costs.last_matrices * (tokens - 1)  # behind the last attention
    assert costs.last_matrices == 3 * 64 * model.config.text_config.intermediate_size
    assert prefill + head + unseen + unwanted == pytest.approx(counter.get_total_flops(), rel=0.005)


@torch.no_grad()
def test_a_step_takes_the_operations_that_torch_counts_and_the_bytes_that_it_keeps(
    model: Qwen3VLForConditionalGeneration,
) -> None:
    costs, cache = Costs.of(model), DynamicCache()
    model(input_ids=torch.arange(6, 6 + WORDS)[None], past_key_values=cache)
    kept = sum(tensor.nbytes for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert costs.kv_bytes * WORDS == kept
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.tensor([[7]]), past_key_values=cache)
    step = costs.decode(1, 1, WORDS + 1)
    assert step.flops == pytest.approx(counter.get_total_flops(), rel=0.005)
    matrices = sum(
        parameter.numel() for name, parameter in model.model.language_model.layers.named_parameters() if "proj" in name
    )
    assert costs.text_matrices == matrices
    weights = (matrices + model.lm_head.weight.numel()) * 4
    assert step.bytes == weights + kept + costs.kv_bytes
