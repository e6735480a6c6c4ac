"""The simplest embedder that sees and hears anything: words, pixels by the nearest colour word, moments of sound by
words for pitch and rhythm, all counted.

Text, pictures and sounds share the dimensions of these words, so "a red circle" is near a picture with red in it, and
"high fast" near quick high tones. Word order, shapes, positions and motion are invisible, and so is whose sound it is.
Read this file first to learn what a model is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import EncodeResult, Item, ModelInfo, Profile, Role, Sound
from mmeb_harness.adapter.pictures import open_picture
from mmeb_harness.adapter.sounds import read_sound

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
#: Hertz from which on a moment sounds so, by its loudest frequency.
PITCHES = {"low": 0.0, "middle": 380.0, "high": 1140.0}
#: Seconds from which on it does, by how long the sound that it is in lasts without a pause.
RHYTHMS = {"fast": 0.0, "slow": 0.125, "steady": 0.4}
#: Samples a second, of a moment, and from one to the next.
RATE, MOMENT, STEP = 8000, 256, 128
#: Of the loudest moment, and of the loudest there can be: what is more quiet is a pause.
PAUSE, SILENCE = 0.5, 0.05


class BagOfFeaturesEmbedder:
    """Floor: hashed words and named-colour histograms, on the CPU, without torch."""

    def __init__(self, dimensions: int = 512, thumbnail: int = 32) -> None:
        self.info = ModelInfo(
            name="bag_of_features",
            revision="1",
            dimensions=dimensions,
            settings={"thumbnail": thumbnail},
            media=("image", "video", "audio"),
            profile=Profile("bag_of_features", "none", "none", whitespace="stripped", pooling="sum"),
        )
        self._thumbnail = thumbnail
        self._palette = np.array(list(COLOURS.values()), dtype=np.float32)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Sum of words and shares of colours, pitches and rhythms, to unit length. The instruction is not used."""
        vectors = np.stack([self._features(item) for item in items])
        return EncodeResult((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def _features(self, item: Item) -> NDArray[np.float64]:
        features = np.full(self.info.dimensions, 1e-6)  # an empty item still has a direction
        for word in re.findall(r"\w+", item.text.lower()):
            features[self._slot(word)] += 1.0
        for path in item.pictures:
            for colour, share in zip(COLOURS, self._colour_shares(path), strict=True):
                if colour not in UNINFORMATIVE:
                    features[self._slot(colour)] += 4.0 * share / len(item.pictures)
        if item.sound is not None:
            for word, share in heard_shares(item.sound).items():
                features[self._slot(word)] += 2.0 * share
        return features

    def _slot(self, word: str) -> int:
        return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) % self.info.dimensions

    def _colour_shares(self, path: Path) -> NDArray[np.float64]:
        """Share of pixels nearest to each colour word."""
        small = open_picture(path).resize((self._thumbnail, self._thumbnail))
        pixels = np.asarray(small, dtype=np.float32).reshape(-1, 1, 3)
        nearest = np.argmin(((pixels - self._palette) ** 2).sum(axis=2), axis=1)
        return np.bincount(nearest, minlength=len(COLOURS)) / len(pixels)


def heard_shares(sound: Sound) -> dict[str, float]:
    """Share of a sound's moments, but for its pauses, of each word for pitch and for rhythm; nothing of silence."""
    samples = read_sound(sound, RATE)
    samples = np.pad(samples, (0, max(0, MOMENT - len(samples))))
    moments = np.lib.stride_tricks.sliding_window_view(samples, MOMENT)[::STEP]  # (m, MOMENT)
    loudness = np.sqrt((moments**2).mean(axis=1))
    is_heard = loudness > max(PAUSE * loudness.max(), SILENCE)
    if not is_heard.any():
        return {}
    hertz = np.abs(np.fft.rfft(moments[is_heard] * np.hanning(MOMENT))).argmax(axis=1) * (RATE / MOMENT)
    return _shares(PITCHES, hertz) | _shares(RHYTHMS, _run_lengths(is_heard) * (STEP / RATE))


def _run_lengths(is_heard: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each moment that is heard how many there are without a pause."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_heard, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    return np.repeat(lengths, lengths)


def _shares(words: dict[str, float], values: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Word → share of the values that are from its own bound up to the next one's."""
    places = np.searchsorted(list(words.values()), values, side="right") - 1
    counts = np.bincount(places, minlength=len(words))
    return {word: float(count) / len(values) for word, count in zip(words, counts, strict=True)}
