"""Things named so that it takes a thought to know them: what hard queries without a picture say.

Each of them holds more words of things that are not meant than of the one that is: a bag of words is led astray.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from mmeb_tasks.mini.questions import described
from mmeb_tasks.mini.world import COLOURS, DIRECTIONS, NUMBERS, SHAPES, Rng, Thing, shuffled
from mmeb_tasks.mini.write import Difficulty

#: Draws words for a thing, and the rationale of whoever reads them.
Thought: TypeAlias = Callable[[Rng, Thing], tuple[str, str]]


def by_rules(rng: Rng, target: Thing) -> tuple[str, str]:
    """Two, three or five steps: a chain of rules leads to the shape."""
    return described(rng, target, "hard")


def by_row(rng: Rng, target: Thing) -> tuple[str, str]:
    """Two steps: a sum is the row of a table in which the shape stands."""
    more = int(rng.integers(1, 4))
    row = int(rng.integers(more, len(NUMBERS)))
    shapes = shuffled(rng, [shape for shape in range(8) if shape != target.shape])
    shapes.insert(row, target.shape)
    table = " ".join(f"{NUMBERS[index]}={SHAPES[shape]}" for index, shape in enumerate(shapes))
    text = f"{COLOURS[target.colour]} with the shape in the row {NUMBERS[more]} after {NUMBERS[row - more]}: {table}"
    return text, f"{NUMBERS[row]} {target.words}"


def by_code(rng: Rng, target: Thing) -> tuple[str, str]:
    """One step: each colour stands for another one."""
    order = [int(colour) for colour in rng.permutation(8)]
    stands_for = {colour: order[(place + 1) % 8] for place, colour in enumerate(order)}
    written = order[order.index(target.colour) - 1]
    table = " ".join(f"{COLOURS[int(c)]}={COLOURS[stands_for[int(c)]]}" for c in rng.permutation(8))
    text = f"{SHAPES[target.shape]} in the colour that {COLOURS[written]} stands for: {table}"
    return text, f"{COLOURS[written]} {target.words}"


def by_gap(rng: Rng, target: Thing) -> tuple[str, str]:
    """One step: all colours but the one that is meant."""
    others = shuffled(rng, [colour for colour in COLOURS if colour != COLOURS[target.colour]])
    return f"{SHAPES[target.shape]} in the one colour that is missing: {' '.join(others)}", target.words


THOUGHTS: tuple[Thought, ...] = (by_rules, by_row, by_code, by_gap)


def named(rng: Rng, target: Thing, kind: Difficulty, thought: Thought) -> tuple[str, str]:
    """Words for a thing, and their rationale: its own words if easy, else by a thought."""
    return (target.words, target.words) if kind == "easy" else thought(rng, target)


def other_way(direction: int) -> int:
    """The direction that is opposite to one."""
    return direction ^ 1


def direction_words(direction: int, kind: Difficulty) -> str:
    """A direction by its word or, if hard, by its opposite."""
    return DIRECTIONS[direction] if kind == "easy" else f"the other way than {DIRECTIONS[other_way(direction)]}"


def number_words(rng: Rng, number: int, kind: Difficulty) -> str:
    """A number, two or more, by its word or, if hard, as a sum of which neither part is nothing."""
    if kind == "easy":
        return NUMBERS[number]
    more = int(rng.integers(1, number))
    return f"{NUMBERS[more]} more than {NUMBERS[number - more]}"
