"""Own data without code: the examples run, every spoiled one is told with file and line, and nothing is taken for
MMEB-V2's."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from mmeb_baselines.official_text import official_text, official_text_without_media_tokens
from mmeb_tasks.own import DOCUMENTS, PICTURES, RETRIEVAL
from mmeb_tasks.own.documents import read_documents
from mmeb_tasks.own.pictures import _captioned
from mmeb_tasks.own.retrieval import read_retrieval
from mmeb_tasks.own.settings import Settings
from PIL import Image

from mmeb_harness import DataError, FolderFormat, Frames, Item, Samples
from mmeb_harness.api.own_data import check_folder_of_own_data
from mmeb_harness.cli.commands import cli
from mmeb_harness.core.registry import folder_formats, own_tasks
from tests.harness.calls import counted


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `mmeb-eval new dataset` writes them, pages rendered."""
    folder = tmp_path_factory.mktemp("own") / "examples"
    done = CliRunner().invoke(cli, ["new", "dataset", str(folder)], catch_exceptions=False)
    assert done.exit_code == 0
    for _ in check_folder_of_own_data(folder):
        pass
    return folder


@pytest.fixture
def spoiled(examples: Path, tmp_path: Path) -> Callable[[FolderFormat], Path]:
    return lambda form: Path(shutil.copytree(examples / form.name, tmp_path / form.name))


def problems_of(folder: Path) -> list[str]:
    return [problem for data in check_folder_of_own_data(folder) for problem in data.problems]


def read(folder: Path) -> dict[str, Samples]:
    return {name: registered.task.load(folder, Frames()) for name, registered in own_tasks(folder).items()}


def test_examples_hold_all_kinds_of_items_and_are_without_problems(examples: Path) -> None:
    assert problems_of(examples) == []
    assert [form.name for form in folder_formats()] == ["documents", "pictures", "retrieval"]
    samples = read(examples)
    assert list(samples) == ["my-documents", "my-pictures-t2i", "my-pictures-i2t", "my-retrieval"]
    queries = {query.id: query for query in samples["my-retrieval"].queries}
    assert queries["q-text"].instruction == "Find the picture that is described."
    assert queries["q-both"].text
    assert queries["q-both"].images
    assert queries["q-image"].instruction == "Find what the query asks for."  # the data set's
    corpus = {item.id: item for item in samples["my-retrieval"].candidates}
    assert len(corpus["clip"].frames) == 4
    assert corpus["note"].text.startswith("Colours Red")
    assert samples["my-retrieval"].gains["q-text"] == {"blue-triangle": 2.0, "blue-square": 1.0}


def test_a_folder_without_problems_is_read_once(examples: Path) -> None:
    with counted(read_documents, read_retrieval, _captioned) as calls:
        assert problems_of(examples) == []
    assert calls == {"read_documents": 1, "read_retrieval": 1, "_captioned": 1}


