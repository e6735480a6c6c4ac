"""UME-R1's two sets: zhibinlan/UME-sft-train, 1.46 million pairs with rationales; UME-rl-train, 11 thousand without.

A row of the first; the file is one JSON array, or JSON lines in some copies:

    {"dataset_name": "MSCOCO_t2i",
     "qry": {"image": "images/blank.jpg", "conversations": [
         {"from": "human", "value": "<image>\\nFind me an everyday image that matches the given caption: A meme of …
             \\n<disc_emb>\\nRepresent the above input text, images, videos, or any combination of …"},
         {"from": "gpt", "value": "<think>So, let's analyze …</think><answer>A Siamese cat with carrots, …
             \\n<|begin_of_box|>A humorous meme …<|end_of_box|>\\n<gen_emb>"}]},
     "pos": {"image": "images/MSCOCO_t2i/Train/….jpg", "conversations": […]}}

and of the second (`dataset_name` isn't sure to be there):

    {"dataset_name": …, "qry_text": …, "qry_image": "", "qry_video": ["…/c01_0001.jpeg", …],
     "pos_text": …, "pos_image": "", "pos_video": [""], "solution": "<embedding>"}

An item gets the data's own words only: the tokens, the fixed request behind `<disc_emb>` and the white picture that
stands for none go; what was thought and answered becomes the side's rationale.

Sources: Kikcer/lume 73f138b, a copy of XMUDeepLIT/UME-R1 with its data: src/sft-train/qwenvl/data/data_qwen.py,
src/r1-train/src/open_r1/grpo_embed.py, src/data-download/*.py, scripts/analyze_cot_length.py; README of
XMUDeepLIT/UME-R1 (where media lie); a real row in the dataset report of a reader of `umer1_sft_processed`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mmemb_r1_model.data import documents, llava_hound, mmeb_train
from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.media import MediaFolder, answer_key, spread
from mmemb_r1_model.data.mmeb_train import NO_POSITIVE, NO_QUERY, split_instruction
from mmemb_r1_model.data.pairs import Item, Pair, PairSet, Side
from mmemb_r1_model.data.rows import JsonRows, RowFacts, RowPairs
from mmemb_r1_model.disk.errors import DataError, UnknownNameError
from mmemb_r1_model.disk.files import matching
from mmemb_r1_model.disk.jsonl import Row, row_at, rows_at, text_at, texts_at

UmeSet = Literal["sft", "rl"]

FETCH: dict[UmeSet, str] = {
    kind: f"hf download zhibinlan/UME-{kind}-train --repo-type dataset --local-dir UME-{kind}-train"
    for kind in ("sft", "rl")
}
FETCH_MEDIA = "MMEB-train's images and what UME-R1's src/data-process writes (mmemb_r1_model/data/README.md)"

#: A side without a picture shows this white one.
BLANK = "images/blank.jpg"
#: In front of the data set's own paths in some copies: the folder that they lie below.
MEDIA_FOLDER = "MMEB-train"

# What ends the data's own part of the human's turn; the request is the same in every row.
_REQUEST = re.compile(r"<disc_emb>|Represent the above input text, images, videos, or any combination of the three")
_MEDIA_TOKENS = re.compile(r"<image>|<video>")
# `<answer>` is never closed in the data; the box is GLM-4.1V-Thinking's.
_MARKS = re.compile(r"</?think>|</?answer>|<\|begin_of_box\|>|<\|end_of_box\|>|<gen_emb>")
# Two typing errors in the data's paths, known to lume's src/sft-train/qwenvl/data/data_coconut.py.
_DOUBLED_SUFFIX = re.compile(r"(\.jpe?g)g$", re.IGNORECASE)


def _longest_first(*instructions: str) -> tuple[str, ...]:
    return tuple(sorted(set(instructions), key=lambda instruction: (-len(instruction), instruction)))


_QUERY_INSTRUCTIONS = _longest_first(
    *mmeb_train.QUERY_INSTRUCTIONS.values(),
    *documents.QUERY_INSTRUCTIONS.values(),
    documents.ASK_PAGE,
    llava_hound.FIND_VIDEO,
    llava_hound.ANSWER_QUESTION,
)
_MEDIA_INSTRUCTIONS = _longest_first(
    *mmeb_train.IMAGE_INSTRUCTIONS, *documents.PAGE_INSTRUCTIONS.values(), llava_hound.WATCH_VIDEO
)


@dataclass(frozen=True, slots=True)
class StoredSide:
    """One side of a row: its words, its media by their paths in the data, and what was thought about it."""

    text: str
    images: tuple[str, ...] = ()
    video: tuple[str, ...] = ()
    rationale: str = ""

    @property
    def empty(self) -> bool:
        """Whether there is nothing to embed."""
        return not (self.text or self.images or self.video)


def open_ume(config: TrainingSetConfig, root: Path, kind: UmeSet) -> list[PairSet]:
    """The data sets of a file, each by itself, since a batch is of one; or one of them.

    Raises:
        UnknownNameError: no such data set in the file.
        DataError: the file is missing or broken.
    """
    subset, name = config.subset, config.name
    rows = JsonRows(_annotations(root / config.path, kind), f"ume-{kind}", partial(_facts_of, kind=kind), FETCH[kind])
    if subset and subset not in rows.groups:
        raise UnknownNameError(f"data set in {rows.path}", subset, rows.groups)
    folder = root / config.media if config.media else rows.path.parent.parent / MEDIA_FOLDER
    pair_of = partial(_pair, rows, kind, MediaFolder(folder, f"get it: {FETCH_MEDIA}"), config.frames)
    opened: list[PairSet] = []
    for group in (subset,) if subset else rows.groups:
        numbers, skipped = rows.of(group, config.limit)
        own_name = name if name and subset else "/".join(filter(None, (name or f"ume-{kind}", group)))
        if subset or len(numbers):
            opened.append(RowPairs(own_name, numbers, pair_of, skipped))
    return opened


SFT = PairKind(partial(open_ume, kind="sft"), ("subset", "media"))
RL = PairKind(partial(open_ume, kind="rl"), ("subset", "media"))


def _pair(rows: JsonRows, kind: UmeSet, media: MediaFolder, most_frames: int, name: str, number: int) -> Pair:
    query, positive = sides(rows[number], kind)

    def item(side: Side, stored: StoredSide, instruction: str, text: str) -> Item:
        images = tuple(media.file(path) for path in stored.images)
        frames = tuple(media.file(path) for path in spread(stored.video, most_frames))
        return Item(f"{number}/{side}", text, images, frames, instruction)

    rationales: dict[Side, str] = {"query": query.rationale, "positive": positive.rationale}
    return Pair(
        id=str(number),
        dataset=name,
        query=item("query", query, *query_words(query)),
        positive=item("positive", positive, *positive_words(positive)),
        answer=answer_key(positive_words(positive)[1], (*positive.images, *positive.video)),
        rationales={side: text for side, text in rationales.items() if text},
    )


def _annotations(path: Path, kind: UmeSet) -> Path:
    if path.is_file():
        return path
    stem = f"UME-{kind}-train"
    named = [path / f"{stem}{suffix}" for suffix in (".json", ".jsonl") if (path / f"{stem}{suffix}").is_file()]
    files = named or [file for file in matching(path, "*.json*") if file.suffix in (".json", ".jsonl")]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DataError(f"{path}: expected {stem}.json or .jsonl, found {names}; get it: {FETCH[kind]}")
    return files[0]


def sides(row: Row, kind: UmeSet) -> tuple[StoredSide, StoredSide]:
    """Query and positive of a row."""
    if kind == "rl":
        return _rl_side(row, "qry"), _rl_side(row, "pos")
    return _sft_side(row_at(row, "qry")), _sft_side(row_at(row, "pos"))


def _sft_side(side: Row) -> StoredSide:
    human = gpt = ""
    for turn in rows_at(side, "conversations"):
        if turn.get("from") == "human":
            human = human or text_at(turn, "value")
        elif turn.get("from") == "gpt":
            gpt = gpt or text_at(turn, "value")
    text = _MEDIA_TOKENS.sub("", _REQUEST.split(human, maxsplit=1)[0]).strip()
    parts = (part.strip() for part in _MARKS.split(gpt))
    return _stored(text, texts_at(side, "image"), texts_at(side, "video"), "\n".join(filter(None, parts)))


def _rl_side(row: Row, side: str) -> StoredSide:
    text = _MEDIA_TOKENS.sub("", text_at(row, f"{side}_text")).strip()
    return _stored(text, texts_at(row, f"{side}_image"), texts_at(row, f"{side}_video"))


def _stored(text: str, image: Sequence[str], video: Sequence[str], rationale: str = "") -> StoredSide:
    frames = _paths(video)
    return StoredSide(text, () if frames else _paths(image), frames, rationale)


def _paths(stored: Sequence[str]) -> tuple[str, ...]:
    """Paths as they lie below the media folder, without the white picture."""
    relative = [path.removeprefix("./").removeprefix(f"{MEDIA_FOLDER}/") for path in stored]
    return tuple(_DOUBLED_SUFFIX.sub(r"\1", path) for path in relative if path != BLANK)


def query_words(side: StoredSide) -> tuple[str, str]:
    """(instruction, own words) of a query. A video with any other request is there to be described as it says."""
    instruction, text = split_instruction(side.text, _QUERY_INSTRUCTIONS)
    return (side.text, "") if side.video and not instruction else (instruction, text)


def positive_words(side: StoredSide) -> tuple[str, str]:
    """(instruction, own words) of a positive; one that is text alone has no instruction."""
    return split_instruction(side.text, _MEDIA_INSTRUCTIONS) if side.images or side.video else ("", side.text)


def _facts_of(row: Row, kind: UmeSet) -> RowFacts:
    query, positive = sides(row, kind)
    skip = NO_QUERY if query.empty else NO_POSITIVE if positive.empty else ""
    return RowFacts(group=text_at(row, "dataset_name"), skip=skip)
