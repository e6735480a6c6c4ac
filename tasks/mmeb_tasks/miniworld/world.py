"""The facts of the world in miniature: what a query shows and asks, what is right, as arrays. Numpy only, seeded.

A query is a picture, page or clip (a coloured glyph, two grey strips, dots), a table of rules and a first word. Two
kinds, which the word tells apart, or a sign in the picture alone:

    LOOK    find the caption: colour, glyph and the strips' levels      "cap red circle three gamma"
    CHAIN   follow the table as many hops as the picture has dots       "ans red plus"

What makes reasoning help: written down, each hop is one look-up; read in one go, a chain is out of reach of a small
model. What makes it hurt: a strip's grey is its level plus one random shift, so the level can't be seen, but workers
name it; a student that imitates them guesses, and believes its guess.

The table is a single cycle: free permutations leak their end. 4 hops of 8 are left out: forwards and backwards meet
there. The short cycles of the graded world are no slip: there a guess may do, so the gain is a matter of degree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmeb_tasks.mini.world import COLOURS, NUMBERS, SHAPES, Rng
from mmeb_tasks.miniworld.tasks import NUM, World

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


LOOK_WORD, CHAIN_WORD = "look", "chain"
CAPTION_WORD, ANSWER_WORD = "cap", "ans"
#: Words of the levels, one set a strip: a word tells which strip it is of.
LEVEL_WORDS = (NUMBERS, ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"))
#: Of each colour, by index, the one shape that it has in no query but those of `miniworld-text-new-pairs`.
HELD_OUT = (5, 2, 7, 0, 3, 6, 1, 4)


@dataclass(frozen=True)
class Queries:
    """n queries; all arrays begin with (n,).

    Attributes:
        looks: LOOK, else CHAIN.
        hops: to go; 0 for LOOK.
        dots: shown: the hops; where another sign says LOOK there are some for nothing.
        colours, starts: of the glyph shown.
        levels: (n, 2) of the strips.
        table_sizes: symbols of the table.
        cycles: (n, 8) the table's cycle, the start first; only the first `table_sizes` entries count.
        orders: (n, 8) in which order the cycle's rules are listed; as many entries count.
        blurs: sd of the strips' shifts.
    """

    looks: Bools
    hops: Ints
    dots: Ints
    colours: Ints
    starts: Ints
    levels: Ints
    table_sizes: Ints
    cycles: Ints
    orders: Ints
    blurs: Floats

    def __len__(self) -> int:
        return len(self.looks)

    @property
    def ends(self) -> Ints:
        """(n,) the shape after all hops; of a LOOK query the glyph itself."""
        ends: Ints = self.cycles[np.arange(len(self)), self.hops % self.table_sizes]
        return ends

    def walk(self, index: int, direction: Literal[1, -1] = 1) -> list[int]:
        """Shapes passed by one query, the start first. Direction -1: the table read backwards."""
        size = int(self.table_sizes[index])
        return [int(self.cycles[index, direction * hop % size]) for hop in range(int(self.hops[index]) + 1)]


@dataclass(frozen=True)
class Targets:
    """m things to be found; all arrays begin with (m,). Levels count for captions only."""

    captions: Bools
    colours: Ints
    shapes: Ints
    levels: Ints

    def __len__(self) -> int:
        return len(self.captions)


Things = TypeVar("Things", Queries, Targets)


def rows_of(things: Things, rows: slice) -> Things:
    """Some of the rows of all arrays."""
    return replace(things, **{field.name: getattr(things, field.name)[rows] for field in fields(things)})


def draw_queries(world: World, n: int, rng: Rng) -> Queries:
    """Draw queries: kind, hops and table size as the world says, the rest uniform among the allowed pairs."""
    looks = rng.random(n) < world.look_share
    dots = rng.choice(world.hops, n)
    hops = np.where(looks, 0, dots)
    table_sizes = rng.choice(world.table_sizes, n)
    places = hops % table_sizes
    colours = rng.integers(0, NUM, n)
    starts, ends = _draw_starts_and_ends(world, colours, places == 0, rng)
    return Queries(
        looks=looks,
        hops=hops,
        dots=hops if world.sign in ("word", "dots") else dots,
        colours=colours,
        starts=starts,
        levels=rng.integers(0, NUM, (n, 2)),
        table_sizes=table_sizes,
        cycles=_draw_cycles(starts, ends, places, rng),
        orders=np.where(np.arange(NUM) < table_sizes[:, None], rng.random((n, NUM)), 2.0).argsort(1),
        blurs=rng.uniform(*world.blur, n),
    )


def _draw_starts_and_ends(world: World, colours: Ints, end_where_they_start: Bools, rng: Rng) -> tuple[Ints, Ints]:
    """Neither is held out; or, in the world of held-out pairs, one of them is, either as often as the other."""
    held_out = np.array(HELD_OUT)[colours]
    is_held_out = np.arange(NUM) == held_out[:, None]  # (n, 8)
    starts = held_out if world.held_out_pairs else _pick(~is_held_out, rng)
    is_start = np.arange(NUM) == starts[:, None]
    ends = _pick(~is_start & ~is_held_out, rng)
    ends = np.where(end_where_they_start, starts, ends)
    if not world.held_out_pairs:
        return starts, ends
    swap = rng.random(len(colours)) < 0.5
    return np.where(swap, ends, starts), np.where(swap, starts, ends)


def _pick(allowed: Bools, rng: Rng) -> Ints:
    """One allowed index of each row, all equally likely."""
    picked: Ints = np.where(allowed, rng.random(allowed.shape), 2.0).argmin(1)
    return picked


def _draw_cycles(starts: Ints, ends: Ints, places: Ints, rng: Rng) -> Ints:
    """(n, 8) random orders of all shapes with the start at place 0 and the end at its place."""
    rows = np.arange(len(starts))
    keys = rng.random((len(starts), NUM))
    keys[rows, starts] = -1
    cycles = keys.argsort(1)
    end_places = (cycles == ends[:, None]).argmax(1)
    cycles[rows, end_places] = cycles[rows, places]
    cycles[rows, places] = ends
    return cycles


def draw_pool(rng: Rng) -> Targets:
    """All 64 answers, then one caption of each colour and shape, with random levels."""
    colours, shapes = np.divmod(np.arange(NUM * NUM), NUM)
    return Targets(
        captions=np.arange(2 * NUM * NUM) >= NUM * NUM,
        colours=np.tile(colours, 2),
        shapes=np.tile(shapes, 2),
        levels=rng.integers(0, NUM, (2 * NUM * NUM, 2)),
    )


def targets_of(queries: Queries) -> Targets:
    """What each query should find."""
    return Targets(queries.looks, queries.colours, queries.ends, queries.levels)


def in_pool(queries: Queries, pool: Targets) -> tuple[Queries, Ints]:
    """The queries, with the levels of the pool's captions where they look for one; and where each one's target is."""
    places = NUM * NUM * queries.looks + NUM * queries.colours + queries.ends
    return replace(queries, levels=np.where(queries.looks[:, None], pool.levels[places], queries.levels)), places


def query_text(world: World, queries: Queries, index: int) -> str:
    """E.g. "chain circle>square plus>ring …", "frame ring>bar …". LOOK queries carry a table too, for nothing."""
    size = int(queries.table_sizes[index])
    cycle = [SHAPES[shape] for shape in queries.cycles[index, :size]]
    rules = [f"{cycle[at]}>{cycle[(at + 1) % size]}" for at in queries.orders[index, :size]]
    kind = LOOK_WORD if queries.looks[index] else CHAIN_WORD
    return " ".join([kind if world.sign == "word" else world.sign, *rules])


def target_text(targets: Targets, index: int) -> str:
    """E.g. "ans red plus", "cap red circle three gamma"."""
    words = f"{COLOURS[targets.colours[index]]} {SHAPES[targets.shapes[index]]}"
    if not targets.captions[index]:
        return f"{ANSWER_WORD} {words}"
    return f"{CAPTION_WORD} {words} {level_words(targets.levels[index])}"


def level_words(levels: Ints) -> str:
    """Levels in words, e.g. "three gamma"."""
    return " ".join(words[level] for words, level in zip(LEVEL_WORDS, levels, strict=True))
