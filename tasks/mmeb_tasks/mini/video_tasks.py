"""The 18 video tasks of the mini suite: rows and frame folders in the official schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmeb_tasks.mini.questions import (
    THINGS,
    Question,
    chain_rationale,
    chain_target,
    difficulties,
    distractors,
    motion_words,
    text_chain,
    text_chain_words,
)
from mmeb_tasks.mini.world import (
    DIRECTIONS,
    NUMBERS,
    SHAPES,
    Chain,
    Picture,
    Rng,
    Thing,
    draw_clip,
    draw_crop,
    hard_steps,
    random_chain,
    random_thing,
)
from mmeb_tasks.mini.write import Difficulty, QueryLabel, SuiteWriter
from mmeb_tasks.readers.video import LABELS
from mmeb_tasks.video import FRAMES, ROWS, VideoRow, tables_of

Row = dict[str, Any]
#: Saved frames of a clip. The readers use 8; a few retrieval clips are shorter, as in the real data.
SAVED_FRAMES = 10
SHORT_FRAMES = 6
CLIP_FRAMES = 5
NUM_NEGATIVES = 9
#: A moment query takes eleven clips of its own; more of them would make a training split mostly of clips.
MAX_MOMENT_QUERIES = 160


@dataclass
class VideoTask:
    """One video task in the making."""

    row: VideoRow
    rng: Rng
    writer: SuiteWriter
    num_queries: int

    def __post_init__(self) -> None:
        self.rows: list[Row] = []
        self.labels: list[QueryLabel] = []

    def frames(self, folder: str, pictures: Sequence[Picture]) -> None:
        """Write a clip below the task's frame root."""
        self.writer.frames(f"{FRAMES}/{self.row.frame_root}/{folder}", pictures)

    def add(self, row: Row, kind: Difficulty, rationale: str, answer: str) -> None:
        """Add a row and its label."""
        self.labels.append(QueryLabel(str(len(self.rows)), kind, rationale, answer))
        self.rows.append(row)

    def moving(self, folder: str, crowded: bool = False) -> tuple[Thing, int]:
        """Write a clip of a random thing in motion; crowded: another thing stands by."""
        thing, direction = random_thing(self.rng), int(self.rng.integers(4))
        still = distractors(self.rng, thing, 40)[-1] if crowded else None
        self.frames(folder, draw_clip(thing, direction, SAVED_FRAMES, self.rng, still))
        return thing, direction


