"""Whether two sides gave the same vectors and rationales. A ratio of two different things says nothing."""

from __future__ import annotations

import numpy as np

from mmeb_harness.bench.values import Agreement
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.errors import ModelError
from mmeb_harness.encode.check import SAME_COSINE


def compare_encoded(ours: Encoded, theirs: Encoded) -> Agreement:
    """Item by item.

    Raises:
        ModelError: the sides give different numbers of vectors for an item.
    """
    differences, cosines = [], []
    for place in range(len(ours.traces)):
        one, other = (np.atleast_2d(side.vectors[place]).astype(np.float64) for side in (ours, theirs))
        if one.shape != other.shape:
            raise ModelError(f"two ways of encoding item {place} give vectors of shape {one.shape} and {other.shape}")
        differences.append(float(np.abs(one - other).max()))
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines.append(float(((one * other).sum(axis=1) / lengths).min()))
    pairs = [(a.rationale, b.rationale) for a, b in zip(ours.traces, theirs.traces, strict=True)]
    reasoned = [(a, b) for a, b in pairs if a is not None or b is not None]
    return Agreement(
        items=len(pairs),
        largest_difference=max(differences),
        lowest_cosine=min(cosines),
        reasoned=len(reasoned),
        same_rationales=float(np.mean([a == b for a, b in reasoned])) if reasoned else None,
    )


def disagreement(found: Agreement) -> str | None:
    """In words; `None` if the two sides did the same work."""
    parts = []
    if found.lowest_cosine < SAME_COSINE:
        parts.append(f"lowest cosine {found.lowest_cosine:.4f}")
    if found.same_rationales is not None and found.same_rationales < 1:
        different = round((1 - found.same_rationales) * found.reasoned)
        parts.append(f"{different:,} of {found.reasoned:,} rationales differ")
    return ", ".join(parts) or None
