"""The 18 video tasks of the mini suite: rows and frame folders in the official schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mmeb_tasks.mini.questions import (
    THINGS,
    Question,
    chain_rationale,
    chain_target,
    described,
    difficulties,
    distractors,
    motion_words,
    text_chain,
    text_chain_words,
)
from mmeb_tasks.mini.world import (
    DIRECTIONS,
    EVERY_THING,
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
    shuffled,
)
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter
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
    rows: list[Row] = field(default_factory=list)
    labels: list[QueryLabel] = field(default_factory=list)

    def clips(self) -> Iterator[tuple[str, Difficulty]]:
        """A name and a difficulty for the clip of each query."""
        for number, kind in enumerate(difficulties(self.rng, self.num_queries)):
            yield f"clip_{number:05d}", kind

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

    def short_clip(self, folder: str, thing: Thing, direction: int | None = None) -> None:
        """Write a clip of a few frames; the thing moves in a random direction unless one is given."""
        direction = int(self.rng.integers(4)) if direction is None else direction
        self.frames(folder, draw_clip(thing, direction, CLIP_FRAMES, self.rng))


def write_video_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 18 video tasks."""
    row = next(row for row in ROWS if row.name == name)
    tables = tables_of(row)
    share = -(-num_queries // len(tables))
    # MVBench has twenty tables, none of them empty, and as many hard rows as easy ones.
    task = VideoTask(row, streams(name), writer, max(share, 2) * len(tables) if len(tables) > 1 else num_queries)
    _MAKERS[row.reader](task)
    for index, table in enumerate(tables):
        writer.table(table, _rows_of_table(task.rows, index, len(tables)))
    writer.labels(name, task.labels)


def _rows_of_table(rows: Sequence[Row], index: int, count: int) -> Sequence[Row]:
    """Contiguous shares: the reader concatenates the tables and numbers the rows through."""
    size = -(-len(rows) // count)
    return rows[index * size : (index + 1) * size]


def _classify(task: VideoTask) -> None:
    """32 official labels stand for a shape and a direction each (Breakfast has 10: 8 for the shapes)."""
    labels = (LABELS / str(task.row.labels)).read_text(encoding="utf-8").splitlines()
    for name, kind in task.clips():
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
    for name, kind in task.clips():
        thing, direction = task.moving(name, crowded=kind == "hard")
        answer = f"moving a {SHAPES[thing.shape]} {DIRECTIONS[direction]}"
        row = {"video_id": name, "pos_text": answer, "neg_text": shuffled(task.rng, phrases)}
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
    others = [option for option in shuffled(rng, question.options) if option != question.answer]
    return shuffled(rng, [question.answer, *others][:n])


def _ask(n: int, row_of: Callable[[str, Question, list[str], int], Row], task: VideoTask) -> None:
    """A question about each clip, with `n` options; `row_of` makes a row of clip, question, options and number."""
    tables = tables_of(task.row)
    for number, (name, kind) in enumerate(task.clips()):
        # MVBench's clips lie by their table.
        folder = name if len(tables) == 1 else f"{tables[number * len(tables) // task.num_queries].config}/{name}.mp4"
        question = _question(task, folder, kind)
        options = _options(task.rng, question, n)
        task.add(row_of(name, question, options, number), kind, question.rationale, question.answer)


def _mvbench_row(name: str, question: Question, options: list[str], _number: int) -> Row:
    return {"question": question.text, "video": f"{name}.mp4", "candidates": options, "answer": question.answer}


def _videomme_row(name: str, question: Question, options: list[str], _number: int) -> Row:
    return {
        "question": question.text,
        "videoID": name,
        "options": _with_letters(options),
        "answer": "ABCD"[options.index(question.answer)],
        "question_id": f"{name}-1",
        "domain": "shapes",
        "sub_category": "motion",
    }


def _with_letters(options: Sequence[str]) -> list[str]:
    return [f"{'ABCDE'[index]}. {option}." for index, option in enumerate(options)]


def _nextqa_row(name: str, question: Question, options: list[str], number: int) -> Row:
    five = [*options, "none of these"][:5]  # the schema has five columns; only four ways to move
    row: Row = {"video": name, "question": question.text, "answer": five.index(question.answer), "qid": number}
    return row | {"type": "DO"} | {f"a{index}": option for index, option in enumerate(five)}


def _egoschema_row(name: str, question: Question, options: list[str], number: int) -> Row:
    return {
        "video_idx": name,
        "question": question.text,
        "option": _with_letters(options),
        "answer": str(options.index(question.answer)),
        "question_idx": str(number),
    }


def _activitynetqa(task: VideoTask) -> None:
    """Yes as often as no, in both halves."""
    for name, kind in task.clips():
        thing, _ = task.moving(f"v_{name}")
        answer = "yes" if task.rng.random() < 0.5 else "no"
        chain = random_chain(task.rng, thing.shape, hard_steps(task.rng)) if kind == "hard" else None
        shape = chain.end if chain else thing.shape
        named = shape if answer == "yes" else int(task.rng.choice([other for other in range(8) if other != shape]))
        text = f"is it {SHAPES[named]} after {_steps(chain)}" if chain else f"is it a {SHAPES[named]}"
        rationale = f"{chain_rationale(thing.colour, chain) if chain else thing.words} {answer}"
        row = {"video_name": name, "question": text, "answer": answer, "question_id": f"{name}_0"}
        task.add(row, kind, rationale, answer)


def _steps(chain: Chain) -> str:
    return f"{NUMBERS[chain.steps]} steps: {chain.text}"


def _find_video(row_of: Callable[[str, str], Row], task: VideoTask) -> None:
    """Words to clip, all clips different; hard words are a chain and the direction."""
    motions = [(thing, direction) for thing in EVERY_THING for direction in range(4)]
    order = _repeated_permutation(task.rng, len(motions), task.num_queries)
    for number, (name, kind) in enumerate(task.clips()):
        thing, direction = motions[order[number]]
        frames = SHORT_FRAMES if task.row.reader == "youcook2" and number % 8 == 0 else SAVED_FRAMES
        task.frames(name, draw_clip(thing, direction, frames, task.rng))
        chain = text_chain(task.rng, thing)
        words = motion_words(thing, direction)
        text, rationale = f"a {words}", words
        if kind == "hard":
            text = f"moving {DIRECTIONS[direction]}, {text_chain_words(thing, chain)}"
            rationale = f"{chain_rationale(thing.colour, chain)} moving {DIRECTIONS[direction]}"
        task.add(row_of(name, text), kind, rationale, words)


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
        task.short_clip(f"{video}/positive_0", target, direction)
        for index, thing in enumerate(negatives):
            task.short_clip(f"{video}/negative_{index}", thing)
        words, rationale = described(task.rng, target, kind)
        task.add({"query": words, "video_path": f"{video}.mp4"}, kind, rationale, target.words)


def _momentseeker(task: VideoTask) -> None:
    """Queries of words, of a picture and words, of a clip and words, in turn. Clips are shared by the queries."""
    clips = _clip_gallery(task)
    for number, kind in enumerate(difficulties(task.rng, task.num_queries)):
        target = random_thing(task.rng)
        chain = text_chain(task.rng, target)
        shown = Thing(target.colour, chain.shapes[0]) if kind == "hard" else target
        source = _moment_source(task, number, shown)
        subject = "the same shape" if source else shown.words
        negatives = distractors(task.rng, target, NUM_NEGATIVES)
        row = {
            "query": f"{subject} after {_steps(chain)}" if kind == "hard" else subject,
            "input_frames": source,
            "positive_frames": [{"output_path": clips[target]}],
            "negative_frames": [{"output_path": clips[thing]} for thing in negatives],
        }
        rationale = chain_rationale(target.colour, chain) if kind == "hard" else target.words
        task.add(row, kind, rationale, target.words)


def _clip_gallery(task: VideoTask) -> dict[Thing, str]:
    clips = {}
    for number, thing in enumerate(EVERY_THING):
        movie, clip = f"movie{number // 16}", f"clip_{number:03d}"
        task.short_clip(f"video_frames/{movie}_{clip}", thing)
        clips[thing] = f"{movie}/{clip}.mp4"
    return clips


def _moment_source(task: VideoTask, number: int, shown: Thing) -> str:
    """What the query shows: nothing, a picture or a clip of `shown`."""
    if number % 3 == 0:
        return ""
    if number % 3 == 1:
        name = f"shot_{number:05d}.jpg"
        task.writer.picture(f"{FRAMES}/{task.row.frame_root}/query_{name}", draw_crop(shown, task.rng))
        return name
    task.short_clip(f"video_frames/query_clip_{number:05d}", shown)
    return f"query/clip_{number:05d}.mp4"


#: reader → the row of a clip and the words by which it is found.
_CAPTIONED: dict[str, Callable[[str, str], Row]] = {
    "msrvtt": lambda name, words: {"video_id": name, "video": f"{name}.mp4", "caption": words},
    "msvd": lambda name, words: {"video_id": name, "video": f"{name}.avi", "caption": [words, "another caption"]},
    "didemo": lambda name, words: {"video": f"{name}.mp4", "caption": words},
    "vatex": lambda name, words: {"videoID": name, "enCap": [words]},
    "youcook2": lambda name, words: {"id": name, "video_path": f"val/{name}.mp4", "sentence": words},
}
_MAKERS: dict[str, Callable[[VideoTask], None]] = {
    "video_classification": _classify,
    "ssv2": _phrases,
    "mvbench": partial(_ask, 4, _mvbench_row),
    "videomme": partial(_ask, 4, _videomme_row),
    "nextqa": partial(_ask, 5, _nextqa_row),
    "egoschema": partial(_ask, 5, _egoschema_row),
    "activitynetqa": _activitynetqa,
    **{reader: partial(_find_video, row_of) for reader, row_of in _CAPTIONED.items()},
    "moment_retrieval": _moments,
    "momentseeker": _momentseeker,
}
