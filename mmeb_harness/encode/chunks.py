"""What is encoded together: items into batches within a token budget, batches into chunks.

A chunk is the unit of work: one process encodes it whole, and its vectors depend on nothing else. The plan depends on
the items alone, not on what is stored already or on how many processes share the work, so that whoever encodes a
chunk, and however often a run was broken off, the same items meet in the same batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder
from mmeb_harness.core.items import Item, Role, described
from mmeb_harness.core.plugins import plugin_code

DEFAULT_BATCH_TOKENS = 8192
#: Batch size for an embedder that can't say what an item costs; its items come by the length of their texts.
PLAIN_BATCH_ITEMS = 64
#: A chunk has at least so many items, where there are as many. What a killed process loses, against the time in which
#: the last rationales of a chunk are written with few others beside them.
CHUNK_ITEMS = 256

Keyed: TypeAlias = tuple[str, Item]  # content key, item


@dataclass(frozen=True)
class Batch:
    """Items that the embedder gets at once.

    Attributes:
        tokens: their estimated tokens, padded to the longest; of a plain embedder, their number.
    """

    keyed: tuple[Keyed, ...]
    tokens: int

    def __len__(self) -> int:
        return len(self.keyed)

    @property
    def keys(self) -> list[str]:
        """Content keys of its items, in order."""
        return [key for key, _ in self.keyed]

    @property
    def items(self) -> list[Item]:
        """The items without their keys, in order."""
        return [item for _, item in self.keyed]


@dataclass(frozen=True)
class Chunk:
    """Batches of one role, encoded together."""

    role: Role
    batches: tuple[Batch, ...]

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches)

    @property
    def tokens(self) -> int:
        """Estimated tokens of its batches, padding included."""
        return sum(batch.tokens for batch in self.batches)

    @property
    def keyed(self) -> Iterator[Keyed]:
        """All items of its batches, with their content keys."""
        for batch in self.batches:
            yield from batch.keyed

    def only(self, wanted: Callable[[str], bool]) -> Chunk:
        """The same without the other keys; a batch that is wanted whole stays as it is."""
        kept = []
        for batch in self.batches:
            keyed = tuple((key, item) for key, item in batch.keyed if wanted(key))
            if keyed:
                kept.append(
                    batch if len(keyed) == len(batch) else Batch(keyed, batch.tokens * len(keyed) // len(batch))
                )
        return Chunk(self.role, tuple(kept))


def plan_chunks(embedder: Embedder, keyed: Sequence[Keyed], role: Role, batch_tokens: int) -> list[Chunk]:
    """Batches of similar cost, together in chunks; the costliest first.

    Args:
        keyed: distinct items.
        batch_tokens: upper bound of a batch's padded tokens, for an embedder that estimates costs.
    """
    chunks: list[Chunk] = []
    open_batches: list[Batch] = []
    for batch in plan_batches(embedder, keyed, role, batch_tokens):
        open_batches.append(batch)
        if sum(map(len, open_batches)) >= CHUNK_ITEMS:
            chunks.append(Chunk(role, tuple(open_batches)))
            open_batches = []
    return [*chunks, Chunk(role, tuple(open_batches))] if open_batches else chunks


def plan_batches(embedder: Embedder, keyed: Sequence[Keyed], role: Role, batch_tokens: int) -> list[Batch]:
    """Group items of one media kind and similar cost, so that little of a batch is padding.

    The costliest batch comes first: what doesn't fit in memory fails at once, not after an hour.
    """
    if not isinstance(embedder, BudgetedEmbedder):
        alike = sorted(keyed, key=lambda pair: (media_kind(pair[1]), -len(pair[1].text)))
        starts = range(0, len(alike), PLAIN_BATCH_ITEMS)
        groups = [tuple(alike[start : start + PLAIN_BATCH_ITEMS]) for start in starts]
        return [Batch(group, len(group)) for group in groups]
    costs: dict[str, int] = {}
    with plugin_code(f"model {embedder.info.name!r}", lambda: f" over the cost of {described([item], role)}"):
        for key, item in keyed:
            costs[key] = max(1, embedder.cost(item, role))
    ordered = sorted(keyed, key=lambda pair: (media_kind(pair[1]), -costs[pair[0]]))
    groups_of: list[list[Keyed]] = []
    for key, item in ordered:
        last = groups_of[-1] if groups_of else []
        fits = bool(last) and costs[last[0][0]] * (len(last) + 1) <= batch_tokens
        if fits and media_kind(last[0][1]) == media_kind(item):
            last.append((key, item))
        else:
            groups_of.append([(key, item)])
    batches = [Batch(tuple(group), costs[group[0][0]] * len(group)) for group in groups_of]
    return sorted(batches, key=lambda batch: -costs[batch.keyed[0][0]])


def smaller_batches(embedder: Embedder, chunk: Chunk, batch_tokens: int) -> Chunk:
    """The same chunk in batches within another budget."""
    return Chunk(chunk.role, tuple(plan_batches(embedder, list(chunk.keyed), chunk.role, batch_tokens)))


def media_kind(item: Item) -> str:
    """ "frames", "image", "sound" or "text": items of one kind share batches, and cost alike."""
    return "frames" if item.frames else "image" if item.images else "text" if item.sound is None else "sound"
