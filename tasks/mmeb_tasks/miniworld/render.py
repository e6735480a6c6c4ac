"""Pictures, pages and clips of such worlds, many at once.

    ┌──────────────────────────────┐
    │    ####                    ▪ │  glyph, 14 x 14, at a jittered place; a dot for each hop (room for 7)
    │    ####                    ▪ │
    ├──────────────┬───────────────┤
    │ first strip  │  second strip │  greys: level + one shift a strip
    └──────────────┴───────────────┘

A sign (see `tasks.Sign`) is in the ground, or stands left of the glyph. Greys are given from 0 (black) to 1; pixels
count to 255.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_tasks.mini.world import BACKGROUND, RGB, Rng, mask
from mmeb_tasks.miniworld.tasks import NUM, Sign, World
from mmeb_tasks.miniworld.world import Bools, Floats, Ints, Queries, Targets

Canvas: TypeAlias = NDArray[np.float32]  # (n, height, width, 3), 0 to 255
Pictures: TypeAlias = NDArray[np.uint8]  # (n, height, width, 3)

SIZE = 32
PAGE_HEIGHT = 48
GLYPH = 14
STRIPS_TOP = 24
#: Places of a glyph: least distance from the top and the left, and how many pixels it may be off.
GLYPH_TOP, JITTER_DOWN = 0, 8
GLYPH_LEFT, JITTER_ACROSS = 4, 10
NOISE = 0.05
#: A strip's grey is DARKEST + level / 7 * RANGE.
DARKEST, RANGE = 0.2, 0.6
#: Shift of the strips in candidates: sharp, but no two alike.
SHARP = 0.02
MAX_DOTS = 7
DOT_ROWS = tuple((1 + 3 * dot, 3 + 3 * dot) for dot in range(MAX_DOTS))
FLASH_ROWS = (9, 13)
DOT_LEFT = 28
FRAMES = 6

PAPER, INK = 245.0, 15.0
BAND_TOP, BAND_BOTTOM = 19, 34
PAGE_STRIPS_TOP = 40

#: Signs: the greys of a ground, dark and light; where the mark is; how wide the frame, which is white.
GROUNDS, PAPERS = (75.0, 155.0), (195.0, PAPER)
MARK_RIGHT = 4
FRAME_WIDTH, WHITE = 2, 255.0
#: Frames of a clip in which a mark of LOOK, and of CHAIN, stands for the sign "moment".
EARLY, LATE = (0, 1), (4, 5)


def draw_pictures(world: World, queries: Queries, rng: Rng) -> Pictures:
    """Pictures (n, 32, 32, 3) of queries."""
    canvas = _ground(len(queries), SIZE, BACKGROUND)
    _paint_sign(canvas, world.sign, queries.looks, GROUNDS)
    _paint_glyphs(canvas, queries.starts, RGB[queries.colours], *_places(len(queries), rng))
    _paint_strips(canvas[:, STRIPS_TOP:], _greys(queries.levels, queries.blurs, rng))
    if world.grain:
        sd = (255 * world.grain * queries.blurs).astype(np.float32)[:, None, None, None]
        shape = (len(queries), SIZE - STRIPS_TOP, SIZE, 1)
        canvas[:, STRIPS_TOP:] += sd * rng.standard_normal(shape, np.float32)
    _paint_dots(canvas, queries.dots)
    return _finish(canvas, rng)


def draw_pages(world: World, queries: Queries, rng: Rng) -> Pictures:
    """Pages (n, 48, 32, 3) of queries: as those of targets, with dots beside the title."""
    canvas = _ground(len(queries), PAGE_HEIGHT, PAPER)
    _paint_sign(canvas, world.sign, queries.looks, PAPERS)
    _paint_title_and_band(canvas, queries.starts, queries.colours, rng)
    _paint_strips(canvas[:, PAGE_STRIPS_TOP:], _greys(queries.levels, queries.blurs, rng))
    _paint_dots(canvas, queries.dots)
    if world.sign == "layout":
        upper = canvas[queries.looks, : BAND_BOTTOM + 1]
        canvas[queries.looks, : BAND_BOTTOM + 1] = np.roll(upper, BAND_BOTTOM - BAND_TOP + 1, axis=1)
    return _finish(canvas, rng)


def draw_clips(world: World, queries: Queries, rng: Rng) -> Pictures:
    """Clips (n, 6, 32, 32, 3): the glyph trembles or drifts, a dot flashes in as many frames as there are hops."""
    n = len(queries)
    tops, lefts = _places(n, rng)
    greys = _greys(queries.levels, queries.blurs, rng)  # one shift a clip
    flashes = rng.random((n, FRAMES)).argsort(1).argsort(1) < queries.dots[:, None]
    frames = []
    for frame in range(FRAMES):
        canvas = _ground(n, SIZE, BACKGROUND)
        _paint_sign_of_frame(canvas, world.sign, queries.looks, frame)
        if world.sign == "drift":
            lefts = _drifted(queries.looks, frame)
        frames.append(_frame(canvas, queries, tops, lefts, greys, flashes[:, frame], rng))
    return np.stack(frames, axis=1)


def _drifted(looks: Bools, frame: int) -> Ints:
    """How far from the left a glyph is that crosses the picture, of LOOK to the right."""
    steps = np.where(looks, frame, FRAMES - 1 - frame)
    return GLYPH_LEFT + JITTER_ACROSS * steps // (FRAMES - 1)


def _frame(
    canvas: Canvas, queries: Queries, tops: Ints, lefts: Ints, greys: Floats, flashes: Bools, rng: Rng
) -> Pictures:
    tops = np.clip(tops + rng.integers(-1, 2, len(tops)), GLYPH_TOP, GLYPH_TOP + JITTER_DOWN)
    lefts = np.clip(lefts + rng.integers(-1, 2, len(lefts)), GLYPH_LEFT, GLYPH_LEFT + JITTER_ACROSS)
    _paint_glyphs(canvas, queries.starts, RGB[queries.colours], tops, lefts)
    _paint_strips(canvas[:, STRIPS_TOP:], greys)
    canvas[flashes, slice(*FLASH_ROWS), DOT_LEFT:] = 0
    return _finish(canvas, rng)


def draw_target_pictures(targets: Targets, rng: Rng) -> Pictures:
    """Pictures (m, 32, 32, 3) of targets: captions with sharp strips, answers without; no dots."""
    canvas = _ground(len(targets), SIZE, BACKGROUND)
    _paint_glyphs(canvas, targets.shapes, RGB[targets.colours], *_places(len(targets), rng))
    _paint_sharp_strips(canvas, STRIPS_TOP, targets, rng)
    return _finish(canvas, rng)


def draw_target_pages(targets: Targets, rng: Rng) -> Pictures:
    """Pages (m, 48, 32, 3) of targets: the glyph as title, a band of the colour, a caption's sharp strips."""
    canvas = _ground(len(targets), PAGE_HEIGHT, PAPER)
    _paint_title_and_band(canvas, targets.shapes, targets.colours, rng)
    _paint_sharp_strips(canvas, PAGE_STRIPS_TOP, targets, rng)
    return _finish(canvas, rng)


