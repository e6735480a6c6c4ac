"""A random tiny Qwen3-VL on disk, items of every kind, and torchrun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmeb_harness import Item
from mmemb_r1_model.model.tiny_model import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny
from tests.forked import ROOT, open_forks

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
        Item("two images", images=(picture("c", 64, 40), picture("d", 40, 64)), text="which is it?"),
        Item(
            *("images in the text", "first  then  there\nat the end "),
            images=(clip[0], picture("e", 90, 33), clip[0]),
            places=(6, 12, 30),
        ),
    ]


@pytest.fixture(scope="session")
def torchrun() -> Iterator[Callable[..., str]]:
    """Runs a module in so many processes, which meet as torchrun has them meet; gives their output."""
    # FSDP takes a GPU where it sees one.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    imported = ("torch.distributed.launcher.api", "accelerate", "peft", "torch.distributed.fsdp", "torch._dynamo")
    imported += ("mmemb_r1_model.training.stage1", "mmemb_r1_model.training.stage2", "mmemb_r1_model.pipeline")
    with open_forks(*imported) as forks:

        def run(processes: int, module: str, *arguments: str) -> str:
            command = [str(ROOT / "tests" / "forked_ranks.py"), str(processes), module, *arguments]
            done = forks.call(command, cwd=ROOT, env=environment)
            assert done.returncode == 0, done.stderr[-3000:]
            return done.stdout

        yield run
