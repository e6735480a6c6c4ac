"""Where pictures end in a batch of patches, known to the host that cuts them apart.

Without kernels that do it themselves, transformers cuts queries, keys and values at these places in every layer of the
vision tower. It reads them from the device each time: the host waits three times a layer, and the device then for it.
"""

from __future__ import annotations

import inspect
from typing import Any

from mmemb_r1_model.decoding.place import on_gpu


def find_ends_once(model: Any) -> None:
    """Let a Qwen-VL model of transformers that is on a GPU read once a pass where its pictures end."""
    visual = model.model.visual
    if not on_gpu(model.device) or "flash" in (visual.config._attn_implementation or ""):
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
