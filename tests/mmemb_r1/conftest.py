"""A random tiny Qwen3-VL on disk, the embedded trained one, and items of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmeb_harness import Item
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny

TEXTS = [
    "a red circle left of a blue square",
    "find the image that matches",
    "embed",
    "circle>square after three steps",
]


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = build_tokenizer(TEXTS * 50, 512)
    save_tiny(build_model(tokenizer, TinySize(layers=3, hidden=64), seed=0), tokenizer, TINY_SETTINGS, folder)
    return folder


@pytest.fixture(scope="session")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    """Text, images of odd sizes, an odd number of frames, mixed; of very different lengths."""
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)

    def picture(name: str, width: int, height: int) -> Path:
        path = folder / f"{name}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
        return path

    clip = tuple(picture(f"frame{i}", 40, 32) for i in range(5))
    return [
        Item("text", text="a red circle"),
        Item("long text", text="a blue square after three steps " * 8, instruction="find the image that matches"),
        Item("image", images=(picture("a", 64, 64),), instruction="embed"),
        Item("odd image", images=(picture("b", 37, 120),), text="left of"),
        Item("frames", frames=clip, instruction="find"),
        Item("one frame", frames=clip[:1], text="what moves?"),
        Item("empty"),
    ]
