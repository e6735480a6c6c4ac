"""Makes the task: pages as pictures, their text, queries and graded labels, in the layout of a ViDoRe data set.

python -m tests.benchmarks.real_pages.make scrguide-en.pdf FOLDER

The tables are `queries`, `qrels` and `corpus`, as ViDoRe has them, and `texts`: what the PDF itself says stands on a
page. Rendering takes half a minute; it needs pypdfium2, which the `dev` extra installs.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb_harness import DataError, OptionError, regular_file, replacing, run_command
from mmeb_harness.data.folder import MANIFEST, MANIFEST_SCHEMA_VERSION
from tests.benchmarks.real_pages.real_pages_task import CORPUS, QRELS, QUERIES, TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

    from mmeb_harness import Table

LABELS = Path(__file__).parent
#: What the queries were written for.
PDF, PACKAGE = "scrguide-en.pdf", "texlive-latex-recommended 2022.20230122-3"
NAME = "real pages (KOMA-Script guide)"
SHA256 = "d570d6c81adfacddbf354b347e5eb9c60a44cdf9aedf885ead826a2f069decd5"
GET = (
    "get it on Debian 12: apt-get download texlive-latex-recommended && dpkg -x texlive-latex-recommended_*.deb tex; "
    f"it is tex/usr/share/doc/texlive-doc/latex/koma-script/{PDF}"
)
#: A page of 7.1 x 8.3 inches becomes 1,063 x 1,241 pixels; small letters are then some 10 pixels high, enough for OCR.
DPI = 150
_POINTS_AN_INCH = 72
_PAGES_AT_ONCE = 16


def make(pdf: Path, folder: Path, labels: Path = LABELS, sha256: str = SHA256) -> int:
    """Write the four tables below a data folder.

    Args:
        labels: folder of `queries.csv` and `qrels.csv`.
        sha256: of the PDF that these speak of.

    Returns:
        The number of pages.

    Raises:
        DataError: the file is no PDF, encrypted, without pages or another one, or a label names a page it lacks.
        OptionError: pypdfium2 isn't installed.
    """
    import pyarrow as pa

    document = _opened(pdf)
    if (actual := hashlib.sha256(pdf.read_bytes()).hexdigest()) != sha256:
        raise DataError(
            f"{pdf} is not the file whose pages the labels name: its SHA-256 is {actual}, that of {PDF} in the Debian "
            f"package {PACKAGE} is {sha256}; {GET}"
        )
    queries, qrels = (
        [*csv.DictReader((labels / name).open(encoding="utf-8"))] for name in ("queries.csv", "qrels.csv")
    )
    if stray := next((row for row in qrels if not 1 <= int(row["corpus-id"]) <= len(document)), None):
        raise DataError(
            f"{labels / 'qrels.csv'}: query {stray['query-id']} names page {stray['corpus-id']}, but {pdf} has "
            f"{len(document)} pages"
        )
    _write(folder, QUERIES, [pa.table(_columns(queries, "query-id"))])
    _write(folder, QRELS, [pa.table(_columns(qrels, "query-id", "corpus-id", "score"))])
    _write(folder, TEXTS, [pa.table(_texts(document))])
    _write(folder, CORPUS, _pictures(document))
    describe_data(folder, sha256)
    return len(document)


def describe_data(folder: Path, sha256: str) -> None:
    """Write the folder's manifest: without one it would be taken for the benchmark's data."""
    manifest = {"schema_version": MANIFEST_SCHEMA_VERSION, "name": NAME, "synthetic": False, "revision": sha256[:16]}
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _opened(pdf: Path) -> Any:
    """The document (pypdfium2's)."""
    try:
        import pypdfium2
    except ModuleNotFoundError as error:
        raise OptionError("pages are rendered by pypdfium2, which is not installed: pip install pypdfium2") from error
    if not pdf.exists():
        raise DataError(f"{pdf} is missing; {GET}")
    try:
        document = pypdfium2.PdfDocument(regular_file(pdf))
    except pypdfium2.PdfiumError as error:
        # The library's code of an error may be that of an earlier one: it has none for a document without pages.
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD and b"/Encrypt" in pdf.read_bytes():
            raise DataError(
                f"{pdf} is encrypted; write it without its password first: qpdf --decrypt --password=PASSWORD IN OUT"
            ) from error
        document = ()
    if not len(document):
        raise DataError(f"{pdf} has no page that can be read: it is no PDF, damaged or empty; {GET}")
    return document


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _columns(rows: list[dict[str, str]], *numbers: str) -> dict[str, list[Any]]:
    return {name: [int(row[name]) if name in numbers else row[name] for row in rows] for name in rows[0]}


def _texts(document: Any) -> dict[str, list[Any]]:
    texts = [page.get_textpage().get_text_range().replace("\r\n", "\n") for page in document]
    return {"corpus-id": list(range(1, len(texts) + 1)), "text": texts}


def _pictures(document: Any) -> Iterator[pa.Table]:
    """Pages as PNG, some at a time."""
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for first in range(0, len(document), _PAGES_AT_ONCE):
        numbers = range(first, min(first + _PAGES_AT_ONCE, len(document)))
        images = [{"bytes": _png(document[number]), "path": None} for number in numbers]
        yield pa.table({"corpus-id": [number + 1 for number in numbers], "image": pa.array(images, picture)})


def _png(page: Any) -> bytes:
    buffer = io.BytesIO()
    page.render(scale=DPI / _POINTS_AN_INCH).to_pil().save(buffer, "PNG")
    return buffer.getvalue()


def _write(folder: Path, table: Table, parts: Iterable[pa.Table]) -> None:
    """A table's file, whole or not there."""
    import pyarrow.parquet as pq

    writer: Any = None
    with replacing(folder / table.folder / f"{table.split}.parquet") as temporary:
        for part in parts:
            writer = writer or pq.ParquetWriter(temporary, part.schema)
            writer.write_table(part)
        writer.close()


@click.command(help=__doc__)
@click.argument("pdf", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(pdf: Path, folder: Path) -> None:
    pages = make(pdf, folder)
    click.echo(
        f"{pages} pages at {DPI} dpi in {folder}. Next: pip install --no-deps {LABELS} && mmeb-eval run "
        f"--model bag_of_features --data {folder} --tasks RealPages"
    )


if __name__ == "__main__":
    run_command(main)
