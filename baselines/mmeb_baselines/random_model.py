"""The floor: vectors that know nothing. A harness that scores this above chance has a leak."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from mmeb_harness import EncodeResult, Item, ModelInfo, Profile, Role


class RandomEmbedder:
    """Floor: a random unit vector for each distinct content, the same on every machine."""

    def __init__(self, dimensions: int = 64, seed: int = 0) -> None:
        self._seed = seed
        profile = Profile("random", "user text", "the task's own", whitespace="kept", pooling="none")
        self.info = ModelInfo(
            "random",
            revision="1",
            dimensions=dimensions,
            settings={"seed": seed},
            media=("image", "video", "audio"),
            profile=profile,
        )

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        """Hash each item's words and media names into a seed; draw a direction from it."""
        vectors = np.stack([self._direction(item) for item in items])
        return EncodeResult((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def _direction(self, item: Item) -> np.ndarray:
        # Two path parts tell frames of two clips apart, and don't depend on where the data folder is.
        media = ["/".join(path.parts[-2:]) for path in item.media]
        part = [] if item.sound is None else [f"{item.sound.start}-{item.sound.end}"]
        content = "\0".join([str(self._seed), item.instruction, item.text, *media, *part])
        digest = hashlib.sha256(content.encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:16])).normal(size=self.info.dimensions)
