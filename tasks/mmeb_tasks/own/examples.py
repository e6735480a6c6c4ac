"""An example of each form of own data, filled in: it runs at once, and people replace its rows by theirs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmeb_tasks.own.settings import FILE

_COLOURS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 200), "yellow": (230, 200, 40)}
_SHAPES = ("square", "circle", "triangle")
_SIDE = 96
_SETTINGS = """\
# All of it is optional.
name: {name}
instruction: {instruction}
# Of candidates:
candidate_instruction: ""
"""


def _settings(folder: Path, name: str, instruction: str) -> None:
    (folder / FILE).write_text(_SETTINGS.format(name=name, instruction=instruction), encoding="utf-8")


def _draw(path: Path, colour: str, shape: str, left: int = 24) -> None:
    from PIL import Image, ImageDraw

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", (_SIDE, _SIDE), (245, 245, 240))
    pen, box = ImageDraw.Draw(picture), (left, 24, left + 48, 72)
    if shape == "triangle":
        pen.polygon([(box[0], 72), (box[2], 72), ((box[0] + box[2]) // 2, 24)], fill=_COLOURS[colour])
    else:
        {"square": pen.rectangle, "circle": pen.ellipse}[shape](box, fill=_COLOURS[colour])
    picture.save(path)


def _write_rows(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_retrieval(folder: Path) -> None:
    """Queries of text, of a picture and of both; a corpus of pictures with captions, a clip and text."""
    named = [(colour, shape) for colour in _COLOURS for shape in _SHAPES]
    for colour, shape in named:
        _draw(folder / f"images/{colour}-{shape}.png", colour, shape)
    for frame in range(4):
        _draw(folder / f"clips/moving/{frame}.png", "red", "circle", 8 + 10 * frame)
    corpus: list[dict[str, object]] = [
        {"_id": f"{colour}-{shape}", "text": f"a {colour} {shape}", "image": f"images/{colour}-{shape}.png"}
        for colour, shape in named
    ]
    corpus.append({"_id": "clip", "text": "a red circle moves to the right", "frames": "clips/moving"})
    corpus.append({"_id": "note", "title": "Colours", "text": "Red, green, blue and yellow are colours."})
    queries: list[dict[str, object]] = [
        {"_id": "q-text", "text": "a blue triangle", "instruction": "Find the picture that is described."},
        {"_id": "q-image", "image": "images/green-circle.png"},
        {"_id": "q-both", "text": "the same in yellow", "image": "images/red-square.png"},
        {"_id": "q-clip", "text": "something that moves"},
    ]
    _write_rows(folder / "corpus.jsonl", corpus)
    _write_rows(folder / "queries.jsonl", queries)
    relevant: Sequence[tuple[str, str, int]] = (
        ("q-text", "blue-triangle", 2),
        ("q-text", "blue-square", 1),
        ("q-image", "green-circle", 1),
        ("q-both", "yellow-square", 1),
        ("q-clip", "clip", 1),
    )
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in relevant)]
    (folder / "qrels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _settings(folder, "my-retrieval", '"Find what the query asks for."')


def write_pictures(folder: Path) -> None:
    """Pictures with captions. A sub-folder a class needs no table at all."""
    rows = []
    for colour in _COLOURS:
        for shape in _SHAPES:
            _draw(folder / f"{colour}-{shape}.png", colour, shape)
            rows.append({"file_name": f"{colour}-{shape}.png", "text": [f"a {colour} {shape}", f"{shape}, {colour}"]})
    _write_rows(folder / "captions.jsonl", rows)
    _settings(folder, "my-pictures", '""')


def write_documents(folder: Path) -> None:
    """A PDF of three pages, and questions about them."""
    (folder / "documents").mkdir()
    pages = (
        "Opening hours: nine to five.",
        "Prices: a ticket costs four euros.",
        "How to get here: by tram, line seven.",
    )
    (folder / "documents" / "guide.pdf").write_bytes(_pdf(pages))
    (folder / "queries.csv").write_text(
        "query,document,page\nwhen is it open,guide,1\nwhat does a ticket cost,guide,2\nwhich tram,guide,3\n",
        encoding="utf-8",
    )
    _settings(folder, "my-documents", '"Find the page that answers the question."')
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write("# What a page is to a model: image, text or both.\npages: image\ndpi: 150\n")


def _pdf(pages: Sequence[str]) -> bytes:
    """A PDF with a line of text a page, as small as it can be."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for index, text in enumerate(pages):
        stream = f"BT /F1 18 Tf 30 150 Td ({text}) Tj ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * index} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    count = len(objects) + 1
    body += f"xref\n0 {count}\n0000000000 65535 f \n{table}"
    body += f"trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{body.rindex('xref')}\n%%EOF\n"
    return body.encode("ascii")
