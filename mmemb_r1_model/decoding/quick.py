"""What is done otherwise than in transformers, at the same numbers, and how to undo it for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from mmemb_r1_model.decoding.patches import PatchProjection, multiply_patches
from mmemb_r1_model.decoding.pictures import attend_by_size, find_ends_once
from mmemb_r1_model.decoding.pieces import last_layer
from mmemb_r1_model.decoding.place import keep_freed_memory, on_gpu
from mmemb_r1_model.decoding.products import has_products, linear_layer

_OURS: tuple[Callable[..., Any], ...] = (attend_by_size, last_layer, linear_layer)


def quicken(model: Any, device: torch.device) -> None:
    """Let a Qwen-VL model of transformers compute as fast as it can where it will; names and values of weights stay."""
    multiply_patches(model)
    layers = model.model.language_model.layers
    if len(getattr(model.config.vision_config, "deepstack_visual_indexes", ())) < len(layers):
        layers[-1].forward = last_layer.__get__(layers[-1])
    if on_gpu(device):
        find_ends_once(model)
        return
    keep_freed_memory()
    for block in model.model.visual.blocks:
        block.attn.forward = attend_by_size.__get__(block.attn)
    if has_products():
        for module in model.modules():
            if type(module) is nn.Linear:
                # A layer's own, which is meant: `as_the_library_has_it` takes it away again.
                module.forward = linear_layer.__get__(module)  # type: ignore[method-assign]


@contextlib.contextmanager
def as_the_library_has_it(model: Any) -> Iterator[None]:
    """Let a model convolve, attend and multiply as it would by itself: a reference is what transformers does."""
    embed = model.model.visual.patch_embed
    patches = embed.proj
    if isinstance(patches, PatchProjection):
        embed.proj = patches.convolution[0]
    ours = [
        (module, vars(module)["forward"])
        for module in model.modules()
        if getattr(vars(module).get("forward"), "__func__", None) in _OURS
    ]
    for module, _ in ours:
        del module.forward
    try:
        yield
    finally:
        embed.proj = patches
        for module, forward in ours:
            module.forward = forward
