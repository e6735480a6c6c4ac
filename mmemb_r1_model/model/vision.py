"""Pictures to patches, as Qwen3-VL's processors do it, without torchvision: numpy and Pillow, one path everywhere.

The numbers equal those of transformers' own Pillow image processor (tested). A clip of n frames becomes
ceil(n / 2) temporal patches; an odd last frame is repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmeb_harness.adapter.pixels import Patches, PatchShape, clip_patches, picture_patches

TEMPORAL_PATCH = 2
MAX_ASPECT_RATIO = 200


class PictureError(ValueError):
    """A picture that can't be turned into patches."""


def image_patches(image: Image.Image, shape: PatchShape, min_pixels: int, max_pixels: int) -> Patches:
    """One picture, RGB; it fills both places of its single temporal patch."""
    height, width = image_size(image.height, image.width, shape.factor, min_pixels, max_pixels)
    return picture_patches(_resized(image, height, width), shape)


def video_patches(frames: list[Image.Image], shape: PatchShape, min_pixels: int, max_pixels: int) -> Patches:
    """A clip; all frames are resized to one size, from the first frame's and the clip's pixel budget."""
    first = frames[0]
    height, width = video_size(len(frames), first.height, first.width, shape.factor, min_pixels, max_pixels)
    return clip_patches([_resized(frame, height, width) for frame in frames], shape)


def image_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width in whole visual tokens, the area within bounds, the aspect ratio nearly kept."""
    _check_aspect(height, width)
    rounded = round(height / factor) * factor, round(width / factor) * factor
    if rounded[0] * rounded[1] > max_pixels:
        return _shrunk(height, width, factor, math.sqrt(height * width / max_pixels))
    if rounded[0] * rounded[1] < min_pixels:
        return _grown(height, width, factor, math.sqrt(min_pixels / (height * width)))
    return rounded


def video_size(
    num_frames: int, height: int, width: int, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """The same for each frame of a clip whose pixels, over all frames, have bounds."""
    _check_aspect(height, width)
    rounded = max(factor, round(height / factor) * factor), max(factor, round(width / factor) * factor)
    even_frames = math.ceil(num_frames / TEMPORAL_PATCH) * TEMPORAL_PATCH
    volume = even_frames * rounded[0] * rounded[1]
    if volume > max_pixels:
        return _shrunk(height, width, factor, math.sqrt(num_frames * height * width / max_pixels))
    if volume < min_pixels:
        return _grown(height, width, factor, math.sqrt(min_pixels / (num_frames * height * width)))
    return rounded


def _check_aspect(height: int, width: int) -> None:
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise PictureError(f"a side is more than {MAX_ASPECT_RATIO} times the other ({width} x {height})")


def _shrunk(height: int, width: int, factor: int, scale: float) -> tuple[int, int]:
    return (
        max(factor, math.floor(height / scale / factor) * factor),
        max(factor, math.floor(width / scale / factor) * factor),
    )


def _grown(height: int, width: int, factor: int, scale: float) -> tuple[int, int]:
    return math.ceil(height * scale / factor) * factor, math.ceil(width * scale / factor) * factor


def levels_of(mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """The normalised numbers of all bytes, (channels, 256)."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    own = [np.array(values, dtype=np.float32)[:, None] for values in (mean, std)]
    levels: NDArray[np.float32] = (scaled - own[0]) / own[1]
    return levels


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC)
