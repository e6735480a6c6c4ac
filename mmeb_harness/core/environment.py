"""What a result was computed with: versions, commit, machine. Nothing that identifies a person or a host."""

from __future__ import annotations

import functools
import math
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmeb_harness.core.items import Scalar

__version__ = "0.1.0"

PACKAGES = (
    *("mmeb-harness", "torch", "transformers", "sentence-transformers"),
    *("faiss-cpu", "faiss-gpu", "numpy", "pyarrow", "pillow"),
)


#: For git and the driver's own tool.
TOOL_SECONDS = 10.0


@functools.cache
def package_versions() -> dict[str, str]:
    """Installed versions of what can move a score, and of Python."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue  # not installed is an answer: only what is there can have moved a score
    return versions


def git_commit() -> str | None:
    """Commit of the harness's own checkout, "-dirty" appended if it has changes; `None` outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("-dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *args: str) -> str | None:
    return _output("git", "-C", str(root), *args)


def _output(*command: str) -> str | None:
    """What a command prints; `None` if it is not installed, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired):
        return None  # a driver that doesn't answer serves no GPU either
    return done.stdout.strip() if done.returncode == 0 else None


def gpu_names() -> tuple[str, ...]:
    """Names of the GPUs that the driver lists; none without a driver."""
    tool = shutil.which("nvidia-smi")
    return () if tool is None else _listed_gpus(tool)


def visible_gpus(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Names of those that CUDA_VISIBLE_DEVICES leaves to a process, in its order; all where it isn't set."""
    names, chosen = gpu_names(), environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return names
    marks = [mark.strip() for mark in chosen.split(",") if mark.strip()]
    numbers = [int(mark) if mark.isdecimal() else 0 for mark in marks]  # a UUID is taken for one like the first
    return tuple(names[number] for number in numbers if number < len(names))


@functools.cache
def _listed_gpus(tool: str) -> tuple[str, ...]:
    """Asked once, since a driver that hangs takes its time."""
    names = (_output(tool, "--query-gpu=name", "--format=csv,noheader") or "").splitlines()
    return tuple(name.strip() for name in names)


def gpus() -> str | None:
    """Names and numbers of GPUs, e.g. "2 x NVIDIA H100 80GB HBM3"; `None` without any."""
    counted = Counter(gpu_names())
    return ", ".join(f"{count} x {name}" for name, count in counted.items()) or None


def processors() -> str:
    """What computes here, by kind, not by number: equal ones round alike."""
    return ", ".join(sorted(set(gpu_names()))) or platform.machine()


def machine() -> dict[str, Scalar]:
    """Platform, processor, cores, memory and GPUs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None
    return {
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1) if memory else None,
        "gpus": gpus(),
    }


def available_cpus() -> int:
    """CPUs that this process may use, by its affinity and its control groups; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min(cores, cgroup_cpus())))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs' time that control groups (version 2) grant; infinite without a limit.

    Args:
        root: where the groups are mounted.
        own: names this process's group, in a line "0::/path".
    """
    lines = own.read_text().splitlines() if own.is_file() else []
    group = next((line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")), "")
    folders = [root.joinpath(*Path(group).parts[:depth]) for depth in range(len(Path(group).parts) + 1)]
    files = [folder / "cpu.max" for folder in folders]
    return min((_granted(file.read_text()) for file in files if file.is_file()), default=math.inf)


def _granted(limit: str) -> float:
    """Of "200000 100000" or "max 100000": microseconds in a period, and the period."""
    quota, period = limit.split()
    return math.inf if quota == "max" else int(quota) / int(period)
