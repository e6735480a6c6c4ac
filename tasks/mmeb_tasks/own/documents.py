"""PDFs and questions about them: a question finds the pages that answer it, among all pages of all documents.

    manual.pdf, …   in the folder, or in `documents/`
    queries.csv     query, document, page, and optionally score, id (rows of one id are one query), instruction

Pages are rendered once, by pypdfium2, into `pages/`, in a folder named by the PDF's content: a PDF that is replaced
is rendered again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmeb_harness import (
    DataError,
    FolderFormat,
    Frames,
    Item,
    OptionError,
    Samples,
    Task,
    is_data,
    lock_file,
    make_folder,
    regular_file,
    replacing,
    say,
)
from mmeb_tasks.own.examples import write_documents
from mmeb_tasks.own.rows import Problems, Row, file_of, rows_of, shown
from mmeb_tasks.own.settings import FILE, Settings, name_of_folder, read_settings

_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
COLUMNS = ("query", "document", "page")
PAGES, TEXTS = "pages", "texts.json"
_POINTS_AN_INCH = 72
#: Between two lines while pages are rendered, which takes about a tenth of a second each.
_LINE_SECONDS = 5.0


def find_tasks(folder: Path) -> tuple[Task, ...] | None:
    """The folder's task; `None` if it holds no PDF or no queries."""
    table, pdfs = file_of(folder, "queries", _TABLES), _pdfs(folder)
    if table is None or not pdfs:
        return None
    settings = read_settings(folder)
    annotations = (table.name, FILE, *(path.relative_to(folder).as_posix() for path in pdfs))
    return (
        Task(
            name=settings.name or name_of_folder(folder),
            modality="text" if settings.pages == "text" else "visdoc",
            group="own",
            metric=settings.metric or "ndcg_linear@5",
            load=partial(_load, folder),
            annotations=annotations,
        ),
    )


def _pdfs(folder: Path) -> list[Path]:
    listed = [*folder.glob("*"), *(folder / "documents").glob("*")]
    return sorted(path for path in listed if path.suffix.lower() == ".pdf" and is_data(path.name))


def _load(folder: Path, data: Path, frames: Frames) -> Samples:
    problems = Problems(folder)
    samples = read_documents(folder, problems)
    problems.refuse()
    assert samples is not None
    return samples


def read_documents(folder: Path, problems: Problems) -> Samples | None:
    """The folder's samples, its pages rendered if they aren't; `None` if anything is wrong with it, which is noted.

    Raises:
        OptionError: pypdfium2 isn't installed.
        DataError: pages can't be written.
    """
    settings = read_settings(folder)
    pages: dict[str, Item] = {}
    numbers: dict[str, int] = {}
    for pdf in _pdfs(folder):
        try:
            own = _pages_of(folder, pdf, settings, problems)
        except DataError as error:
            problems.add(pdf.relative_to(folder).as_posix(), str(error))
            own = []
        numbers |= {pdf.name: len(own), pdf.stem: len(own)}
        pages |= {page.id: page for page in own}
    table = file_of(folder, "queries", _TABLES)
    assert table is not None
    queries: dict[str, Item] = {}
    gains: dict[str, dict[str, float]] = {}
    for row in rows_of(table, problems):
        _add_row(row, numbers, queries, gains, settings, problems)
    if not queries and not problems.lines:
        problems.add(table.name, "holds no rows")
    return None if problems.lines else Samples(tuple(queries.values()), tuple(pages.values()), gains)


