"""The 24 visual document tasks: queries, graded qrels and a corpus of page images.

Officially the page images come inside the corpus table and are written to disk on first use; so it is here.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmeb_harness import Column, DataError, Frames, Item, Samples, Source, Table, opened_picture, progress_of
from mmeb_tasks.readers.builder import SamplesBuilder
from mmeb_tasks.readers.media import MissingMediaError, check_inside
from mmeb_tasks.readers.stored import missing_files, write_files
from mmeb_tasks.readers.tables import has_column, iter_batches, read_rows

VisdocReader = Literal["vidore", "visrag"]

QUERY_INSTRUCTION = "Find a document image that matches the given query:"
PAGE_INSTRUCTION = "Understand the content of the provided document image."

QUERY_ID, PAGE_ID = Column.key("query-id"), Column.key("corpus-id")
QUERY, SCORE, PAGE = Column.text("query"), Column.number("score"), Column.picture("image")

#: Rows of page images held in memory at once.
_PAGES_AT_ONCE = 32


@dataclass(frozen=True)
class VisdocLayout:
    """What the reader must know of one visual document task."""

    reader: VisdocReader
    repo: str
    split: str
    image_root: str

    def table(self, config: str) -> Table:
        """One of the three tables: queries, qrels, corpus."""
        return Table(self.repo, config, self.split)


def read_visdoc_task(layout: VisdocLayout, data: Path, frames: Frames) -> Samples:
    """Read one visual document task; pages not yet on disk are written from the corpus table."""
    grades = _read_grades(layout, data)
    page_ids = [row[PAGE_ID] for row in read_rows(data, layout.table("corpus"), (PAGE_ID,))]
    pages = {page_id: data / page_file(layout, page_id) for page_id in page_ids}
    write_missing_pages(layout, data, pages)
    if frames.pages == "official":
        pages = official_pages(pages)
    builder = SamplesBuilder()
    source = Source("basic", QUERY_INSTRUCTION)
    for row in read_rows(data, layout.table("queries"), (QUERY_ID, QUERY)):
        query_id = row[QUERY_ID]
        relevant = grades.get(query_id)
        if not relevant:
            raise row.unfit(QUERY_ID, "a query that has a row in qrels with a score above 0")
        if builder.has_query(query_id):
            raise row.unfit(QUERY_ID, "an id of its own: it stands in the annotations twice")
        if absent := next((page_id for page_id in relevant if page_id not in pages), None):
            raise DataError(f"query {query_id!r}: relevant page {absent!r} is not in the corpus")
        # The official pool order: relevant pages first, in query order, then the rest of the corpus.
        own = [_page(builder, page_id, pages) for page_id in relevant]
        item = Item(query_id, text=row[QUERY], instruction=QUERY_INSTRUCTION, source=source)
        builder.query(item, own, relevant)
    for page_id in page_ids:
        _page(builder, page_id, pages)
    return builder.build(pooled=False)


def _page(builder: SamplesBuilder, page_id: str, pages: dict[str, Path]) -> str:
    source = Source("basic", PAGE_INSTRUCTION)
    return builder.candidate(
        page_id, lambda: Item(page_id, images=(pages[page_id],), instruction=PAGE_INSTRUCTION, source=source)
    )


def _read_grades(layout: VisdocLayout, data: Path) -> dict[str, dict[str, float]]:
    """query id → {page id → highest score above 0}, in the order in which such scores first appear."""
    grades: dict[str, dict[str, float]] = {}
    for row in read_rows(data, layout.table("qrels"), (QUERY_ID, PAGE_ID, SCORE)):
        page_id, score = row[PAGE_ID], row[SCORE]
        if score > 0:
            of_query = grades.setdefault(row[QUERY_ID], {})
            of_query[page_id] = max(of_query.get(page_id, 0.0), score)
    return grades


def page_file(layout: VisdocLayout, page_id: str) -> str:
    """Where a page lies below the data folder; VisRAG's ids are long file names, shortened and hashed."""
    if layout.reader == "vidore":
        relative = f"{layout.image_root}/{page_id}.png"
    else:
        stem, suffix = os.path.splitext(page_id)
        digest = hashlib.md5(page_id.encode(), usedforsecurity=False).hexdigest()[:8]
        relative = f"{layout.image_root}/{stem[:50]}_{digest}{suffix}"
    check_inside(relative)
    return relative


def write_missing_pages(layout: VisdocLayout, data: Path, pages: dict[str, Path]) -> None:
    """Write the pages that are not on disk yet from the images in the corpus table.

    Raises:
        DataError: if the table has no image for such a page, or the folder can't be written.
    """
    missing = missing_files(pages)
    if not missing:
        return
    # `data get` made files of them, and keeps no second copy.
    if not has_column(data, layout.table("corpus"), PAGE.name):
        first = next(iter(missing))
        more = f" (and {len(missing) - 1:,} more pages)" if len(missing) > 1 else ""
        raise MissingMediaError(f"page {first!r}: {pages[first]} is missing{more}")
    batches = iter_batches(data, layout.table("corpus"), (PAGE_ID, PAGE), _PAGES_AT_ONCE)
    write_files("page", missing, ((row[PAGE_ID], row[PAGE]) for batch in batches for row in batch), page_content)


def page_content(page_id: str, stored: bytes) -> bytes:
    """A page's file: the stored image as it is, whatever suffix its file name has; readers look at the content.

    The official code decodes the image and saves it again, which turns one with an EXIF orientation upright; such a
    one is turned and saved as PNG here. Where an id ends in .jpg or .jpeg (VisRAG), officially that is a JPEG of
    Pillow's default quality, 75: see `official_pages`.

    Raises:
        DataError: if it is no image.
    """
    from PIL import ExifTags, ImageOps

    with opened_picture(stored, f"of page {page_id!r} in the corpus table") as image:
        if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
            return stored
        buffer = io.BytesIO()
        upright = ImageOps.exif_transpose(image)
        (upright.convert("RGB") if upright.mode == "CMYK" else upright).save(buffer, "PNG")
        return buffer.getvalue()


def official_pages(pages: Mapping[str, Path]) -> dict[str, Path]:
    """The pages as the official code writes them: of those called .jpg or .jpeg a copy as JPEG of Pillow's default.

    Their pixels differ from the stored ones by 1.9 levels in the mean and 17 at most, here and there. Copies lie in a
    folder beside the pages' own, and are written again when a page is newer. A page takes about 17 ms.

    Raises:
        DataError: one can't be read, or written as JPEG.
    """
    copies = {
        page_id: path.parent.with_name(f"{path.parent.name}-official") / path.name
        for page_id, path in pages.items()
        if path.suffix.lower() in (".jpg", ".jpeg")
    }
    stale = {page_id: copy for page_id, copy in copies.items() if not _is_newer(copy, pages[page_id])}
    with progress_of("writing pages as officially", len(stale)) as advance:
        for page_id, copy in stale.items():
            write_files("page", {page_id: copy}, [(page_id, _as_jpeg(pages[page_id]))])
            advance()
    return {page_id: copies.get(page_id, path) for page_id, path in pages.items()}


def _is_newer(copy: Path, page: Path) -> bool:
    return copy.exists() and copy.stat().st_mtime_ns >= page.stat().st_mtime_ns


def _as_jpeg(page: Path) -> bytes:
    buffer = io.BytesIO()
    with opened_picture(page) as image:
        image.save(buffer, "JPEG")
    return buffer.getvalue()