def _ground(n: int, height: int, grey: float) -> Canvas:
    return np.full((n, height, SIZE, 3), grey, np.float32)


def _paint_sign(canvas: Canvas, sign: Sign, looks: Bools, grounds: tuple[float, float]) -> None:
    """What one picture shows of the sign; glyph, strips and dots come over it."""
    dark, light = grounds
    if sign == "ground":
        canvas[:] = np.where(looks, light, dark)[:, None, None, None]
    elif sign == "mark":
        canvas[looks, slice(*FLASH_ROWS), :MARK_RIGHT] = 0
    elif sign == "frame":
        framed = np.full_like(canvas[looks], WHITE)
        inside = slice(FRAME_WIDTH, -FRAME_WIDTH)
        framed[:, inside, inside] = canvas[looks, inside, inside]
        canvas[looks] = framed


def _paint_sign_of_frame(canvas: Canvas, sign: Sign, looks: Bools, frame: int) -> None:
    """What one frame shows of a clip's sign."""
    if sign == "fade":
        steps = np.where(looks, frame, FRAMES - 1 - frame)
        dark, light = GROUNDS
        canvas[:] = (dark + (light - dark) * steps / (FRAMES - 1))[:, None, None, None]
    elif sign == "moment":
        marked = looks if frame in EARLY else ~looks & (frame in LATE)
        canvas[marked, slice(*FLASH_ROWS), :MARK_RIGHT] = 0
    else:
        _paint_sign(canvas, sign, looks, GROUNDS)


