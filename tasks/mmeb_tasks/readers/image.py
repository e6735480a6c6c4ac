"""The 36 image tasks: one table shape, three record shapes. Source: protocol of the official parsers.

Row: qry_inst, qry_text, qry_img_path, tgt_inst, tgt_text (list), tgt_img_path (list); the lists are parallel,
their first entries are the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from mmeb_harness import DataError, Frames, Item, Layout, Samples, Source, Table
from mmeb_tasks.readers.builder import SamplesBuilder, clean_instruction
from mmeb_tasks.readers.media import MediaFolder
from mmeb_tasks.readers.tables import Row, iter_rows

ImageReader = Literal["image_cls", "image_qa", "image_i2t", "image_t2i", "image_i2i_vg"]

IMAGE_ROOT = "image-tasks"
WITHOUT_MEDIA = "rows without media"
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


def read_image_task(layout: ImageLayout, data: Path, frames: Frames) -> Samples:
    """Read the queries and candidates of an image task."""
    media, builder = MediaFolder(data), SamplesBuilder()
    for number, row in enumerate(iter_rows(data, layout.table, COLUMNS)):
        _check_lists(number, row)
        own = _candidates(layout, row, media, builder)
        builder.query(_query(layout, str(number), row, media, builder), own, {own[0]: 1.0})
    media.refuse_missing()
    samples = builder.build(pooled=True)
    if layout.reader != "image_t2i" and not any(query.images for query in samples.queries):
        raise DataError("no row has a qry_img_path")
    return samples


def referenced_images(table: Table, data: Path) -> set[str]:
    """Paths below `image-tasks/` that a table's rows name."""
    paths: set[str] = set()
    for row in iter_rows(data, table, ("qry_img_path", "tgt_img_path")):
        paths.update([row["qry_img_path"] or "", *(row["tgt_img_path"] or ())])
    return paths - {""}


def _image(path: str | None, media: MediaFolder, builder: SamplesBuilder) -> tuple[Path, ...]:
    """The row's image. A row without one is embedded by its words alone, and counted; officially it fails."""
    if not path or not path.strip():
        builder.notes[WITHOUT_MEDIA] += 1
        return ()
    return (media.file(f"{IMAGE_ROOT}/{path}"),)


def _query(layout: ImageLayout, query_id: str, row: Row, media: MediaFolder, builder: SamplesBuilder) -> Item:
    kind: Layout = "dialogue_query" if layout.dialogue else _QUERY_LAYOUT[layout.reader]
    images = () if layout.reader == "image_t2i" else _image(row["qry_img_path"], media, builder)
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
        images = _image(path, media, builder)
        return Item(candidate_id, text=text, images=images, instruction=instruction, source=source)

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