def test_pages_are_rendered_once_and_again_if_the_pdf_is_another(spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(DOCUMENTS)
    (page, *others) = sorted(folder.glob("pages/guide-*/0001.png"))
    assert not others
    with Image.open(page) as picture:
        assert picture.size == (834, 417)  # 400 x 200 points at 150 dpi
    stamp = page.stat().st_mtime_ns
    read(folder)
    assert page.stat().st_mtime_ns == stamp
    pdf = folder / "documents" / "guide.pdf"
    pdf.write_bytes(pdf.read_bytes().replace(b"nine to five", b"ten to six  "))
    read(folder)
    (again,) = folder.glob("pages/guide-*/0001.png")
    assert again != page


def test_pages_as_text(spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(DOCUMENTS)
    settings = folder / "dataset.yaml"
    settings.write_text(settings.read_text().replace("pages: image", "pages: both"))
    pages = read(folder)["my-documents"].candidates
    assert pages[1].text.strip() == "Prices: a ticket costs four euros."
    assert pages[1].images
    pdf = folder / "documents" / "guide.pdf"
    pdf.write_bytes(
        pdf.read_bytes().replace(b"(Prices: a ticket costs four euros.)", b"(                                   )")
    )
    (problem,) = problems_of(folder)
    assert problem.startswith("documents/guide.pdf, page 2: the PDF holds no text there")


def test_a_folder_of_classes(examples: Path, tmp_path: Path) -> None:
    for kind, names in {"red_things": ("red-circle", "red-square"), "blue": ("blue-circle",)}.items():
        (tmp_path / "shapes" / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(examples / "pictures" / f"{name}.png", tmp_path / "shapes" / kind)
    (tmp_path / "shapes" / "blue" / "notes.txt").touch()
    shutil.copy(examples / "pictures" / "blue-circle.png", tmp_path / "shapes")
    (samples,) = read(tmp_path / "shapes").values()
    assert samples.notes == {
        "files in class folders that are no pictures": 1,
        "pictures in no class folder": 1,
    }
    assert [item.text for item in samples.candidates] == ["blue", "red things"]
    assert samples.gains["red_things/red-circle.png"] == {"red_things": 1.0}


def test_one_caption_of_two_pictures_finds_either(spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(PICTURES)
    (folder / "captions.jsonl").write_text(
        '{"file_name": "red-circle.png", "text": "round"}\n{"file_name": "blue-circle.png", "text": "round"}\n'
    )
    to_image, to_text = read(folder).values()
    assert list(to_image.gains.values()) == [{"red-circle.png": 1.0, "blue-circle.png": 1.0}]
    assert len(to_text.candidates) == 1


def test_splits_of_beir_and_parquet_and_several_pictures(spoiled: Callable[[FolderFormat], Path]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = spoiled(RETRIEVAL)
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    pq.write_table(pa.Table.from_pylist([{"frames": None} | row for row in rows]), folder / "corpus.parquet")
    (folder / "corpus.jsonl").unlink()
    (folder / "qrels").mkdir()
    (folder / "qrels.tsv").rename(folder / "qrels" / "test.tsv")
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq-more\tnote\t1\n")
    more = {"_id": "q-more", "images": ["images/red-circle.png", "images/blue-circle.png"]}
    with (folder / "queries.jsonl").open("a") as file:
        file.write(json.dumps(more) + "\n")
    (samples,) = read(folder).values()
    assert samples.notes == {"queries of other splits left out": 1}
    with (folder / "dataset.yaml").open("a") as file:
        file.write("split: train\n")
    (samples,) = read(folder).values()
    assert len(samples.queries[0].images) == 2


SPOILED: dict[str, tuple[FolderFormat, str, str, str, str]] = {
    "missing column": (RETRIEVAL, "qrels.tsv", "corpus-id", "doc", "qrels.tsv:1: no column 'corpus-id'"),
    "unknown query": (RETRIEVAL, "qrels.tsv", "q-image\t", "q-imag\t", "qrels.tsv:4: query-id 'q-imag' is in no row"),
    "unknown candidate": (RETRIEVAL, "qrels.tsv", "\tclip", "\tclap", "qrels.tsv:6: corpus-id 'clap' is in no row"),
    "negative": (RETRIEVAL, "qrels.tsv", "clip\t1", "clip\t-1", "qrels.tsv:6: score '-1' is no grade"),
    "no grade": (RETRIEVAL, "qrels.tsv", "clip\t1", "clip\tnan", "qrels.tsv:6: score 'nan' is no grade"),
    "no relevant": (
        RETRIEVAL,
        "qrels.tsv",
        "clip\t1",
        "clip\t0",
        "queries.jsonl:4: query 'q-clip' has no relevant row",
    ),
    "pair twice": (RETRIEVAL, "qrels.tsv", "blue-square\t1", "blue-triangle\t1", "the pair stands in qrels.tsv:2"),
    "id twice": (
        RETRIEVAL,
        "queries.jsonl",
        "q-image",
        "q-text",
        "queries.jsonl:2: _id 'q-text' stands in queries.jsonl:1",
    ),
    "no id": (RETRIEVAL, "corpus.jsonl", '"_id": "note"', '"x": 1', "corpus.jsonl:14: has no _id"),
    "outside": (RETRIEVAL, "queries.jsonl", "images/green", "../images/green", "'../images/green-circle.png' leaves"),
    "missing": (RETRIEVAL, "queries.jsonl", "green-circle.png", "none.png", "'images/none.png' is not in"),
    "no frames": (RETRIEVAL, "corpus.jsonl", "clips/moving", "clips", "frames 'clips' is no folder with"),
    "empty": (
        RETRIEVAL,
        "queries.jsonl",
        '"text": "something that moves"',
        '"text": " "',
        "has neither text nor image",
    ),
    "both": (
        RETRIEVAL,
        "corpus.jsonl",
        '"frames":',
        '"image": "images/red-circle.png", "frames":',
        "both images and frames",
    ),
    "no JSON": (RETRIEVAL, "corpus.jsonl", '{"_id": "clip"', '"_id": "clip"', "corpus.jsonl:13: no JSON"),
    "number": (RETRIEVAL, "queries.jsonl", '"a blue triangle"', "7", "queries.jsonl:1: text is 7; write text"),
    "caption": (PICTURES, "captions.jsonl", "red-square.png", "no.png", "captions.jsonl:1: 'no.png' is not in"),
    "no caption": (
        PICTURES,
        "captions.jsonl",
        '"text"',
        '"txt"',
        "captions.jsonl:1: file_name 'red-square.png' and text",
    ),
    "no document": (DOCUMENTS, "queries.csv", ",guide,2", ",other,2", "queries.csv:3: document 'other' is none of"),
    "no page": (DOCUMENTS, "queries.csv", ",guide,2", ",guide,4", "page '4': guide has 3 pages, counted from 1"),
    "half a page": (DOCUMENTS, "queries.csv", ",guide,2", ",guide,1.5", "queries.csv:3: page '1.5'"),
    "columns": (DOCUMENTS, "queries.csv", ",guide,2", ",guide,2,1", "queries.csv:3: another number of columns"),
    "no question": (DOCUMENTS, "queries.csv", "what does a ticket cost", "", "queries.csv:3: no query; each row needs"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_is_one_line_with_file_and_row(name: str, spoiled: Callable[[FolderFormat], Path]) -> None:
    form, file, before, after, says = SPOILED[name]
    folder = spoiled(form)
    text = (folder / file).read_text()
    assert before in text
    (folder / file).write_text(text.replace(before, after, 1))
    problems = problems_of(folder)
    assert any(says in problem for problem in problems), problems
    assert all("\n" not in problem for problem in problems)
    with pytest.raises(DataError, match=r"^/"):  # a run says the first, with its path
        read(folder)


def test_everything_is_told_at_once(spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(RETRIEVAL)
    (folder / "images" / "red-circle.png").write_bytes(b"no picture")
    (folder / "images" / "blue-circle.png").unlink()
    (folder / "documents").mkdir()
    problems = problems_of(folder)
    assert len(problems) == 2
    done = CliRunner().invoke(cli, ["check", "--data", str(folder)])
    assert done.exit_code == 1
    assert "FAIL  corpus.jsonl:2: image images/red-circle.png can't be opened" in done.output
    assert f"{folder}: 2 problems" in done.output


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"%PDF-1.4\n", "no PDF, damaged or empty"), (b"", "no PDF, damaged or empty"), (b"text", "no PDF, damaged")],
)
def test_a_pdf_that_is_none(content: bytes, says: str, spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(DOCUMENTS)
    (folder / "documents" / "broken.pdf").write_bytes(content)
    (problem,) = problems_of(folder)
    assert problem.startswith("documents/broken.pdf: ")
    assert says in problem


def test_names(examples: Path, spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(RETRIEVAL)
    (folder / "dataset.yaml").write_text("name: DocVQA\n")
    with pytest.raises(DataError, match="would be called 'DocVQA', like a task of the benchmark; give it a name in"):
        own_tasks(folder)
    (folder / "dataset.yaml").write_text("name: two words\n")
    with pytest.raises(DataError, match="must consist of letters, digits"):
        own_tasks(folder)
    (folder / "dataset.yaml").unlink()
    renamed = folder.rename(folder.with_name("my data (2)"))
    assert list(own_tasks(renamed)) == ["my_data_2"]


def test_a_table_with_a_byte_order_mark_and_quotes(spoiled: Callable[[FolderFormat], Path]) -> None:
    folder = spoiled(DOCUMENTS)
    with (folder / "queries.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([["query", "document", "page"], ["one, two\nthree", "guide.pdf", "1"]])
    (samples,) = read(folder).values()
    assert [query.text for query in samples.queries] == ["one, two\nthree"]


def test_the_page_names_every_setting_and_what_it_shows_is_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
    keys = page.split("| key | default |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in keys.splitlines()[2:]))) == {
        field.name for field in dataclasses.fields(Settings)
    }
    rows = re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0].splitlines()
    known = {"_id", "title", "text", "image", "images", "frames", "instruction"}
    assert all(json.loads(row).keys() <= known for row in rows)


def test_models_that_follow_the_official_strings_get_own_instructions() -> None:
    assert official_text(Item("q", "a cat", instruction="Find it.")) == "Find it. a cat"
    assert official_text_without_media_tokens(Item("q", "a cat", instruction="Find it.")) == "Find it. a cat"
