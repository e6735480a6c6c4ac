"""What can be asked of a scene or a clip, easy and hard: words, the worker's rationale, the answer."""

from __future__ import annotations

from dataclasses import dataclass

from mmeb_tasks.mini.world import (
    COLOURS,
    DIRECTIONS,
    NUMBERS,
    POSITIONS,
    SHAPES,
    Chain,
    Rng,
    Scene,
    Thing,
    hard_steps,
    random_chain,
    random_scene,
)
from mmeb_tasks.mini.write import Difficulty


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a scene.

    Attributes:
        options: all answers of the answer's kind; a random one of them is right as often as any other.
    """

    text: str
    difficulty: Difficulty
    rationale: str
    answer: str
    options: tuple[str, ...]


THINGS = tuple(Thing(colour, shape).words for colour in range(8) for shape in range(8))
COUNTS = NUMBERS[1:5]


def chain_target(colour: int, chain: Chain) -> Thing:
    """The colour stays, the shape is where the chain ends."""
    return Thing(colour, chain.end)


def chain_rationale(colour: int, chain: Chain) -> str:
    """The colour, then every shape passed: "red circle square plus"."""
    return f"{COLOURS[colour]} {chain.walk}"


def hard_scene(rng: Rng, count: int = 2) -> tuple[Scene, Chain]:
    """A scene whose dots say how many rules to follow from its largest shape."""
    steps = hard_steps(rng)
    scene = random_scene(rng, count, dots=steps)
    return scene, random_chain(rng, scene.largest.shape, steps)


def hard_question(rng: Rng) -> tuple[Scene, Question]:
    """A question whose rules are in the text, start and number of steps only in the picture."""
    scene, chain = hard_scene(rng)
    target = chain_target(scene.largest.colour, chain)
    text = f"follow the rules from the largest: {chain.text}"
    return scene, Question(text, "hard", chain_rationale(scene.largest.colour, chain), target.words, THINGS)


def easy_question(rng: Rng) -> tuple[Scene, Question]:
    """One look at the picture answers it."""
    scene = random_scene(rng, int(rng.integers(1, 5)))
    largest = scene.largest
    kind = int(rng.integers(6))
    if kind == 0:
        count = COUNTS[len(scene.things) - 1]
        return scene, Question("how many shapes?", "easy", count, count, COUNTS)
    if kind == 1:
        place = POSITIONS[scene.cells[0]]
        return scene, Question("where is the largest?", "easy", f"{largest.words} {place}", place, POSITIONS)
    if kind == 2:
        colour = COLOURS[largest.colour]
        return scene, Question("what colour is the largest?", "easy", largest.words, colour, COLOURS)
    return scene, Question("what is the largest?", "easy", largest.words, largest.words, THINGS)


def table_question(rng: Rng) -> tuple[Scene, Question]:
    """Two steps: the value in the row that is named by the colour of the largest shape."""
    scene = random_scene(rng, 2)
    values = [NUMBERS[int(index)] for index in rng.permutation(8)]
    rows = " ".join(f"{COLOURS[int(colour)]}={values[int(colour)]}" for colour in rng.permutation(8))
    colour = scene.largest.colour
    text = f"value in the row of the largest's colour: {rows}"
    return scene, Question(text, "hard", f"{COLOURS[colour]} {values[colour]}", values[colour], NUMBERS)


def text_chain(rng: Rng, target: Thing) -> Chain:
    """A chain for a query without a picture that ends at `target`'s shape; the start is in the text."""
    steps = hard_steps(rng)
    walked = random_chain(rng, target.shape, 8)  # the whole cycle, back to where it began
    start = walked.shapes[8 - steps]
    place = walked.shapes.index(start)
    return Chain(walked.rules, walked.shapes[place : place + steps + 1])


def text_chain_words(target: Thing, chain: Chain) -> str:
    """E.g. "red circle after three steps: circle>square …"."""
    return f"{COLOURS[target.colour]} {SHAPES[chain.shapes[0]]} after {NUMBERS[chain.steps]} steps: {chain.text}"


def motion_words(thing: Thing, direction: int) -> str:
    """Thing and direction in words, e.g. "red circle moving left"."""
    return f"{thing.words} moving {DIRECTIONS[direction]}"


def difficulties(rng: Rng, n: int) -> list[Difficulty]:
    """Difficulties of `n` queries: half easy, half hard, shuffled."""
    kinds: list[Difficulty] = ["hard" if index % 2 else "easy" for index in range(n)]
    return [kinds[int(index)] for index in rng.permutation(n)]


def distractors(rng: Rng, target: Thing, n: int) -> list[Thing]:
    """`n` other things, those that share the colour or the shape first: half right is not right."""
    every = [Thing(colour, shape) for colour in range(8) for shape in range(8)]
    near = [
        thing for thing in every if thing != target and (thing.colour == target.colour or thing.shape == target.shape)
    ]
    far = [thing for thing in every if thing.colour != target.colour and thing.shape != target.shape]
    shuffled = [near[int(i)] for i in rng.permutation(len(near))] + [far[int(i)] for i in rng.permutation(len(far))]
    return shuffled[:n]
