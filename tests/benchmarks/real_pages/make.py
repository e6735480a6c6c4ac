"""Puts the PDF and its labels together: a folder of own data for the pictures of its pages, and one for their texts.

python -m tests.benchmarks.real_pages.make scrguide-en.pdf FOLDER
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from mmeb_tasks.readers.visdoc import PAGE_INSTRUCTION, QUERY_INSTRUCTION

from mmeb_harness import DataError, make_folder, regular_file, run_command
from mmeb_harness.core.files import file_checksum, write_text

LABELS = Path(__file__).with_name("queries.csv")
#: What the queries were written for.
PDF, PACKAGE = "scrguide-en.pdf", "texlive-latex-recommended 2022.20230122-3"
SHA256 = "d570d6c81adfacddbf354b347e5eb9c60a44cdf9aedf885ead826a2f069decd5"
GET = (
    "get it on Debian 12: apt-get download texlive-latex-recommended && dpkg -x texlive-latex-recommended_*.deb tex; "
    f"it is tex/usr/share/doc/texlive-doc/latex/koma-script/{PDF}"
)
PICTURES, TEXTS = "RealPages", "RealPages-text"
TASKS = (PICTURES, TEXTS)
#: By task. A page of 7.1 x 8.3 inches becomes 1,063 x 1,241 pixels; small letters are then some 10 pixels high, enough
#: for OCR.
SETTINGS: dict[str, dict[str, str | int]] = {
    PICTURES: {"candidate_instruction": PAGE_INSTRUCTION, "pages": "image", "dpi": 150},
    TEXTS: {"pages": "text"},
}


def make(pdf: Path, folder: Path, sha256: str = SHA256) -> None:
    """Write a folder of own data for each task below a folder.

    Args:
        sha256: of the PDF that the labels speak of.

    Raises:
        DataError: the file is missing, or another one.
        ResultError: the folder can't be written.
    """
    try:
        content = regular_file(pdf).read_bytes()
    except OSError as error:
        raise DataError(f"{pdf} can't be read: {error.strerror or error}; {GET}") from error
    if (actual := file_checksum(pdf)) != sha256:
        raise DataError(
            f"{pdf} is not the file whose pages the labels name: its SHA-256 is {actual}, that of {PDF} in the Debian "
            f"package {PACKAGE} is {sha256}; {GET}"
        )
    for task, settings in SETTINGS.items():
        make_folder(folder / task)
        (folder / task / PDF).write_bytes(content)
        write_text(folder / task / LABELS.name, LABELS.read_text(encoding="utf-8"))
        named = {"name": task, "instruction": QUERY_INSTRUCTION, **settings}
        lines = [f"{name}: {json.dumps(value)}\n" for name, value in named.items()]
        write_text(folder / task / "dataset.yaml", "".join(lines))


@click.command(help=__doc__)
@click.argument("pdf", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(pdf: Path, folder: Path) -> None:
    make(pdf, folder)
    click.echo(f"next: mmeb-eval run --model bag_of_features --data {folder} --tasks {PICTURES}")


if __name__ == "__main__":
    run_command(main)
