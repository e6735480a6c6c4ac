"""The PDF and its labels become two tasks; another PDF is refused; the labels are those that no model had seen."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from pathlib import Path

import pytest
from mmeb_tasks.own import DOCUMENTS

from mmeb_harness import DataError, Frames
from mmeb_harness.core.registry import own_tasks
from mmeb_harness.results.files import load_task_result
from tests.benchmarks.real_pages import make as making
from tests.benchmarks.real_pages.make import LABELS, PDF, TASKS, make
from tests.rooms import ROOT


def test_a_pdf_becomes_two_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "example").mkdir()
    DOCUMENTS.write_example(tmp_path / "example")
    pdf, labels = tmp_path / "example/documents/guide.pdf", tmp_path / "queries.csv"
    rows = [
        "id,query,document,page,score,answer",
        *(f'1,"cats, mostly",scrguide-en,{grade},a' for grade in ("3,1", "1,2")),
    ]
    labels.write_text("\n".join([*rows, ""]))
    monkeypatch.setattr(making, "LABELS", labels)
    make(pdf, tmp_path / "data", hashlib.sha256(pdf.read_bytes()).hexdigest())
    tasks = own_tasks(tmp_path / "data")
    assert tuple(tasks) == TASKS
    pictures, texts = (standing.task.load(tmp_path / "data", Frames()) for standing in tasks.values())
    assert [query.text for query in pictures.queries] == ["cats, mostly"]
    assert pictures.gains == texts.gains == {"1": {"scrguide-en#3": 1.0, "scrguide-en#1": 2.0}}
    assert [page.id for page in pictures.candidates] == [f"scrguide-en#{number}" for number in (1, 2, 3)]
    assert all(page.images for page in pictures.candidates)
    assert [page.text.split(":")[0] for page in texts.candidates] == ["Opening hours", "Prices", "How to get here"]
    assert not any(page.media for page in texts.candidates)
    assert not [*(tmp_path / "data" / TASKS[1]).glob("pages/*/*.png")]  # texts alone need no pictures


def test_another_pdf_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "other.pdf").write_bytes(b"another")
    for name, says in (("other.pdf", hashlib.sha256(b"another").hexdigest()), ("missing.pdf", "No such file")):
        with pytest.raises(DataError, match=rf"{says}.*; get it on Debian 12") as error:
            make(tmp_path / name, tmp_path / "data")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_the_labels_are_those_that_no_model_had_seen() -> None:
    """Queries and grades as they were written down before, in two tables."""
    with LABELS.open(encoding="utf-8", newline="") as file:
        rows = [{**row, "query-id": row["id"], "corpus-id": row["page"]} for row in csv.DictReader(file)]
    queries = {row["id"]: row for row in rows}
    assert [checksum([*queries.values()], "query-id", "query", "form", "answer"), checksum(rows, *_QRELS)] == [
        "0b31c0a0c65f83986784c1c69b39988e2dc634ce3bd2e29dc6bc017c55c33b1f",
        "ad9792ab94ce9e6d9f1a0dceaf22d536f338b2c44280f92410659fdd3b439feb",
    ]
    assert {row["document"] for row in rows} == {PDF.removesuffix(".pdf")}
    assert len({row["query-id"] for row in rows if row["score"] == "2"}) == len(queries) == 201
    assert Counter(row["score"] for row in rows) == {"2": 321, "1": 244}


_QRELS = ("query-id", "corpus-id", "score")


def checksum(rows: list[dict[str, str]], *columns: str) -> str:
    """SHA-256 of a table of these columns."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return hashlib.sha256(table.getvalue().encode()).hexdigest()


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
