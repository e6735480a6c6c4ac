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
        width: that was asked for, in inches.
    """

    name: str
    title: str
    alt: str
    figure: Figure
    width: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """A picture, or a part of one, that can't be drawn from these runs, and why."""

    name: str
    why: str


Made: TypeAlias = Sequence[Picture | LeftOut]

#: Kinds of files, by their endings.
KINDS = ("png", "svg", "pdf")

NO_COMMON = "the runs have no task in common"
NO_REASONING = "no query of these runs reasoned"


def save_pictures(pictures: Iterable[Picture], folder: Path, kinds: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write each in these of `KINDS`; the same pictures give the same bytes.

    Raises:
        ResultError: the folder can't be written.
    """
    return [save_picture(picture, folder / f"{picture.name}.{kind}") for picture in pictures for kind in kinds]


def png_of(picture: Picture) -> bytes:
    """The bytes of its PNG."""
    written = io.BytesIO()
    _write(picture, written, "png")
    return written.getvalue()


def save_picture(picture: Picture, path: Path) -> Path:
    """Write it as what the file's ending says, one of `KINDS`; returns the file."""
    write_atomically(path, lambda temporary: _write(picture, temporary, path.suffix.lower()[1:]))
    return path


def _write(picture: Picture, target: Path | io.BytesIO, kind: str) -> None:
    from mmeb_harness.show.pictures.style import house_style

    # matplotlib writes the time of day into an SVG and a PDF unless told otherwise.
    timeless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    metadata = {"Title": picture.title, "Subject" if kind == "pdf" else "Description": picture.alt, **timeless}
    with house_style(picture.width):  # marks at axes come about when they are drawn
        picture.figure.savefig(target, format=kind, metadata=metadata)
