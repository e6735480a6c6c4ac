"""The vision tower's first layer as what it is: a matrix product. Convolution kernels take far longer for the same.

A patch is exactly as large as the kernel, so that the convolution has one place to stand. In bfloat16 on a GPU some
versions of cuDNN are slower at it by orders of magnitude.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mmemb_r1_model.decoding.products import linear


class PatchProjection(nn.Module):
    """In the place of a convolution over patches, with its weights."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.convolution = (convolution,)  # in a tuple it is no module of this one

    def forward(self, patches: Tensor) -> Tensor:
        """Patches (n, channels, time, height, width) to (n, width of the tower)."""
        return linear(patches.flatten(1), self.weight.flatten(1), self.bias)


def multiply_patches(model: Any) -> None:
    """Replace the convolution of a Qwen-VL model of transformers; names and values of its weights stay."""
    embed = model.model.visual.patch_embed
    if isinstance(embed.proj, nn.Conv3d) and embed.proj.kernel_size == embed.proj.stride:
        embed.proj = PatchProjection(embed.proj)
