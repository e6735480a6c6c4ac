"""From the page's values to one HTML file: data as text that no parser can leave, code admitted by its hash alone."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from string import Template

from mmeb_harness.core.files import write_atomically
from mmeb_harness.show.page.values import InlinePicture, Summary, TaskQueries

_HERE = Path(__file__).parent

#: Nothing from anywhere but the file itself: pictures as data URIs, and the one style sheet and script by their hashes.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
    "form-action 'none'"
)


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
    """The page, piece by piece. The script stands before the tasks, so that the summary is there while they load."""
    style, script = _asset("page.css"), _asset("page.js")
    head, tail = _asset("template.html").split("<!-- tasks -->")
    yield Template(head).substitute(
        policy=html.escape(_POLICY.format(style=_digest(style), script=_digest(script)), quote=True),
        title=html.escape(_title(summary)),
        style=style,
        pictures="".join(map(_figure, pictures)),
        summary=embedded_json(dataclasses.asdict(summary)),
        script=script,
    )
    for number, task in enumerate(tasks):
        yield f'<script type="text/plain" id="task-{number}">{task}</script>\n'
    yield tail


def embedded_json(value: object) -> str:
    """JSON that can stand in a script element: no character in it means anything to an HTML parser."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII only
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _title(summary: Summary) -> str:
    names = ", ".join(run.name for run in summary.runs)
    return "".join(letter if letter.isprintable() else "�" for letter in f"{names}: evaluation")


def _figure(picture: InlinePicture) -> str:
    data = base64.b64encode(picture.png).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(picture.alt, quote=True)}">'
        f'<figcaption dir="auto">{html.escape(picture.title)}</figcaption></figure>\n'
    )


@cache
def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """As a content security policy names an inline script or style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
