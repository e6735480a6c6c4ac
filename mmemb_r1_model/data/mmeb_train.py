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

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.media import MediaFolder, answer_key
from mmemb_r1_model.data.pairs import Item, Pair, PairSet
from mmemb_r1_model.data.rows import RowPairs, find_files, has_words, read_columns, text_of, usable_rows
from mmemb_r1_model.disk.errors import DataError, UnknownNameError

SPLITS = ("original", "diverse_instruction")
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


def open_mmeb_train(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    """One subset. Its texts are in memory, as Arrow columns.

    Rows that lack a side are passed over, as the published loader leaves them out.

    Raises:
        UnknownNameError: no such subset or split.
        DataError: files or columns are missing.
    """
    subset, split = config.subset, config.split or "original"
    if subset not in QUERY_INSTRUCTIONS:
        raise UnknownNameError("subset of MMEB-train", subset, SUBSETS)
    if split not in SPLITS:
        raise UnknownNameError("split of MMEB-train", split, SPLITS)
    folder = root / config.path / subset
    rows = _read_split(folder, split)
    originals = rows if split == "original" else _read_split(folder, "original")
    if originals.num_rows != rows.num_rows:
        raise DataError(
            f"{folder}: split original has {originals.num_rows} rows, {split} {rows.num_rows}; they go together row by "
            f"row. Get both again: {FETCH}"
        )
    asked = rows.slice(0, config.limit)
    has = {NO_QUERY: _has_side(asked, "qry"), NO_POSITIVE: _has_side(asked, "pos")}
    numbers, skipped = usable_rows(has)
    images = MediaFolder(root / (config.media or config.path), f"get it: {FETCH}")
    pair_of = partial(_pair, rows, originals, QUERY_INSTRUCTIONS[subset], images)
    return [RowPairs(config.name or f"mmeb-train/{subset}", numbers, pair_of, skipped)]


MMEB_TRAIN = PairKind(open_mmeb_train, ("subset", "split", "media"))


def _read_split(folder: Path, split: str) -> pa.Table:
    files = find_files(folder, [f"{split}-*.parquet", f"{split}.parquet"], FETCH)
    return read_columns(files, _REQUIRED, _OPTIONAL, f"get it again: {FETCH}")


def _has_side(rows: pa.Table, side: str) -> NDArray[np.bool_]:
    text = "qry" if side == "qry" else f"{side}_text"
    return has_words(rows[text], IMAGE_TOKEN) | has_words(rows[f"{side}_image_path"])


def _pair(
    rows: pa.Table, originals: pa.Table, query_instruction: str, media: MediaFolder, name: str, number: int
) -> Pair:
    row = {name: text_of(rows, name, number) for name in (*_REQUIRED, *_OPTIONAL)}
    original = {name: text_of(originals, name, number) for name in ("qry", "pos_text")}

    def item(side: str, instruction: str, text: str, path: str) -> Item:
        return Item(f"{number}/{side}", text, (media.file(path),) if path else (), instruction=instruction)

    words = _told_apart(_clean(row["qry"]), _clean(original["qry"]), (query_instruction,))
    query = item("query", *words, row["qry_image_path"])
    path = row["pos_image_path"]
    words = _told_apart(_clean(row["pos_text"]), _clean(original["pos_text"]), IMAGE_INSTRUCTIONS if path else ())
    positive = item("positive", *words, path)
    wrong, wrong_path = _clean(row["neg_text"]), row["neg_image_path"]
    # VisDial's negatives are images without any text. They get the instruction of the positive, as every candidate of
    # the task has in the evaluation: a negative mustn't be told by its form.
    instruction = positive.instruction if wrong_path else ""
    if wrong_path:
        wrong = split_instruction(wrong, (instruction, *IMAGE_INSTRUCTIONS))[1]
    negatives = (item("negative", instruction, wrong, wrong_path),) if wrong or wrong_path else ()
    return Pair(str(number), name, query, positive, negatives, answer_key(positive.text, [path]))


def _clean(text: str) -> str:
    # The token stands in WebQA's queries, too, which have no image.
    return text.replace(IMAGE_TOKEN, "").strip()


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
