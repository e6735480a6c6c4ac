"""What a model reads of pixels, for tests that compare it with something else."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mmeb_harness.adapter.pixels import Pixels
from mmeb_harness.adapter.uploads import Uploads


def numbers_of(pixels: Pixels) -> NDArray[np.float32]:
    """The numbers of patches (n, channels * frames * area), or of whole pictures."""
    numbers: NDArray[np.float32] = Uploads(torch, "cpu", "float32").copy({"pixels": pixels})["pixels"].numpy()
    return numbers
