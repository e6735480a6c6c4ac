"""Means over queries and seeds, and 95 % intervals of anything that is a function of means.

Two intervals, because they answer two questions. Over queries: would other test queries of the same world say the
same of *these* models? Bootstrap, every seed's queries resampled. Over seeds: would another training? Student's t
over the seeds' values; with three seeds it is wide, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: name of a column → its mean, or its means over resamples.
Means = Mapping[str, Any]
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value with its two intervals; (nan, nan) where there is one seed only."""

    value: float
    queries: tuple[float, float]
    seeds: tuple[float, float]


class Sample:
    """One seed's queries: means of columns, as they are and resampled."""

    def __init__(self, columns: Mapping[str, Floats], seed: int) -> None:
        """Args: columns: name → (n,), equally long, n > 0."""
        self.names = list(columns)
        values_NC = np.stack([columns[name] for name in self.names], axis=1).astype(np.float64)
        n = len(values_NC)
        counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)  # (RESAMPLES, n)
        self.means: Means = dict(zip(self.names, values_NC.mean(axis=0), strict=True))
        self.resampled: Means = dict(zip(self.names, (counts @ values_NC / n).T, strict=True))
        self.size = n


def estimate(samples: Sequence[Sample], statistic: Callable[[Means], Any]) -> Estimate:
    """A statistic of means over queries and seeds, and its intervals.

    A ratio is one of means over all seeds, not a mean of ratios: where a seed has hardly any head-room, its own ratio
    means nothing. Its interval over seeds is then very wide, or not a number, and shows that.

    Args:
        samples: one a seed.
        statistic: from columns' means, numbers or arrays alike.
    """
    per_seed = np.array([float(statistic(one.means)) for one in samples])
    names = samples[0].names
    value = statistic({name: np.mean([one.means[name] for one in samples]) for name in names})
    draws = statistic({name: np.mean([one.resampled[name] for one in samples], axis=0) for name in names})
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(float(value), (float(low), float(high)), t_interval(per_seed))


def t_interval(values: Floats) -> tuple[float, float]:
    """Student's interval of a mean; (nan, nan) of fewer than two values."""
    from scipy import stats

    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
