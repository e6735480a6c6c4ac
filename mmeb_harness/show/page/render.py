"""From a page's values to one HTML file: data as text that no parser can leave, code admitted by its hash alone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from string import Template

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.files import write_atomically
from mmeb_harness.show.page.values import InlinePicture, Summary, TaskQueries

_HERE = Path(__file__).parent

#: Nothing from anywhere but the file itself: pictures as data URIs, and the one style sheet and script by their hashes.
_POLICY = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
    "base-uri 'none'; form-action 'none'"
)


def synthetic_warning(edition: str) -> str:
    """What a page says of scores of made-up data."""
    return f"Synthetic data: made-up pictures and pages. These are not {benchmark_of(edition).name} scores."


def packed(task: TaskQueries) -> str:
    """A task as base64 of deflated JSON (about a tenth of it), which the page unpacks when the task is opened."""
    text = json.dumps(dataclasses.asdict(task), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(errors="replace"), 9)).decode()


def write_page(output: Path, summary: Summary, tasks: Sequence[str], pictures: Sequence[InlinePicture] = ()) -> int:
    """Write the page, atomically; returns its size in bytes.

    Args:
        tasks: what `packed` made of each task, in the order of `summary.tasks`.

    Raises:
        ResultError: it can't be written.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(page_parts(summary, tasks, pictures))

    write_atomically(output, write)
    return output.stat().st_size


def page_parts(summary: Summary, tasks: Sequence[str], pictures: Sequence[InlinePicture]) -> Iterator[str]:
    """The page, piece by piece."""
    names = ", ".join(run.name for run in summary.runs)
    main = Template(asset("report.html")).substitute(pictures="".join(map(_figure, pictures)))
    queries = (f'<script type="text/plain" id="task-{number}">{task}</script>\n' for number, task in enumerate(tasks))
    shown = dataclasses.asdict(summary)
    yield from shell("report", f"{names}: evaluation", "Evaluation of embedding models", main, shown, queries)


def shell(
    kind: str, title: str, heading: str, main: str, summary: object, further: Iterable[str] = ()
) -> Iterator[str]:
    """What every page has, piece by piece, around what it shows.

    Args:
        kind: of page: it has a script of that name.
        title: of the window.
        main: HTML that the script fills.
        summary: what the script reads first.
        further: HTML at the end: the script stands before it, so that the summary is there while the rest loads.
    """
    style, script = asset("page.css"), asset("elements.js") + asset(f"{kind}.js")
    head, tail = asset("template.html").split("<!-- tasks -->")
    yield Template(head).substitute(
        policy=html.escape(_POLICY.format(style=_digest(style), script=_digest(script)), quote=True),
        title=html.escape("".join(letter if letter.isprintable() else "�" for letter in title)),
        heading=heading,
        style=style,
        main=main,
        summary=embedded_json(summary),
        script=script,
    )
    yield from further
    yield tail


def embedded_json(value: object) -> str:
    """JSON that can stand in a script element: no character in it means anything to an HTML parser."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _figure(picture: InlinePicture) -> str:
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt, quote=True)}">'
        f'<figcaption dir="auto">{html.escape(picture.title)}</figcaption></figure>\n'
    )


@cache
def asset(name: str) -> str:
    """A file of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