def write_video_task(name: str, rng: Rng, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 18 video tasks."""
    row = next(row for row in ROWS if row.name == name)
    tables = tables_of(row)
    share = -(-num_queries // len(tables))
    # MVBench has twenty tables, none of them empty, and as many hard rows as easy ones.
    task = VideoTask(row, rng, writer, max(share, 2) * len(tables) if len(tables) > 1 else num_queries)
    _MAKERS[row.reader](task)
    for index, table in enumerate(tables):
        writer.table(table, _rows_of_table(task.rows, index, len(tables)))
    writer.labels(name, task.labels)


def _rows_of_table(rows: Sequence[Row], index: int, count: int) -> Sequence[Row]:
    """Contiguous shares: the reader concatenates the tables and numbers the rows through."""
    size = -(-len(rows) // count)
    return rows[index * size : (index + 1) * size]


def _video_names(task: VideoTask) -> list[str]:
    return [f"clip_{number:05d}" for number in range(task.num_queries)]


def _classify(task: VideoTask) -> None:
    """32 official labels stand for a shape and a direction each (Breakfast has 10: 8 for the shapes)."""
    labels = (LABELS / str(task.row.labels)).read_text(encoding="utf-8").splitlines()
    for name, kind in zip(_video_names(task), difficulties(task.rng, task.num_queries), strict=True):
        thing, direction = task.moving(name, crowded=kind == "hard")
        label = class_label(labels, thing, direction)
        task.add({"video_id": name, "pos_text": label}, kind, motion_words(thing, direction), label)


def class_label(labels: Sequence[str], thing: Thing, direction: int) -> str:
    """Which official label a motion stands for: the same in every split."""
    if len(labels) < 32:
        return labels[thing.shape]
    return labels[(thing.shape * 4 + direction) * (len(labels) - 1) // 31]


def _phrases(task: VideoTask) -> None:
    phrases = [f"moving a {shape} {direction}" for shape in SHAPES for direction in DIRECTIONS]
    for name, kind in zip(_video_names(task), difficulties(task.rng, task.num_queries), strict=True):
        thing, direction = task.moving(name, crowded=kind == "hard")
        answer = f"moving a {SHAPES[thing.shape]} {DIRECTIONS[direction]}"
        shuffled = [phrases[int(index)] for index in task.rng.permutation(len(phrases))]
        row = {"video_id": name, "pos_text": answer, "neg_text": shuffled}
        task.add(row, kind, motion_words(thing, direction), answer)


def _question(task: VideoTask, folder: str, kind: Difficulty) -> Question:
    """Easy: what moves, or which way. Hard: rules to follow from the shape that moves."""
    thing, direction = task.moving(folder)
    if kind == "hard":
        chain = random_chain(task.rng, thing.shape, hard_steps(task.rng))
        text = f"follow the rules from the moving shape for {NUMBERS[chain.steps]} steps: {chain.text}"
        same_colour = tuple(Thing(thing.colour, shape).words for shape in range(8))
        rationale = chain_rationale(thing.colour, chain)
        return Question(text, kind, rationale, chain_target(thing.colour, chain).words, same_colour)
    if task.rng.random() < 0.5:
        return Question("which way?", kind, motion_words(thing, direction), DIRECTIONS[direction], DIRECTIONS)
    return Question("what moves?", kind, thing.words, thing.words, THINGS)


def _options(rng: Rng, question: Question, n: int) -> list[str]:
    """`n` options (fewer if there are no more), the answer at a random place."""
    others = [question.options[int(i)] for i in rng.permutation(len(question.options))]
    chosen = [question.answer, *(option for option in others if option != question.answer)][:n]
    return [chosen[int(i)] for i in rng.permutation(len(chosen))]


def _asked(task: VideoTask, n: int, folder: Callable[[int], str]) -> list[tuple[str, Difficulty, Question, list[str]]]:
    asked = []
    for number, kind in enumerate(difficulties(task.rng, task.num_queries)):
        name = f"clip_{number:05d}"
        question = _question(task, folder(number), kind)
        asked.append((name, kind, question, _options(task.rng, question, n)))
    return asked


def _mvbench(task: VideoTask) -> None:
    tables = tables_of(task.row)
    size = -(-task.num_queries // len(tables))
    asked = _asked(task, 4, lambda number: f"{tables[number // size].config}/clip_{number:05d}.mp4")
    for name, kind, question, options in asked:
        row = {"question": question.text, "video": f"{name}.mp4", "candidates": options, "answer": question.answer}
        task.add(row, kind, question.rationale, question.answer)


def _videomme(task: VideoTask) -> None:
    for name, kind, question, options in _asked(task, 4, lambda number: f"clip_{number:05d}"):
        row = {
            "question": question.text,
            "videoID": name,
            "options": _with_letters(options),
            "answer": "ABCD"[options.index(question.answer)],
            "question_id": f"{name}-1",
            "domain": "shapes",
            "sub_category": "motion",
        }
        task.add(row, kind, question.rationale, question.answer)


def _with_letters(options: Sequence[str]) -> list[str]:
    return [f"{'ABCDE'[index]}. {option}." for index, option in enumerate(options)]


def _nextqa(task: VideoTask) -> None:
    for name, kind, question, options in _asked(task, 5, lambda number: f"clip_{number:05d}"):
        five = [*options, "none of these"][:5]  # the schema has five columns; only four ways to move
        row: Row = {
            "video": name,
            "question": question.text,
            "answer": five.index(question.answer),
            "qid": len(task.rows),
        }
        task.add(
            row | {"type": "DO"} | {f"a{index}": option for index, option in enumerate(five)},
            kind,
            question.rationale,
            question.answer,
        )


def _egoschema(task: VideoTask) -> None:
    for name, kind, question, options in _asked(task, 5, lambda number: f"clip_{number:05d}"):
        row = {
            "video_idx": name,
            "question": question.text,
            "option": _with_letters(options),
            "answer": str(options.index(question.answer)),
            "question_idx": str(len(task.rows)),
        }
        task.add(row, kind, question.rationale, question.answer)


def _activitynetqa(task: VideoTask) -> None:
    """Yes as often as no, in both halves."""
    for number, kind in enumerate(difficulties(task.rng, task.num_queries)):
        name = f"clip_{number:05d}"
        thing, _ = task.moving(f"v_{name}")
        right = bool(task.rng.random() < 0.5)
        if kind == "hard":
            chain = random_chain(task.rng, thing.shape, hard_steps(task.rng))
            named = chain.end if right else int(task.rng.choice([s for s in range(8) if s != chain.end]))
            text = f"is it {SHAPES[named]} after {NUMBERS[chain.steps]} steps: {chain.text}"
            rationale = f"{chain_rationale(thing.colour, chain)} {'yes' if right else 'no'}"
        else:
            named = thing.shape if right else int(task.rng.choice([s for s in range(8) if s != thing.shape]))
            text = f"is it a {SHAPES[named]}"
            rationale = f"{thing.words} {'yes' if right else 'no'}"
        answer = "yes" if right else "no"
        row = {"video_name": name, "question": text, "answer": answer, "question_id": f"{name}_0"}
        task.add(row, kind, rationale, answer)


def _find_video(task: VideoTask, make_row: Callable[[str, str], Row]) -> None:
    """Words to clip, all clips different; hard words are a chain and the direction."""
    motions = [(Thing(c, s), d) for c in range(8) for s in range(8) for d in range(4)]
    order = [int(index) % len(motions) for index in _repeated_permutation(task.rng, len(motions), task.num_queries)]
    for index, kind in enumerate(difficulties(task.rng, task.num_queries)):
        thing, direction = motions[order[index]]
        name = f"clip_{index:05d}"
        frames = SHORT_FRAMES if task.row.reader == "youcook2" and index % 8 == 0 else SAVED_FRAMES
        task.frames(name, draw_clip(thing, direction, frames, task.rng))
        chain = text_chain(task.rng, thing)
        words = motion_words(thing, direction)
        if kind == "easy":
            task.add(make_row(name, f"a {words}"), kind, words, words)
            continue
        text = f"moving {DIRECTIONS[direction]}, {text_chain_words(thing, chain)}"
        rationale = f"{chain_rationale(thing.colour, chain)} moving {DIRECTIONS[direction]}"
        task.add(make_row(name, text), kind, rationale, words)


def _repeated_permutation(rng: Rng, size: int, n: int) -> list[int]:
    return [int(index) for _ in range(-(-n // size)) for index in rng.permutation(size)][:n]


def _moments(task: VideoTask) -> None:
    """A video of three scenes, and ten clips of which one shows the scene that the words name."""
    for number, kind in enumerate(difficulties(task.rng, min(task.num_queries, MAX_MOMENT_QUERIES))):
        video = f"video_{number:05d}"
        target, direction = random_thing(task.rng), int(task.rng.integers(4))
        negatives = distractors(task.rng, target, NUM_NEGATIVES)
        scenes = [target, *negatives[:2]]
        query = [
            picture
            for index in task.rng.permutation(3)
            for picture in draw_clip(
                scenes[int(index)], direction if index == 0 else int(task.rng.integers(4)), 4, task.rng
            )
        ]
        task.frames(f"{video}/query", query)
        task.frames(f"{video}/positive_0", draw_clip(target, direction, CLIP_FRAMES, task.rng))
        for index, thing in enumerate(negatives):
            clip = draw_clip(thing, int(task.rng.integers(4)), CLIP_FRAMES, task.rng)
            task.frames(f"{video}/negative_{index}", clip)
        chain = text_chain(task.rng, target)
        words = text_chain_words(target, chain) if kind == "hard" else target.words
        rationale = chain_rationale(target.colour, chain) if kind == "hard" else target.words
        task.add({"query": words, "video_path": f"{video}.mp4"}, kind, rationale, target.words)


def _momentseeker(task: VideoTask) -> None:
    """Queries of words, of a picture and words, of a clip and words, in turn. Clips are shared by the queries."""
    clips = _clip_gallery(task)
    for number, kind in enumerate(difficulties(task.rng, task.num_queries)):
        target = random_thing(task.rng)
        chain = text_chain(task.rng, target)
        shown = Thing(target.colour, chain.shapes[0]) if kind == "hard" else target
        source = _moment_source(task, number, shown)
        words = _moment_words(source, shown, chain if kind == "hard" else None)
        rationale = chain_rationale(target.colour, chain) if kind == "hard" else target.words
        row = {
            "query": words,
            "input_frames": source,
            "positive_frames": [{"output_path": clips[target]}],
            "negative_frames": [
                {"output_path": clips[thing]} for thing in distractors(task.rng, target, NUM_NEGATIVES)
            ],
        }
        task.add(row, kind, rationale, target.words)


def _clip_gallery(task: VideoTask) -> dict[Thing, str]:
    clips = {}
    for colour in range(8):
        for shape in range(8):
            number = 8 * colour + shape
            thing = Thing(colour, shape)
            path = f"movie{number // 16}/clip_{number:03d}.mp4"
            folder = path.replace("/", "_").removesuffix(".mp4")
            clip = draw_clip(thing, int(task.rng.integers(4)), CLIP_FRAMES, task.rng)
            task.frames(f"video_frames/{folder}", clip)
            clips[thing] = path
    return clips


def _moment_source(task: VideoTask, number: int, shown: Thing) -> str:
    """What the query shows: nothing, a picture or a clip of `shown`."""
    if number % 3 == 0:
        return ""
    if number % 3 == 1:
        name = f"shot_{number:05d}.jpg"
        task.writer.picture(f"{FRAMES}/{task.row.frame_root}/query_{name}", draw_crop(shown, task.rng))
        return name
    clip = draw_clip(shown, int(task.rng.integers(4)), CLIP_FRAMES, task.rng)
    task.frames(f"video_frames/query_clip_{number:05d}", clip)
    return f"query/clip_{number:05d}.mp4"


def _moment_words(source: str, shown: Thing, chain: Chain | None) -> str:
    subject = "the same shape" if source else shown.words
    return f"{subject} after {NUMBERS[chain.steps]} steps: {chain.text}" if chain else subject


_MAKERS: dict[str, Callable[[VideoTask], None]] = {
    "video_classification": _classify,
    "ssv2": _phrases,
    "mvbench": _mvbench,
    "videomme": _videomme,
    "nextqa": _nextqa,
    "egoschema": _egoschema,
    "activitynetqa": _activitynetqa,
    "msrvtt": lambda task: _find_video(
        task, lambda name, words: {"video_id": name, "video": f"{name}.mp4", "caption": words}
    ),
    "msvd": lambda task: _find_video(
        task, lambda name, words: {"video_id": name, "video": f"{name}.avi", "caption": [words, "another caption"]}
    ),
    "didemo": lambda task: _find_video(task, lambda name, words: {"video": f"{name}.mp4", "caption": words}),
    "vatex": lambda task: _find_video(task, lambda name, words: {"videoID": name, "enCap": [words]}),
    "youcook2": lambda task: _find_video(
        task, lambda name, words: {"id": name, "video_path": f"val/{name}.mp4", "sentence": words}
    ),
    "moment_retrieval": _moments,
    "momentseeker": _momentseeker,
}
