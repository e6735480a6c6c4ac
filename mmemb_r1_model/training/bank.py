"""Fixed negatives: vectors of the stage-1 model, made once, against which stage 2 scores its rollouts.

In-batch negatives would make a rollout's reward depend on who shares its batch, and a model that is being trained
would move them. A bank does neither: rewards of different steps are comparable, and a run is deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mmemb_r1_model.data.pairs import Item, PairSet, Side, content_key, item_of
from mmemb_r1_model.training.batches import Labels, labels_of, right_pairs


@dataclass(frozen=True)
class Bank:
    """Negatives of one data set.

    Attributes:
        vectors_MD: unit vectors, direct path.
        labels: of the pair that each is from.
    """

    vectors_MD: Tensor
    labels: tuple[Labels, ...]

    def excluded(self, wanted: Sequence[Labels], side: Side) -> Tensor:
        """(G, M) true where a vector of the bank is right for a pair, too.

        Args:
            side: whose rollouts are scored: queries against candidates, or positives against queries.
        """
        ours, theirs = (wanted, self.labels) if side == "query" else (self.labels, wanted)
        right = right_pairs([labels.right for labels in ours], [labels.has for labels in theirs])
        return (right if side == "query" else right.T).to(self.vectors_MD.device)


def make_bank(pairs: PairSet, side: Side, size: int, embed: Callable[[Sequence[Item]], Tensor], seed: int) -> Bank:
    """Vectors of up to `size` different items of a data set, drawn as its pairs are distributed.

    Args:
        side: whose rollouts will be scored; the bank holds the other side.
        embed: items → unit vectors (n, D).
    """
    other: Side = "positive" if side == "query" else "query"
    chosen: dict[str, tuple[Item, Labels]] = {}
    for index in np.random.default_rng((seed, 4)).permutation(len(pairs)).tolist():
        if len(chosen) >= size:
            break
        pair = pairs[index]
        item = item_of(pair, other)
        chosen.setdefault(content_key(item), (item, labels_of(pair)))
    vectors = embed([item for item, _ in chosen.values()])
    return Bank(vectors, tuple(labels for _, labels in chosen.values()))
