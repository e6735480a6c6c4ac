"""What can be asked of a scene or a clip, easy and hard: words, the worker's rationale, the answer."""

from __future__ import annotations

from dataclasses import dataclass

from mmeb_tasks.mini.world import (
    COLOURS,
    DIRECTIONS,
    EVERY_THING,
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
    shuffled,
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


THINGS = tuple(thing.words for thing in EVERY_THING)
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
    return scene, Question(
        rules_text(chain), "hard", chain_rationale(scene.largest.colour, chain), target.words, THINGS
    )


def rules_text(chain: Chain) -> str:
    """What a query says of a chain whose start and number of steps its picture shows."""
    return f"follow the rules from the largest: {chain.text}"


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
    values = shuffled(rng, NUMBERS)
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


def described(rng: Rng, target: Thing, kind: Difficulty) -> tuple[str, str]:
    """Words for a thing, and the rationale of a query that consists of them; hard words are a chain."""
    chain = text_chain(rng, target)
    if kind == "easy":
        return target.words, target.words
    return text_chain_words(target, chain), chain_rationale(target.colour, chain)


def motion_words(thing: Thing, direction: int) -> str:
    """Thing and direction in words, e.g. "red circle moving left"."""
    return f"{thing.words} moving {DIRECTIONS[direction]}"


def difficulties(rng: Rng, n: int) -> list[Difficulty]:
    """Difficulties of `n` queries: half easy, half hard, shuffled."""
    return shuffled(rng, ["hard" if index % 2 else "easy" for index in range(n)])


def distractors(rng: Rng, target: Thing, n: int) -> list[Thing]:
    """`n` other things, those that share the colour or the shape first: half right is not right."""
    near = [thing for thing in EVERY_THING if (thing.colour == target.colour) != (thing.shape == target.shape)]
    far = [thing for thing in EVERY_THING if thing.colour != target.colour and thing.shape != target.shape]
    return [*shuffled(rng, near), *shuffled(rng, far)][:n]
