"""Pages of a PDF become a task; what is no such PDF is one line; the labels are those that no model had seen."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import re
from collections import Counter
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image
from pypdfium2 import raw

from mmeb_harness import DataError, Frames
from mmeb_harness.data.folder import describe
from mmeb_harness.results.files import load_task_result
from tests.benchmarks.real_pages.make import LABELS, make
from tests.benchmarks.real_pages.real_pages_task import TASKS, read_pictures, read_texts
from tests.rooms import ROOT

ZEROS = b"00" * 32
#: No password opens it.
ENCRYPTED = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\n"
    b"4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<" + ZEROS + b">/U<" + ZEROS + b">>>endobj\n"
    b"trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]/Size 5>>\n%%EOF"
)


def write_pdf(path: Path, *texts: str) -> str:
    """A page of 72 x 144 points for each text; the file's SHA-256."""
    document = pypdfium2.PdfDocument.new()
    for text in texts:
        page = document.new_page(72, 144)
        written = raw.FPDFPageObj_NewTextObj(document, b"Helvetica", ctypes.c_float(12))
        letters = text.encode("utf-16-le") + b"\0\0"
        raw.FPDFText_SetText(written, ctypes.cast(letters, ctypes.POINTER(ctypes.c_ushort)))
        raw.FPDFPageObj_Transform(written, 1, 0, 0, 1, 4, 100)
        raw.FPDFPage_InsertObject(page, written)
        page.gen_content()
    document.save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_labels(folder: Path, *grades: str) -> Path:
    folder.mkdir()
    (folder / "queries.csv").write_text('query-id,query\n1,"cats, mostly"\n2,dogs\n')
    (folder / "qrels.csv").write_text("\n".join(["query-id,corpus-id,score", *grades, ""]))
    return folder


def test_a_pdf_becomes_two_tasks(tmp_path: Path) -> None:
    sha256 = write_pdf(tmp_path / "a.pdf", "one cat", "two dogs", "cats again")
    labels = write_labels(tmp_path / "labels", "1,3,1", "1,1,2", "2,2,2")
    assert make(tmp_path / "a.pdf", tmp_path / "data", labels, sha256) == 3
    assert describe(tmp_path / "data").name == "real pages (KOMA-Script guide)"
    pictures, texts = (read(tmp_path / "data", Frames()) for read in (read_pictures, read_texts))
    assert [query.text for query in pictures.queries] == ["cats, mostly", "dogs"]
    assert pictures.gains == texts.gains == {"1": {"3": 1.0, "1": 2.0}, "2": {"2": 2.0}}
    pages = {page.id: page.images[0] for page in pictures.candidates}
    assert sorted(pages) == ["1", "2", "3"]
    with Image.open(pages["2"]) as page:
        assert page.size == (150, 300)
        assert page.convert("L").getextrema()[0] < 100 < page.convert("L").getextrema()[1]
    assert {page.id: page.text.strip() for page in texts.candidates} == {
        "1": "one cat",
        "2": "two dogs",
        "3": "cats again",
    }
    assert not any(page.media for page in texts.candidates)


def test_what_is_no_such_pdf_is_one_line(tmp_path: Path) -> None:
    def refused(name: str, content: bytes | None = None) -> str:
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError) as error:
            make(path, tmp_path / "data")
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is missing; get it on Debian 12" in refused("missing.pdf")
    assert "is no PDF, damaged or empty; get it on" in refused("junk.pdf", b"junk")
    assert "qpdf --decrypt" in refused("encrypted.pdf", ENCRYPTED)
    write_pdf(tmp_path / "empty.pdf")
    assert "has no page that can be read" in refused("empty.pdf")
    sha256 = write_pdf(tmp_path / "other.pdf", "other")
    assert sha256 in refused("other.pdf")
    with pytest.raises(DataError, match=r"query 2 names page 4, but .* has 1 pages"):
        make(tmp_path / "other.pdf", tmp_path / "data", write_labels(tmp_path / "labels", "1,1,2", "2,4,2"), sha256)
    assert not (tmp_path / "data").exists()


def test_the_labels_are_those_that_no_model_had_seen() -> None:
    hashes = {name: hashlib.sha256((LABELS / name).read_bytes()).hexdigest() for name in ("queries.csv", "qrels.csv")}
    assert hashes == {
        "queries.csv": "0b31c0a0c65f83986784c1c69b39988e2dc634ce3bd2e29dc6bc017c55c33b1f",
        "qrels.csv": "ad9792ab94ce9e6d9f1a0dceaf22d536f338b2c44280f92410659fdd3b439feb",
    }
    rows = list(csv.DictReader((LABELS / "qrels.csv").open()))
    assert len({row["query-id"] for row in rows if row["score"] == "2"}) == TASKS[0].num_queries
    assert Counter(row["score"] for row in rows) == {"2": 321, "1": 244}


def test_the_pages_say_what_came_of_the_runs() -> None:
    table = (ROOT / "results" / "real_pages" / "table.md").read_text()
    runs = sorted((ROOT / "results" / "real_pages").glob("*-RealPages*.json"))
    assert runs
    for run in runs:
        metrics = load_task_result(run).metrics
        assert f"| {metrics['ndcg_linear@5']:.3f} [" in table, run.name
        assert f" | {metrics['hit@1']:.3f} | {metrics['hit@5']:.3f} |" in table, run.name
    for page in ("README.md", "docs/evidence.md"):
        said = re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", (ROOT / page).read_text())
        assert len(said) >= len(runs)
        assert [interval for interval in said if interval not in table] == []