def _add_row(
    row: Row,
    numbers: dict[str, int],
    queries: dict[str, Item],
    gains: dict[str, dict[str, float]],
    settings: Settings,
    problems: Problems,
) -> None:
    """Add a row's query, if no earlier row of its id did, and its page."""
    missing = [name for name in COLUMNS if row.values.get(name) in (None, "")]
    if missing:
        problems.add(row.place, f"no {missing[0]}; each row needs {', '.join(COLUMNS)}")
        return
    text, document = str(row.values["query"]).strip(), str(row.values["document"])
    if document not in numbers:
        problems.add(
            row.place, f"document {shown(document)} is none of the folder's PDFs; put it there, or mend the name"
        )
        return
    page, score = _number(row.values["page"]), _number(row.values.get("score") or 1)
    if page is None or page != int(page) or not 1 <= page <= numbers[document]:
        there = f"{document} has {numbers[document]} pages, counted from 1"
        problems.add(row.place, f"page {shown(row.values['page'])}: {there}")
        return
    if score is None or score <= 0:
        problems.add(row.place, f"score {shown(row.values['score'])} is no grade above 0; leave the row out instead")
        return
    query_id = str(row.values.get("id") or text)
    query = Item(query_id, text, instruction=str(row.values.get("instruction") or settings.instruction))
    if queries.setdefault(query_id, query) != query:
        problems.add(
            row.place, f"id {shown(query_id)} is another query's, {shown(queries[query_id].text)}; mend the id"
        )
        return
    gains.setdefault(query_id, {})[_page_id(document.removesuffix(".pdf"), int(page))] = score


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if abs(number) < 1e9 else None


def _page_id(stem: str, page: int) -> str:
    return f"{stem}#{page}"


def _pages_of(folder: Path, pdf: Path, settings: Settings, problems: Problems) -> list[Item]:
    """A document's pages as items.

    Raises:
        DataError: the PDF can't be read, or its pages can't be written.
    """
    rendered = _rendered(folder, pdf, settings.dpi)
    texts: list[str] = json.loads((rendered / TEXTS).read_text(encoding="utf-8"))
    items = []
    for number, text in enumerate(texts, start=1):
        if settings.pages != "image" and not text.strip():
            problems.add(
                f"{pdf.relative_to(folder).as_posix()}, page {number}",
                "the PDF holds no text there; choose pages: image in dataset.yaml, or let an OCR program add the text",
            )
        image = () if settings.pages == "text" else (rendered / _picture_name(number),)
        words = "" if settings.pages == "image" else text
        items.append(Item(_page_id(pdf.stem, number), words, image, instruction=settings.candidate_instruction))
    return items


def _picture_name(number: int) -> str:
    return f"{number:04}.png"


def _rendered(folder: Path, pdf: Path, dpi: int) -> Path:
    """The folder of a PDF's pages and their texts, made on first use; those of another content of the PDF go."""
    content = regular_file(pdf).read_bytes()
    version = hashlib.sha256(content).hexdigest()[:12]
    target = folder / PAGES / f"{pdf.stem}-{version}-{dpi}"
    if (target / TEXTS).is_file():
        return target
    try:
        make_folder(folder / PAGES)
        with lock_file(folder / PAGES / ".lock"):
            if not (target / TEXTS).is_file():
                _render(pdf, content, target, dpi)
                for older in (folder / PAGES).glob(f"{pdf.stem}-{'?' * len(version)}-*"):
                    if older != target:
                        shutil.rmtree(older)
    except OSError as error:
        raise DataError(
            f"pages can't be written to {target}: {error.strerror or error}; copy the data elsewhere"
        ) from error
    return target


def _render(pdf: Path, content: bytes, target: Path, dpi: int) -> None:
    texts = []
    told = time.monotonic()
    for number, total, page in _opened_pages(pdf, content):
        with replacing(target / _picture_name(number), durably=False) as temporary:
            page.render(scale=dpi / _POINTS_AN_INCH).to_pil().save(temporary, "PNG")
        texts.append(page.get_textpage().get_text_range().replace("\r\n", "\n"))
        if time.monotonic() - told > _LINE_SECONDS:
            told = time.monotonic()
            say(f"rendering {pdf.name}: page {number} of {total}", err=True)
    with replacing(target / TEXTS) as temporary:
        temporary.write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")


def _opened_pages(pdf: Path, content: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, how many there are, and the page (pypdfium2's).

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
    for index in range(len(document)):
        yield index + 1, len(document), document[index]


def find_problems(folder: Path, look: Callable[[Path], None]) -> list[str]:
    """Everything that is wrong with the folder's files, a line each."""
    problems = Problems(folder)
    read_documents(folder, problems)
    return problems.lines


DOCUMENTS = FolderFormat("documents", "PDFs and queries.csv", find_tasks, find_problems, write_documents)
