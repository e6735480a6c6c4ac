"""Prompts kept in memory between steps, for data that is small enough."""

from __future__ import annotations

from collections.abc import Callable

from mmemb_r1_model.data.pairs import Item, content_key
from mmemb_r1_model.model.prompt import Prompt


class PromptCache:
    """Prompts by content, up to a number of them; small data is read from disk once."""

    def __init__(self, read: Callable[[Item], Prompt], limit: int) -> None:
        self._read, self._limit = read, limit
        self._kept: dict[str, Prompt] = {}

    def __call__(self, item: Item) -> Prompt:
        if not self._limit:
            return self._read(item)
        key = content_key(item)
        if key not in self._kept:
            prompt = self._read(item)
            if len(self._kept) >= self._limit:
                return prompt
            self._kept[key] = prompt
        return self._kept[key]
