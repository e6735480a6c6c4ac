"""Pictures to patches, as Qwen3-VL's processors do it, without torchvision: numpy and Pillow, one path everywhere.

The numbers equal those of transformers' own Pillow image processor (tested). A clip of n frames becomes
ceil(n / 2) temporal patches; an odd last frame is repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TEMPORAL_PATCH = 2
MAX_ASPECT_RATIO = 200


@dataclass(frozen=True)
class VisionShape:
    """Patch geometry and normalisation of a checkpoint's vision tower."""

    patch: int
    merge: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def factor(self) -> int:
        """Side of one visual token, in pixels."""
        return self.patch * self.merge


@dataclass(frozen=True)
class Patches:
    """Flattened patches (n, channels * 2 * patch * patch), float32, and their grid (time, height, width)."""

    pixels: NDArray[np.float32]
    grid: tuple[int, int, int]


class PictureError(ValueError):
    """A picture that can't be turned into patches."""


def image_patches(image: Image.Image, shape: VisionShape, min_pixels: int, max_pixels: int) -> Patches:
    """One picture, RGB; it fills both places of its single temporal patch."""
    height, width = image_size(image.height, image.width, shape.factor, min_pixels, max_pixels)
    pixels = _pixels(image, height, width, shape)
    return _patchify(np.stack([pixels, pixels]), shape)


def video_patches(frames: list[Image.Image], shape: VisionShape, min_pixels: int, max_pixels: int) -> Patches:
    """A clip; all frames are resized to one size, from the first frame's and the clip's pixel budget."""
    first = frames[0]
    height, width = video_size(len(frames), first.height, first.width, shape.factor, min_pixels, max_pixels)
    pixels = [_pixels(frame, height, width, shape) for frame in frames]
    if len(pixels) % TEMPORAL_PATCH:
        pixels.append(pixels[-1])
    return _patchify(np.stack(pixels), shape)


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


def _pixels(image: Image.Image, height: int, width: int, shape: VisionShape) -> NDArray[np.float32]:
    """Normalised pixels (3, height, width)."""
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    scaled = np.asarray(resized, dtype=np.float32) / np.float32(255)
    mean, std = (np.array(values, dtype=np.float32) for values in (shape.mean, shape.std))
    return ((scaled - mean) / std).transpose(2, 0, 1)


def _patchify(frames: NDArray[np.float32], shape: VisionShape) -> Patches:
    """Frames (t, 3, h, w) to patches, the patches of one visual token next to each other."""
    frame_count, channels, height, width = frames.shape
    time, rows, columns = frame_count // TEMPORAL_PATCH, height // shape.patch, width // shape.patch
    merge, patch = shape.merge, shape.patch
    split = frames.reshape(time, TEMPORAL_PATCH, channels, rows // merge, merge, patch, columns // merge, merge, patch)
    ordered = split.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
    flat = ordered.reshape(time * rows * columns, channels * TEMPORAL_PATCH * patch * patch)
    return Patches(np.ascontiguousarray(flat), (time, rows, columns))
