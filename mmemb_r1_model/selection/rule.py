"""From gains to a choice: how likely stage 1 is to be shown each rationale. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.disk.config import Above0, Least0Float
from mmemb_r1_model.disk.hashing import hash64

Rule = Literal["argmax", "sampled", "random", "longest"]


@dataclass(frozen=True)
class RuleConfig:
    """Pair-aware selection.

    Attributes:
        rule: argmax: the best; sampled: p ∝ exp(gain / temperature), drawn anew whenever stage 1 sees the pair.
            random and longest are controls that don't ask the judge.
        margin: gain is Delta minus what hard negatives gain by the same rationale.
        minimum: a rationale whose gain isn't above it is dropped; a side that loses all is direct-only.
        within: of argmax: the shortest of those whose gains are at most so far below the best. Words cost time, and
            rationales of one style are learnt sooner than of two.
        workers: only theirs; none: of all.
    """

    rule: Rule = "argmax"
    margin: bool = True
    temperature: Above0 = 1.0
    minimum: float = 0.0
    within: Least0Float = 0.0
    workers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A rationale and what the judge made of it.

    Attributes:
        confidence: C(q, t | r).
        delta: C(q, t | r) - C(q, t | no r).
        margin: delta minus the mean of the same difference over hard negatives.
    """

    worker: str
    sample: int
    text: str
    confidence: float
    delta: float
    margin: float


@dataclass(frozen=True)
class Chosen(Judged):
    """The same after the selection.

    Attributes:
        chance: how likely stage 1 is to be shown it.
    """

    chance: float


def chances(judged: Sequence[Judged], config: RuleConfig, key: str) -> list[float]:
    """How likely each rationale is to be shown: they add up to 1, or are all 0 where the side is direct-only.

    Args:
        key: of the pair and side; the random rule's draw depends on nothing else.
    """
    eligible = [not config.workers or rationale.worker in config.workers for rationale in judged]
    if config.rule in ("random", "longest"):
        return _one_hot(len(judged), _control(judged, eligible, config.rule, key))
    gains = np.array([rationale.margin if config.margin else rationale.delta for rationale in judged])
    kept = np.array(eligible, dtype=bool) & (gains > config.minimum)
    if not kept.any():
        return [0.0] * len(judged)
    if config.rule == "argmax":
        near: list[int] = np.flatnonzero(kept & (gains >= gains[kept].max() - config.within)).tolist()
        return _one_hot(len(judged), min(near, key=lambda place: (len(judged[place].text), -gains[place])))
    return [float(share) for share in softmax(np.where(kept, gains / config.temperature, -np.inf))]


def softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The soft-max of a vector; -inf has no share."""
    powers = np.exp(values - values.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _control(judged: Sequence[Judged], eligible: Sequence[bool], rule: Rule, key: str) -> int | None:
    places = [place for place, is_eligible in enumerate(eligible) if is_eligible]
    if not places:
        return None
    if rule == "longest":
        return max(places, key=lambda place: (len(judged[place].text), -place))
    return places[hash64(key) % len(places)]


def _one_hot(length: int, place: int | None) -> list[float]:
    return [1.0 if index == place else 0.0 for index in range(length)]
