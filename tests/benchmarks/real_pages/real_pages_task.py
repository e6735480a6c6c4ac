"""Two tasks over the pages of one PDF, which `tests.benchmarks.real_pages.make` writes: as pictures, and as the text
that the PDF holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mmeb_tasks.readers.tables import read_rows
from mmeb_tasks.readers.visdoc import VisdocLayout, read_visdoc_task

from mmeb_harness import Column, DataError, Frames, Samples, Table, Task

REPO, SPLIT = "real_pages/koma_script_guide", "test"
QUERIES, QRELS, CORPUS, TEXTS = (Table(REPO, config, SPLIT) for config in ("queries", "qrels", "corpus", "texts"))
LAYOUT = VisdocLayout("vidore", REPO, SPLIT, "visdoc-tasks/RealPages")
PAGE_ID, TEXT = Column.key("corpus-id"), Column.text("text")


def read_pictures(data: Path, frames: Frames) -> Samples:
    """Pages as pictures; as every ViDoRe task is read."""
    return read_visdoc_task(LAYOUT, data, frames)


def read_texts(data: Path, frames: Frames) -> Samples:
    """The same queries and grades over what the PDF says stands on the pages.

    Raises:
        DataError: a page has no row in the table of texts.
    """
    samples = read_pictures(data, frames)
    texts = {row[PAGE_ID]: row[TEXT] for row in read_rows(data, TEXTS, (PAGE_ID, TEXT))}
    if absent := next((page.id for page in samples.candidates if page.id not in texts), None):
        raise DataError(f"page {absent!r} has no row in {data / TEXTS.folder}; make the data again")
    pages = [dataclasses.replace(page, text=texts[page.id], images=(), instruction="") for page in samples.candidates]
    return dataclasses.replace(samples, candidates=tuple(pages))


def _task(name: str, load: Callable[[Path, Frames], Samples], *tables: Table) -> Task:
    return Task(
        name=name,
        modality="visdoc",
        group="RealPages",
        metric="ndcg_linear@5",
        load=load,
        annotations=tuple(pattern for table in tables for pattern in table.patterns),
        num_queries=201,
        num_candidates=566,
    )


TASKS = (
    _task("RealPages", read_pictures, QUERIES, QRELS, CORPUS),
    _task("RealPages-text", read_texts, QUERIES, QRELS, CORPUS, TEXTS),
)
