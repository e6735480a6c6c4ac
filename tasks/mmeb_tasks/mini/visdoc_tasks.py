"""The 24 visual document tasks of the mini suite: queries, graded qrels, a corpus of rendered pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmeb_harness import Table
from mmeb_tasks.mini.questions import described, difficulties
from mmeb_tasks.mini.world import COLOURS, EVERY_THING, SHAPES, Rng, Thing, draw_page, random_thing
from mmeb_tasks.mini.write import Difficulty, QueryLabel, Streams, SuiteWriter, encode_picture
from mmeb_tasks.visdoc import ROWS, VisdocRow

Row = dict[str, Any]
LANGUAGES = ("english", "french", "german", "spanish")
#: Colour and shape words of the multilingual sets, in the order of `COLOURS` and `SHAPES`.
WORDS = {
    "french": (
        ["rouge", "vert", "bleu", "jaune", "violet", "orange", "blanc", "cyan"],
        ["cercle", "carré", "triangle", "plus", "barre", "croix", "losange", "anneau"],
    ),
    "german": (
        ["rot", "grün", "blau", "gelb", "lila", "orange", "weiß", "türkis"],
        ["kreis", "quadrat", "dreieck", "plus", "balken", "kreuz", "raute", "ring"],
    ),
    "spanish": (
        ["rojo", "verde", "azul", "amarillo", "morado", "naranja", "blanco", "cian"],
        ["círculo", "cuadrado", "triángulo", "más", "barra", "cruz", "rombo", "anillo"],
    ),
    "english": (list(COLOURS), list(SHAPES)),
}
ROW_NAMES = ("north", "south", "east", "west")


@dataclass(frozen=True)
class Page:
    """One page of the corpus: its id, and the colour and title it is found by."""

    page_id: int | str
    thing: Thing


def write_visdoc_task(name: str, streams: Streams, writer: SuiteWriter, num_queries: int) -> None:
    """Write one of the 24 visual document tasks."""
    row, rng = next(row for row in ROWS if row.name == name), streams(name)
    pages = _write_corpus(row, rng, writer, num_queries)
    queries: list[Row] = []
    qrels: list[Row] = []
    labels: list[QueryLabel] = []
    for number, kind in enumerate(difficulties(rng, num_queries)):
        query_id: int | str = number if row.reader == "vidore" else f"query_{number:05d}.png"
        language = LANGUAGES[number % 4] if _is_multilingual(row) else "english"
        target = random_thing(rng)
        text, rationale = _words(row, rng, kind, language, target)
        queries.append(
            {"query-id": query_id, "query": text} | ({"language": language} if _is_multilingual(row) else {})
        )
        qrels += [
            {"query-id": query_id, "corpus-id": page.page_id, "score": grade}
            for page in pages
            if (grade := _grade(row, page, target))
        ]
        labels.append(QueryLabel(str(query_id), kind, rationale, target.words))
    for config, rows in (("queries", queries), ("qrels", qrels)):
        writer.table(Table(row.repo, config, row.split), rows)
    writer.labels(name, labels)


def write_late_labels(name: str, repo: str, writer: SuiteWriter) -> None:
    """Write a task that is written once more under another repository, its labels one page late: its first release."""
    row = next(row for row in ROWS if row.name == name)
    for config in ("queries", "corpus", "qrels"):
        rows = writer.rows(Table(row.repo, config, row.split))
        if config == "qrels":
            rows = [qrel | {"corpus-id": (qrel["corpus-id"] + 1) % len(EVERY_THING)} for qrel in rows]
        writer.table(Table(repo, config, row.split), rows)


def _write_corpus(row: VisdocRow, rng: Rng, writer: SuiteWriter, num_queries: int) -> list[Page]:
    """All 64 things, colour by colour (a colour is a document), each on one page or more."""
    copies = (2 if _is_multilingual(row) else 1) + num_queries // 128
    pages: list[Page] = []
    rows: list[Row] = []
    for thing in EVERY_THING:
        for _ in range(copies):
            number = len(rows)
            page_id: int | str = number if row.reader == "vidore" else f"report-{number // 8}_page_{number:04d}.png"
            table = [f"{name} {int(rng.integers(10, 99))}" for name in rng.choice(ROW_NAMES, 2, replace=False)]
            picture = draw_page(thing, table, [int(height) for height in rng.integers(12, 46, 3)], rng)
            pages.append(Page(page_id, thing))
            rows.append({"corpus-id": page_id, "image": {"bytes": encode_picture(picture, ".png"), "path": None}})
    writer.table(Table(row.repo, "corpus", row.split), rows)
    return pages


def _words(row: VisdocRow, rng: Rng, kind: Difficulty, language: str, target: Thing) -> tuple[str, str]:
    """Query text and rationale."""
    if kind == "hard":
        return described(rng, target, kind)
    colours, shapes = WORDS[language]
    return f"{colours[target.colour]} {shapes[target.shape]}", target.words


def _is_multilingual(row: VisdocRow) -> bool:
    return row.name.endswith("_multilingual")


def _grade(row: VisdocRow, page: Page, target: Thing) -> int:
    """The higher grade for the page itself; the lower, where there are two, for the rest of its document."""
    if page.thing == target:
        return row.grades[-1]
    return row.grades[0] if len(row.grades) > 1 and page.thing.colour == target.colour else 0
