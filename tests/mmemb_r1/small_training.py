"""Small pairs with pictures, and students to train on them, for the tests of both stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmemb_r1_model.data.pairs import Item, Pair, Side
from mmemb_r1_model.training.batches import PlanConfig
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.loop import LoopConfig, fingerprint
from mmemb_r1_model.training.losses import JointWeights
from mmemb_r1_model.training.rollouts import Rollout
from mmemb_r1_model.training.stage2 import AdaptConfig
from mmemb_r1_model.training.student import Student, StudentConfig, open_student
from tests.mmemb_r1.small_pairs import Pairs

COLOURS = ("red", "green", "blue", "yellow")


ADAPT = AdaptConfig(
    plan=PlanConfig(batch_size=6),
    groups=2,
    negatives=6,
    rollouts=6,
    contrast=ContrastConfig(temperature=0.05, weights=JointWeights(generation=0.0)),
    loop=LoopConfig(steps=3, learning_rate=1e-2, warmup=1, log_every=1, save_every=2, seed=3, cached_prompts=1000),
)


@dataclass(frozen=True)
class Written:
    """Rationales by side and pair id."""

    texts: dict[tuple[Side, str], str]

    @property
    def fingerprint(self) -> str:
        return fingerprint(sorted(self.texts.items()))

    def draw(self, pair: Pair, side: Side, rng: Callable[[], np.random.Generator]) -> str | None:
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


def shake(student: Student, seed: int = 0, size: float = 0.3) -> None:
    """Adapters that do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, one in student.module.named_parameters():
            if ".lora_" in name:
                one.copy_(torch.randn(one.shape, generator=generator) * size)


def log_ratios(student: Student, items: Sequence[Item], rollouts: Sequence[Sequence[Rollout]]) -> list[float]:
    """How far the log-probabilities of what rollouts sampled are from the student's own."""
    completions = [[list(one.ids) for one in own] for own in rollouts]
    packed = student.pack([student.reader.prompt(item) for item in items], completions)
    student.module.eval()
    with torch.no_grad():
        own = student.encode(packed, range(len(packed.branches))).log_probs
    flat = [one for group in rollouts for one in group]
    distances: list[float] = []
    for now, one in zip(own, flat, strict=True):
        distances += (now[: one.sampled] - torch.tensor(one.log_probs[: one.sampled])).abs().tolist()
    return distances
