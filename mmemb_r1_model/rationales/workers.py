"""What is asked of a worker and what comes back, whoever it is."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from mmemb_r1_model.data.pairs import Item, Side
from mmemb_r1_model.data.rationales import ERROR
from mmemb_r1_model.model.settings import END_THINK
from mmemb_r1_model.rationales.config import Kind
from mmemb_r1_model.rationales.text import clean, thoughts_in


@dataclass(frozen=True, slots=True)
class Ask:
    """One rationale to be written. It holds one side of the pair: no worker can see the other.

    Attributes:
        carried: the rationale that the pair itself carries for this side.
    """

    dataset: str
    pair: str
    side: Side
    sample: int
    seed: int
    item: Item
    carried: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker wrote.

    Attributes:
        text: cleaned.
        finish: stop, length, loop, or error: and the reason.
    """

    text: str
    tokens: int | None
    seconds: float | None
    finish: str


@dataclass(frozen=True)
class WorkerPrompt:
    """The words around the input, the same for every worker."""

    system: str
    request: str


class Worker(Protocol):
    """Who writes rationales: a server, a model here, or a recording."""

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """An answer to each ask, in order; `None` where a recorded worker has none.

        Opens what it needs (a model, a connection) at the first ask, and closes it when the iterator ends or is
        closed. Takes only a few asks ahead of what it has answered.

        Raises:
            ModelError: the worker as a whole can't go on: not there, not allowed.
        """
        ...


def told_apart(item: Item) -> Item:
    """The item with the words that come with it, its instruction among them, told apart."""
    parts = [f"The task it is meant for: {item.instruction}"] if item.instruction else []
    return item.between("\n\n".join([*parts, *(["The input's text:\n"] if item.text else [])]))


def turn(item: Item, request: str) -> Item:
    """The item with all words of the turn that shows it."""
    note = f"The pictures are {len(item.frames)} frames of one video, in order." if item.frames else ""
    told = told_apart(item)
    asked = told.between(after=f"\n\n{request}" if told.text else request)
    return asked.between(f"{note}\n\n") if note else asked


def row_seed(seed: int, dataset: str, pair: str, side: Side, sample: int) -> int:
    """A row's own seed, 31 bits: what it says doesn't depend on what was asked before, nor on the batch."""
    named = "\x1f".join((str(seed), dataset, pair, side, str(sample))).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(named, digest_size=4).digest(), "little") >> 1


def found_rationale(kind: Kind, content: str, opened: bool, cut: bool) -> tuple[str, str]:
    """(rationale, finish) of what a model wrote.

    Args:
        opened: the prompt ended with <think>.
        cut: it ran out of tokens.
    """
    if kind != "thinking":
        # Models that aren't asked for thoughts may think nevertheless: what follows them is the answer.
        return clean(content.rpartition(END_THINK)[2]), "length" if cut else "stop"
    if (thoughts := thoughts_in(content, opened)) is not None:
        # Thoughts without an end are half a rationale, whatever the server calls it.
        text, is_whole = thoughts
        return clean(text), "stop" if is_whole else "length"
    if cut:
        return clean(content), "length"
    # An answer without its thoughts must not pass for them.
    return "", (
        f"{ERROR}a thinking model gave no thoughts (no reasoning_content, no </think>); does the server hide them? "
        "Then it is of kind api"
    )
