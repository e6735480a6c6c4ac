"""One training against another: means over several seeds of a model, and how much another seed would move them.

Two intervals, because they answer two questions. Over queries: would other test queries say the same of *these*
models? Bootstrap, every seed's queries resampled. Over seeds: would another training? Student's t over the seeds'
values; with three seeds it is wide, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmeb_harness.stats.resampling import CONFIDENCE, Floats, Resampled, percentile_interval


@dataclass(frozen=True)
class OverSeeds:
    """A value with its two intervals, (low, high); over seeds (nan, nan) where there is one only."""

    value: float
    queries: tuple[float, float]
    seeds: tuple[float, float]


def statistic_over_seeds(seeds: Sequence[Resampled], statistic: Callable[[Floats], Floats]) -> OverSeeds:
    """A function of means over queries and seeds, and its intervals.

    A ratio is one of means over all seeds, not a mean of ratios: where a seed has hardly any head-room, its own ratio
    means nothing. Its interval over seeds is then very wide, or not a number, and shows that.

    Args:
        seeds: of the same K columns and as many resamples; one or more.
        statistic: (..., K) → (...); where it is nan in a resample, that is left out of the interval over queries.
    """
    value = float(statistic(np.mean([seed.means_K for seed in seeds], axis=0)))
    draws_B = statistic(np.mean([seed.draws_BK for seed in seeds], axis=0))
    each = np.array([float(statistic(seed.means_K)) for seed in seeds])
    return OverSeeds(value, percentile_interval(draws_B), student_interval(each))


def student_interval(values: Floats) -> tuple[float, float]:
    """Student's 95 % interval of a mean; (nan, nan) of fewer than two values."""
    from scipy import special

    if len(values) < 2:
        return float("nan"), float("nan")
    half = special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
