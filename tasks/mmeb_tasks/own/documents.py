"""PDFs and questions about them: a question finds the pages that answer it, among all pages of all documents.

    manual.pdf, …   in the folder, or anywhere below `documents/`
    queries.csv     query, document, page, and optionally score, id (rows of one id are one query), instruction

Pages are rendered once, by pypdfium2, into `pages/`, in a folder named by the PDF's content: a PDF that is replaced
is rendered again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmeb_harness import (
    MOST_PIXELS,
    DataError,
    FolderFormat,
    Frames,
    Item,
    OptionError,
    Samples,
    Task,
    lock_file,
    make_folder,
    matching,
    progress_of,
    regular_file,
    replacing,
    shown,
)
from mmeb_tasks.own.examples import write_documents
from mmeb_tasks.own.reading import Look, check, load
from mmeb_tasks.own.rows import TABLES, Problems, Row, file_of, id_text, rows_of
from mmeb_tasks.own.settings import FILE, Settings, name_of_folder, read_settings
from mmeb_tasks.readers.records import is_whole

COLUMNS = ("query", "document", "page")
DOCUMENTS_FOLDER, PAGES, TEXTS = "documents", "pages", "texts.json"
_POINTS_AN_INCH = 72


@dataclass(frozen=True)
class _Document:
    """A PDF, where it is, what its pages' ids begin with, and they; none if it can't be read, which is noted."""

    place: str
    stem: str
    pages: tuple[Item, ...]


def find_tasks(folder: Path) -> tuple[Task, ...] | None:
    """The folder's task; `None` if it holds no PDF or no queries."""
    table, pdfs = file_of(folder, "queries", TABLES), _pdfs(folder)
    if table is None or not pdfs:
        return None
    settings = read_settings(folder)
    annotations = (table.name, FILE, *(glob.escape(path.relative_to(folder).as_posix()) for path in pdfs))
    return (
        Task(
            name=settings.name or name_of_folder(folder),
            modality="text" if settings.pages == "text" else "visdoc",
            group="own",
            metric=settings.metric or "ndcg_linear@5",
            load=partial(load, read_documents, 0, folder),
            annotations=annotations,
        ),
    )


def _pdfs(folder: Path) -> list[Path]:
    listed = [*matching(folder, "*"), *matching(folder, f"{DOCUMENTS_FOLDER}/**/*")]
    return [path for path in listed if path.suffix.lower() == ".pdf"]


def read_documents(folder: Path, frames: Frames, problems: Problems, look: Look) -> tuple[Samples, ...]:
    """The folder's samples, its pages rendered if they aren't; none if anything is wrong with it, which is noted.

    Raises:
        OptionError: pypdfium2 isn't installed.
        DataError: pages can't be written.
    """
    settings = read_settings(folder)
    documents = _documents(folder, settings, problems)
    table = file_of(folder, "queries", TABLES)
    assert table is not None
    queries: dict[str, Item] = {}
    gains: dict[str, dict[str, float]] = {}
    for row in rows_of(table, problems, COLUMNS):
        _add_row(row, documents, queries, gains, settings, problems)
    if not queries and not problems.lines:
        problems.add(table.name, "holds no rows")
    distinct = {document.stem: document for document in documents.values()}
    blank = 0 if settings.pages == "image" else _blank_pages([*distinct.values()], gains, problems)
    if problems.lines:
        return ()
    pages = tuple(page for document in distinct.values() for page in document.pages)
    return (Samples(tuple(queries.values()), pages, gains, notes={"pages without text": blank} if blank else {}),)


def _blank_pages(documents: Sequence[_Document], gains: Mapping[str, Mapping[str, float]], problems: Problems) -> int:
    """How many pages the PDFs hold no text of. What answers a query can't be one of them, which is noted."""
    answers = {page_id for graded in gains.values() for page_id in graded}
    blank = 0
    for document in documents:
        for number, page in enumerate(document.pages, start=1):
            blank += not page.text.strip()
            if not page.text.strip() and page.id in answers:
                problems.add(
                    f"{document.place}, page {number}",
                    "the PDF holds no text there, and a query names it; choose pages: image in dataset.yaml, or let an "
                    "OCR program add the text",
                )
    return blank


def _documents(folder: Path, settings: Settings, problems: Problems) -> dict[str, _Document]:
    """By each of their names: below the folder or its `documents/`, with ".pdf" and without."""
    documents: dict[str, _Document] = {}
    for pdf in _pdfs(folder):
        place = pdf.relative_to(folder)
        inside = place.relative_to(DOCUMENTS_FOLDER) if place.parts[0] == DOCUMENTS_FOLDER else place
        stem = inside.with_suffix("").as_posix()
        if stem in documents:
            problems.add(place.as_posix(), f"another PDF is called {stem!r} as well; rename one")
            continue
        if not is_whole(stem):
            problems.add(shown(place.as_posix()), "its name is not UTF-8; rename it")
            continue
        try:
            pages = tuple(_pages_of(folder, pdf, stem, settings))
        except DataError as error:
            problems.add(place.as_posix(), str(error))
            pages = ()
        names = (inside, place, inside.with_suffix(""), place.with_suffix(""))
        documents |= dict.fromkeys((name.as_posix() for name in names), _Document(place.as_posix(), stem, pages))
    return documents


