"""Pages read by the real engine and ranked by real vectors of what stands on them; what is said where that can't be."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmeb_baselines.ocr import engine
from mmeb_baselines.ocr.engine import PageReader, enlarged
from mmeb_baselines.ocr.model import OcrEmbedder, load
from PIL import Image, ImageDraw, ImageFont

from mmeb_harness import DataError, Frames, Item, ModelError, OptionError, Samples, Task, TokenVectors
from mmeb_harness.results.files import TaskResult, load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from mmeb_harness.run.record import UNREAD
from tests.toy import QuietReporter, evaluated, info_of, registered

REASON = "needs `pip install 'mmeb-harness[ocr]'`: rapidocr, whose package holds the engine's weights"
LINES = {
    "harbour": ["The harbour opens at six", "Boats leave every hour"],
    "copper": ["Copper melts at 1085 degrees", "Iron melts later"],
    "blank": [],
}
QUERIES = {"when do boats leave the harbour?": "harbour", "melting point of a metal": "copper"}


def draw(path: Path, lines: list[str], size: tuple[int, int] = (360, 120)) -> Path:
    picture = Image.new("RGB", size, "white")
    for row, line in enumerate(lines):
        ImageDraw.Draw(picture).text((10, 10 + 40 * row), line, fill="black", font=ImageFont.load_default(24))
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, lines in LINES.items():
        draw(folder / f"{name}.png", lines)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def embedder(texts: Path) -> OcrEmbedder:
    pytest.importorskip("rapidocr", reason=REASON)
    return load(texts=str(texts), device="cpu")


def read_pages(folder: Path, frames: Frames) -> Samples:
    queries = tuple(Item(text, text=text, instruction="Find a page:") for text in QUERIES)
    candidates = tuple(Item(name, images=(folder / f"{name}.png",)) for name in LINES)
    return Samples(queries, candidates, {text: {page: 1.0} for text, page in QUERIES.items()})


@pytest.mark.slow
def test_a_run_ranks_pages_by_what_stands_on_them(
    embedder: OcrEmbedder, pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task("pages", "visdoc", "VisRAG", "hit@1", read_pages, annotations=("*.png",))
    tasks, reporter = registered(task), QuietReporter()

    def run(output: Path, embedder: OcrEmbedder) -> TaskResult:
        evaluated(embedder, list(tasks.values()), tasks, info_of(pages), RunSettings(output), reporter)
        return load_task_result(RunFolder(output).task_file("pages"))

    result = run(tmp_path / "run", embedder)
    assert (result.score, result.notes) == (1.0, {UNREAD: 1})
    assert f"1 {UNREAD}" in reporter.finished[0]
    rows = pq.read_table(tmp_path / "run" / "candidates" / "pages.parquet").to_pylist()
    assert {row["candidate_id"]: row["rationale"].split("\n") for row in rows} == {**LINES, "blank": [""]}
    queries = pq.read_table(tmp_path / "run" / "queries" / "pages.parquet").to_pylist()
    assert [(row["path"], row["rationale"]) for row in queries] == [("direct", None)] * len(QUERIES)

    # Another model of text, or the same one set otherwise, reads nothing again.
    monkeypatch.setattr(PageReader, "text", lambda *_: pytest.fail("a page is read a second time"))
    cut = OcrEmbedder(embedder._reader, embedder._kept, embedder._text_model, 6, "MiniLM")
    again = run(tmp_path / "cut", cut)
    assert again.score == 1.0
    assert again.fingerprint != result.fingerprint


@pytest.mark.slow
def test_an_item_is_its_own_text_above_what_is_read(embedder: OcrEmbedder, pages: Path) -> None:
    harbour, copper, blank = (pages / f"{name}.png" for name in LINES)
    clip = Item("clip", text="a film", frames=(harbour, blank, copper, harbour))
    words = "\n".join(("a film", *LINES["harbour"], *LINES["copper"]))
    result = embedder.encode([clip, Item("words", text=words), Item("nothing", images=(blank,)), Item("")], "candidate")
    assert isinstance(result.vectors, TokenVectors)
    film, plain, nothing, empty = (result.vectors[place] for place in range(4))
    assert np.abs(film - plain).max() < 1e-5
    assert np.abs(nothing - empty).max() < 1e-5
    assert result.traces is not None
    assert [trace.rationale for trace in result.traces] == [words.removeprefix("a film\n"), None, "", None]
    long = embedder.encode([Item("long", text=words * 9)], "candidate").vectors
    prepared = pickle.loads(pickle.dumps(embedder.prepare([Item("long", text=words * 9)], "candidate")))
    assert len(long[0]) == len(prepared.items[0].pieces) > 1
    assert np.array_equal(embedder.encode_prepared(prepared).vectors[0], long[0])


@pytest.mark.slow
def test_the_model_says_what_reads_and_what_embeds(embedder: OcrEmbedder) -> None:
    settings = embedder.info.settings
    assert settings["text_model"] == "all-MiniLM-L6-v2"
    assert settings["query_prompt"] == ""
    assert settings["ocr"] == f"rapidocr {importlib.metadata.version('rapidocr')}"
    assert str(settings["ocr_weights"]) in embedder.info.revision
    assert (embedder.info.similarity, embedder.info.profile.instruction) == ("max_sim", "none")


@pytest.mark.slow
def test_a_broken_page_ends_it_and_is_named(embedder: OcrEmbedder, tmp_path: Path) -> None:
    whole = draw(tmp_path / "page.png", ["a page"]).read_bytes()
    (tmp_path / "page.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"page\.png can't be opened"):
        embedder.encode([Item("page", images=(tmp_path / "page.png",))], "candidate")
    with pytest.raises(DataError, match="gone can't be read"):
        embedder.encode([Item("gone", images=(tmp_path / "gone",))], "candidate")


@pytest.mark.slow
def test_weights_that_are_not_there_are_named_and_never_fetched(
    embedder: OcrEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_package_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match=r"comes without PP-OCRv6_det_small\.onnx"):
        load()


def test_without_the_extra_one_line_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "rapidocr" else find(name))
    with pytest.raises(ModelError, match=r"^model 'ocr' needs rapidocr.*: pip install 'mmeb-harness\[ocr\]'$"):
        load()
    with pytest.raises(OptionError, match="piece_tokens must be at least 2, not 1"):
        load(piece_tokens=1)


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((64, 96), (704, 1056)),  # the mini suite's pages
        ((1654, 2339), (1654, 2339)),  # A4 at 200 dpi
        ((368, 500), (736, 1000)),
        ((369, 500), (369, 500)),
        ((10, 1500), (10, 1500)),  # the longer side has no room
        ((1, 1), (736, 736)),
    ],
)
def test_small_pictures_are_enlarged_by_whole_factors(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert enlarged(Image.new("RGB", size)).size == shown
