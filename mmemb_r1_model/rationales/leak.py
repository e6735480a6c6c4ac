"""Do rationales give the other side away? A worker never saw it; what it wrote may still contain it.

Two looks: at the words (does a rationale contain the other side's text, which its own side lacks?) and at vectors
(does the rationale alone find its positive more often than the query alone?).

Neither proves a leak. A worker that answers a question rightly writes the answer's words, which are the positive's
text: the share by words is an upper bound, to be read beside that of a worker known to be honest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.rationales.text import words

#: Queries whose scores against all candidates are held at once.
_CHUNK = 1024


@dataclass(frozen=True)
class LeakTest:
    """Retrieval by the rationale alone against retrieval by the query alone.

    Attributes:
        rationale, query: hit@1.
        difference: rationale - query; clearly above 0, the rationale knows what the query doesn't tell.
        low, high: its interval, by bootstrap over queries.
    """

    queries: int
    candidates: int
    rationale: float
    query: float
    difference: float
    low: float
    high: float


def leaks_verbatim(rationale: str, seen: Item, unseen: Item, min_characters: int) -> bool:
    """Whether a rationale has the text of the side its worker didn't see, word for word, and the seen side has not.

    Args:
        min_characters: a shorter text, e.g. "dog", is no evidence.
    """
    text = _joined(unseen.text)
    if len(text.strip()) < min_characters or text not in _joined(rationale):
        return False
    return text not in _joined(seen.text) and text not in _joined(seen.instruction)


def _joined(text: str) -> str:
    """Words with a blank around each, so that only whole ones match; signs don't count."""
    return f" {' '.join(word for word in words(text) if word.isalnum())} "


def leak_test(
    rationales: NDArray[np.float32],
    queries: NDArray[np.float32],
    candidates: NDArray[np.float32],
    positives: NDArray[np.int64],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LeakTest:
    """hit@1 of the rationales against that of their queries, over the same candidates, by any embedder.

    Args:
        rationales, queries: (q, d) vectors of r alone and of x alone.
        candidates: (n, d).
        positives: (q,) index of each query's candidate.

    Raises:
        DataError: arrays that don't fit together; the shapes are named.
    """
    count, size = queries.shape
    fits = rationales.shape == queries.shape and positives.shape == (count,) and candidates.shape[1:] == (size,)
    if not fits or count == 0:
        shapes = f"{rationales.shape}, {queries.shape}, {candidates.shape}, {positives.shape}"
        raise DataError(f"leak test: expected shapes (q, d), (q, d), (n, d), (q,) with q > 0, not {shapes}")
    if positives.min() < 0 or positives.max() >= len(candidates):
        raise DataError(f"leak test: positives must be in 0 … {len(candidates) - 1}, not {positives.max()}")
    by_rationale = _hits(rationales, candidates, positives)
    by_query = _hits(queries, candidates, positives)
    gains = by_rationale - by_query  # (q,), paired
    low, high = _interval(gains, resamples, confidence, seed)
    return LeakTest(
        queries=count,
        candidates=len(candidates),
        rationale=float(by_rationale.mean()),
        query=float(by_query.mean()),
        difference=float(gains.mean()),
        low=low,
        high=high,
    )


def _hits(
    vectors: NDArray[np.float32], candidates: NDArray[np.float32], positives: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(q,) 1 where the positive comes first; among equal scores the earlier candidate does."""
    hits = np.zeros(len(vectors))
    for start in range(0, len(vectors), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        hits[chunk] = (vectors[chunk] @ candidates.T).argmax(axis=1) == positives[chunk]
    return hits


def _interval(gains: NDArray[np.float64], resamples: int, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the mean. Gains are -1, 0 or 1: their counts are all there is to draw."""
    count = len(gains)
    shares = [float((gains == value).mean()) for value in (-1.0, 0.0, 1.0)]
    drawn = np.random.default_rng(seed).multinomial(count, shares, size=resamples)  # (resamples, 3)
    means = (drawn[:, 2] - drawn[:, 0]) / count
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