def _add_row(
    row: Row,
    documents: Mapping[str, _Document],
    queries: dict[str, Item],
    gains: dict[str, dict[str, float]],
    settings: Settings,
    problems: Problems,
) -> None:
    """Add a row's query, if no earlier row of its id did, and its page."""
    missing = [name for name in COLUMNS if not str(row.values.get(name, "")).strip()]
    if missing:
        problems.add(row.place, f"no {missing[0]}; each row needs {', '.join(COLUMNS)}")
        return
    text, name = str(row.values["query"]).strip(), str(row.values["document"]).strip()
    document = documents.get(name)
    if document is None:
        problems.add(row.place, f"document {shown(name)} is none of the folder's PDFs; put it there, or mend the name")
        return
    grade = row.values.get("score", "")
    page, score = _number(row.values["page"]), 1.0 if grade in ("", None) else _number(grade)
    if document.pages and (page is None or page != int(page) or not 1 <= page <= len(document.pages)):
        there = f"{name} has {len(document.pages)} pages, counted from 1; write one page a row"
        problems.add(row.place, f"page {shown(row.values['page'])}: {there}")
    if score is None or score <= 0:
        problems.add(row.place, f"score {shown(grade)} is no grade above 0; leave the row out instead")
    query_id = id_text(row.values.get("id")) or text
    if not is_whole(query_id):
        problems.add(row.place, f"id {shown(query_id)} is not UTF-8; mend the id")
    query = Item(query_id, text, instruction=str(row.values.get("instruction") or settings.instruction))
    if queries.setdefault(query_id, query) != query:
        problems.add(
            row.place, f"id {shown(query_id)} is another query's, {shown(queries[query_id].text)}; mend the id"
        )
    if page is not None and score is not None and document.pages:
        graded = gains.setdefault(query_id, {})
        if graded.setdefault(_page_id(document.stem, int(page)), score) != score:
            problems.add(row.place, f"the query has another score for page {int(page)} already; keep one of the two")


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def _page_id(stem: str, page: int) -> str:
    return f"{stem}#{page}"


def _pages_of(folder: Path, pdf: Path, stem: str, settings: Settings) -> Iterator[Item]:
    """A document's pages as items.

    Raises:
        DataError: the PDF can't be read, or its pages can't be written.
    """
    rendered = _rendered(folder, pdf, stem, None if settings.pages == "text" else settings.dpi)
    texts: list[str] = json.loads((rendered / TEXTS).read_text(encoding="utf-8"))
    for number, text in enumerate(texts, start=1):
        image = () if settings.pages == "text" else (rendered / _picture_name(number),)
        words = "" if settings.pages == "image" else text
        yield Item(_page_id(stem, number), words, image, instruction=settings.candidate_instruction)


def _picture_name(number: int) -> str:
    return f"{number:04}.png"


def _rendered(folder: Path, pdf: Path, stem: str, dpi: int | None) -> Path:
    """The folder of a PDF's pages and their texts, made on first use; those of another content of the PDF go.

    Args:
        dpi: `None`: the texts alone.
    """
    try:
        content = regular_file(pdf).read_bytes()
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}; put a PDF there that can") from error
    version = hashlib.sha256(content).hexdigest()[:12]
    target = folder / PAGES / f"{stem}-{version}-{dpi or 'text'}"
    if (target / TEXTS).is_file():
        return target
    try:
        make_folder(folder / PAGES)
        with lock_file(folder / PAGES / ".lock"):
            if not (target / TEXTS).is_file():
                _render(pdf, content, target, dpi)
                for older in (folder / PAGES).glob(f"{glob.escape(stem)}-{'?' * len(version)}-*"):
                    if older != target:
                        shutil.rmtree(older)
    except OSError as error:
        raise DataError(
            f"pages can't be written to {target}: {error.strerror or error}; copy the data elsewhere"
        ) from error
    return target


def _render(pdf: Path, content: bytes, target: Path, dpi: int | None) -> None:
    texts, document = [], _opened(pdf, content)
    with progress_of(f"rendering {pdf.name}, pages", len(document)) as advance:
        for number, page in enumerate(document, start=1):
            if dpi is not None:
                picture = _picture(page, number, dpi)
                with replacing(target / _picture_name(number), durably=False) as temporary:
                    picture.save(temporary, "PNG")
            texts.append(page.get_textpage().get_text_range().replace("\r\n", "\n"))
            advance()
    with replacing(target / TEXTS) as temporary:
        temporary.write_text(json.dumps(texts), encoding="utf-8")


def _picture(page: Any, number: int, dpi: int) -> Any:
    """The page (pypdfium2's) as a picture (Pillow's).

    Raises:
        DataError: a picture of that size can't be opened.
    """
    scale = dpi / _POINTS_AN_INCH
    width, height = (math.ceil(points * scale) for points in page.get_size())
    if width * height > MOST_PIXELS:
        raise DataError(
            f"page {number} would have {width:,} x {height:,} pixels at {dpi} dpi, more than the {MOST_PIXELS:,} that "
            "are opened; set fewer dpi in dataset.yaml"
        )
    return page.render(scale=scale).to_pil()


def _opened(pdf: Path, content: bytes) -> Any:
    """The document (pypdfium2's), which is a sequence of pages.

    Raises:
        OptionError: pypdfium2 isn't installed.
        DataError: no PDF, encrypted, or without pages.
    """
    try:
        import pypdfium2
    except ModuleNotFoundError as error:
        raise OptionError("pages are rendered by pypdfium2: pip install 'mmeb-harness[pdf]'") from error
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        # The library's code of an error may be that of an earlier one: it has none for a document without pages.
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD and b"/Encrypt" in content:
            raise DataError(
                "is encrypted; write it without its password: qpdf --decrypt --password=… IN OUT"
            ) from error
        document = ()
    if not len(document):
        raise DataError("has no page that can be read: no PDF, damaged or empty; write it again, or take it out")
    return document


DOCUMENTS = FolderFormat(
    "documents", "PDFs and queries.csv", find_tasks, partial(check, read_documents), write_documents
)
