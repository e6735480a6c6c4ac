"""ShareGPTVideo/train_video_and_instruction (LLaVA-Hound): videos with a caption, or with a question and its answer.

    video_instruction/train/sft/video_caption_300k.jsonl          {"id", "video", "conversations": [
        {"from": "human", "value": "<video>\\nWrite an in-depth depiction of the video, covering all its aspects."},
        {"from": "gpt", "value": "The video opens with a view of an indoor court …"}]}
    video_instruction/train/sft/video_240k_caption_15k.jsonl      240,000 questions, then 15,000 captions
    train_300k/<video>/c01_0001.jpeg, …                           frames, from chunk_*.tar.gz

Three uses, after VLM2Vec's src/data/dataset/llavahound_dataset_{caption,qa}.py, which pairs the same rows:

    caption     video and request → caption          the request is the human's turn, one of many wordings
    retrieval   caption → video
    qa          video and question → answer

Rows as above: siryuson/BottleneckTokens, docs/en/datasets/train/llavahound/*.md.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.media import MediaFolder, answer_key
from mmemb_r1_model.data.pairs import Item, Pair, PairSet
from mmemb_r1_model.data.rows import JsonRows, RowFacts, RowPairs
from mmemb_r1_model.disk.jsonl import Row, rows_at, text_at

Use = Literal["caption", "retrieval", "qa"]

FETCH = (
    "hf download ShareGPTVideo/train_video_and_instruction --repo-type dataset --exclude 'train_600k/*' "
    "--local-dir train_video_and_instruction, then in its train_300k: for f in *.tar.gz; do tar -xzf $f; done"
)
VIDEO_TOKEN = "<video>"
ANNOTATIONS: dict[Use, str] = {
    "caption": "video_caption_300k",
    "retrieval": "video_caption_300k",
    # VLM2Vec's download script cuts it to its first 240,000 lines, the questions; here the recipe's limit does.
    "qa": "video_240k_caption_15k",
}

FIND_VIDEO = "Find a video that contains the following visual content:"
# VLM2Vec ends it in a colon, because the video token follows; the evaluation and UME-R1 in a full stop.
WATCH_VIDEO = "Understand the content of the provided video."
ANSWER_QUESTION = "Answer a question based on the content of a video."


def open_llava_hound(config: TrainingSetConfig, root: Path, use: Use) -> list[PairSet]:
    """An annotation file, in one use.

    Raises:
        DataError: the file is missing or broken.
    """
    folder, stem = root / config.path, config.subset or ANNOTATIONS[use]
    rows = JsonRows(folder / "video_instruction" / "train" / "sft" / f"{stem}.jsonl", "llava-hound", _facts, FETCH)
    numbers, skipped = rows.of(None, config.limit)
    videos = MediaFolder(root / config.media if config.media else folder / "train_300k", f"get it: {FETCH}")
    pair_of = partial(_pair, rows, videos, use, config.frames)
    return [RowPairs(config.name or f"llava-hound/{use}", numbers, pair_of, skipped)]


CAPTION = PairKind(partial(open_llava_hound, use="caption"), ("subset", "media"))
RETRIEVAL = PairKind(partial(open_llava_hound, use="retrieval"), ("subset", "media"))
QA = PairKind(partial(open_llava_hound, use="qa"), ("subset", "media"))


def _facts(row: Row) -> RowFacts:
    if not text_at(row, "video"):
        return RowFacts(skip="no video")
    return RowFacts(skip="" if turns(row)[1] else "no caption or answer")


def turns(row: Row) -> tuple[str, str]:
    """What the human asks, without the video token, and what is told."""
    values = [text_at(turn, "value") for turn in rows_at(row, "conversations")]
    asked, told, *_ = *values, "", ""
    return asked.replace(VIDEO_TOKEN, "").strip(), told.strip()


def _pair(rows: JsonRows, videos: MediaFolder, use: Use, most_frames: int, name: str, number: int) -> Pair:
    row = rows[number]
    asked, told = turns(row)
    frames = videos.frames(row["video"], most_frames)
    query, positive = _items(use, str(number), asked, told, frames)
    # Captions of one video are as right for it as each other; so are videos of one caption, by their content.
    answer = answer_key(told) if use == "qa" else row["video"]
    return Pair(str(number), name, query, positive, answer=answer)


def _items(use: Use, number: str, asked: str, told: str, frames: tuple[Path, ...]) -> tuple[Item, Item]:
    query, positive = f"{number}/query", f"{number}/positive"
    if use == "caption":
        return Item(query, frames=frames, instruction=asked), Item(positive, told)
    if use == "retrieval":
        return Item(query, told, instruction=FIND_VIDEO), Item(positive, frames=frames, instruction=WATCH_VIDEO)
    return Item(query, asked, frames=frames, instruction=ANSWER_QUESTION), Item(positive, told)
