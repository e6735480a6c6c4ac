"""Vectors of other people's code, brought to unit length here, in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmeb_harness import Item, ModelError, Vectors


def unit_vectors(raw: Vectors, items: Sequence[Item], owner: str) -> Vectors:
    """Rows (n, d) scaled to length 1. Normalised already or not, in bfloat16 or not: the same rule for all.

    Args:
        items: one a row, for messages.
        owner: whose vectors these are, for messages.

    Raises:
        ModelError: a row without a direction: NaN, infinity, or all zeros.
    """
    lengths = np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)  # (n, 1); float64: no overflow
    for item, length in zip(items, lengths[:, 0], strict=True):
        if not np.isfinite(length):
            raise ModelError(f"{owner} returned NaN or infinity for item {item.id!r}")
        if length == 0:
            raise ModelError(f"{owner} returned a vector of zeros for item {item.id!r}; it can't be ranked")
    unit: Vectors = (raw / lengths).astype(np.float32)
    return unit
