"""To what size pictures are brought, family by family. Heights and widths in pixels; no picture is touched here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

#: (height, width) → (height, width).
Resize: TypeAlias = Callable[[int, int], tuple[int, int]]

MAX_ASPECT_RATIO = 200
#: Pixels of one visual token of Qwen2-VL.
TOKEN = 28 * 28


class SizeError(ValueError):
    """A picture of a shape that the family's code refuses."""


def within(min_pixels: int, max_pixels: int, factor: int) -> Resize:
    """Whole tokens of `factor` pixels a side, the area within bounds: `smart_resize` of qwen-vl-utils 0.0.8 to 0.0.14.

    Where a scaled side falls below one token it is one token, as in transformers; qwen-vl-utils would make it 0.
    """

    def resize(height: int, width: int) -> tuple[int, int]:
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise SizeError(f"a side is more than {MAX_ASPECT_RATIO} times the other ({width} x {height})")
        rows, columns = max(factor, round(height / factor) * factor), max(factor, round(width / factor) * factor)
        if rows * columns > max_pixels:
            scale = math.sqrt(height * width / max_pixels)
            return _whole(math.floor, height / scale, factor), _whole(math.floor, width / scale, factor)
        if rows * columns < min_pixels:
            scale = math.sqrt(min_pixels / (height * width))
            return _whole(math.ceil, height * scale, factor), _whole(math.ceil, width * scale, factor)
        return rows, columns

    return resize


def clipped(resize: Resize) -> Resize:
    """The same for families that shorten the longer side of an extreme picture instead of refusing it."""

    def with_limit(height: int, width: int) -> tuple[int, int]:
        longest = MAX_ASPECT_RATIO * min(height, width)
        return resize(min(height, longest), min(width, longest))

    return with_limit


def vlm2vec(min_pixels: int, max_pixels: int) -> Resize:
    """VLM2Vec's copy of it: extreme pictures, and those with a side under one token, become squares."""
    factor = 28
    ordinary = within(min_pixels, max_pixels, factor)

    def resize(height: int, width: int) -> tuple[int, int]:
        if min(height, width) < factor or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            height = width = max(factor, height, width)
        return ordinary(height, width)

    return resize


def enlarged_if_small(side: int, size: int) -> Resize:
    """A picture with a side below `side` becomes a square of `size`; others stay."""
    return lambda height, width: (size, size) if min(height, width) < side else (height, width)


def _whole(rounding: Callable[[float], int], side: float, factor: int) -> int:
    return max(factor, rounding(side / factor) * factor)
