"""Where a model is."""

from __future__ import annotations

import torch

#: With CUDA's runtime (pinned memory, events, graphs), or with what stands in for it when no GPU is there.
_GPUS = ("cuda", "fakegpu")


def on_gpu(device: torch.device) -> bool:
    """Whether a device works beside the host, in CUDA's terms."""
    return device.type in _GPUS
