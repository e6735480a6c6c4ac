"""The 36 image tasks of the mini suite: rows and pictures in the official schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmeb_harness import Table
from mmeb_tasks.image import REPO
from mmeb_tasks.mini.instructions import INSTRUCTIONS
from mmeb_tasks.mini.questions import (
    THINGS,
    Question,
    chain_rationale,
    chain_target,
    difficulties,
    distractors,
    easy_question,
    hard_question,
    hard_scene,
    table_question,
    text_chain,
    text_chain_words,
)
from mmeb_tasks.mini.world import (
    COLOURS,
    NUMBERS,
    SHAPES,
    Picture,
    Rng,
    Scene,
    Thing,
    draw_crop,
    draw_page,
    draw_scene,
    random_chain,
    random_scene,
    random_thing,
)
from mmeb_tasks.mini.write import Difficulty, QueryLabel, SuiteWriter
from mmeb_tasks.readers.image import IMAGE_ROOT

Row = dict[str, Any]
#: Image and caption candidates of a query, the answer first.
POOL = 24


@dataclass
class ImageTask:
    """One image task in the making."""

    name: str
    rng: Rng
    writer: SuiteWriter
    num_queries: int

    def __post_init__(self) -> None:
        self.rows: list[Row] = []
        self.labels: list[QueryLabel] = []
        self._pictures = 0

    def picture(self, picture: Picture, kind: str = "query") -> str:
        """Write a picture; its path as the annotations give it. Names count, they say nothing."""
        self._pictures += 1
        path = f"{self.name}/{kind}_{self._pictures:05d}.png"
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


def write_image_task(name: str, rng: Rng, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 36 image tasks."""
    task = ImageTask(name, rng, writer, num_queries)
    _MAKERS[name](task)
    writer.table(Table(REPO, name, "test"), task.rows)
    writer.labels(name, task.labels)


def _shuffled_after(rng: Rng, first: str, others: Sequence[str], limit: int | None = None) -> list[str]:
    rest = [others[int(index)] for index in rng.permutation(len(others)) if others[int(index)] != first]
    return [first, *rest[: None if limit is None else limit - 1]]


def _classify_largest(task: ImageTask) -> None:
    """The label is the largest thing; hard scenes are crowded."""
    for kind in difficulties(task.rng, task.num_queries):
        scene = random_scene(task.rng, 1 if kind == "easy" else 4)
        words = scene.largest.words
        image = task.picture(draw_scene(scene, task.rng))
        task.add((kind, words, words), image=image, texts=_shuffled_after(task.rng, words, THINGS, 32))


def _classify_opposite(task: ImageTask) -> None:
    """The label joins the largest thing's colour and the shape opposite to it; alone, a thing is its own opposite."""
    for kind in difficulties(task.rng, task.num_queries):
        scene = random_scene(task.rng, 1 if kind == "easy" else 3)
        label = Thing(scene.largest.colour, scene.opposite.shape).words
        rationale = f"{scene.largest.words} opposite {SHAPES[scene.opposite.shape]}"
        image = task.picture(draw_scene(scene, task.rng))
        task.add((kind, rationale, label), image=image, texts=_shuffled_after(task.rng, label, THINGS, 32))


def _classify_side(task: ImageTask) -> None:
    """Two labels: whether the largest thing is on the left."""
    for kind in difficulties(task.rng, task.num_queries):
        scene = random_scene(task.rng, 1 if kind == "easy" else 4)
        label, other = ("Yes", "No") if scene.cells[0] % 2 == 0 else ("No", "Yes")
        side = "left" if label == "Yes" else "right"
        image = task.picture(draw_scene(scene, task.rng))
        task.add((kind, f"{scene.largest.words} {side}", label), image=image, texts=[label, other])


def _classify_with_text(task: ImageTask) -> None:
    """A text comes with the picture: a plain one, or rules to follow from the largest shape."""
    for kind in difficulties(task.rng, task.num_queries):
        if kind == "hard":
            scene, question = hard_question(task.rng)
        else:
            scene = random_scene(task.rng, 2)
            words = scene.largest.words
            question = Question("the largest", "easy", words, words, THINGS)
        image = task.picture(draw_scene(scene, task.rng))
        texts = _shuffled_after(task.rng, question.answer, THINGS, 24)
        task.add((kind, question.rationale, question.answer), text=question.text, image=image, texts=texts)


def _ask(task: ImageTask) -> None:
    """Questions with answers of the right kind to choose from; document sets also look values up in a table."""
    with_table = task.name in ("DocVQA", "InfographicsVQA", "ChartQA")
    for kind in difficulties(task.rng, task.num_queries):
        hard = table_question if with_table and task.rng.random() < 0.5 else hard_question
        scene, question = hard(task.rng) if kind == "hard" else easy_question(task.rng)
        image = task.picture(draw_scene(scene, task.rng))
        texts = _shuffled_after(task.rng, question.answer, question.options, 32)
        task.add((kind, question.rationale, question.answer), text=question.text, image=image, texts=texts)


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


Gallery = dict[Thing, list[str]]


def _gallery(task: ImageTask, draw: Callable[[Thing], Picture]) -> Gallery:
    """Candidate pictures of all 64 things, several of each if there are many queries."""
    copies = 1 + task.num_queries // 128
    things = [Thing(colour, shape) for colour in range(8) for shape in range(8)]
    return {thing: [task.picture(draw(thing), "target") for _ in range(copies)] for thing in things}


