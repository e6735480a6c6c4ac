"""Tests an embedder offline in seconds, on inputs made here: does it keep the promises the harness relies on?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmeb_harness.encode import check_result
from mmeb_harness.types import Embedder, Item, Role, Vectors

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
            yield CheckOutcome(
                f"{kind} as {role}", True, f"{len(vectors)} vectors of width {vectors.shape[1]}, unit length"
            )
    together = _encode(embedder, items, "query")
    comparisons: dict[str, Callable[[], Vectors]] = {
        "same again": lambda: _encode(embedder, items, "query"),
        "order": lambda: _encode(embedder, items[::-1], "query")[::-1],
        "batch of one": lambda: np.concatenate([_encode(embedder, [item], "query") for item in items]),
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


def _encode(embedder: Embedder, items: Sequence[Item], role: Role) -> Vectors:
    result = embedder.encode(items, role)
    check_result(embedder, result, len(items))
    return result.vectors


def _same(name: str, expected: Vectors, found: Vectors, items: Sequence[Item]) -> CheckOutcome:
    cosines = np.sum(expected.astype(np.float64) * found, axis=1)
    worst = int(np.argmin(cosines))
    detail = f"lowest cosine {cosines[worst]:.6f}"
    passed = bool(cosines[worst] >= SAME_COSINE)
    return CheckOutcome(
        name, passed, detail if passed else f"{detail} for {items[worst].id!r}, expected ≥ {SAME_COSINE}"
    )


def _distinct(vectors: Vectors, items: Sequence[Item]) -> CheckOutcome:
    cosines = vectors.astype(np.float64) @ vectors.T - 2 * np.eye(len(vectors))
    first, second = divmod(int(np.argmax(cosines)), len(vectors))
    nearest = float(cosines[first, second])
    passed = nearest < 1 - 1e-6
    pair = f"{items[first].id!r} and {items[second].id!r}"
    return CheckOutcome("different inputs", passed, f"nearest pair: {pair}, cosine {nearest:.4f}")
