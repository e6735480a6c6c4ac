"""Prompts kept in memory between steps, for data that is small enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.data.pairs import Item, content_key
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.model.vision import Patches


@dataclass(frozen=True, slots=True)
class CompactPrompt:
    """A prompt whose patches are kept as bytes: a quarter of the memory, the same numbers back."""

    prompt: Prompt  # without patches
    pictures: tuple[tuple[NDArray[np.uint8], tuple[int, int, int]], ...]  # pixels and grids

    def restore(self) -> Prompt:
        """The prompt as it was built."""
        patches = tuple(_patches(pixels, grid) for pixels, grid in self.pictures)
        return dataclasses.replace(self.prompt, patches=patches)


def compact(prompt: Prompt) -> CompactPrompt:
    """Keep patches as bytes. Exact for normalisation with mean and std 0.5, as Qwen3-VL has."""
    pictures = tuple((_pixels(patches), patches.grid) for patches in prompt.patches)
    return CompactPrompt(dataclasses.replace(prompt, patches=()), pictures)


def _pixels(patches: Patches) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = np.rint((patches.pixels * 0.5 + 0.5) * 255).clip(0, 255).astype(np.uint8)
    return pixels


def _patches(pixels: NDArray[np.uint8], grid: tuple[int, int, int]) -> Patches:
    scaled = pixels.astype(np.float32) / np.float32(255)
    return Patches((scaled - np.float32(0.5)) / np.float32(0.5), grid)


class PromptCache:
    """Prompts by content, up to a number of them; small data is read from disk once."""

    def __init__(self, read: Callable[[Item], Prompt], limit: int) -> None:
        self._read, self._limit = read, limit
        self._kept: dict[str, CompactPrompt] = {}

    def __call__(self, item: Item) -> Prompt:
        if not self._limit:
            return self._read(item)
        key = content_key(item)
        if key not in self._kept:
            prompt = self._read(item)
            if len(self._kept) >= self._limit:
                return prompt
            self._kept[key] = compact(prompt)
        return self._kept[key].restore()
