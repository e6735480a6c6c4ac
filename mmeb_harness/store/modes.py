"""The vectors of one model in several modes of reasoning, each mode's queries in a store of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.items import Role
from mmeb_harness.store.vectors import VectorStore


class ModesSink:
    """Takes what is encoded in several modes at once: a query for each store, a candidate for the first.

    Args:
        stores: of the modes, in the order of `Encoded.others`; the first has the candidates of all.
        candidates: keys of candidates.
    """

    def __init__(self, stores: Sequence[VectorStore], candidates: Collection[str]) -> None:
        self._first, *self._others = stores
        self._candidates = candidates

    def __contains__(self, key: str) -> bool:
        return key in self._first and (key in self._candidates or all(key in store for store in self._others))

    def check_writable(self) -> None:
        """Find out before the first item is encoded whether it can be kept."""
        for store in (self._first, *self._others):
            store.check_writable()

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role) -> None:
        """Add one batch. A process that is killed between two stores leaves it missing in one, so in all."""
        self._first.add(keys, encoded, role)
        for store, other in zip(self._others, encoded.others, strict=False):  # of candidates there are no others
            store.add(keys, other, role)

    def flush(self) -> None:
        """Write what is pending."""
        for store in (self._first, *self._others):
            store.flush()

    def refresh(self) -> None:
        """Take in what other processes have written since."""
        for store in (self._first, *self._others):
            store.refresh()
