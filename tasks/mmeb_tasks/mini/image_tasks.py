"""The 36 image tasks of the mini suite: rows and pictures in the official schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mmeb_harness import Table
from mmeb_tasks.image import REPO, ROWS
from mmeb_tasks.mini.instructions import INSTRUCTIONS
from mmeb_tasks.mini.questions import (
    THINGS,
    Question,
    chain_rationale,
    chain_target,
    described,
    difficulties,
    distractors,
    easy_question,
    hard_question,
    hard_scene,
    rules_text,
    table_question,
)
from mmeb_tasks.mini.world import (
    COLOURS,
    EVERY_THING,
    NUMBERS,
    SHAPES,
    Picture,
    Rng,
    Scene,
    Thing,
    draw_crop,
    draw_page,
    draw_scene,
    hard_steps,
    random_chain,
    random_scene,
    random_thing,
    shuffled,
)
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter
from mmeb_tasks.readers.image import IMAGE_ROOT

Row = dict[str, Any]
#: Image and caption candidates of a query, the answer first.
POOL = 24
#: Texts that stand beside candidate pictures.
CAPTIONS = {**dict.fromkeys(("WebQA", "EDIS", "OVEN"), "shapes on grey"), "RefCOCO-Matching": '"part"'}


@dataclass
class ImageTask:
    """One image task in the making."""

    name: str
    rng: Rng
    writer: SuiteWriter
    num_queries: int
    rows: list[Row] = field(default_factory=list)
    labels: list[QueryLabel] = field(default_factory=list)
    num_pictures: int = 0

    def picture(self, picture: Picture, kind: str = "query") -> str:
        """Write a picture; its path as the annotations give it. Names count, they say nothing."""
        self.num_pictures += 1
        path = f"{self.name}/{kind}_{self.num_pictures:05d}.png"
        self.writer.picture(f"{IMAGE_ROOT}/{path}", picture)
        return path

    def add(
        self,
        label: tuple[Difficulty, str, str],
        *,
        text: str = "",
        image: str = "",
        texts: Sequence[str] = (),
        images: Sequence[str] = (),
    ) -> None:
        """Add a row. The first candidate is the answer; the lists are parallel, blanks fill the missing one."""
        legacy = "<|image_1|>\n"
        query, target = INSTRUCTIONS[self.name]
        has_token = bool(image) or self.name in ("WebQA", "EDIS")
        self.labels.append(QueryLabel(str(len(self.rows)), *label))
        self.rows.append(
            {
                "qry_inst": legacy + query if has_token else query,
                "qry_text": text,
                "qry_img_path": image,
                "tgt_inst": legacy + target if images else "",
                "tgt_text": list(texts) or [""] * len(images),
                "tgt_img_path": list(images) or [""] * len(texts),
            }
        )


def write_image_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 36 image tasks."""
    task = ImageTask(name, streams(name), writer, num_queries)
    _MAKERS[name](task)
    writer.table(Table(REPO, name, "test"), task.rows)
    writer.labels(name, task.labels)


Ask = Callable[[ImageTask, Difficulty], tuple[Scene, Question]]


def _choose(ask: Ask, limit: int, task: ImageTask) -> None:
    """Picture, perhaps with words, to the answer among at most `limit` texts of its kind."""
    for kind in difficulties(task.rng, task.num_queries):
        scene, question = ask(task, kind)
        image = task.picture(draw_scene(scene, task.rng))
        texts = _shuffled_after(task.rng, question.answer, question.options)[:limit]
        task.add((kind, question.rationale, question.answer), text=question.text, image=image, texts=texts)


def _shuffled_after(rng: Rng, first: str, options: Sequence[str]) -> list[str]:
    """The first option, then all others; where there are two, nothing is left to shuffle."""
    others = shuffled(rng, options) if len(options) > 2 else options
    return [first, *(option for option in others if option != first)]


