"""The 36 image tasks, as rows. Names, groups and counts: the benchmark's own tables (see README.md here)."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

from mmeb_harness import Archive, Table, Task
from mmeb_tasks.editions import V3_EDITIONS, media_of
from mmeb_tasks.hub import MEDIA_REPO, place_images
from mmeb_tasks.readers.builder import read_named
from mmeb_tasks.readers.image import ImageLayout, ImageReader, read_image_task

REPO = "ziyjiang/MMEB_Test_Instruct"
NUM_QUERIES = 1000


class ImageRow(NamedTuple):
    """One image task. `num_candidates` is per query."""

    name: str
    group: str
    in_distribution: Literal["IND", "OOD"]
    reader: ImageReader
    num_candidates: int


ROWS = (
    ImageRow("ImageNet-1K", "I-CLS", "IND", "image_cls", 1000),
    ImageRow("N24News", "I-CLS", "IND", "image_cls", 24),
    ImageRow("HatefulMemes", "I-CLS", "IND", "image_cls", 2),
    ImageRow("VOC2007", "I-CLS", "IND", "image_cls", 20),
    ImageRow("SUN397", "I-CLS", "IND", "image_cls", 397),
    ImageRow("Place365", "I-CLS", "OOD", "image_cls", 365),
    ImageRow("ImageNet-A", "I-CLS", "OOD", "image_cls", 1000),
    ImageRow("ImageNet-R", "I-CLS", "OOD", "image_cls", 200),
    ImageRow("ObjectNet", "I-CLS", "OOD", "image_cls", 313),
    ImageRow("Country211", "I-CLS", "OOD", "image_cls", 211),
    ImageRow("OK-VQA", "I-QA", "IND", "image_qa", 1000),
    ImageRow("A-OKVQA", "I-QA", "IND", "image_qa", 1000),
    ImageRow("DocVQA", "I-QA", "IND", "image_qa", 1000),
    ImageRow("InfographicsVQA", "I-QA", "IND", "image_qa", 1000),
    ImageRow("ChartQA", "I-QA", "IND", "image_qa", 1000),
    ImageRow("Visual7W", "I-QA", "IND", "image_qa", 1000),
    ImageRow("ScienceQA", "I-QA", "OOD", "image_qa", 1000),
    ImageRow("VizWiz", "I-QA", "OOD", "image_qa", 1000),
    ImageRow("GQA", "I-QA", "OOD", "image_qa", 1000),
    ImageRow("TextVQA", "I-QA", "OOD", "image_qa", 1000),
    ImageRow("MSCOCO_i2t", "I-RET", "IND", "image_i2t", 1000),
    ImageRow("VisualNews_i2t", "I-RET", "IND", "image_i2t", 1000),
    ImageRow("VisDial", "I-RET", "IND", "image_t2i", 1000),
    ImageRow("MSCOCO_t2i", "I-RET", "IND", "image_t2i", 1000),
    ImageRow("VisualNews_t2i", "I-RET", "IND", "image_t2i", 1000),
    ImageRow("WebQA", "I-RET", "IND", "image_t2i", 1000),
    ImageRow("EDIS", "I-RET", "OOD", "image_t2i", 1000),
    ImageRow("Wiki-SS-NQ", "I-RET", "OOD", "image_t2i", 1000),
    ImageRow("CIRR", "I-RET", "IND", "image_i2i_vg", 1000),
    ImageRow("NIGHTS", "I-RET", "IND", "image_i2i_vg", 1000),
    ImageRow("OVEN", "I-RET", "OOD", "image_i2i_vg", 1000),
    ImageRow("FashionIQ", "I-RET", "OOD", "image_i2i_vg", 1000),
    ImageRow("MSCOCO", "I-VG", "IND", "image_i2i_vg", 1000),
    ImageRow("RefCOCO", "I-VG", "OOD", "image_i2i_vg", 1000),
    ImageRow("RefCOCO-Matching", "I-VG", "OOD", "image_i2i_vg", 1000),
    ImageRow("Visual7W-Pointing", "I-VG", "OOD", "image_i2i_vg", 1000),
)


def _task(row: ImageRow, edition: str) -> Task:
    table = Table(REPO, row.name, "test")
    images = functools.partial(place_images, table)
    layout = ImageLayout(row.reader, table, row.name == "VisDial", may_lack_instructions=edition in V3_EDITIONS)
    return Task(
        name=row.name,
        modality="image",
        group=row.group,
        metric="hit@1",
        load=functools.partial(
            read_named, row.name, edition, functools.partial(read_image_task, layout), table.folder, {}
        ),
        annotations=table.patterns,
        num_queries=NUM_QUERIES,
        num_candidates=row.num_candidates,
        source=REPO,
        in_distribution=row.in_distribution,
        edition=edition,
        media=media_of(edition, "image"),
        sources=(table, Archive(MEDIA_REPO, r"mmeb_v1\.tar\.gz", images, expansion=2.2, by_tables=True)),
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The image tasks; their rows are the same in every edition."""
    return tuple(_task(row, edition) for row in ROWS)
