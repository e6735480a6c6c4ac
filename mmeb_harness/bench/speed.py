"""How fast a machine could be at best, and what that bounds: the least time a model's work can take."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmeb_harness.bench.values import Efficiency, Pass, Speed
from mmeb_harness.core import environment
from mmeb_harness.core.embedder import Work
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.items import Scalar

#: What nvidia-smi calls a GPU → teraflops of dense bfloat16 products (accumulated in float32) and gigabytes a second
#: by the maker's data sheets, halved where these count sparse operations. The first that is found counts.
GPUS: tuple[tuple[str, float, float], ...] = (
    (r"\bA100.*80GB.*PCIe|\bA100.*PCIe.*80GB", 312, 1935),
    (r"\bA100.*80GB", 312, 2039),
    (r"\bA100", 312, 1555),
    (r"\bA10G\b", 70, 600),
    (r"\bH100 NVL\b", 835, 3900),
    (r"\bH100 PCIe\b", 756, 2000),
    (r"\bH100 80GB HBM3\b", 989, 3350),
    (r"\bH200 NVL\b", 835, 4800),
    (r"\bH200\b", 989, 4800),
    (r"\bL40S\b", 362, 864),
    (r"\bRTX 4090$", 165, 1008),
    (r"\bB200\b", 2250, 8000),
)
#: Types of numbers for which the table holds.
_HALF = ("bfloat16", "float16")

_PRODUCT, _COPY_BYTES, _TRIES = 1024, 256 << 20, 5


def speed_of(settings: Mapping[str, Scalar], teraflops: float | None, gigabytes: float | None) -> Speed | None:
    """Of the machine that a model runs on; `None` if nobody knows.

    Args:
        settings: the model's; they name device and dtype.
        teraflops, gigabytes: a second, as the user has them.

    Raises:
        OptionError: one without the other, below zero, or no number.
    """
    if (teraflops is None) != (gigabytes is None):
        raise OptionError("--peak-tflops and --bandwidth-gbs belong together; give both, or neither")
    if teraflops is not None and gigabytes is not None:
        if not (0 < teraflops < math.inf and 0 < gigabytes < math.inf):
            raise OptionError(
                f"--peak-tflops and --bandwidth-gbs must be above 0 and finite, not {teraflops:g} and {gigabytes:g}"
            )
        return Speed(teraflops * 1e12, gigabytes * 1e9, "given")
    if settings.get("device") == "cuda":
        return known_gpu(environment.gpu_names()) if settings.get("dtype") in _HALF else None
    return measure_cpu() if settings.get("device") == "cpu" else None


def known_gpu(names: Sequence[str]) -> Speed | None:
    """By what nvidia-smi calls the GPUs; `None` if they are of several kinds, or of none in the table."""
    if len(set(names)) != 1:
        return None
    name = names[0]
    for pattern, teraflops, gigabytes in GPUS:
        if re.search(pattern, name, re.IGNORECASE):
            return Speed(teraflops * 1e12, gigabytes * 1e9, f"vendor data sheet, {name}, dense bfloat16")
    return None


def measure_cpu() -> Speed:
    """The best of a few products of float32 matrices, and of a few copies, by numpy in this process."""
    matrix = np.random.default_rng(0).normal(size=(_PRODUCT, _PRODUCT)).astype(np.float32)
    product = np.empty_like(matrix)
    flops = 2 * _PRODUCT**3 / _shortest(lambda: np.matmul(matrix, matrix, out=product))
    source = np.ones(_COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    bandwidth = 2 * _COPY_BYTES / _shortest(lambda: np.copyto(target, source))  # read and written
    how = f"measured here, numpy: float32 product of {_PRODUCT:,} x {_PRODUCT:,}, copy of {_COPY_BYTES >> 20} MiB"
    return Speed(flops, bandwidth, how)


def _shortest(once: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def floor_seconds(work: Work, speed: Speed) -> float:
    """The least time for this work: of the prompts, and of the tokens after them, computing or moving bytes.

    The two can overlap at best, so that the longer of them counts (the roofline of Williams et al. 2009).
    """
    prefill = max(work.prefill_flops / speed.flops, work.prefill_bytes / speed.bandwidth)
    decode = max(work.decode_flops / speed.flops, work.decode_bytes / speed.bandwidth)
    return prefill + decode


def efficiency_of(passes: tuple[Pass, ...], speed: Speed | None) -> Efficiency | None:
    """`None` if the model counts no work, or the machine's speed isn't known."""
    worked = [(taken, taken.work) for taken in passes if taken.work is not None]
    if speed is None or not worked or not any(work.prefill_flops for _, work in worked):
        return None
    floors = np.array([floor_seconds(work, speed) for _, work in worked])
    flops = np.array([work.prefill_flops + work.decode_flops for _, work in worked])
    walls = np.array([taken.encode_seconds for taken, _ in worked])
    own = [taken.accelerator_seconds for taken, _ in worked]
    shares = [floor / seconds for floor, seconds in zip(floors, own, strict=True) if seconds]
    return Efficiency(
        flops_utilisation=float(np.median(flops / (speed.flops * walls))),
        floor_seconds=float(np.median(floors)),
        share_of_encoding=float(np.median(floors / walls)),
        share_of_accelerator=float(np.median(shares)) if shares else None,
    )
