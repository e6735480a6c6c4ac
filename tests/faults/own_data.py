"""Folders of own data as people have them: what is wrong is one line with file, row and way out, and nothing is left
of the run; what is only unusual runs. Spoiled rows of the examples are in tests/tasks/test_own.py."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from mmeb_tasks.own import DOCUMENTS, PICTURES, RETRIEVAL

from mmeb_harness import FolderFormat
from tests.faults.fault import Command, Fault, World

Change = Callable[[Path], object]
_RUN = ("mmeb-eval", "run", "--model", "random", "--data", "mine", "--output", "out")
_ZEROS = b"00" * 32
#: No password opens it.
_ENCRYPTED = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\n"
    b"4 0 obj<</Filter/Standard/V 1/R 2/P -4/O<" + _ZEROS + b">/U<" + _ZEROS + b">>>endobj\n"
    b"trailer<</Root 1 0 R/Encrypt 4 0 R/ID[<00><00>]/Size 5>>\n%%EOF"
)


def _made(form: FolderFormat, change: Change) -> Callable[[World], Sequence[Command]]:
    def make(world: World) -> Sequence[Command]:
        folder = world.folder / "mine"
        folder.mkdir()
        form.write_example(folder)
        change(folder)
        return [_RUN]

    return make


def _nothing_left(world: World) -> None:
    assert {path.name for path in (world.folder / "out").rglob("*")} <= {".lock"}


def _refused(name: str, form: FolderFormat, change: Change, *says: str) -> Fault:
    return Fault("own_data", name, _made(form, change), says, holds=_nothing_left)


def _runs(name: str, form: FolderFormat, change: Change, **holds: int) -> Fault:
    """It runs, and the result of its first task has these values."""

    def held(world: World) -> None:
        result = json.loads(sorted((world.folder / "out/tasks").iterdir())[0].read_text())
        assert {field: result[field] for field in holds} == holds

    return Fault("own_data", name, _made(form, change), says=("results: out",), code=0, holds=held)


def _written(name: str, content: str | bytes) -> Change:
    """One of the folder's files is this."""

    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def _replaced(name: str, before: bytes, after: bytes) -> Change:
    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        assert before in content
        (folder / name).write_bytes(content.replace(before, after))

    return change


def _recoded(folder: Path) -> None:
    (folder / "queries.jsonl").write_text((folder / "queries.jsonl").read_text(), encoding="utf-16")


def _as_array(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    (folder / "corpus.jsonl").write_text(json.dumps(rows, indent=1))


def _with_floats(folder: Path) -> None:
    """As pandas writes a column of whole numbers that has a gap."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "qrels.tsv").unlink()
    _written("corpus.jsonl", '{"_id": 7, "text": "seven"}\n{"_id": "8", "text": "eight"}\n')(folder)
    _written("queries.jsonl", '{"_id": 1, "text": "7"}\n')(folder)
    pq.write_table(pa.table({"query-id": [1.0], "corpus-id": [7]}), folder / "qrels.parquet")


def _classes(*paths: str | bytes) -> Change:
    """Instead of captions these pictures."""

    def change(folder: Path) -> None:
        picture = (folder / "red-circle.png").read_bytes()
        shutil.rmtree(folder)
        for path in paths:
            target = os.path.join(os.fsencode(folder), os.fsencode(path))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(picture)

    return change


def _copied(before: str, after: str) -> Change:
    return lambda folder: shutil.copy(folder / before, folder / after)


def _swapped_for_folder(folder: Path) -> None:
    (folder / "documents" / "more.pdf").mkdir()


FAULTS: tuple[Fault, ...] = (
    _refused("labels without header", RETRIEVAL, _written("qrels.tsv", "q-text\tnote\t1\n"), r"qrels.tsv:1: no column"),
    _refused("labels of nothing", RETRIEVAL, _written("qrels.tsv", ""), "qrels.tsv: labels no query; each needs a row"),
    _refused("text in UTF-16", RETRIEVAL, _recoded, "queries.jsonl: not text in UTF-8 .*; save it as UTF-8$"),
    _refused("one JSON list", RETRIEVAL, _as_array, "corpus.jsonl:1: begins a list; write an object a line"),
    _refused("two tables of a name", RETRIEVAL, _copied("queries.jsonl", "queries.csv"), "both .*; take one away"),
    _refused(
        "an id of half a letter",
        RETRIEVAL,
        _written("corpus.jsonl", '{"_id": "\\ud800", "text": "a"}\n'),
        r"corpus.jsonl:1: _id is '\\ud800'; give each row an _id",
    ),
    _refused("a picture in a cell", RETRIEVAL, _replaced("corpus.jsonl", b'"images/red-circle.png"', b'{"bytes": "x"}'),
             "corpus.jsonl:2: image is .*; save the pictures as files, and write their paths"),
    _refused("names in Latin-1", PICTURES, _classes("a/1.png", b"\xe9/2.png"), "its name is not UTF-8; rename it"),
    _refused("deeper pictures", PICTURES, _classes("a/1.png", "b/2.png", "b/c/3.png"), "b/c/: holds pictures, but"),
    _refused("two classes of a name", PICTURES, _classes("a_b/1.png", "a b/2.png"), "a_b/: is called 'a b', as "),
    _refused("one class", PICTURES, _classes("a/1.png"), "holds no data that is known: .* It holds a; mmeb-eval new"),
    _refused("encrypted", DOCUMENTS, _written("documents/more.pdf", _ENCRYPTED), "more.pdf: is encrypted; .*--decrypt"),
    _refused("a folder as PDF", DOCUMENTS, _swapped_for_folder, "documents/more.pdf: can't be read: it is a folder"),
    _refused("PDFs of a name", DOCUMENTS, _copied("documents/guide.pdf", "guide.pdf"), "another PDF is called 'guide'"),
    _refused(
        "a page too large",
        DOCUMENTS,
        _replaced("documents/guide.pdf", b"[0 0 400 200]", b"[0 0 14000 14000]"),
        "guide.pdf: page 1 would have 29,167 x 29,167 pixels at 150 dpi, .*; set fewer dpi in dataset.yaml",
    ),
    _refused("nowhere to render", DOCUMENTS, _written("pages", "a file"), "can't be written to .*; copy the data"),
    _runs("ids as fractions", RETRIEVAL, _with_floats, num_queries=1, num_candidates=2),
    _runs("a folder of annotations", RETRIEVAL, _written("annotations/all.json", "{}"), num_queries=4),
    _runs("other formats, capitals", PICTURES, _classes("a/1.webp", "b/2.JPG", "[c]/3.tiff"), num_queries=3),
    _runs("semicolons", DOCUMENTS, _replaced("queries.csv", b",", b";"), num_queries=3),
)  # fmt: skip