def _places(n: int, rng: Rng, top: int = GLYPH_TOP, jitter: int = JITTER_DOWN) -> tuple[Ints, Ints]:
    return top + rng.integers(0, jitter, n), GLYPH_LEFT + rng.integers(0, JITTER_ACROSS, n)


def _paint_glyphs(canvas: Canvas, shapes: Ints, rgb: NDArray[np.float32], tops: Ints, lefts: Ints) -> None:
    """Paint a glyph of its colour (n, 3) into each picture."""
    pixels = np.stack([mask(shape, GLYPH) for shape in range(NUM)])[shapes]  # (n, 14, 14, 1)
    box = np.arange(GLYPH)
    where = (
        np.arange(len(canvas))[:, None, None],
        (tops[:, None] + box)[:, :, None],
        (lefts[:, None] + box)[:, None, :],
    )
    canvas[where] = canvas[where] * (1 - pixels) + rgb[:, None, None] * pixels


def _paint_title_and_band(canvas: Canvas, shapes: Ints, colours: Ints, rng: Rng) -> None:
    """Paint what a page says: the glyph as title, below it a band of the colour."""
    ink = np.full((len(canvas), 3), INK, np.float32)
    _paint_glyphs(canvas, shapes, ink, *_places(len(canvas), rng, top=1, jitter=4))
    canvas[:, BAND_TOP:BAND_BOTTOM] = INK  # a frame: else a white band would be none
    canvas[:, BAND_TOP + 1 : BAND_BOTTOM - 1] = RGB[colours][:, None, None]


def _paint_dots(canvas: Canvas, dots: Ints) -> None:
    for dot, (top, bottom) in enumerate(DOT_ROWS):
        canvas[dots > dot, top:bottom, DOT_LEFT:] = 0


def _greys(levels: Ints, blurs: Floats, rng: Rng) -> Floats:
    """(n, 2) greys of the strips, each shifted once: averaging pixels does not help."""
    greys: Floats = DARKEST + RANGE * levels / (NUM - 1) + blurs[:, None] * rng.standard_normal(levels.shape)
    return greys


def _paint_strips(bottom: Canvas, greys: Floats) -> None:
    for half in range(2):
        side = slice(half * SIZE // 2, (half + 1) * SIZE // 2)
        bottom[:, :, side] = (255 * greys[:, half]).astype(np.float32)[:, None, None, None]


def _paint_sharp_strips(canvas: Canvas, top: int, targets: Targets, rng: Rng) -> None:
    greys = _greys(targets.levels, np.full(len(targets), SHARP), rng)
    strips = canvas[targets.captions, top:]
    _paint_strips(strips, greys[targets.captions])
    canvas[targets.captions, top:] = strips


def _finish(canvas: Canvas, rng: Rng) -> Pictures:
    canvas += np.float32(255 * NOISE) * rng.standard_normal(canvas.shape, np.float32)
    pictures: Pictures = np.clip(canvas, 0, 255).round().astype(np.uint8)
    return pictures
