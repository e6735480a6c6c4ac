"""Shorter and smaller vectors, made from stored ones: first dimensions only (Matryoshka), int8, binary."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmeb_harness.core.embedder import AnyVectors
from mmeb_harness.core.items import Profile, Vectors

#: Vectors that are shortened at a time: a large corpus has room for its shorter vectors, but for no third of its size.
BLOCK_VECTORS = 10_000


def compress(queries: AnyVectors, candidates: AnyVectors, profile: Profile) -> tuple[AnyVectors, AnyVectors]:
    """Queries and candidates of one task as `profile` has them: shortened first, then quantised.

    Several vectors an item stay as they are; `plan.run_profile` refuses to compress them.
    """
    if not (isinstance(queries, np.ndarray) and isinstance(candidates, np.ndarray)):
        return queries, candidates
    if profile.dimensions is not None:
        queries, candidates = shorten(queries, profile.dimensions), shorten(candidates, profile.dimensions)
    if profile.quantization == "int8":
        return queries, int8(candidates)
    if profile.quantization == "binary":
        return signs(queries) / np.float32(queries.shape[1]), signs(candidates)
    return queries, candidates


def shorten(vectors: Vectors, dimensions: int) -> Vectors:
    """The first `dimensions`, of unit length again (Kusupati et al. 2022).

    A vector that is zero there has no direction and stays zero: it ties with everything, which is counted.
    """
    first = vectors[:, :dimensions]
    shorter = np.empty(first.shape, dtype=np.float32)
    for start in range(0, len(first), BLOCK_VECTORS):
        block = first[start : start + BLOCK_VECTORS]
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        shorter[start : start + BLOCK_VECTORS] = block / np.where(lengths > 0, lengths, 1)
    return shorter


def int8(vectors: Vectors) -> Vectors:
    """Vectors (n, d) after a way through FAISS's 8-bit scalar quantiser, trained on them.

    256 steps from the least to the greatest value of each dimension. FAISS compares float32 queries with what the
    codes stand for, so that only candidates are quantised.
    """
    import faiss

    quantiser: Any = faiss.ScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_8bit)
    contiguous = np.ascontiguousarray(vectors, dtype=np.float32)
    quantiser.train(contiguous)
    decoded: Vectors = quantiser.decode(quantiser.compute_codes(contiguous))
    return decoded


def signs(vectors: Vectors) -> Vectors:
    """1 where a value is above zero, -1 elsewhere.

    Over the width, the product of two is the cosine, and ranks as the Hamming distance does. Only one side is
    divided, and neither by a root: sums of equal terms are exact in float64, so that equal distances tie exactly.
    """
    return np.where(vectors > 0, np.float32(1), np.float32(-1))
