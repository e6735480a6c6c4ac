"""Texts of data as tokens: what they spell stays text, a special token stands where a prompt itself puts one.

`<|im_end|>` in a caption is ten characters of a caption: it ends no turn, and `<|image_pad|>` in one claims no picture.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from mmeb_harness.core.errors import DataError
from mmeb_harness.core.items import Item


class Template(str):
    """Words of the prompt itself, whose special tokens are meant. In any other string none is."""


#: Tokenised as one string.
Pieces: TypeAlias = str | Sequence[str]


class Speller:
    """A tokenizer that knows what is meant as a token and what merely spells one."""

    def __init__(self, tokenizer_json: str, from_json: Callable[[str], Any]) -> None:
        """Build it.

        Args:
            tokenizer_json: what a checkpoint's tokenizer.json holds.
            from_json: `tokenizers.Tokenizer.from_str`; the harness doesn't import the library.
        """
        description = json.loads(tokenizer_json)
        #: All special and added tokens and their ids.
        self.added_tokens = {str(token["content"]): int(token["id"]) for token in description["added_tokens"]}
        # The same tokenizer without what is no vocabulary of its own: nothing in a text can become a token of that.
        kept = [token for token in description["added_tokens"] if _is_vocabulary(token, description["model"])]
        bare = {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
        self._plain = from_json(json.dumps({**description, **bare}))
        longest_first = sorted(self.added_tokens, key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def plain(self, text: str) -> list[int]:
        """Ids of a text of the data."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids if text else []
        return ids

    def ids(self, pieces: Pieces) -> list[int]:
        """Ids of a string made of templates and of data."""
        ids: list[int] = []
        text = ""
        for piece in (pieces,) if isinstance(pieces, str) else pieces:
            place = 0
            for token in self._added.finditer(piece) if isinstance(piece, Template) else ():
                ids += [*self.plain(text + piece[place : token.start()]), self.added_tokens[token.group()]]
                text, place = "", token.end()
            text += piece[place:]
        return ids + self.plain(text)

    def beginning(self, text: str, without: int) -> str:
        """A text of the data without its last tokens, so many of them or some more; shorter at any rate."""
        spans: list[tuple[int, int]] = self._plain.encode(text, add_special_tokens=False).offsets
        last = len(spans) - without
        # A token may be a part of a letter, or begin where the one before it does.
        return text[: spans[last][0]] if 0 < last < len(spans) and spans[last][0] < len(text) else ""

    def spelled(self, text: str) -> str | None:
        """The first special or added token whose letters a text of the data has."""
        match = self._added.search(text)
        return match and match.group()


def vocabulary_of(model: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    """Tokens and their ids, of the part `model` of a tokenizer.json, of whatever kind it is."""
    listed = model.get("vocab") or {}
    return (
        listed.items() if isinstance(listed, Mapping) else ((piece, place) for place, (piece, *_) in enumerate(listed))
    )


def check_length(item_id: str, tokens: int, positions: int) -> None:
    """Refuse what is longer than a model can tell places apart.

    Args:
        positions: tokens that it reads at most.

    Raises:
        DataError: the item is longer.
    """
    if tokens > positions:
        raise DataError(
            f"item {item_id!r} has {tokens} tokens, and the model reads at most {positions} "
            "(max_position_embeddings in its config.json): shorten its text, or show less (--frames)"
        )


def cut_at(limit: int) -> str:
    """What is left out of a text that has more tokens, as `Trace.left_out` says it."""
    return f"texts cut at {limit:,} tokens"


def shortened(item: Item, tokens: Callable[[Item], int], limit: int, speller: Speller) -> Item:
    """An item whose text has lost its end, so that a prompt around it has at most so many tokens.

    Args:
        tokens: of an item's whole prompt.

    Raises:
        DataError: also without its text it has more.
    """
    while (excess := tokens(item) - limit) > 0:
        if not item.text:
            raise DataError(
                f"item {item.id!r} has {limit + excess} tokens beside its text, and max_text_tokens is {limit}: let it "
                "be more"
            )
        item = dataclasses.replace(item, text=speller.beginning(item.text, excess))
    return item


def _is_vocabulary(token: dict[str, Any], model: dict[str, Any]) -> bool:
    """Gemma's lists words of its vocabulary, e.g. two line breaks, among the added tokens: those are ordinary text."""
    return not token["special"] and str(token["content"]) in (model.get("vocab") or ())
