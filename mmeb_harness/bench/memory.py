"""The most memory that something held."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from pathlib import Path

from mmeb_harness.types import Embedder, MemoryEmbedder


def forget_peak() -> None:
    """Start over for `peak_memory`, of this process and its workers. Only Linux can."""
    for process in _processes():
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:
            continue  # not Linux, not allowed, or just ended: the peak is then that of the whole life


def peak_memory() -> int | None:
    """Bytes: this process's most since `forget_peak` (elsewhere than on Linux: ever), and its workers' most, summed."""
    if not sys.platform.startswith("linux"):
        return _peak_of_life()
    return sum(_status_bytes(process, "VmHWM") for process in _processes())


def resident_memory() -> int:
    """Bytes that this process and its workers hold now; on Linux."""
    return sum(_status_bytes(process, "VmRSS") for process in _processes())


def device_peak(embedder: Embedder) -> int | None:
    """Bytes of the accelerator since the last call; `None` where the model doesn't tell."""
    return embedder.peak_device_memory() if isinstance(embedder, MemoryEmbedder) else None


def _processes() -> list[int]:
    workers = [one.pid for one in multiprocessing.active_children()]
    return [os.getpid(), *(pid for pid in workers if pid is not None)]


def _status_bytes(process: int, name: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0  # a worker that has just ended
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found.group(1)) << 10 if found else 0


def _peak_of_life() -> int | None:
    try:
        import resource
    except ImportError:
        return None  # Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
