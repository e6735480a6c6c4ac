"""A picture as a value, and how it is written."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmeb_harness.core.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One picture, drawn and not yet written.

    Attributes:
        name: of its files, without the ending.
        title: as a heading over it.
        alt: a sentence with its main numbers, for those who can't see it.
    """

    name: str
    title: str
    alt: str
    figure: Figure


@dataclass(frozen=True)
class LeftOut:
    """A picture, or a part of one, that can't be drawn from these runs, and why."""

    name: str
    why: str


Made: TypeAlias = Sequence[Picture | LeftOut]

NO_COMMON = "the runs have no task in common"
NO_REASONING = "no query of these runs reasoned"


def save_pictures(pictures: Iterable[Picture], folder: Path) -> list[Path]:
    """Write each as PNG and as SVG; the same pictures give the same bytes.

    Raises:
        ResultError: the folder can't be written.
    """
    return [_save(picture, folder / f"{picture.name}.{kind}", kind) for picture in pictures for kind in ("png", "svg")]


def png_of(picture: Picture) -> bytes:
    """The bytes of its PNG."""
    written = io.BytesIO()
    _write(picture, written, "png")
    return written.getvalue()


def _save(picture: Picture, path: Path, kind: str) -> Path:
    write_atomically(path, lambda temporary: _write(picture, temporary, kind))
    return path


def _write(picture: Picture, target: Path | io.BytesIO, kind: str) -> None:
    from mmeb_harness.show.pictures.style import house_style

    # matplotlib writes the time of day into an SVG unless told otherwise.
    metadata = {"Title": picture.title, "Description": picture.alt} | ({"Date": None} if kind == "svg" else {})
    with house_style():
        picture.figure.savefig(target, format=kind, metadata=metadata)
