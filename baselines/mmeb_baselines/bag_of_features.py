"""The simplest embedder that sees anything: words counted, pixels counted by the colour word nearest to them.

Text and pictures share the dimensions of the colour words, so "a red circle" is near a picture with red in
it. Word order, shapes, positions and motion are invisible. Read this file first to learn what a model is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import EncodeResult, Item, ModelInfo, Profile, Role
from mmeb_harness.adapter.pictures import open_picture

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 180, 30),
    "blue": (40, 40, 225),
    "yellow": (225, 220, 40),
    "purple": (150, 30, 190),
    "orange": (245, 140, 20),
    "white": (240, 240, 240),
    "cyan": (20, 200, 210),
    "black": (10, 10, 10),
    "grey": (115, 115, 115),
}
#: Background and ink say little of what a picture shows.
UNINFORMATIVE = ("black", "grey", "white")


class BagOfFeaturesEmbedder:
    """Floor: hashed words and named-colour histograms, on the CPU, without torch."""

    def __init__(self, dimensions: int = 512, thumbnail: int = 32) -> None:
        self.info = ModelInfo(
            name="bag_of_features",
            revision="1",
            dimensions=dimensions,
            settings={"thumbnail": thumbnail},
            profile=Profile("bag_of_features", "none", "none", whitespace="stripped", pooling="sum"),
        )
        self._thumbnail = thumbnail
        self._palette = np.array(list(COLOURS.values()), dtype=np.float32)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Sum of word counts and colour shares, scaled to unit length. The instruction is not used."""
        vectors = np.stack([self._features(item) for item in items])
        return EncodeResult((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def _features(self, item: Item) -> NDArray[np.float64]:
        features = np.full(self.info.dimensions, 1e-6)  # an empty item still has a direction
        for word in re.findall(r"\w+", item.text.lower()):
            features[self._slot(word)] += 1.0
        for path in item.media:
            for colour, share in zip(COLOURS, self._colour_shares(path), strict=True):
                if colour not in UNINFORMATIVE:
                    features[self._slot(colour)] += 4.0 * share / len(item.media)
        return features

    def _slot(self, word: str) -> int:
        return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) % self.info.dimensions

    def _colour_shares(self, path: Path) -> NDArray[np.float64]:
        """Share of pixels nearest to each colour word."""
        small = open_picture(path).resize((self._thumbnail, self._thumbnail))
        pixels = np.asarray(small, dtype=np.float32).reshape(-1, 1, 3)
        nearest = np.argmin(((pixels - self._palette) ** 2).sum(axis=2), axis=1)
        return np.bincount(nearest, minlength=len(COLOURS)) / len(pixels)
