"""The 36 image tasks: one table shape, three record shapes. Source: protocol of the official parsers.

Row: qry_inst, qry_text, qry_img_path, tgt_inst, tgt_text (list), tgt_img_path (list); the lists are parallel,
their first entries are the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mmeb_harness import Column, DataError, Frames, Item, Layout, Row, Samples, Source, Table
from mmeb_tasks.readers.builder import SamplesBuilder, clean_instruction
from mmeb_tasks.readers.media import MediaFolder
from mmeb_tasks.readers.tables import has_column, iter_rows

ImageReader = Literal["image_cls", "image_qa", "image_i2t", "image_t2i", "image_i2i_vg"]

IMAGE_ROOT = "image-tasks"
WITHOUT_MEDIA = "rows without media"
WITHOUT_INSTRUCTIONS = "columns of instructions that the table lacks"

QUERY_INSTRUCTION, QUERY_TEXT = Column.text("qry_inst"), Column.optional_text("qry_text")
QUERY_IMAGE = Column.optional_text("qry_img_path")
TARGET_INSTRUCTION, TARGET_TEXTS = Column.text("tgt_inst"), Column.texts("tgt_text")
TARGET_IMAGES = Column.optional_texts("tgt_img_path")

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
        may_lack_instructions: a table without a column of them has empty ones, as in MMEB-V3; else it is refused.
    """

    reader: ImageReader
    table: Table
    dialogue: bool = False
    may_lack_instructions: bool = False


def read_image_task(layout: ImageLayout, data: Path, frames: Frames) -> Samples:
    """Read the queries and candidates of an image task."""
    media, builder = MediaFolder(data), SamplesBuilder()
    for number, row in enumerate(iter_rows(data, layout.table, _columns_in(data, layout, builder))):
        _check_lists(row)
        own = _candidates(layout, row, media, builder)
        builder.query(_query(layout, str(number), row, media, builder), own, {own[0]: 1.0})
    media.refuse_missing()
    samples = builder.build(pooled=True)
    if layout.reader != "image_t2i" and not any(query.images for query in samples.queries):
        raise DataError("no row has a qry_img_path")
    return samples


def _columns_in(data: Path, layout: ImageLayout, builder: SamplesBuilder) -> list[Column[Any]]:
    """Those to read; without instructions that the table lacks, where it may."""
    columns = _columns(layout.reader)
    if not layout.may_lack_instructions:
        return columns
    instructions = [column for column in (QUERY_INSTRUCTION, TARGET_INSTRUCTION) if column in columns]
    lacking = [column for column in instructions if not has_column(data, layout.table, column.name)]
    builder.notes[WITHOUT_INSTRUCTIONS] += len(lacking)
    return [column for column in columns if column not in lacking]


def _columns(reader: ImageReader) -> list[Column[Any]]:
    """Those that count: texts have no instruction as candidates, and a query that is words alone has no image."""
    columns: list[Column[Any]] = [QUERY_INSTRUCTION, QUERY_TEXT, TARGET_TEXTS, TARGET_IMAGES]
    return [
        *columns,
        *([] if reader == "image_t2i" else [QUERY_IMAGE]),
        *([TARGET_INSTRUCTION] if reader in ("image_t2i", "image_i2i_vg") else []),
    ]


def referenced_images(table: Table, data: Path) -> set[str]:
    """Paths below `image-tasks/` that a table's rows name."""
    paths: set[str] = set()
    for row in iter_rows(data, table, (QUERY_IMAGE, TARGET_IMAGES)):
        paths.update([row[QUERY_IMAGE], *row[TARGET_IMAGES]])
    return paths - {""}


def _image(path: str, media: MediaFolder, builder: SamplesBuilder) -> tuple[Path, ...]:
    """The row's image. A row without one is embedded by its words alone, and counted; officially it fails."""
    if not path.strip():
        builder.notes[WITHOUT_MEDIA] += 1
        return ()
    return (media.file(f"{IMAGE_ROOT}/{path}"),)


def _query(layout: ImageLayout, query_id: str, row: Row, media: MediaFolder, builder: SamplesBuilder) -> Item:
    kind: Layout = "dialogue_query" if layout.dialogue else _QUERY_LAYOUT[layout.reader]
    images = () if layout.reader == "image_t2i" else _image(row[QUERY_IMAGE], media, builder)
    instruction = row.get(QUERY_INSTRUCTION, "")
    return Item(
        id=query_id,
        text=row[QUERY_TEXT],
        images=images,
        instruction=clean_instruction(instruction),
        source=Source(kind, instruction),
    )


def _candidates(layout: ImageLayout, row: Row, media: MediaFolder, builder: SamplesBuilder) -> list[str]:
    if layout.reader in ("image_t2i", "image_i2i_vg"):
        return _image_candidates(layout.reader, row, media, builder)
    texts = row[TARGET_TEXTS]
    builder.notes["blank candidates"] += sum(not text.strip() for text in texts)
    return [builder.candidate(text, partial(text_candidate, text)) for text in texts]


def text_candidate(text: str, candidate_id: str | None = None) -> Item:
    """A candidate that is a bare string, and (by default) its own id."""
    return Item(id=text if candidate_id is None else candidate_id, text=text, source=Source("bare"))


def _image_candidates(reader: ImageReader, row: Row, media: MediaFolder, builder: SamplesBuilder) -> list[str]:
    """Whether captions are used is decided by the row's first caption alone, as officially."""
    captioned = bool(row[TARGET_TEXTS][0].strip())
    uncaptioned: Layout = "uncaptioned_line" if reader == "image_t2i" else "uncaptioned"
    stored = row.get(TARGET_INSTRUCTION, "")
    source, instruction = Source("captioned" if captioned else uncaptioned, stored), clean_instruction(stored)

    def make(candidate_id: str, path: str, caption: str) -> Item:
        text = caption if captioned else ""
        images = _image(path, media, builder)
        return Item(candidate_id, text=text, images=images, instruction=instruction, source=source)

    ids = []
    for path, caption in zip(row[TARGET_IMAGES], row[TARGET_TEXTS], strict=True):
        # The official id of a text-to-image candidate is its path alone. WebQA and EDIS lose captions by it:
        # an image with two captions keeps the one it first appears with, in whatever row. Same scores here.
        candidate_id = path if reader == "image_t2i" else path + ":" + caption.strip('"')
        ids.append(builder.candidate(candidate_id, partial(make, candidate_id, path, caption)))
    return ids


def _check_lists(row: Row) -> None:
    texts, paths = row[TARGET_TEXTS], row[TARGET_IMAGES]
    if len(texts) != len(paths):
        raise row.unfit(
            TARGET_IMAGES, f"{len(texts)} entries, as tgt_text has, not {len(paths)}: they must be parallel"
        )