def _pool(task: ImageTask, gallery: Gallery, target: Thing) -> list[str]:
    chosen = [target, *distractors(task.rng, target, POOL - 1)]
    return [gallery[thing][int(task.rng.integers(len(gallery[thing])))] for thing in chosen]


def _scene_of(rng: Rng) -> Callable[[Thing], Picture]:
    return lambda thing: draw_scene(random_scene(rng, 2, thing), rng)


def _page_of(rng: Rng) -> Callable[[Thing], Picture]:
    return lambda thing: draw_page(thing, [], [int(h) for h in rng.integers(12, 50, 3)], rng)


def _find_picture(task: ImageTask) -> None:
    """Words to picture; hard words are a chain."""
    gallery = _gallery(task, (_page_of if task.name == "Wiki-SS-NQ" else _scene_of)(task.rng))
    captioned = task.name in ("WebQA", "EDIS")
    for kind in difficulties(task.rng, task.num_queries):
        target = random_thing(task.rng)
        chain = text_chain(task.rng, target)
        words = text_chain_words(target, chain) if kind == "hard" else target.words
        if task.name == "VisDial":
            words = _as_dialogue(words)
        rationale = chain_rationale(target.colour, chain) if kind == "hard" else target.words
        images = _pool(task, gallery, target)
        texts = ["shapes on grey"] * len(images) if captioned else ()
        task.add((kind, rationale, target.words), text=words, images=images, texts=texts)


def _as_dialogue(words: str) -> str:
    question, _, rules = words.partition(": ")
    return f"Q: what is it? A: {question}" + (f"\nQ: which rules? A: {rules}" if rules else "")


def _change_picture(task: ImageTask) -> None:
    """Picture and words to picture: a new colour, or a new shape by rules. NIGHTS has no words: the same again."""
    gallery = _gallery(task, _scene_of(task.rng))
    captioned = task.name == "OVEN"
    for kind in difficulties(task.rng, task.num_queries):
        scene, words, rationale, target = _change(task, kind)
        image = task.picture(draw_scene(scene, task.rng))
        images = _pool(task, gallery, target)
        texts = ["shapes on grey"] * len(images) if captioned else ()
        task.add((kind, rationale, target.words), text=words, image=image, images=images, texts=texts)


def _change(task: ImageTask, kind: Difficulty) -> tuple[Scene, str, str, Thing]:
    if task.name == "NIGHTS":
        scene = random_scene(task.rng, 1 if kind == "easy" else 4)
        return scene, "", scene.largest.words, scene.largest
    if kind == "hard":
        scene, chain = hard_scene(task.rng)
        colour = scene.largest.colour
        words = f"follow the rules from the largest: {chain.text}"
        return scene, words, chain_rationale(colour, chain), chain_target(colour, chain)
    scene = random_scene(task.rng, 2)
    target = Thing(int(task.rng.integers(8)), scene.largest.shape)
    return scene, f"make the largest {COLOURS[target.colour]}", target.words, target


def _point(task: ImageTask) -> None:
    """Picture and words to the part of the picture they mean. Hard: rules lead to the shape of a part."""
    gallery = _gallery(task, lambda thing: draw_crop(thing, task.rng))
    quoted = task.name == "RefCOCO-Matching"
    for kind in difficulties(task.rng, task.num_queries):
        scene, words, rationale, target = _pointing(task.rng, kind)
        image = task.picture(draw_scene(scene, task.rng))
        images = _pool(task, gallery, target)
        texts = ['"part"'] * len(images) if quoted else ()
        task.add((kind, rationale, target.words), text=words, image=image, images=images, texts=texts)


def _pointing(rng: Rng, kind: Difficulty) -> tuple[Scene, str, str, Thing]:
    if kind == "easy":
        scene = random_scene(rng, 3)
        target = scene.things[int(rng.integers(3))]
        return scene, SHAPES[target.shape], target.words, target
    scene = random_scene(rng, 3, dots=int(rng.choice((2, 3, 5))))
    chain = random_chain(rng, scene.largest.shape, scene.dots)
    while chain.end not in [thing.shape for thing in scene.things[1:]]:
        chain = random_chain(rng, scene.largest.shape, scene.dots)
    target = next(thing for thing in scene.things if thing.shape == chain.end)
    return scene, f"follow the rules from the largest: {chain.text}", f"{chain.walk} {target.words}", target


_MAKERS: dict[str, Callable[[ImageTask], None]] = {
    **dict.fromkeys(("VOC2007", "ImageNet-R", "Country211", "SUN397"), _classify_largest),
    **dict.fromkeys(("ImageNet-1K", "Place365", "ImageNet-A", "ObjectNet"), _classify_opposite),
    "HatefulMemes": _classify_side,
    "N24News": _classify_with_text,
    **dict.fromkeys(("OK-VQA", "A-OKVQA", "DocVQA", "InfographicsVQA", "ChartQA"), _ask),
    **dict.fromkeys(("Visual7W", "ScienceQA", "VizWiz", "GQA", "TextVQA"), _ask),
    **dict.fromkeys(("MSCOCO_i2t", "VisualNews_i2t"), _caption),
    **dict.fromkeys(("VisDial", "MSCOCO_t2i", "VisualNews_t2i", "WebQA", "EDIS", "Wiki-SS-NQ"), _find_picture),
    **dict.fromkeys(("CIRR", "NIGHTS", "OVEN", "FashionIQ"), _change_picture),
    **dict.fromkeys(("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"), _point),
}
