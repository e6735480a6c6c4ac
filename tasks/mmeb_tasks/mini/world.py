"""A small closed world: coloured shapes that stand, move and name pages. Numpy and Pillow only, seeded.

Everything a query can be about is a (colour, shape) pair plus a direction, a count or a position, so that one
small skill serves all groups. What makes a written rationale matter is the *rule chain*: a table of eight
"circle>square" words, a single cycle over the shapes, to be followed some steps. One step is one look-up; a
chain read in one go is out of reach of a small model, while writing down each step makes it easy. The cycle is
single and the number of steps is never 4 or 8: with free permutations, or half way round, the end leaks.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import ImageFont

Picture: TypeAlias = NDArray[np.uint8]  # (height, width, 3)
Rng: TypeAlias = np.random.Generator
Value = TypeVar("Value")

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
RGB = np.array(
    [
        (220, 30, 30),
        (30, 180, 30),
        (40, 40, 225),
        (225, 220, 40),
        (150, 30, 190),
        (245, 140, 20),
        (240, 240, 240),
        (20, 200, 210),
    ],
    dtype=np.float32,
)
SHAPES = ("circle", "square", "triangle", "plus", "bar", "cross", "diamond", "ring")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
DIRECTIONS = ("left", "right", "up", "down")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
#: Steps of a hard chain. 0 is easy; 4 of 8 is left out: forwards and backwards meet there.
HARD_STEPS = (2, 3, 5)

SCENE = 64
CELL = 32
LARGE, SMALL = 22, 12
#: Least distance of a thing from the upper and left edge of its cell, and by how much it may be off. The right
#: and lower edges of a scene stay free for dots and strips.
MARGIN, SMALL_MARGIN, JITTER = 4, 9, 3
FRAME = 32
PAGE_WIDTH, PAGE_HEIGHT = 64, 96
BACKGROUND = 115.0
NOISE = 10.0
#: One random shift of a strip's grey level: half a dozen levels look alike, so the level words can't be seen.
STRIP_BLUR = 60.0


@dataclass(frozen=True, slots=True)
class Thing:
    """A colour and a shape, as indices."""

    colour: int
    shape: int

    @property
    def words(self) -> str:
        """Colour and shape in words, e.g. "red circle"."""
        return f"{COLOURS[self.colour]} {SHAPES[self.shape]}"


EVERY_THING = tuple(Thing(colour, shape) for colour in range(8) for shape in range(8))


@dataclass(frozen=True, slots=True)
class Scene:
    """Up to four things in the cells of a 2x2 grid; the first one is large.

    Attributes:
        cells: of each thing, 0 to 3, row by row.
        dots: black dots at the right edge: how many steps to go.
        strips: levels (0 to 7) of two grey strips at the bottom, hard to see; `None`: no strips.
    """

    things: tuple[Thing, ...]
    cells: tuple[int, ...]
    dots: int = 0
    strips: tuple[int, int] | None = None

    @property
    def largest(self) -> Thing:
        """The thing that is drawn large."""
        return self.things[0]

    @property
    def opposite(self) -> Thing:
        """The thing diagonally opposite to the largest; the largest itself if it stands alone."""
        across = 3 - self.cells[0]
        return self.things[self.cells.index(across)] if across in self.cells else self.largest


@dataclass(frozen=True, slots=True)
class Chain:
    """A rule table and a walk in it. `shapes` are the shapes passed, the start first and the end last."""

    rules: tuple[tuple[int, int], ...]
    shapes: tuple[int, ...]

    @property
    def text(self) -> str:
        """The table as words: "circle>square ring>plus …"."""
        return " ".join(f"{SHAPES[a]}>{SHAPES[b]}" for a, b in self.rules)

    @property
    def end(self) -> int:
        """The shape at the end of the walk."""
        return self.shapes[-1]

    @property
    def steps(self) -> int:
        """How many rules were followed."""
        return len(self.shapes) - 1

    @property
    def walk(self) -> str:
        """The shapes passed, as words."""
        return " ".join(SHAPES[shape] for shape in self.shapes)


def stream(seed: int, split: int, task: str, *purpose: int) -> Rng:
    """The random stream of one task of a split; purposes set further ones apart."""
    return np.random.default_rng(np.random.SeedSequence((seed, split, zlib.crc32(task.encode()), *purpose)))


def shuffled(rng: Rng, values: Sequence[Value]) -> list[Value]:
    """The values in random order."""
    return [values[int(index)] for index in rng.permutation(len(values))]


def random_thing(rng: Rng) -> Thing:
    """Any of the 64 things."""
    return Thing(int(rng.integers(8)), int(rng.integers(8)))


def random_scene(
    rng: Rng, count: int, largest: Thing | None = None, dots: int = 0, strips: tuple[int, int] | None = None
) -> Scene:
    """A scene of `count` things of different colours and shapes; with two or more, one stands opposite the largest."""
    first = largest or random_thing(rng)
    colours = [first.colour, *(int(c) for c in rng.permutation(8) if c != first.colour)][:count]
    shapes = [first.shape, *(int(s) for s in rng.permutation(8) if s != first.shape)][:count]
    cell = int(rng.integers(4))
    others = [3 - cell, *(int(c) for c in rng.permutation(4) if c not in (cell, 3 - cell))]
    things = tuple(Thing(c, s) for c, s in zip(colours, shapes, strict=True))
    return Scene(things, (cell, *others[: count - 1]), dots, strips)


def random_chain(rng: Rng, start: int, steps: int) -> Chain:
    """A random single cycle over the eight shapes, its rules shuffled, followed from `start`."""
    order = [int(s) for s in rng.permutation(8)]
    follows = {order[i]: order[(i + 1) % 8] for i in range(8)}
    shapes = [start]
    for _ in range(steps):
        shapes.append(follows[shapes[-1]])
    rules = tuple((int(a), follows[int(a)]) for a in rng.permutation(8))
    return Chain(rules, tuple(shapes))


def hard_steps(rng: Rng) -> int:
    """A number of steps that needs a chain."""
    return int(rng.choice(HARD_STEPS))


@cache
def mask(shape: int, size: int) -> NDArray[np.float32]:
    """A shape's pixels in a size x size box, 0 or 1."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    thin = 0.32
    forms = (
        x**2 + y**2 < 0.95,
        (np.abs(x) < 0.85) & (np.abs(y) < 0.85),
        np.abs(x) < (y + 1) / 2,
        (np.abs(x) < thin) | (np.abs(y) < thin),
        np.abs(y) < thin,
        (np.abs(x - y) < 0.4) | (np.abs(x + y) < 0.4),
        np.abs(x) + np.abs(y) < 1,
        (x**2 + y**2 < 0.98) & (x**2 + y**2 > 0.32),
    )
    pixels: NDArray[np.float32] = forms[shape].astype(np.float32)[..., None]
    return pixels


