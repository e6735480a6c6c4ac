"""The most memory that was held, of this machine and of a device. torch is handed in: the harness doesn't import it."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
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


def forget_peak() -> None:
    """Start over for `peak_memory`, of this process and those below it. Only Linux can."""
    for process in _processes():
        try:
            Path(f"/proc/{process}/clear_refs").write_text("5")
        except OSError:
            continue  # not Linux, not allowed, or just ended: the peak is then that of the whole life


def peak_memory() -> int | None:
    """Bytes: the most of this process and of each below it, summed, since `forget_peak`.

    What processes share counts for each of them. Elsewhere than on Linux: of this process alone, ever.
    """
    if not sys.platform.startswith("linux"):
        return _peak_of_life()
    return sum(_kilobytes(process, "status", "VmHWM") << 10 for process in _processes())


def held_memory() -> int:
    """Bytes that this process and those below it hold now, what several share once; on Linux.

    Of what others share with them, their part: libraries that another program has loaded as well, a file in the cache.
    """
    return sum(_kilobytes(process, "smaps_rollup", "Pss") << 10 for process in _processes())


def _processes() -> list[int]:
    """This one and all below it."""
    parent_of = {int(path.name): _parent(path) for path in Path("/proc").glob("[0-9]*")}
    processes = [os.getpid()]
    for known in processes:  # grows
        processes += [process for process, parent in parent_of.items() if parent == known]
    return processes


def _parent(path: Path) -> int | None:
    try:
        # "pid (name) state parent …"; the name may hold anything.
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None  # has just ended


def _kilobytes(process: int, file: str, name: str) -> int:
    try:
        status = Path(f"/proc/{process}/{file}").read_text()
    except OSError:
        return 0  # has just ended
    line = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(line.group(1)) if line else 0


def _peak_of_life() -> int | None:
    try:
        import resource
    except ImportError:
        return None  # Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
