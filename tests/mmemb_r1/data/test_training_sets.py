"""Loaders of the published training sets, on small files in the published schemas."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmeb_harness import Item
from mmemb_r1_model.data import documents, llava_hound, mmeb_train
from mmemb_r1_model.data.config import TrainingSetConfig
from mmemb_r1_model.data.pairs import Pair, PairSet
from mmemb_r1_model.data.recipe import IMAGE_MIX, PUBLISHED, open_set, open_sets
from mmemb_r1_model.data.rows import JsonRows, RowFacts, RowPairs, scan_json
from mmemb_r1_model.disk.errors import DataError, OptionError, UnknownNameError

REQUEST = (
    "Represent the above input text, images, videos, or any combination of the three as embeddings. First output the "
    "thinking process in <think> </think> tags and then summarize the entire input in a word or sentence. Finally, "
    "use the <gen_emb> tag to represent the entire input."
)
MMEB_ROWS = [
    {
        "qry": "<|image_1|>\nRepresent the given image with the following question: What is the hairstyle called?\n",
        "qry_image_path": "images/OK-VQA/Train/OK-VQA_image_0.jpg",
        "pos_text": "pony tail",
        "pos_image_path": "",
        "neg_text": "husky",
        "neg_image_path": "",
    },
    {
        "qry": "<|image_1|>\nRepresent the given image with the following question: Which dog is it?\n",
        "qry_image_path": "images/OK-VQA/Train/OK-VQA_image_1.jpg",
        "pos_text": "",  # the published data has such rows in OK-VQA and A-OKVQA
        "pos_image_path": "",
        "neg_text": "",
        "neg_image_path": "",
    },
    {
        "qry": "<|image_1|>\nRepresent the given image with the following question: What hangs down her back?\n",
        "qry_image_path": "images/OK-VQA/Train/OK-VQA_image_2.jpg",
        "pos_text": "Pony  tail",
        "pos_image_path": "",
        "neg_text": "",
        "neg_image_path": "",
    },
]
CAPTIONS = [
    {
        "id": "v_1-Scene-001",
        "video": "v_1-Scene-001",
        "conversations": [
            {"from": "human", "value": "<video>\nWrite an in-depth depiction of the video, covering all its aspects."},
            {"from": "gpt", "value": "The video opens with a view of an indoor court."},
        ],
    },
    {"id": "v_2", "video": "v_2", "conversations": [{"from": "human", "value": "<video>\nElaborate."}]},
    {
        "id": "v_3",
        "video": "v_3",
        "conversations": [{"from": "human", "value": "Elaborate.\n<video>"}, {"from": "gpt", "value": "A cat. 往返"}],
    },
]


def picture(path: Path, colour: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (colour, 255 - colour, 7 * colour % 256)).save(path)
    return path


def parquet(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


def lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def open_one(root: Path, kind: str, path: str, **fields: Any) -> PairSet:
    (one,) = open_set(TrainingSetConfig(kind, path, **fields), root)
    return one


def mmeb_root(root: Path, subset: str, rows: Sequence[dict[str, Any]], split: str = "original") -> Path:
    parquet(root / "MMEB-train" / subset / f"{split}-00000-of-00001.parquet", rows)
    for row in rows:
        for column in ("qry_image_path", "pos_image_path", "neg_image_path"):
            if row.get(column):
                picture(root / "MMEB-train" / row[column])
    return root


def llava_root(root: Path, rows: Sequence[dict[str, Any]], name: str = "video_caption_300k", frames: int = 12) -> Path:
    folder = root / "train_video_and_instruction"
    lines(folder / "video_instruction" / "train" / "sft" / f"{name}.jsonl", rows)
    for video in {row["video"] for row in rows}:
        for frame in range(frames):
            picture(folder / "train_300k" / video / f"c01_{frame + 1:04d}.jpeg", frame)
    return root


def stored(colour: int, kind: str = "JPEG") -> dict[str, Any]:
    import io

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (colour, 0, 0)).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": f"{colour}.png"}


def colpali_rows(count: int = 6) -> list[dict[str, Any]]:
    rest = {"options": None, "page": "9", "model": "sonnet", "prompt": "\n  You are …", "answer_type": None}
    return [
        {
            "image": stored(row // 2, "PNG" if row // 2 % 2 else "JPEG"),
            "image_filename": f"data/pages/{row}.jpg",
            "query": f"What is on page {row}?",
            "answer": "['a word']" if row != 4 else None,
            "source": "pdf",
            **rest,
        }
        for row in range(count)
    ]


def colpali_root(root: Path) -> Path:
    """Two shards of three rows; row groups of two."""
    for shard in range(2):
        rows = colpali_rows()[shard * 3 : shard * 3 + 3]
        parquet(root / "colpali_train_set" / "data" / f"train-0000{shard}-of-00002.parquet", rows, row_group_size=2)
    return root


def ume_side(words: str, image: Any = "images/blank.jpg", thought: str = "", **media: Any) -> dict[str, Any]:
    token = "<video>" if media else "<image>"
    side = media or {"image": image}
    reply = (
        f"<think>{thought}</think><answer>In short.\n<|begin_of_box|>Boxed<|end_of_box|>\n<gen_emb>" if thought else ""
    )
    human = {"from": "human", "value": f"{token}\n{words}\n<disc_emb>\n{REQUEST}"}
    return {**side, "conversations": [human, {"from": "gpt", "value": reply}]}


def ume_rows() -> list[dict[str, Any]]:
    frames = [f"llavahound/train_video_and_instruction/train_300k/v/c01_{n:04d}.jpeg" for n in range(1, 9)]
    return [
        {
            "dataset_name": "MSCOCO_t2i",
            "qry": ume_side(
                "Find me an everyday image that matches the given caption: A meme of a cat.", thought="So …"
            ),
            "pos": ume_side(
                "Represent the given image.", "images/MSCOCO_t2i/Train/COCO.jpg", thought="There is 一只猫."
            ),
        },
        {
            "dataset_name": "llavahound_caption_retrieval",
            "qry": ume_side("Elaborate on the video.", video=frames, thought="Frames."),
            "pos": ume_side("The video opens with a court.", thought="Words."),
        },
        {
            "dataset_name": "MSCOCO_t2i",
            "qry": ume_side("Find me an everyday image that matches the given caption: Nothing."),
            "pos": ume_side(""),  # neither words nor a picture
        },
        {
            "dataset_name": "llavahound_qa",
            "qry": ume_side("Answer a question based on the content of a video. Who wins?", video=frames),
            "pos": ume_side("Nobody."),
        },
        {
            "dataset_name": "MSCOCO_t2i",
            "qry": ume_side("Find me an everyday image that matches the given caption: A dog."),
            "pos": ume_side("Represent the given image.", ["./MMEB-train/images/MSCOCO_t2i/Train/COCO.jpg"]),
        },
        {
            "dataset_name": "openbmb/VisRAG-Ret-Train-In-domain-data",
            "qry": ume_side(f"{documents.QUERY_INSTRUCTIONS['PlotQA']} How many bars?"),
            "pos": ume_side(documents.PAGE_INSTRUCTIONS["PlotQA"], "visrag/images/2.jpgg"),
        },
    ]


def ume_root(root: Path, rows: Sequence[dict[str, Any]] | None = None, array: bool = True) -> Path:
    rows = ume_rows() if rows is None else rows
    folder = root / "UME-sft-train"
    folder.mkdir(parents=True, exist_ok=True)
    if array:
        text = json.dumps(rows, indent=4, ensure_ascii=False)
        (folder / "UME-sft-train.json").write_text(text, encoding="utf-8")
    else:
        lines(folder / "UME-sft-train.jsonl", rows)
    media = root / "MMEB-train"
    picture(media / "images/MSCOCO_t2i/Train/COCO.jpg")
    picture(media / "visrag/images/2.jpg")
    for frame in range(1, 9):
        picture(media / f"llavahound/train_video_and_instruction/train_300k/v/c01_{frame:04d}.jpeg", frame)
    return root


def rl_root(root: Path) -> Path:
    folder = root / "UME-rl-train"
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "qry_text": "Find a video that contains the following visual content: A court.",
            "qry_image": "",
            "qry_video": [""],
            "pos_text": "Understand the content of the provided video.",
            "pos_image": "",
            "pos_video": ["llavahound/v/c01_0001.jpeg", "llavahound/v/c01_0002.jpeg"],
            "solution": "<embedding>",
        },
        {
            "qry_text": "Represent the given image for classification",
            "qry_image": "images/ImageNet_1K/Train/image_0.jpg",
            "pos_text": "mountain tent",
            "pos_image": "",
            "solution": "<embedding>",
        },
    ]
    (folder / "UME-rl-train.json").write_text(json.dumps(rows), encoding="utf-8")
    for path in ("llavahound/v/c01_0001.jpeg", "llavahound/v/c01_0002.jpeg", "images/ImageNet_1K/Train/image_0.jpg"):
        picture(root / "MMEB-train" / path)
    return root


def visrag_root(root: Path) -> Path:
    rows = [
        {"query": "How many groups of bars are there ?", "image": stored(1), "source": "PlotQA"},
        {"query": "Which bar is highest?", "image": stored(1), "source": "PlotQA"},
        {"query": "Where?", "image": stored(2), "source": "Elsewhere"},
    ]
    parquet(root / "VisRAG-Ret-Train-In-domain-data" / "data" / "train-00000-of-00001.parquet", rows)
    return root


# What a set's first pair is


def test_mmeb_train_first_pair(tmp_path: Path) -> None:
    pairs = open_one(mmeb_root(tmp_path, "OK-VQA", MMEB_ROWS), "mmeb-train", "MMEB-train", subset="OK-VQA")
    assert pairs.name == "mmeb-train/OK-VQA"
    assert pairs[0] == Pair(
        id="0",
        dataset="mmeb-train/OK-VQA",
        query=Item(
            "0/query",
            "What is the hairstyle called?",
            images=(tmp_path / "MMEB-train/images/OK-VQA/Train/OK-VQA_image_0.jpg",),
            instruction="Represent the given image with the following question:",
        ),
        positive=Item("0/positive", "pony tail"),
        negatives=(Item("0/negative", "husky"),),
        answer="pony tail",
    )
    assert [pair.id for pair in pairs] == ["0", "2"]
    assert pairs[1].answer == pairs[0].answer
    assert pairs[1].negatives == ()
    assert pairs.skipped == {"no positive": 1}  # type: ignore[attr-defined]


def test_mmeb_train_negatives_that_are_images_look_like_candidates(tmp_path: Path) -> None:
    row = {
        "qry": f"{mmeb_train.QUERY_INSTRUCTIONS['VisDial']} Q:is this a child\nA:no\n\n",
        "qry_image_path": "",
        "pos_text": "<|image_1|>\nRepresent the given image\n",
        "pos_image_path": "images/VisDial/Train/VisDial_image_0.jpg",
        "neg_text": "",
        "neg_image_path": "images/VisDial/Train/VisDial_image_61616.jpg",
    }
    pair = open_one(mmeb_root(tmp_path, "VisDial", [row]), "mmeb-train", "MMEB-train", subset="VisDial")[0]
    assert (pair.query.text, pair.query.images) == ("Q:is this a child\nA:no", ())
    assert pair.query.instruction == "Represent the given dialogue about an image, which is used for image retrieval:"
    assert (pair.positive.text, pair.positive.instruction) == ("", "Represent the given image")
    (negative,) = pair.negatives
    assert negative.images == (tmp_path / "MMEB-train/images/VisDial/Train/VisDial_image_61616.jpg",)
    assert (negative.text, negative.instruction) == ("", "Represent the given image")
    assert pair.answer == "images/VisDial/Train/VisDial_image_0.jpg"


def test_mmeb_train_without_negative_columns_and_with_a_token_but_no_image(tmp_path: Path) -> None:
    row = {
        "qry": "<|image_1|>\nFind a Wikipedia image that answers this question: Which body part?\n",
        "qry_image_path": "",
        "pos_text": "<|image_1|>\nRepresent the given Wikipedia image with related text information: A 1913-D.\n",
        "pos_image_path": "images/WebQA/Train/30272327.jpg",
    }
    pair = open_one(mmeb_root(tmp_path, "WebQA", [row]), "mmeb-train", "MMEB-train", subset="WebQA")[0]
    assert (pair.query.instruction, pair.query.text) == (
        "Find a Wikipedia image that answers this question:",
        "Which body part?",
    )
    assert (pair.positive.instruction, pair.positive.text) == (
        "Represent the given Wikipedia image with related text information:",
        "A 1913-D.",
    )
    assert pair.negatives == ()


@pytest.mark.parametrize("subset", mmeb_train.SUBSETS)
def test_mmeb_train_instructions_are_told_from_words(tmp_path: Path, subset: str) -> None:
    instruction = mmeb_train.QUERY_INSTRUCTIONS[subset]
    for words in ("", "own words: 1"):
        query = f"<|image_1|>\n{instruction}{' ' * bool(words)}{words}\n"
        row = {"qry": query, "qry_image_path": "", "pos_text": "label", "pos_image_path": ""}
        mmeb_root(tmp_path, subset, [row])
        pair = open_one(tmp_path, "mmeb-train", "MMEB-train", subset=subset)[0]
        assert (pair.query.instruction, pair.query.text) == (instruction, words)


def test_mmeb_train_paraphrased_instructions_are_told_by_the_shared_words(tmp_path: Path) -> None:
    mmeb_root(tmp_path, "OK-VQA", MMEB_ROWS)
    other = [
        {**MMEB_ROWS[0], "qry": "<|image_1|>\nAnswer this about the picture: What is the hairstyle called?\n"},
        MMEB_ROWS[1],
        {**MMEB_ROWS[2], "qry": "<|image_1|>\nSomething else altogether\n"},
    ]
    mmeb_root(tmp_path, "OK-VQA", other, "diverse_instruction")
    pairs = open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA", split="diverse_instruction")
    told = [(pair.query.instruction, pair.query.text) for pair in pairs]
    assert told[0] == ("Answer this about the picture:", "What is the hairstyle called?")
    assert told[1] == ("", "Something else altogether")
    mmeb_root(tmp_path, "OK-VQA", other[:2], "diverse_instruction")
    with pytest.raises(DataError, match="original has 3 rows, diverse_instruction 2"):
        open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA", split="diverse_instruction")


def test_llava_hound_first_pairs(tmp_path: Path) -> None:
    path = "train_video_and_instruction"
    llava_root(tmp_path, CAPTIONS)
    spread = [0, 1, 3, 4, 6, 7, 9, 11]  # linspace(0, 11, 8), truncated
    frames = tuple(tmp_path / path / f"train_300k/v_1-Scene-001/c01_{place + 1:04d}.jpeg" for place in spread)
    caption = "The video opens with a view of an indoor court."
    pairs = open_one(tmp_path, "llava-hound-caption", path)
    assert pairs[0] == Pair(
        id="0",
        dataset="llava-hound/caption",
        query=Item(
            "0/query", frames=frames, instruction="Write an in-depth depiction of the video, covering all its aspects."
        ),
        positive=Item("0/positive", caption),
        answer="v_1-Scene-001",
    )
    assert open_one(tmp_path, "llava-hound-retrieval", path)[0] == Pair(
        id="0",
        dataset="llava-hound/retrieval",
        query=Item("0/query", caption, instruction="Find a video that contains the following visual content:"),
        positive=Item("0/positive", frames=frames, instruction="Understand the content of the provided video."),
        answer="v_1-Scene-001",
    )
    assert [pair.id for pair in pairs] == ["0", "2"]
    assert pairs[1].positive.text == "A cat. 往返"
    assert pairs.skipped == {"no caption or answer": 1}  # type: ignore[attr-defined]


def test_llava_hound_questions_and_frames(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<video>\nWhat is the setting?"}, {"from": "gpt", "value": "A newsroom."}]
    rows = [{"video": "v", "conversations": turns, "id": f"v_{number}"} for number in range(3)]
    llava_root(tmp_path, rows, "video_240k_caption_15k", frames=3)
    path = "train_video_and_instruction"
    pairs = open_one(tmp_path, "llava-hound-qa", path, limit=2)
    assert len(pairs) == 2
    assert (pairs[0].query.instruction, pairs[0].query.text) == (
        "Answer a question based on the content of a video.",
        "What is the setting?",
    )
    assert pairs[0].answer == pairs[1].answer == "a newsroom."
    assert [frame.name for frame in pairs[0].query.frames] == ["c01_0001.jpeg", "c01_0002.jpeg", "c01_0003.jpeg"]
    two = open_one(tmp_path, "llava-hound-qa", path, frames=2)[0].query.frames
    assert [frame.name for frame in two] == ["c01_0001.jpeg", "c01_0003.jpeg"]


def test_colpali_first_pair(tmp_path: Path) -> None:
    pairs = open_one(colpali_root(tmp_path), "colpali", "colpali_train_set")
    first = pairs[0]
    (page,) = first.query.images
    assert page.read_bytes() == stored(0)["bytes"]
    assert (page.suffix, page.parents[1]) == (".jpg", tmp_path / "colpali_train_set/pages")
    assert first == Pair(
        id="0",
        dataset="colpali",
        query=Item(
            "0/query",
            "What is on page 0?",
            images=(page,),
            instruction="Represent the given image with the following question:",
        ),
        positive=Item("0/positive", "['a word']"),
        answer="['a word']",
    )
    assert [pair.id for pair in pairs] == ["0", "1", "2", "3", "5"]
    assert pairs[1].query.images == first.query.images  # the same page: one file
    assert pairs[2].query.images[0].suffix == ".png"
    assert pairs.skipped == {"no answer": 1}  # type: ignore[attr-defined]


def test_visrag_first_pair(tmp_path: Path) -> None:
    pairs = open_one(visrag_root(tmp_path), "visrag", "VisRAG-Ret-Train-In-domain-data")
    first = pairs[0]
    (page,) = first.positive.images
    assert first == Pair(
        id="0",
        dataset="visrag",
        query=Item(
            "0/query", "How many groups of bars are there ?", instruction=documents.QUERY_INSTRUCTIONS["PlotQA"]
        ),
        positive=Item(
            "0/positive",
            images=(page,),
            instruction="A numerical data visualization, such as bar charts or line graphs.",
        ),
        answer=page.name,
    )
    assert pairs[1].answer == first.answer != pairs[2].answer
    assert (pairs[2].query.instruction, pairs[2].positive.instruction) == ("", "")


@pytest.mark.parametrize("array", [True, False])
def test_ume_sft(tmp_path: Path, array: bool) -> None:
    opened = {
        one.name: one
        for one in open_set(TrainingSetConfig("ume-sft", "UME-sft-train"), ume_root(tmp_path, array=array))
    }
    assert list(opened) == [
        "ume-sft/MSCOCO_t2i",
        "ume-sft/llavahound_caption_retrieval",
        "ume-sft/llavahound_qa",
        "ume-sft/openbmb/VisRAG-Ret-Train-In-domain-data",
    ]
    image = tmp_path / "MMEB-train/images/MSCOCO_t2i/Train/COCO.jpg"
    images = opened["ume-sft/MSCOCO_t2i"]
    assert images[0] == Pair(
        id="0",
        dataset="ume-sft/MSCOCO_t2i",
        query=Item(
            "0/query", "A meme of a cat.", instruction="Find me an everyday image that matches the given caption:"
        ),
        positive=Item("0/positive", images=(image,), instruction="Represent the given image."),
        answer="images/MSCOCO_t2i/Train/COCO.jpg",
        rationales={"query": "So …\nIn short.\nBoxed", "positive": "There is 一只猫.\nIn short.\nBoxed"},
    )
    assert [pair.id for pair in images] == ["0", "4"]
    assert images[1].answer == images[0].answer
    assert images[1].rationales == {}
    assert images.skipped == {"no positive": 1}  # type: ignore[attr-defined]

    caption = opened["ume-sft/llavahound_caption_retrieval"][0]
    assert (caption.query.instruction, caption.query.text) == ("Elaborate on the video.", "")
    assert (len(caption.query.frames), caption.query.images) == (8, ())
    assert caption.positive == Item("1/positive", "The video opens with a court.")
    question = opened["ume-sft/llavahound_qa"][0]
    assert (question.query.instruction, question.query.text) == (llava_hound.ANSWER_QUESTION, "Who wins?")
    page = opened["ume-sft/openbmb/VisRAG-Ret-Train-In-domain-data"][0]
    assert (page.query.instruction, page.query.text) == (documents.QUERY_INSTRUCTIONS["PlotQA"], "How many bars?")
    assert page.positive.images == (tmp_path / "MMEB-train/visrag/images/2.jpg",)
    assert (page.positive.instruction, page.positive.text) == (documents.PAGE_INSTRUCTIONS["PlotQA"], "")


def test_ume_sft_subset_frames_and_limit(tmp_path: Path) -> None:
    ume_root(tmp_path)
    limited = open_one(tmp_path, "ume-sft", "UME-sft-train", subset="MSCOCO_t2i", limit=2, name="mine")
    assert (limited.name, [pair.id for pair in limited]) == ("mine", ["0"])  # the second of its rows is passed over
    qa = open_one(tmp_path, "ume-sft", "UME-sft-train", subset="llavahound_qa", frames=2)[0]
    assert [path.name for path in qa.query.frames] == ["c01_0001.jpeg", "c01_0008.jpeg"]
    with pytest.raises(UnknownNameError, match="llavahound_qa"):
        open_one(tmp_path, "ume-sft", "UME-sft-train", subset="llavahound_q")


def test_ume_rl(tmp_path: Path) -> None:
    pairs = open_one(rl_root(tmp_path), "ume-rl", "UME-rl-train")
    media = tmp_path / "MMEB-train"
    assert pairs[0] == Pair(
        id="0",
        dataset="ume-rl",
        query=Item("0/query", "A court.", instruction=llava_hound.FIND_VIDEO),
        positive=Item(
            "0/positive",
            frames=(media / "llavahound/v/c01_0001.jpeg", media / "llavahound/v/c01_0002.jpeg"),
            instruction=llava_hound.WATCH_VIDEO,
        ),
        answer="llavahound/v/c01_0001.jpeg\x1fllavahound/v/c01_0002.jpeg",
    )
    assert pairs[1].query == Item(
        "1/query",
        images=(media / "images/ImageNet_1K/Train/image_0.jpg",),
        instruction="Represent the given image for classification",
    )
    assert pairs[1].positive == Item("1/positive", "mountain tent")
    assert pairs[1].rationales == {}


# What holds for every set

MAKERS: dict[str, Callable[[Path], tuple[Path, TrainingSetConfig]]] = {
    "mmeb-train": lambda root: (
        mmeb_root(root, "OK-VQA", MMEB_ROWS * 5),
        TrainingSetConfig("mmeb-train", "MMEB-train", subset="OK-VQA"),
    ),
    "llava-hound": lambda root: (
        llava_root(root, CAPTIONS * 5),
        TrainingSetConfig("llava-hound-caption", "train_video_and_instruction"),
    ),
    "colpali": lambda root: (colpali_root(root), TrainingSetConfig("colpali", "colpali_train_set")),
    "visrag": lambda root: (visrag_root(root), TrainingSetConfig("visrag", "VisRAG-Ret-Train-In-domain-data")),
    "ume-sft": lambda root: (
        ume_root(root, ume_rows() * 5),
        TrainingSetConfig("ume-sft", "UME-sft-train", subset="MSCOCO_t2i"),
    ),
    "ume-rl": lambda root: (rl_root(root), TrainingSetConfig("ume-rl", "UME-rl-train")),
}


def _read(pairs_and_index: tuple[PairSet, int]) -> Pair:
    pairs, index = pairs_and_index
    return pairs[index]


@pytest.mark.parametrize("kind", MAKERS)
def test_every_set_reads_the_same_in_any_order_copy_and_process(tmp_path: Path, kind: str) -> None:
    root, config = MAKERS[kind](tmp_path)
    (pairs,) = open_set(config, root)
    # Loader processes first, from one open set whose files nobody has opened yet, all at once.
    order = np.random.default_rng(0).permutation(len(pairs)).tolist()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        elsewhere = dict(zip(order, pool.map(_read, [(pairs, index) for index in order], chunksize=1), strict=True))
        pool.close()  # they end by themselves: a signal may meet a handler that they have from this process
        pool.join()
    in_order = [pairs[index] for index in range(len(pairs))]
    assert [elsewhere[index] for index in range(len(pairs))] == in_order
    assert len({pair.id for pair in in_order}) == len(in_order) > 1
    assert {pair.dataset for pair in in_order} == {pairs.name}
    assert pairs.distractors == ()
    copied = pickle.loads(pickle.dumps(pairs))
    (again,) = open_set(config, root)
    for index in order:
        assert pairs[index] == copied[index] == again[index] == in_order[index]
    assert not list(root.rglob("*.tmp"))


# What is kept beside the data


def test_the_index_is_kept_and_built_anew_when_the_file_changes(tmp_path: Path) -> None:
    seen: list[int] = []

    def facts(row: dict[str, Any]) -> RowFacts:
        seen.append(row["n"])
        return RowFacts(skip="odd" if row["n"] % 2 else "")

    path = lines(tmp_path / "rows.jsonl", [{"n": n} for n in range(4)])
    rows = JsonRows(path, "test", facts, "hf download …")
    assert seen == [0, 1, 2, 3]
    assert (rows.of(None, None)[0].tolist(), rows.of(None, 3)[1]) == ([0, 2], {"odd": 1})
    index = path.with_name("rows.jsonl.test-index.npz")
    assert JsonRows(path, "test", facts, "")[2] == {"n": 2}
    assert len(seen) == 4  # read from the kept index

    lines(path, [{"n": n, "more": "words"} for n in range(4, 9)])
    assert JsonRows(path, "test", facts, "")[4] == {"n": 8, "more": "words"}
    assert seen[4:] == [4, 5, 6, 7, 8]

    os.utime(path, ns=(1, 1))  # the same size, another time
    assert len(JsonRows(path, "test", facts, "")) == 5
    assert len(seen) == 14
    index.write_bytes(index.read_bytes()[:100])  # a kept index that isn't whole
    assert len(JsonRows(path, "test", facts, "")) == 5
    assert len(seen) == 19


def test_an_index_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path / "rows.jsonl", [{"n": 1}])

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mmemb_r1_model.data.rows.np.savez", refuse)
    with pytest.warns(UserWarning, match=r"can't keep .*test-index.npz \(Permission denied\)"):
        assert JsonRows(path, "test", lambda row: RowFacts(), "")[0] == {"n": 1}


def test_rows_of_an_array_lie_where_the_index_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"n": n, "text": '往返 "quoted" \\ ] }, {' * (n % 7), "inner": [{"a": [1, 2]}, None]} for n in range(60)]
    monkeypatch.setattr("mmemb_r1_model.data.rows._CHUNK", 37)  # characters and rows torn at every place
    for name, text in {
        "one": json.dumps(rows, ensure_ascii=False),
        "many": "\n" + json.dumps(rows, indent=4, ensure_ascii=False) + "\n\n",
        "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    }.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        opened = JsonRows(path, "test", lambda row: RowFacts(), "")
        assert [opened[number] for number in range(len(opened))] == rows


def test_pages_are_written_a_row_group_at_a_time_and_once(tmp_path: Path) -> None:
    pairs = open_one(colpali_root(tmp_path), "colpali", "colpali_train_set")
    pages = tmp_path / "colpali_train_set" / "pages"
    assert not pages.exists()
    first = pairs[0].query.images[0]
    assert [path.name for path in pages.glob("*.json")] == ["train-00000-of-00002-00000.json"]
    written = first.stat().st_mtime_ns
    assert open_one(tmp_path, "colpali", "colpali_train_set")[0].query.images == (first,)
    assert first.stat().st_mtime_ns == written
    first.unlink()
    assert pairs[0].query.images[0].read_bytes() == stored(0)["bytes"]
    # Another revision of the parquet file: other pages under the same row numbers.
    rows = [{**row, "image": stored(200)} for row in colpali_rows()[:3]]
    parquet(tmp_path / "colpali_train_set/data/train-00000-of-00002.parquet", rows, row_group_size=2)
    assert open_one(tmp_path, "colpali", "colpali_train_set")[0].query.images[0].read_bytes() == stored(200)["bytes"]


def test_fifty_thousand_rows_are_scanned_once_and_open_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = CAPTIONS[0]
    path = "train_video_and_instruction"
    llava_root(tmp_path, [row], frames=1)
    text = (json.dumps(row) + "\n") * 50_000
    (tmp_path / path / "video_instruction/train/sft/video_caption_300k.jsonl").write_text(text, encoding="utf-8")
    scanned = [0]

    def counting(file: Path, fetch: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
        for placed in scan_json(file, fetch):
            scanned[0] += 1
            yield placed

    monkeypatch.setattr("mmemb_r1_model.data.rows.scan_json", counting)
    open_one(tmp_path, "llava-hound-caption", path)
    assert scanned == [50_000]
    tracemalloc.start()
    pairs = open_one(tmp_path, "llava-hound-caption", path)
    assert pairs[49_999].id == "49999"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert scanned == [50_000]
    assert peak < 8 << 20


# What is refused


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    for kind, path, fetched in (
        ("mmeb-train", "MMEB-train", "hf download TIGER-Lab/MMEB-train"),
        ("llava-hound-qa", "llava", "hf download ShareGPTVideo/train_video_and_instruction"),
        ("colpali", "colpali", "hf download vidore/colpali_train_set"),
        ("visrag", "visrag", "hf download openbmb/VisRAG-Ret-Train-In-domain-data"),
        ("ume-sft", "ume", "hf download zhibinlan/UME-sft-train"),
        ("ume-rl", "ume", "hf download zhibinlan/UME-rl-train"),
    ):
        subset = "OK-VQA" if kind == "mmeb-train" else ""
        with pytest.raises(DataError, match=fetched) as refused:
            open_one(tmp_path, kind, path, subset=subset)  # type: ignore[arg-type]
        assert str(tmp_path / path) in str(refused.value)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "MMEB-train/OK-VQA/original-00000-of-00001.parquet", [{"qry": "a", "pos_text": "b"}])
    with pytest.raises(
        DataError, match=r"original-.*parquet lacks the column 'qry_image_path' \(found: qry, pos_text\)"
    ):
        open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA")
    parquet(tmp_path / "visrag/data/train-00000-of-00001.parquet", [{"query": "a", "source": "PlotQA"}])
    with pytest.raises(DataError, match="lacks the column 'image'"):
        open_one(tmp_path, "visrag", "visrag")


def test_missing_media_are_an_error_of_the_pair_that_needs_them(tmp_path: Path) -> None:
    pairs = open_one(mmeb_root(tmp_path, "OK-VQA", MMEB_ROWS), "mmeb-train", "MMEB-train", subset="OK-VQA")
    gone = tmp_path / "MMEB-train/images/OK-VQA/Train/OK-VQA_image_0.jpg"
    gone.unlink()
    assert pairs[1].id == "2"
    with pytest.raises(DataError, match=f"media file {gone} is missing; get it: hf download"):
        pairs[0]

    llava_root(tmp_path, CAPTIONS)
    folder = tmp_path / "train_video_and_instruction/train_300k/v_1-Scene-001"
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(DataError, match=f"frame folder {folder} is missing or holds no picture; get it: hf download"):
        open_one(tmp_path, "llava-hound-caption", "train_video_and_instruction")[0]

    ume = open_one(ume_root(tmp_path), "ume-sft", "UME-sft-train", subset="MSCOCO_t2i", media="nowhere")
    with pytest.raises(DataError, match=f"media file {tmp_path}/nowhere/images/MSCOCO_t2i/Train/COCO.jpg is missing"):
        ume[0]

    rows = [{**colpali_rows()[0], "image": {"bytes": None, "path": "x.jpg"}}, colpali_rows()[1]]
    parquet(tmp_path / "c/data/train-00000-of-00001.parquet", rows)
    pages = open_one(tmp_path, "colpali", "c")
    assert pages[1].id == "1"
    with pytest.raises(DataError, match="row 0 of the data set has no image"):
        pages[0]


def test_paths_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    for path in ("../secret.jpg", "/etc/passwd"):
        mmeb_root(tmp_path, "OK-VQA", [{**MMEB_ROWS[0], "qry_image_path": ""}])
        parquet(
            tmp_path / "MMEB-train/OK-VQA/original-00000-of-00001.parquet", [{**MMEB_ROWS[0], "qry_image_path": path}]
        )
        with pytest.raises(DataError, match=f"media path '{path}' is not one below"):
            open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA")[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            '{"video": "a", "conversations": []}\n{"video": "b", "conv',
            r"line 2 is not valid JSON \(the file ends within",
        ),
        ('{"video": "a"}\n{"video: "b"}\n{"video": "c"}\n', "line 2 is not valid JSON: "),
        ("[1, 2]\n", r"row 0: expected an object, found int"),
        ('{"video": "a"}\n"text"\n', "line 2: expected an object, found str"),
        ('[{"video": "a"}, {"video": "b", "conv', r"row 1 \(byte 17\): the file ends within it"),
        ('[{"video": "a"},', r"row 1 \(byte 16\): the file ends within it"),
        ('{"video": "a", "conversations": ["words"]}\n', r"row 0 \(byte 0\) is not laid out as published"),
    ],
)
def test_broken_json_is_named_by_its_place(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "llava/video_instruction/train/sft/video_caption_300k.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=what) as refused:
        open_one(tmp_path, "llava-hound-caption", "llava")
    assert str(path) in str(refused.value)
    assert not list(path.parent.glob("*.npz"))


def test_a_file_that_changes_in_use_is_noticed(tmp_path: Path) -> None:
    pairs = open_one(ume_root(tmp_path), "ume-sft", "UME-sft-train", subset="MSCOCO_t2i")
    path = tmp_path / "UME-sft-train/UME-sft-train.json"
    path.write_text(path.read_text(encoding="utf-8").replace("COCO", "", 1), encoding="utf-8")
    with pytest.raises(DataError, match=r"UME-sft-train.json was changed while in use \(row 4\)"):
        pairs[1]


# The recipe


def test_the_published_mix(tmp_path: Path) -> None:
    assert len(PUBLISHED) == 25
    assert sum(config.weight for config in PUBLISHED) == 52
    assert sum(weight for _, weight in IMAGE_MIX.values()) == 15
    assert set(IMAGE_MIX) == set(mmeb_train.SUBSETS)
    assert {config.kind: config.weight for config in PUBLISHED if config.kind != "mmeb-train"} == {
        "colpali": 10,
        "visrag": 12,
        "llava-hound-caption": 5,
        "llava-hound-retrieval": 5,
        "llava-hound-qa": 5,
    }
    row = {"qry": "words", "qry_image_path": "", "pos_text": "words", "pos_image_path": ""}
    for subset in mmeb_train.SUBSETS:
        mmeb_root(tmp_path, subset, [row, row])
    colpali_root(tmp_path)
    visrag_root(tmp_path)
    llava_root(tmp_path, CAPTIONS)
    llava_root(tmp_path, CAPTIONS, "video_240k_caption_15k")
    opened = open_sets(PUBLISHED, tmp_path)
    assert [weight for _, weight in opened] == [config.weight for config in PUBLISHED]
    assert len({pairs.name for pairs, _ in opened}) == 25
    assert all(isinstance(pairs[0], Pair) for pairs, _ in opened)


def test_several_sets_of_one_entry_share_its_weight_by_their_pairs(tmp_path: Path) -> None:
    ume_root(tmp_path)
    opened = open_sets([TrainingSetConfig("ume-sft", "UME-sft-train", weight=10)], tmp_path)
    assert [(len(pairs), weight) for pairs, weight in opened] == [(2, 4), (1, 2), (1, 2), (1, 2)]
    assert all(isinstance(pairs, RowPairs) for pairs, _ in opened)


def test_names_and_fields_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    mmeb_root(tmp_path, "OK-VQA", MMEB_ROWS)
    config = TrainingSetConfig("mmeb-train", "MMEB-train", subset="OK-VQA")
    with pytest.raises(OptionError, match="two training sets are called 'mmeb-train/OK-VQA'"):
        open_sets([config, config], tmp_path)
    with pytest.raises(UnknownNameError, match=r"no subset of MMEB-train named 'OKVQA'. Did you mean 'OK-VQA'"):
        open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OKVQA")
    with pytest.raises(UnknownNameError, match=r"no split of MMEB-train named 'orginal'. Did you mean 'original'"):
        open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA", split="orginal")
    with pytest.raises(OptionError, match="colpali has no subset; leave out 'pdf'"):
        open_one(tmp_path, "colpali", "colpali_train_set", subset="pdf")
    for field, value in (("limit", 0), ("frames", 0), ("weight", 0.0)):
        with pytest.raises(OptionError, match=field):
            TrainingSetConfig("colpali", "colpali_train_set", **{field: value})  # type: ignore[arg-type]


def test_the_limit_counts_rows_that_are_passed_over(tmp_path: Path) -> None:
    mmeb_root(tmp_path, "OK-VQA", MMEB_ROWS)
    pairs = open_one(tmp_path, "mmeb-train", "MMEB-train", subset="OK-VQA", limit=2)
    assert [pair.id for pair in pairs] == ["0"]


# What isn't text where text is meant

ROOTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mmeb-train": (lambda root: mmeb_root(root, "OK-VQA", MMEB_ROWS), "MMEB-train"),
    "llava-hound-caption": (lambda root: llava_root(root, CAPTIONS), "train_video_and_instruction"),
    "colpali": (colpali_root, "colpali_train_set"),
    "visrag": (visrag_root, "VisRAG-Ret-Train-In-domain-data"),
    "ume-sft": (ume_root, "UME-sft-train"),
    "ume-rl": (rl_root, "UME-rl-train"),
}
STRANGE: tuple[Any, ...] = (None, "", 7, 0.5, True, [1], [None], [["a"]], {"strange": 1}, "²", "a\0b", "x" * 5000, [])


def spoiled(value: Any, strange: Any, place: tuple[str | int, ...]) -> Any:
    """A copy of a JSON value with something else in one place."""
    if not place:
        return strange
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[place[0]] = spoiled(value[place[0]], strange, place[1:])
    return copied


def places_in(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place within a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in inner:
        yield (*place, key)
        yield from places_in(entry, (*place, key))


def read_all(root: Path, kind: str, path: str) -> None:
    """Every pair, or the one line that says why not."""
    said = ""
    try:
        for pairs in open_set(TrainingSetConfig(kind, path, subset="OK-VQA" if kind == "mmeb-train" else ""), root):
            for index in range(len(pairs)):
                with contextlib.suppress(DataError):
                    pairs[index]
    except DataError as error:
        said = str(error)
    assert not said or (str(root) in said and "\n" not in said)


@pytest.mark.parametrize("kind", [kind for kind in ROOTS if kind.startswith(("ume", "llava"))])
def test_a_json_field_of_another_kind_is_one_line_or_passed_over(kind: str, tmp_path: Path) -> None:
    make, path = ROOTS[kind]
    (file,) = (path for path in make(tmp_path).rglob("*.json*") if "image" not in path.name)
    is_array = file.read_text().lstrip().startswith("[")
    rows = json.loads(file.read_text()) if is_array else [json.loads(line) for line in file.read_text().splitlines()]
    for place in places_in(rows[0]):
        for strange in STRANGE:
            now = [spoiled(rows[0], strange, place), *rows[1:]]
            file.write_text(json.dumps(now) if is_array else "\n".join(map(json.dumps, now)))
            read_all(tmp_path, kind, path)


@pytest.mark.parametrize("kind", ["mmeb-train", "colpali", "visrag"])
def test_a_column_of_another_kind_is_one_line_or_passed_over(kind: str, tmp_path: Path) -> None:
    make, path = ROOTS[kind]
    file = sorted(make(tmp_path).rglob("*.parquet"))[0]
    table = pq.read_table(file)
    for column in table.column_names:
        for strange in (*STRANGE, b"\xff\xd8"):
            cells = pa.array([strange] * table.num_rows)
            if pa.types.is_struct(cells.type) and not cells.type.num_fields:
                continue
            pq.write_table(table.set_column(table.column_names.index(column), column, cells), file)
            read_all(tmp_path, kind, path)
