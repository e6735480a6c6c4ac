"""TIGER-Lab/MMEB-train: twenty image sets in one schema. A real row, of OK-VQA:

    qry             "<|image_1|>\\nRepresent the given image with the following question: What is the hairstyle of the
                     blond called?\\n"
    qry_image_path  "images/OK-VQA/Train/OK-VQA_image_0.jpg"
    pos_text        "pony tail"
    pos_image_path  ""
    neg_text        "husky"
    neg_image_path  ""

On disk as on the hub: `<subset>/<split>-00000-of-00001.parquet`, and `images/…` after its unzip_file.py. Only subsets
that have negatives have the last two columns (dataset card: A-OKVQA has them, CIRR doesn't).

Instruction and query are one string in the data and two fields of an item; they are told apart by the instruction's
exact words, which stand in every row of the split `original`. Sources of the strings and rows: the cards
docs/en/datasets/train/mmeb/*.md of siryuson/BottleneckTokens, two real rows a subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mmeb_harness import Item
from mmemb_r1_model.data.media import MediaFolder, answer_key
from mmemb_r1_model.data.pairs import Pair
from mmemb_r1_model.data.rows import Row, find_files, read_columns
from mmemb_r1_model.disk.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    import pyarrow as pa

MmebSplit = Literal["original", "diverse_instruction"]

FETCH = "hf download TIGER-Lab/MMEB-train --repo-type dataset --local-dir MMEB-train, then python unzip_file.py in it"
IMAGE_TOKEN = "<|image_1|>"
NO_QUERY, NO_POSITIVE = "no query", "no positive"

_QUESTION = "Represent the given image with the following question:"

#: Subset → the instruction before a query's own words.
QUERY_INSTRUCTIONS: dict[str, str] = {
    "ImageNet_1K": "Represent the given image for classification",
    "N24News": "Represent the given news image with the following caption for domain classification:",
    "HatefulMemes": (
        "Represent the given image for binary classification to determine whether it constitutes hateful speech or not"
    ),
    "VOC2007": "Identify the object shown in the image",
    "SUN397": "Identify the scene shown in the image",
    "OK-VQA": _QUESTION,
    "A-OKVQA": _QUESTION,
    "DocVQA": _QUESTION,
    "InfographicsVQA": _QUESTION,
    "ChartQA": _QUESTION,
    "Visual7W": _QUESTION,
    "VisDial": "Represent the given dialogue about an image, which is used for image retrieval:",
    "CIRR": "Given an image, find a similar everyday image with the described changes:",
    "VisualNews_t2i": "Retrieve an image of this news caption.",
    "VisualNews_i2t": "Find a caption for the news in the given photo.",
    "MSCOCO_t2i": "Find me an everyday image that matches the given caption:",
    "MSCOCO_i2t": "Find an image caption describing the given everyday image.",
    "NIGHTS": "Find a day-to-day image that looks similar to the provided image.",
    "WebQA": "Find a Wikipedia image that answers this question:",
    "MSCOCO": "Select the portion of the image that isolates the object labeled as",
}
SUBSETS = tuple(QUERY_INSTRUCTIONS)

#: Instructions of candidates that are images; candidates that are texts have none.
IMAGE_INSTRUCTIONS = (
    "Represent the given Wikipedia image with related text information:",
    "Represent the given cropped image of the object",
    "Represent the given image.",
    "Represent the given image",
)

_REQUIRED = ("qry", "qry_image_path", "pos_text", "pos_image_path")
_OPTIONAL = ("neg_text", "neg_image_path")


@dataclass(frozen=True)
class MmebTrainPairs:
    """One subset. Its texts are in memory, as Arrow columns.

    Attributes:
        skipped: reason → rows, of those asked for: rows that lack a side, as the published loader leaves them out.
        originals: the split `original`, row by row, where this is another one.
    """

    name: str
    subset: str
    rows: pa.Table
    numbers: NDArray[np.int64]
    media: MediaFolder
    skipped: Mapping[str, int] = field(default_factory=dict)
    originals: pa.Table | None = None
    distractors: Sequence[Item] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Pair:
        number = int(self.numbers[index])
        row = _row(self.rows, number)
        original = row if self.originals is None else _row(self.originals, number)
        sides = _Sides(str(number), QUERY_INSTRUCTIONS[self.subset], self.media)
        positive = sides.positive(row, original)
        return Pair(
            id=str(number),
            dataset=self.name,
            query=sides.query(row, original),
            positive=positive,
            negatives=sides.negatives(row, positive),
            answer=answer_key(positive.text, [row["pos_image_path"] or ""]),
        )


def open_mmeb_train(
    folder: Path,
    subset: str,
    split: MmebSplit = "original",
    limit: int | None = None,
    name: str = "",
    media: Path | None = None,
) -> MmebTrainPairs:
    """Open one subset.

    Args:
        folder: where the repository was downloaded to.
        limit: the first rows, before any is passed over: `dataset.select(range(n))` of the published loader.
        media: folder of `images/`, where it isn't `folder`.

    Raises:
        UnknownNameError: no such subset.
        DataError: files or columns are missing.
    """
    if subset not in QUERY_INSTRUCTIONS:
        raise UnknownNameError("subset of MMEB-train", subset, SUBSETS)
    rows = _read_split(folder, subset, split)
    originals = (
        None if split == "original" else _aligned(_read_split(folder, subset, "original"), rows, folder / subset)
    )
    numbers, skipped = _usable(rows, limit)
    images = MediaFolder(media or folder, FETCH)
    return MmebTrainPairs(name or f"mmeb-train/{subset}", subset, rows, numbers, images, skipped, originals)


def _read_split(folder: Path, subset: str, split: MmebSplit) -> pa.Table:
    files = find_files(folder / subset, [f"{split}-*.parquet", f"{split}.parquet"], FETCH)
    return read_columns(files, _REQUIRED, _OPTIONAL, FETCH)


def _aligned(originals: pa.Table, rows: pa.Table, folder: Path) -> pa.Table:
    if originals.num_rows != rows.num_rows:
        raise DataError(
            f"{folder}: split original has {originals.num_rows} rows, diverse_instruction {rows.num_rows}; they go "
            f"together row by row. Get both again: {FETCH}"
        )
    return originals


def _usable(rows: pa.Table, limit: int | None) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Numbers of rows that have both sides, and how many lack one."""
    asked = rows.slice(0, limit)
    has_query, has_positive = _has_side(asked, "qry", "qry_image_path"), _has_side(asked, "pos_text", "pos_image_path")
    counts = {NO_QUERY: int((~has_query).sum()), NO_POSITIVE: int((has_query & ~has_positive).sum())}
    skipped = {reason: count for reason, count in counts.items() if count}
    return np.flatnonzero(has_query & has_positive).astype(np.int64), skipped