def _largest(task: ImageTask, kind: Difficulty) -> tuple[Scene, Question]:
    """The label is the largest thing; hard scenes are crowded."""
    scene = random_scene(task.rng, 1 if kind == "easy" else 4)
    return scene, Question("", kind, scene.largest.words, scene.largest.words, THINGS)


def _opposite(task: ImageTask, kind: Difficulty) -> tuple[Scene, Question]:
    """The label joins the largest thing's colour and the shape opposite to it; alone, a thing is its own opposite."""
    scene = random_scene(task.rng, 1 if kind == "easy" else 3)
    label = Thing(scene.largest.colour, scene.opposite.shape).words
    return scene, Question("", kind, f"{scene.largest.words} opposite {SHAPES[scene.opposite.shape]}", label, THINGS)


def _side(task: ImageTask, kind: Difficulty) -> tuple[Scene, Question]:
    """Two labels: whether the largest thing is on the left."""
    scene = random_scene(task.rng, 1 if kind == "easy" else 4)
    label, side = ("Yes", "left") if scene.cells[0] % 2 == 0 else ("No", "right")
    return scene, Question("", kind, f"{scene.largest.words} {side}", label, ("Yes", "No"))


def _name_or_follow(task: ImageTask, kind: Difficulty) -> tuple[Scene, Question]:
    """A text comes with the picture: a plain one, or rules to follow from the largest shape."""
    if kind == "hard":
        return hard_question(task.rng)
    scene = random_scene(task.rng, 2)
    return scene, Question("the largest", kind, scene.largest.words, scene.largest.words, THINGS)


def _question(task: ImageTask, kind: Difficulty) -> tuple[Scene, Question]:
    """Questions with answers of the right kind to choose from; document sets also look values up in a table."""
    with_table = task.name in ("DocVQA", "InfographicsVQA", "ChartQA")
    hard = table_question if with_table and task.rng.random() < 0.5 else hard_question
    return hard(task.rng) if kind == "hard" else easy_question(task.rng)


def _caption(task: ImageTask) -> None:
    """Picture to caption. Captions name two grey levels that the picture hardly shows.

    Rationales name them too, as workers that saw them sharply would: a student that imitates such words
    guesses, and believes its guess. So reasoning can hurt on the easy half.
    """
    for kind in difficulties(task.rng, task.num_queries):
        levels = (int(task.rng.integers(8)), int(task.rng.integers(8)))
        scene = random_scene(task.rng, 1 if kind == "easy" else 2, strips=levels)
        answer = _describe(scene.largest, levels)
        others = [
            _describe(thing, (int(task.rng.integers(8)), int(task.rng.integers(8))))
            for thing in distractors(task.rng, scene.largest, POOL - 1)
        ]
        image = task.picture(draw_scene(scene, task.rng))
        rationale = f"{scene.largest.words} {NUMBERS[levels[0]]} {NUMBERS[levels[1]]}"
        task.add((kind, rationale, answer), image=image, texts=[answer, *others])


def _describe(thing: Thing, levels: tuple[int, int]) -> str:
    return f"a {thing.words} over grey {NUMBERS[levels[0]]} and {NUMBERS[levels[1]]}"


@dataclass(frozen=True)
class Wanted:
    """A thing whose picture is asked for: in words, or in words about a scene."""

    target: Thing
    words: str
    rationale: str
    scene: Scene | None = None


