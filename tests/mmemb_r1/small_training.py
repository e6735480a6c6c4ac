"""Small pairs with pictures, and students to train on them, for the tests of both stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmemb_r1_model.data.pairs import Item, Pair, Side
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import fingerprint
from mmemb_r1_model.training.student import Student, StudentConfig, open_student
from tests.mmemb_r1.small_pairs import Pairs

COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class Written:
    """Rationales by side and pair id."""

    texts: dict[tuple[Side, str], str]

    @property
    def fingerprint(self) -> str:
        return fingerprint(sorted(self.texts.items()))

    def draw(self, pair: Pair, side: Side, rng: np.random.Generator) -> str | None:
        return self.texts.get((side, pair.id))


def make_pairs(folder: Path, count: int, name: str = "toy", write: bool = True) -> tuple[Pairs, Written]:
    """Noise pictures with a word, whose candidates are texts (even ids) or pictures (odd ids)."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)

    def picture(stem: str) -> Path:
        path = folder / f"{stem}.png"
        if write:
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
        return path

    pairs = []
    texts: dict[tuple[Side, str], str] = {}
    for number in range(count):
        colour = COLOURS[number % 4]
        query = Item(f"q{number}", text=f"circle {number}", images=(picture(f"{name}-q{number}"),), instruction="find")
        right = (
            Item(f"c{number}", images=(picture(f"{name}-c{number}"),))
            if number % 2
            else Item(f"c{number}", text=f"a {colour} square {number}")
        )
        pairs.append(Pair(str(number), name, query, right, answer=str(number)))
        if number % 3:
            texts["query", str(number)] = f"{colour} circle" + " square" * (number % 5)
        if number % 4 == 1:
            texts["positive", str(number)] = colour
    return Pairs(name, tuple(pairs), (Item("d0", text="embed"), Item("d1", text="three steps"))), Written(texts)


def make_student(checkpoint: Path, world: World | None = None, **settings: object) -> Student:
    config = StudentConfig(checkpoint=str(checkpoint), train_vision=True, **settings)  # type: ignore[arg-type]
    return open_student(config, world or World())


def gradient(student: Student) -> torch.Tensor:
    """All gradients in one vector."""
    return torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in student.trained()])