def draw_scene(scene: Scene, rng: Rng) -> Picture:
    """64 x 64 pixels, with jitter and noise."""
    canvas = np.full((SCENE, SCENE, 3), BACKGROUND, np.float32)
    for index, (thing, cell) in enumerate(zip(scene.things, scene.cells, strict=True)):
        size = LARGE if index == 0 else SMALL
        margin = MARGIN if index == 0 else SMALL_MARGIN
        down, across = (margin + int(shift) for shift in rng.integers(0, JITTER, 2))
        _paint(canvas, thing, CELL * (cell // 2) + down, CELL * (cell % 2) + across, size)
    for dot in range(scene.dots):
        canvas[2 + 11 * dot : 7 + 11 * dot, 61:64] = 0
    if scene.strips is not None:
        for half, level in enumerate(scene.strips):
            grey = 40 + 25 * level + rng.normal(0, STRIP_BLUR)
            canvas[61:64, 30 * half : 30 * half + 29] = np.clip(grey, 0, 255)
    return _finish(canvas, rng)


def draw_crop(thing: Thing, rng: Rng) -> Picture:
    """One thing alone, 32 x 32 pixels."""
    canvas = np.full((FRAME, FRAME, 3), BACKGROUND, np.float32)
    top, left = rng.integers(MARGIN, MARGIN + JITTER, 2)
    _paint(canvas, thing, int(top), int(left), LARGE)
    return _finish(canvas, rng)


def draw_clip(thing: Thing, direction: int, frames: int, rng: Rng, still: Thing | None = None) -> list[Picture]:
    """Frames of 32 x 32 pixels in which `thing` crosses the picture; `still` stands in a corner."""
    size, room = 16, FRAME - 16
    across = int(rng.integers(2, room - 1))
    corner = (0 if across > room // 2 else FRAME - 9, 0 if rng.random() < 0.5 else FRAME - 9)
    pictures = []
    for frame in range(frames):
        along = round(room * frame / max(1, frames - 1))
        top, left = {0: (across, room - along), 1: (across, along), 2: (room - along, across), 3: (along, across)}[
            direction
        ]
        canvas = np.full((FRAME, FRAME, 3), BACKGROUND, np.float32)
        if still is not None:
            _paint(canvas, still, *corner, 9)
        _paint(canvas, thing, top, left, size)
        pictures.append(_finish(canvas, rng))
    return pictures


def draw_page(thing: Thing, rows: Sequence[str], heights: Sequence[int], rng: Rng) -> Picture:
    """A page of 64 x 96 pixels: the shape's name as title, a small table, a bar chart in the colour."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (PAGE_WIDTH, PAGE_HEIGHT), (250, 250, 246))
    pen = ImageDraw.Draw(page)
    pen.text((2, 0), SHAPES[thing.shape], fill=(10, 10, 10), font=_font(14))
    pen.line((0, 17, PAGE_WIDTH, 17), fill=(10, 10, 10))
    for index, row in enumerate(rows):
        pen.text((2, 19 + 11 * index), row, fill=(60, 60, 60), font=_font(9))
    colour = tuple(int(value) for value in RGB[thing.colour])
    for index, height in enumerate(heights):
        left = 4 + 20 * index
        pen.rectangle((left, PAGE_HEIGHT - 4 - height, left + 15, PAGE_HEIGHT - 4), fill=colour, outline=(90, 90, 90))
    return _finish(np.asarray(page, dtype=np.float32), rng, 3.0)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Unpacked once a size: that takes longer than to draw a page."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _paint(canvas: NDArray[np.float32], thing: Thing, top: int, left: int, size: int) -> None:
    window = canvas[top : top + size, left : left + size]
    pixels = mask(thing.shape, size)
    window[:] = window * (1 - pixels) + RGB[thing.colour] * pixels


def _finish(canvas: NDArray[np.float32], rng: Rng, noise: float = NOISE) -> Picture:
    grain = rng.normal(0, noise, canvas.shape).astype(np.float32)
    picture: Picture = np.clip(canvas + grain, 0, 255).round().astype(np.uint8)
    return picture