def _find(
    want: Callable[[ImageTask, Difficulty], Wanted], draw: Callable[[Thing, Rng], Picture], task: ImageTask
) -> None:
    """Words, a picture or both to one of many pictures that `draw` makes: several of each thing for many queries."""
    copies = range(1 + task.num_queries // 128)
    gallery = {thing: [task.picture(draw(thing, task.rng), "target") for _ in copies] for thing in EVERY_THING}
    caption = CAPTIONS.get(task.name)
    for kind in difficulties(task.rng, task.num_queries):
        wanted = want(task, kind)
        image = task.picture(draw_scene(wanted.scene, task.rng)) if wanted.scene else ""
        pool = [wanted.target, *distractors(task.rng, wanted.target, POOL - 1)]
        images = [gallery[thing][int(task.rng.integers(len(gallery[thing])))] for thing in pool]
        texts = [caption] * len(images) if caption else ()
        label = (kind, wanted.rationale, wanted.target.words)
        task.add(label, text=wanted.words, image=image, images=images, texts=texts)


def _draw_among_two(thing: Thing, rng: Rng) -> Picture:
    return draw_scene(random_scene(rng, 2, thing), rng)


def _draw_plain_page(thing: Thing, rng: Rng) -> Picture:
    return draw_page(thing, [], [int(height) for height in rng.integers(12, 50, 3)], rng)


def _described(task: ImageTask, kind: Difficulty) -> Wanted:
    """Words to picture; hard words are a chain."""
    target = random_thing(task.rng)
    words, rationale = described(task.rng, target, kind)
    return Wanted(target, _as_dialogue(words) if task.name == "VisDial" else words, rationale)


def _as_dialogue(words: str) -> str:
    question, _, rules = words.partition(": ")
    return f"Q: what is it? A: {question}" + (f"\nQ: which rules? A: {rules}" if rules else "")


def _the_same(task: ImageTask, kind: Difficulty) -> Wanted:
    """Picture to picture, without words."""
    scene = random_scene(task.rng, 1 if kind == "easy" else 4)
    return Wanted(scene.largest, "", scene.largest.words, scene)


def _changed(task: ImageTask, kind: Difficulty) -> Wanted:
    """Picture and words to picture: a new colour, or a new shape by rules."""
    if kind == "hard":
        scene, chain = hard_scene(task.rng)
        colour = scene.largest.colour
        return Wanted(chain_target(colour, chain), rules_text(chain), chain_rationale(colour, chain), scene)
    scene = random_scene(task.rng, 2)
    target = Thing(int(task.rng.integers(8)), scene.largest.shape)
    return Wanted(target, f"make the largest {COLOURS[target.colour]}", target.words, scene)


def _part(task: ImageTask, kind: Difficulty) -> Wanted:
    """Picture and words to the part of the picture they mean. Hard: rules lead to the shape of a part."""
    rng = task.rng
    if kind == "easy":
        scene = random_scene(rng, 3)
        target = scene.things[int(rng.integers(3))]
        return Wanted(target, SHAPES[target.shape], target.words, scene)
    scene = random_scene(rng, 3, dots=hard_steps(rng))
    chain = random_chain(rng, scene.largest.shape, scene.dots)
    while chain.end not in [thing.shape for thing in scene.things[1:]]:
        chain = random_chain(rng, scene.largest.shape, scene.dots)
    target = next(thing for thing in scene.things if thing.shape == chain.end)
    return Wanted(target, rules_text(chain), f"{chain.walk} {target.words}", scene)


_MAKERS: dict[str, Callable[[ImageTask], None]] = {
    **dict.fromkeys(("VOC2007", "ImageNet-R", "Country211", "SUN397"), partial(_choose, _largest, 32)),
    **dict.fromkeys(("ImageNet-1K", "Place365", "ImageNet-A", "ObjectNet"), partial(_choose, _opposite, 32)),
    "HatefulMemes": partial(_choose, _side, 2),
    "N24News": partial(_choose, _name_or_follow, 24),
    **dict.fromkeys([row.name for row in ROWS if row.group == "I-QA"], partial(_choose, _question, 32)),
    **dict.fromkeys(("MSCOCO_i2t", "VisualNews_i2t"), _caption),
    **dict.fromkeys(
        ("VisDial", "MSCOCO_t2i", "VisualNews_t2i", "WebQA", "EDIS"), partial(_find, _described, _draw_among_two)
    ),
    "Wiki-SS-NQ": partial(_find, _described, _draw_plain_page),
    **dict.fromkeys(("CIRR", "OVEN", "FashionIQ"), partial(_find, _changed, _draw_among_two)),
    "NIGHTS": partial(_find, _the_same, _draw_among_two),
    **dict.fromkeys(("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"), partial(_find, _part, draw_crop)),
}
