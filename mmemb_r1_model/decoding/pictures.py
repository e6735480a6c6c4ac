"""Pictures of a batch side by side in the vision tower, each of which attends to itself alone.

Without kernels that do it themselves, transformers cuts queries, keys and values where pictures end, in every layer. On
a GPU it reads these places from the device each time: the host waits three times a layer, and the device then for it.
On a CPU it attends to one picture after another.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def find_ends_once(model: Any) -> None:
    """Let a Qwen-VL model of transformers read once a pass where its pictures end."""
    visual = model.model.visual
    if "flash" in (visual.config._attn_implementation or ""):
        return
    try:
        from transformers.vision_utils import get_vision_cu_seqlens
    except ImportError:  # a release that computes them in the tower alone, and takes none
        return
    if "kwargs" not in inspect.signature(get_vision_cu_seqlens).parameters:
        return

    def with_ends(_: Any, pixels: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return pixels, {"cu_seqlens": get_vision_cu_seqlens(named["grid_thw"].cpu()), **named}

    visual.register_forward_pre_hook(with_ends, with_kwargs=True)


def attend_by_size(
    self: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
) -> Tensor:
    """A vision attention's forward pass with all pictures of one size at once; the same numbers."""
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    count = hidden_states.shape[0]
    query, key, value = self.qkv(hidden_states).reshape(count, 3, self.num_heads, -1).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    lengths = cu_seqlens.diff()
    places = torch.arange(count, device=hidden_states.device)
    attended = torch.empty_like(query)
    for length in sorted(set(lengths.tolist())):
        index = places[(lengths == length).repeat_interleave(lengths)].view(-1, length)  # (pictures, length)
        q, k, v = (states[index].transpose(1, 2) for states in (query, key, value))
        states = scaled_dot_product_attention(q, k, v, scale=self.scaling)
        attended = attended.index_copy(0, index.flatten(), states.transpose(1, 2).flatten(0, 1))
    projected: Tensor = self.proj(attended.reshape(count, -1))
    return projected
