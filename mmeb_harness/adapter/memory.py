"""What a model takes of its device's memory. torch is handed in: the harness doesn't import it."""

from __future__ import annotations

from typing import Any


def peak_device_memory(torch: Any, device: str) -> int | None:
    """Bytes that torch's tensors took at most since the last call; `None` on a CPU.

    Args:
        torch: the module.
        device: by torch's name, e.g. "cuda:0".
    """
    if torch.device(device).type != "cuda":
        return None
    if not torch.cuda.is_initialized():
        return 0  # no weights there yet
    peak = int(torch.cuda.max_memory_allocated(device))
    torch.cuda.reset_peak_memory_stats(device)
    return peak
