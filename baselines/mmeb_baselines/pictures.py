"""What transformers' Pillow image processors make of pictures, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import ModelError
from mmeb_harness.adapter.pixels import Pixels

if TYPE_CHECKING:
    from PIL import Image


def levels_of(processor: Any) -> NDArray[np.float32]:
    """The numbers (channels, 256) that a processor makes of all bytes."""
    levels = np.tile(np.arange(256, dtype=np.uint8), (3, 1, 1))
    if processor.do_rescale:
        levels = processor.rescale(levels, processor.rescale_factor)
    if processor.do_normalize:
        levels = processor.normalize(levels, processor.image_mean, processor.image_std)
    return np.asarray(levels, dtype=np.float32)[:, 0]


def pixels_of(processor: Any, pictures: Sequence[Image.Image]) -> Pixels:
    """Pictures resized and cropped, all to one size.

    Raises:
        ModelError: they don't come as bytes.
    """
    shown = processor(images=list(pictures), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"]
    if shown.dtype != np.uint8:
        raise ModelError(f"{type(processor).__name__} resizes pictures to {shown.dtype}, not to bytes")
    return Pixels(shown, levels_of(processor))
