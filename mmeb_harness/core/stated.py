"""What a row of people's own says of an item: the same fields in data to evaluate and in pairs to train on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mmeb_harness.core.columns import shown

#: Fields of an item; rows may have others besides.
ITEM_FIELDS = ("text", "image", "images", "frames", "instruction")


@dataclass(frozen=True)
class StatedItem:
    """An item as it is written down, no path looked at yet.

    Attributes:
        text, instruction: without outer blanks.
        images, frames: paths.
        is_clip: the one path of `frames` is a folder's.
    """

    text: str
    images: tuple[str, ...]
    frames: tuple[str, ...]
    is_clip: bool
    instruction: str


def stated_item(
    values: Mapping[str, object], wrong: Callable[[str], object], texts: Sequence[str] = ("text",)
) -> StatedItem:
    """What the fields of a row say.

    Args:
        wrong: told of each thing that is wrong; may raise.
        texts: fields that make up the text, in this order.
    """
    told: list[str] = []

    def tell(problem: str) -> None:
        told.append(problem)
        wrong(problem)

    text = " ".join(part for name in texts if (part := _text(values, name, tell)))
    images = tuple(path for name in ("image", "images") for path in _paths(values, name, tell))
    frames = tuple(_paths(values, "frames", tell))
    instruction = _text(values, "instruction", tell)
    if images and frames:
        tell("has both images and frames; an item shows one of the two")
    if not (text or images or frames or told):
        tell("has neither text nor image nor frames; give it one of them")
    return StatedItem(text, images, frames, bool(frames) and isinstance(values["frames"], str), instruction)


def _text(values: Mapping[str, object], name: str, tell: Callable[[str], None]) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        tell(f"{name} is {shown(value)}; write text")
        return ""
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        tell(f"{name} is {shown(value)}, with half of a surrogate pair; write text in UTF-8")
    return value.strip()


def _paths(values: Mapping[str, object], name: str, tell: Callable[[str], None]) -> list[str]:
    """The paths in a field; "" in a table is none."""
    value = values.get(name)
    paths = [value] if isinstance(value, str) and value else value or []
    if isinstance(paths, list) and all(isinstance(path, str) and path for path in paths):
        return paths
    held = value[0] if isinstance(value, list) and value else value
    way_out = "write a path, or a list of paths"
    if isinstance(held, dict):  # as Hugging Face's data sets store pictures
        way_out = "save the pictures as files, and write their paths"
    tell(f"{name} is {shown(value)}; {way_out}")
    return []
