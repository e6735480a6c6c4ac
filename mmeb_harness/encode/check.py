"""Tests an embedder offline in seconds, on inputs made here: does it keep the promises the harness relies on?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.items import Item, Role
from mmeb_harness.encode.local import check_result

#: One array (t, d) an item; t is 1 for a model of one vector an item.
ItemVectors: TypeAlias = list[NDArray[np.floating[Any]]]

#: Cosine between an item's vectors from two batches. Loose enough for bfloat16, far from any other item.
SAME_COSINE = 0.999


@dataclass(frozen=True)
class CheckOutcome:
    """One check: its name, whether it held, and the figure or reason."""

    name: str
    passed: bool
    detail: str


def check_embedder(embedder: Embedder, folder: Path) -> Iterator[CheckOutcome]:
    """Run every check; pictures are written to `folder`. A `HarnessError` from the embedder passes through.

    Checks: text, image, frames and mixed items in both roles; number, width, unit length, finiteness (all of
    `encode.check_result`); determinism; order; batch and padding invariance; different inputs, different vectors.
    """
    items = probe_items(folder)
    for kind in ("text", "image", "frames", "mixed"):
        for role in _ROLES:
            vectors = _encode(embedder, [item for item in items if item.id.startswith(kind)], role)
            number, width = sum(map(len, vectors)), vectors[0].shape[1]
            yield CheckOutcome(f"{kind} as {role}", True, f"{number} vectors of width {width}, unit length")
    together = _encode(embedder, items, "query")
    comparisons: dict[str, Callable[[], ItemVectors]] = {
        "same again": lambda: _encode(embedder, items, "query"),
        "order": lambda: _encode(embedder, items[::-1], "query")[::-1],
        "batch of one": lambda: [_encode(embedder, [item], "query")[0] for item in items],
        "padding": lambda: _encode(embedder, [*items, _long_item()], "query")[: len(items)],
    }
    for name, encode in comparisons.items():
        yield _same(name, together, encode(), items)
    yield _distinct(together, items)


_ROLES: tuple[Role, ...] = ("query", "candidate")


def probe_items(folder: Path) -> list[Item]:
    """Text, image, frames and mixed items, with an odd number of frames, a tall and a wide picture, odd text."""
    red = _picture(folder / "red.png", (64, 64), (220, 30, 30))
    tall = _picture(folder / "tall.png", (48, 160), (30, 180, 30))
    wide = _picture(folder / "wide.png", (160, 48), (40, 40, 225))
    clip = tuple(_picture(folder / f"frame_{i:04d}.png", (64, 64), (30 * i, 40, 220 - 30 * i)) for i in range(1, 6))
    find = "Find an image that matches the given caption:"
    return [
        Item("text short", text="a red circle", instruction=find),
        Item(
            "text long",
            text="a small blue square to the left of a large green triangle, " * 4,
            instruction=find,
        ),
        Item("text symbols", text="naïve 東京 <b>100 %</b>\n\nline <|im_end|>", instruction=""),
        Item("image square", images=(red,), instruction="Represent the given image."),
        Item("image tall", images=(tall,), instruction="Represent the given image."),
        Item("frames five", frames=clip, instruction="Understand the content of the provided video."),
        Item("frames one", frames=clip[:1], instruction="Understand the content of the provided video."),
        Item("mixed image", text="make it blue", images=(wide,), instruction="Find the image with the change:"),
        Item(
            "mixed frames",
            text="what moves?",
            frames=clip[:4],
            instruction="Answer the question about the video:",
        ),
    ]


def _long_item() -> Item:
    return Item("text padding", text="one two three four five six seven eight nine ten " * 20)


def _picture(path: Path, size: tuple[int, int], colour: tuple[int, int, int]) -> Path:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", size, (115, 115, 115))
    width, height = size
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, 3 * width // 4, 3 * height // 4), fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def _encode(embedder: Embedder, items: Sequence[Item], role: Role) -> ItemVectors:
    result = embedder.encode(items, role)
    check_result(embedder, result, len(items))
    return [np.atleast_2d(result.vectors[index]).astype(np.float64) for index in range(len(items))]


def _same(name: str, before: ItemVectors, after: ItemVectors, items: Sequence[Item]) -> CheckOutcome:
    for item, first, second in zip(items, before, after, strict=True):
        if len(first) != len(second):
            return CheckOutcome(name, False, f"{len(first)} and then {len(second)} vectors for {item.id!r}")
    cosines = [float((first * second).sum(axis=1).min()) for first, second in zip(before, after, strict=True)]
    worst = int(np.argmin(cosines))
    detail = f"lowest cosine {cosines[worst]:.6f}"
    passed = cosines[worst] >= SAME_COSINE
    return CheckOutcome(
        name, passed, detail if passed else f"{detail} for {items[worst].id!r}, expected ≥ {SAME_COSINE}"
    )


def _distinct(vectors: ItemVectors, items: Sequence[Item]) -> CheckOutcome:
    pairs = itertools.combinations(range(len(vectors)), 2)
    nearest, first, second = max((_likeness(vectors[i], vectors[j]), i, j) for i, j in pairs)
    passed = nearest < 1 - 1e-6
    pair = f"{items[first].id!r} and {items[second].id!r}"
    return CheckOutcome("different inputs", passed, f"nearest pair: {pair}, cosine {nearest:.4f}")


def _likeness(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """MaxSim a vector, the lower of both directions: 1 for what can't be told apart; a plain cosine where t is 1."""
    cosines = first @ second.T
    return float(min(cosines.max(axis=0).mean(), cosines.max(axis=1).mean()))
