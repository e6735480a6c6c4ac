"""The 36 image tasks: one table shape, three record shapes. Source: protocol of the official parsers.

Row: qry_inst, qry_text, qry_img_path, tgt_inst, tgt_text (list), tgt_img_path (list); the lists are parallel,
their first entries are the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mmeb_harness import DataError, Item, Layout, Samples, Source
from mmeb_tasks.readers.builder import SamplesBuilder, clean_instruction
from mmeb_tasks.readers.media import MediaFolder
from mmeb_tasks.readers.tables import Row, Table, read_rows

ImageReader = Literal["image_cls", "image_qa", "image_i2t", "image_t2i", "image_i2i_vg"]

IMAGE_ROOT = "image-tasks"
COLUMNS = ("qry_inst", "qry_text", "qry_img_path", "tgt_inst", "tgt_text", "tgt_img_path")

_QUERY_LAYOUT: dict[ImageReader, Layout] = {
    "image_cls": "classification",
    "image_i2t": "classification",
    "image_qa": "question",
    "image_i2i_vg": "question",
    "image_t2i": "text_query",
}


@dataclass(frozen=True)
class ImageLayout:
    """What the reader must know of one image task.

    Attributes:
        dialogue: VisDial, whose queries end in one more newline in the official input.
    """

    reader: ImageReader
    table: Table
    dialogue: bool = False


def read_image_task(layout: ImageLayout, data: Path) -> Samples:
    """Read one image task."""
    media, builder = MediaFolder(data), SamplesBuilder()
    for number, row in enumerate(read_rows(data, layout.table, COLUMNS)):
        _check_lists(number, row)
        own = _candidates(layout, row, media, builder)
        builder.query(_query(layout, str(number), row, media), own, {own[0]: 1.0})
    return builder.build(pooled=True)


def _query(layout: ImageLayout, query_id: str, row: Row, media: MediaFolder) -> Item:
    kind: Layout = "dialogue_query" if layout.dialogue else _QUERY_LAYOUT[layout.reader]
    images: tuple[Path, ...] = ()
    if layout.reader != "image_t2i":
        if not row["qry_img_path"]:
            raise DataError(f"row {query_id} has no qry_img_path")
        images = (media.file(f"{IMAGE_ROOT}/{row['qry_img_path']}"),)
    return Item(
        id=query_id,
        text=row["qry_text"] or "",
        images=images,
        instruction=clean_instruction(row["qry_inst"]),
        source=Source(kind, row["qry_inst"]),
    )


def _candidates(layout: ImageLayout, row: Row, media: MediaFolder, builder: SamplesBuilder) -> list[str]:
    if layout.reader in ("image_t2i", "image_i2i_vg"):
        return _image_candidates(layout.reader, row, media, builder)
    texts = list(row["tgt_text"])
    builder.notes["blank candidates"] += sum(not text.strip() for text in texts)
    return [builder.candidate(text, partial(text_candidate, text)) for text in texts]


def text_candidate(text: str, candidate_id: str | None = None) -> Item:
    """A candidate that is a bare string, and (by default) its own id."""
    return Item(id=text if candidate_id is None else candidate_id, text=text, source=Source("bare"))


def _image_candidates(reader: ImageReader, row: Row, media: MediaFolder, builder: SamplesBuilder) -> list[str]:
    """Whether captions are used is decided by the row's first caption alone, as officially."""
    captioned = bool(row["tgt_text"][0].strip())
    uncaptioned: Layout = "uncaptioned_line" if reader == "image_t2i" else "uncaptioned"
    source = Source("captioned" if captioned else uncaptioned, row["tgt_inst"])
    instruction = clean_instruction(row["tgt_inst"])

    def make(candidate_id: str, path: str, caption: str) -> Item:
        text = caption if captioned else ""
        image = media.file(f"{IMAGE_ROOT}/{path}")
        return Item(candidate_id, text=text, images=(image,), instruction=instruction, source=source)

    ids = []
    for path, caption in zip(row["tgt_img_path"], row["tgt_text"], strict=True):
        # The official id of a text-to-image candidate is its path alone. WebQA and EDIS lose captions by it:
        # an image with two captions keeps the one it first appears with, in whatever row. Same scores here.
        candidate_id = path if reader == "image_t2i" else path + ":" + caption.strip('"')
        ids.append(builder.candidate(candidate_id, partial(make, candidate_id, path, caption)))
    return ids


def _check_lists(number: int, row: Row) -> None:
    texts, paths = row["tgt_text"], row["tgt_img_path"]
    if not texts or not paths or len(texts) != len(paths):
        raise DataError(
            f"row {number}: tgt_text has {len(texts or ())} and tgt_img_path {len(paths or ())} entries; "
            "they must be parallel and not empty"
        )
