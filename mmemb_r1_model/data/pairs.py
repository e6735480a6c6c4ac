"""A training pair and a set of them: what every stage reads, whatever the data's own format is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from mmeb_harness import Item
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.hashing import hash64

__all__ = [
    "OTHER_SIDE",
    "SIDES",
    "Item",
    "Pair",
    "PairSet",
    "Side",
    "content_key",
    "contents_of",
    "item_of",
    "side_content",
]

Side = Literal["query", "positive"]
SIDES: tuple[Side, ...] = ("query", "positive")
OTHER_SIDE: dict[Side, Side] = {"query": "positive", "positive": "query"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and a candidate that is right for it.

    Attributes:
        id: unique within its data set, the same in every run; artefacts name pairs by (dataset, id).
        negatives: hard ones, where the data has them.
        answer: pairs of one answer are never each other's negatives; "" where the data doesn't tell.
        relevant: content keys of further candidates that are as right as `positive`: no negatives either.
        rationales: those that the data itself carries, by side.
    """

    id: str
    dataset: str
    query: Item
    positive: Item
    negatives: tuple[Item, ...] = ()
    answer: str = ""
    relevant: frozenset[str] = frozenset()
    rationales: Mapping[Side, str] = field(default_factory=dict)


class PairSet(Protocol):
    """One data set of pairs. Big ones read a pair from disk when it is asked for."""

    @property
    def name(self) -> str:
        """The data set's name, as in its pairs and in artefacts."""
        ...

    @property
    def distractors(self) -> Sequence[Item]:
        """Candidates that need not belong to any pair, e.g. all class names: further negatives."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


@runtime_checkable
class ChangingSet(PairSet, Protocol):
    """A data set that may be another one tomorrow under the same name, unlike a published one."""

    @property
    def content(self) -> str:
        """A hash of all that is in it."""
        ...


def contents_of(sets: Iterable[PairSet]) -> dict[str, str]:
    """The content of each data set that may change, by name."""
    return {pairs.name: pairs.content for pairs in sets if isinstance(pairs, ChangingSet)}


def item_of(pair: Pair, side: Side) -> Item:
    """The pair's item on one side."""
    return pair.query if side == "query" else pair.positive


def content_key(item: Item) -> str:
    """Equal for items that look the same to any model: text, instruction, media paths and their places."""
    return "\x1f".join((item.instruction, item.text, *map(str, item.media), *map(str, item.places)))


def side_content(pair: Pair, side: Side, *, carried: bool = False) -> str:
    """Sixteen hex digits of what a side shows: its words, and name and size of each of its files, wherever they lie.

    Args:
        carried: also of the rationale that the pair carries for it.

    Raises:
        DataError: a file isn't there.
    """
    item, own = item_of(pair, side), pair.rationales.get(side, "") if carried else ""
    try:
        files = [f"{path.name}\x1f{path.stat().st_size}" for path in item.media]
    except OSError as error:
        raise DataError(
            f"{pair.dataset}, pair {pair.id!r}: {error.filename}, of its {side}, is missing ({error.strerror}); fetch "
            "the data set's media, or leave the pair out"
        ) from error
    return f"{hash64(item.instruction, item.text, *files, *map(str, item.places), *filter(None, [own])):016x}"