def _has_side(rows: pa.Table, text: str, image: str) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    words = pc.utf8_trim_whitespace(pc.replace_substring(pc.fill_null(rows[text], ""), IMAGE_TOKEN, ""))
    has_words, has_image = pc.not_equal(words, ""), pc.not_equal(pc.fill_null(rows[image], ""), "")
    return np.asarray(pc.or_(has_words, has_image), dtype=bool)


def _row(rows: pa.Table, number: int) -> Row:
    row: Row = rows.slice(number, 1).to_pylist()[0]
    return row


@dataclass(frozen=True, slots=True)
class _Sides:
    """Items of one row."""

    number: str
    query_instruction: str
    media: MediaFolder

    def query(self, row: Row, original: Row) -> Item:
        instruction, text = _told_apart(_clean(row["qry"]), _clean(original["qry"]), (self.query_instruction,))
        return Item(f"{self.number}/query", text, self._images(row["qry_image_path"]), (), instruction)

    def positive(self, row: Row, original: Row) -> Item:
        known = IMAGE_INSTRUCTIONS if row["pos_image_path"] else ()
        instruction, text = _told_apart(_clean(row["pos_text"]), _clean(original["pos_text"]), known)
        return Item(f"{self.number}/positive", text, self._images(row["pos_image_path"]), (), instruction)

    def negatives(self, row: Row, positive: Item) -> tuple[Item, ...]:
        """The row's hard negative, if it has one.

        VisDial's are images without any text. They get the instruction of the positive, as every candidate of the
        task has in the evaluation: a negative mustn't be told by its form.
        """
        text, path = _clean(row["neg_text"]), row["neg_image_path"]
        if not text and not path:
            return ()
        instruction = positive.instruction if path else ""
        if path:
            text = split_instruction(text, (instruction, *IMAGE_INSTRUCTIONS))[1]
        return (Item(f"{self.number}/negative", text, self._images(path), (), instruction),)

    def _images(self, path: str | None) -> tuple[Path, ...]:
        return (self.media.file(path),) if path else ()


def _clean(text: str | None) -> str:
    # The token stands in WebQA's queries, too, which have no image.
    return (text or "").replace(IMAGE_TOKEN, "").strip()


def split_instruction(text: str, known: Sequence[str]) -> tuple[str, str]:
    """(instruction, own words) by the first known instruction that the text begins with; ("", text) if none fits."""
    for instruction in known:
        rest = text[len(instruction) :]
        if instruction and text.startswith(instruction) and (not rest or rest[0].isspace()):
            return instruction, rest.strip()
    return "", text


def _told_apart(text: str, original: str, known: Sequence[str]) -> tuple[str, str]:
    """(instruction, own words), where the instruction may be another one than in the same row of `original`.

    The split `diverse_instruction` paraphrases instructions (VLM2Vec's README, 2025-01) and has as many rows; the
    own words are those of the original row, and end the text. Where they don't, all is taken for own words.
    """
    instruction, words = split_instruction(original, known)
    if text == original:
        return instruction, words
    if not instruction or not text.endswith(words):
        return "", text
    return text[: len(text) - len(words)].strip(), words
