"""A gate's probability as a forecast that reasoning pays, held against what reasoning did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmeb_harness.stats.resampling import Floats

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Queries whose gate lies in a tenth.

    Attributes:
        gate: mean probability.
        pays, hurts: share of the queries on which always is better, or worse, than never.
        gap: mean of always minus never.
    """

    low: float
    queries: int
    gate: float
    pays: float
    hurts: float
    gap: float


@dataclass(frozen=True)
class Calibration:
    """A gate as a forecast that reasoning pays.

    Attributes:
        bins: of the gate's probability, those with queries.
        brier: the forecast's Brier score; `base_rate_brier`: that of always saying how often it does.
        ece: expected calibration error over ten bins of equally many queries (see `calibration_error`).
    """

    bins: tuple[Bin, ...]
    brier: float
    base_rate_brier: float
    ece: float


def calibrate(gates: Floats, gaps: Floats) -> Calibration:
    """Hold a gate against what reasoning did.

    Args:
        gates: (N,) p(reason), N > 0.
        gaps: (N,) scores of always minus those of never.
    """
    pays = (gaps > 0).astype(np.float64)
    rate = float(pays.mean())
    brier = float(np.mean((gates - pays) ** 2))
    return Calibration(_bins(gates, gaps), brier, rate * (1 - rate), calibration_error(gates, pays))


def calibration_error(gates: Floats, pays: Floats) -> float:
    """Expected calibration error: how far a bin's mean forecast is from how often it came true, over queries.

    Ten bins of equally many queries. Equal forecasts stay together, in the bin of their middle rank, whatever their
    order; fewer than ten queries have a bin each.

    Args:
        gates: (N,) p(reason), N > 0.
        pays: (N,) 1 where reasoning pays, else 0.
    """
    _, places, counts = np.unique(gates, return_inverse=True, return_counts=True)
    middles = np.cumsum(counts) - counts / 2  # 0.5 of the first of all, N - 0.5 of the last
    bins = (BINS * middles / len(gates)).astype(int)[places]
    errors = np.bincount(bins, weights=gates - pays)
    return float(np.abs(errors).sum() / len(gates))


def _bins(gates: Floats, gaps: Floats) -> tuple[Bin, ...]:
    places = np.minimum((BINS * gates).astype(int), BINS - 1)
    return tuple(
        _bin(place / BINS, gates[places == place], gaps[places == place]) for place in sorted(set(places.tolist()))
    )


def _bin(low: float, gates: Floats, gaps: Floats) -> Bin:
    return Bin(low, len(gates), *(float(values.mean()) for values in (gates, gaps > 0, gaps < 0, gaps)))
