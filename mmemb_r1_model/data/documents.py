"""Two sets of document pages, whose images lie inside their parquet files.

vidore/colpali_train_set, `data/train-*-of-00082.parquet`: a page and a question about it → the answer, as VLM2Vec
pairs it (src/data/dataset/vidore_dataset.py). Columns: image {bytes, path}, image_filename, query, answer, source,
options, page, model, prompt, answer_type. A real row, of siryuson/BottleneckTokens' card of the set:

    query   "What is the duration of the course mentioned in the image?"
    answer  "['five to ten hours, not including field trips']"

openbmb/VisRAG-Ret-Train-In-domain-data, `data/train-*-of-00037.parquet`: a query → the page, with instructions by
source (src/data/dataset/visrag_dataset.py). Columns: query, image {bytes, path}, source.

    query   "which are the countries with Chinese speaking population other than China according to this infographic?"
    source  "InfoVQA"

Pages are written to `<folder>/pages/` as they are first asked for: once read, a set takes its size again on disk.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from mmemb_r1_model.data.config import PairKind, TrainingSetConfig
from mmemb_r1_model.data.media import StoredImages, answer_key
from mmemb_r1_model.data.pairs import Item, Pair, PairSet
from mmemb_r1_model.data.rows import RowPairs, find_files, has_words, read_columns, text_of, usable_rows

DocumentSet = Literal["colpali", "visrag"]

FETCH: dict[DocumentSet, str] = {
    "colpali": "hf download vidore/colpali_train_set --repo-type dataset --local-dir colpali_train_set",
    "visrag": (
        "hf download openbmb/VisRAG-Ret-Train-In-domain-data --repo-type dataset "
        "--local-dir VisRAG-Ret-Train-In-domain-data"
    ),
}
_COLUMNS: dict[DocumentSet, tuple[str, ...]] = {"colpali": ("query", "answer"), "visrag": ("query", "source")}

#: VLM2Vec gives the page and the question no instruction (it leaves out `prompt`, the one of the model that wrote
#: the question). A student whose instruction turn is never empty gets UME-R1's, of its src/data-process.
ASK_PAGE = "Represent the given image with the following question:"

#: Source of a VisRAG row → instruction of the query, as in VLM2Vec, which sets the query right behind it.
QUERY_INSTRUCTIONS: dict[str, str] = {
    "NeurIPS Papers": (
        "This query is about a research paper from NeurIPS, a leading AI/ML conference. The document contains "
        "technical discussions, methodologies, and findings. Identify relevant papers and sections that address the "
        "query:"
    ),
    "Textbooks": (
        "This query is related to a college-level textbook, which provides structured explanations, definitions, and "
        "examples. Find the most relevant concepts or explanations that address the query:"
    ),
    "ICML Papers": (
        "This query is about a research paper from ICML, a leading AI/ML conference. The document contains "
        "theoretical insights, experiments, and applications. Identify relevant papers and sections that best answer "
        "the query:"
    ),
    "Manuallib": (
        "This query pertains to a product manual, which contains detailed technical specifications, usage "
        "instructions, and troubleshooting steps. Find the most relevant section that answers the query:"
    ),
    "ArxivQA": (
        "This query is related to retrieving a relevant figure from an ArXiv research paper. The retrieved figure "
        "should contain scientific plots, mathematical visualizations, or experimental results that best address the "
        "query:"
    ),
    "ChartQA": (
        "This query is related to retrieving a relevant chart that visually represents numerical or categorical "
        "data. The retrieved chart should contain bar graphs, line charts, or other visual elements necessary to "
        "analyze trends, compare values, or extract insights related to the query:"
    ),
    "MP-DocVQA": (
        "This query is related to retrieving a relevant page from a multi-page document, such as reports, invoices, "
        "or research papers. The retrieved document should contain text, tables, or structured information necessary "
        "to answer the query:"
    ),
    "InfoVQA": (
        "This query is related to retrieving an infographic that visually presents statistical or factual "
        "information using charts, icons, and structured layouts. The retrieved image should contain the necessary "
        "visual elements to provide the best context for answering the query:"
    ),
    "PlotQA": (
        "This query relates to retrieving a relevant plot or chart that visually represents numerical data. The "
        "retrieved figure should contain the necessary information to analyze trends, compare values, or extract key "
        "insights related to the query:"
    ),
    "SlideVQA": (
        "This query is related to retrieving a relevant presentation slide that visually presents structured "
        "information. The retrieved slide should contain the necessary text, charts, or graphics to provide the best "
        "answer to the query:"
    ),
}

#: The same for the page.
PAGE_INSTRUCTIONS: dict[str, str] = {
    "Textbooks": "A textbook page with structured educational content and explanations.",
    "ICML Papers": "A research paper from ICML, covering machine learning topics.",
    "NeurIPS Papers": "A research paper from NeurIPS on AI and ML topics.",
    "Manuallib": "A product manual page with technical specifications and instructions.",
    "InfoVQA": "An infographic with structured data, charts, and annotations.",
    "PlotQA": "A numerical data visualization, such as bar charts or line graphs.",
    "SlideVQA": "A presentation slide with text, bullet points, and diagrams.",
    "ArxivQA": "A figure from a research paper, including plots or experimental results.",
    "MP-DocVQA": "A page from a multi-page document with text or tables.",
    "ChartQA": "A statistical chart comparing values or analyzing trends.",
}


def open_documents(config: TrainingSetConfig, root: Path, kind: DocumentSet) -> list[PairSet]:
    """One of the two sets. Its texts are in memory, as Arrow columns.

    Raises:
        DataError: files or columns are missing.
    """
    folder, split, way_out = root / config.path, config.split or "train", f"get it again: {FETCH[kind]}"
    files = find_files(folder, [f"data/{split}-*.parquet", f"{split}-*.parquet"], FETCH[kind])
    rows = read_columns(files, _COLUMNS[kind], (), way_out)
    pages = StoredImages(files, "image", folder / "pages", way_out)
    asked, needed = rows.slice(0, config.limit), ("query", "answer") if kind == "colpali" else ("query",)
    numbers, skipped = usable_rows({f"no {column}": has_words(asked[column]) for column in needed})
    pair_of = _answer_about_page if kind == "colpali" else _page_for_query
    return [RowPairs(config.name or kind, numbers, partial(pair_of, rows, pages), skipped)]


COLPALI = PairKind(partial(open_documents, kind="colpali"), ("split",))
VISRAG = PairKind(partial(open_documents, kind="visrag"), ("split",))


def _answer_about_page(rows: pa.Table, pages: StoredImages, name: str, number: int) -> Pair:
    query = Item(f"{number}/query", text_of(rows, "query", number).strip(), (pages[number],), instruction=ASK_PAGE)
    positive = Item(f"{number}/positive", text_of(rows, "answer", number).strip())
    return Pair(str(number), name, query, positive, answer=answer_key(positive.text))


def _page_for_query(rows: pa.Table, pages: StoredImages, name: str, number: int) -> Pair:
    page, words = pages[number], text_of(rows, "query", number).strip()
    # A source that isn't among the ten has no instruction, as in VLM2Vec.
    source = text_of(rows, "source", number)
    query = Item(f"{number}/query", words, instruction=QUERY_INSTRUCTIONS.get(source, ""))
    positive = Item(f"{number}/positive", images=(page,), instruction=PAGE_INSTRUCTIONS.get(source, ""))
    return Pair(str(number), name, query, positive, answer=answer_key("", [page.name]))
