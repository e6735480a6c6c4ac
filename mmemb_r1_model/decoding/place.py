"""Where a model is, and the memory there."""

from __future__ import annotations

import ctypes
import sys

import torch

#: With CUDA's runtime (pinned memory, events, graphs), or with what stands in for it when no GPU is there.
_GPUS = ("cuda", "fakegpu")
#: Of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def on_gpu(device: torch.device) -> bool:
    """Whether a device works beside the host, in CUDA's terms."""
    return device.type in _GPUS


def keep_freed_memory() -> None:
    """Let what one pass's tensors free wait for the next one's; else each time the system has to clear the pages anew.

    glibc alone can be told: tensors of up to 32 MiB, its limit, come from the heap, and 128 MiB of that may lie idle.
    """
    if sys.platform == "linux" and (adjust := getattr(ctypes.CDLL(None), "mallopt", None)):
        adjust(_MMAP_THRESHOLD, 32 * 2**20)
        adjust(_TRIM_THRESHOLD, 128 * 2**20)
