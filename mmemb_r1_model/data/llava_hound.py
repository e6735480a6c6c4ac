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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import Item
from mmemb_r1_model.data.media import MediaFolder, answer_key
from mmemb_r1_model.data.pairs import Pair
from mmemb_r1_model.data.rows import JsonRows, Row, RowFacts

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


@dataclass(frozen=True)
class LlavaHoundPairs:
    """Rows of one annotation file, in one use.

    Attributes:
        frames: of a video, at most.
        skipped: reason → rows, of those asked for.
    """

    name: str
    use: Use
    rows: JsonRows
    numbers: NDArray[np.int64]
    media: MediaFolder
    frames: int = 8
    skipped: Mapping[str, int] = field(default_factory=dict)
    distractors: Sequence[Item] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Pair:
        number = int(self.numbers[index])
        row = self.rows[number]
        asked, told = turns(row)
        frames = self.media.frames(row["video"], self.frames)
        query, positive = _items(self.use, str(number), asked, told, frames)
        # Captions of one video are as right for it as each other; so are videos of one caption, by their content.
        answer = answer_key(told) if self.use == "qa" else row["video"]
        return Pair(str(number), self.name, query, positive, answer=answer)


def open_llava_hound(
    folder: Path,
    use: Use,
    limit: int | None = None,
    frames: int = 8,
    name: str = "",
    annotations: str = "",
    media: Path | None = None,
) -> LlavaHoundPairs:
    """Open an annotation file.

    Args:
        folder: where the repository was downloaded to.
        limit: the first rows, before any is passed over.
        annotations: another file of the same folder, without `.jsonl`.
        media: folder of the videos' folders, where it isn't `train_300k`.

    Raises:
        DataError: the file is missing or broken.
    """
    stem = annotations or ANNOTATIONS[use]
    path = folder / "video_instruction" / "train" / "sft" / f"{stem}.jsonl"
    rows = JsonRows(path, "llava-hound", _facts, FETCH)
    numbers, skipped = rows.of(None, limit)
    videos = MediaFolder(media or folder / "train_300k", FETCH)
    return LlavaHoundPairs(name or f"llava-hound/{use}", use, rows, numbers, videos, frames, skipped)


def _facts(row: Row) -> RowFacts:
    if not row.get("video"):
        return RowFacts(skip="no video")
    return RowFacts(skip="" if turns(row)[1] else "no caption or answer")


def turns(row: Row) -> tuple[str, str]:
    """What the human asks, without the video token, and what is told."""
    values = [str(turn.get("value") or "") for turn in row.get("conversations") or ()]
    asked, told, *_ = *values, "", ""
    return asked.replace(VIDEO_TOKEN, "").strip(), told.strip()


def _items(use: Use, number: str, asked: str, told: str, frames: tuple[Path, ...]) -> tuple[Item, Item]:
    query, positive = f"{number}/query", f"{number}/positive"
    if use == "caption":
        return Item(query, frames=frames, instruction=asked), Item(positive, told)
    if use == "retrieval":
        return Item(query, told, instruction=FIND_VIDEO), Item(positive, frames=frames, instruction=WATCH_VIDEO)
    return Item(query, asked, frames=frames, instruction=ANSWER_QUESTION), Item(positive, told)
