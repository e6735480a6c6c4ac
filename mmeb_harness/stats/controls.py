"""What decides without a gate: the better mode of each task, and a probe on the state that the gate reads.

Both are fitted on queries of which both paths are known, and judged on others: those of a run that was held out for it,
or, cross-fitted, the run's own in five folds, each decided by the other four. Queries of a cluster are in one fold.

Legend: N queries, D numbers of a state, S strengths.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.results.recomputed import TOLERANCE
from mmeb_harness.stats.paired import SEED
from mmeb_harness.stats.queries import States
from mmeb_harness.stats.resampling import Floats

FOLDS = 5
#: Of the ridge, on standardised states; the probe takes that of the least squared error in folds of its own.
STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
#: A number of the state whose deviation is less than this share of its mean is constant, but for what sums round off.
_CONSTANT = 1e-6

Decisions = NDArray[np.bool_]


def folds_of(clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The fold of each query (N,): clusters, shuffled by a fixed seed and dealt out; fewer than five have one each."""
    labels, places = np.unique(clusters, return_inverse=True)
    dealt = np.random.default_rng(SEED).permutation(len(labels)) % FOLDS
    folds: NDArray[np.int64] = dealt[places]
    return folds


def is_always_better(gains: Floats) -> bool:
    """Whether always is the better mode of these queries; of none, and where both are as good, never is: it is cheaper.

    Args:
        gains: (N,) scores of always minus those of never.
    """
    return len(gains) > 0 and bool(gains.mean() > TOLERANCE)


def cross_fitted_mode(gains: Floats, clusters: NDArray[np.int64]) -> Decisions:
    """Whether each query of a task reasons (N,) by the mode that is better on the queries of the other folds."""
    folds, reasons = folds_of(clusters), np.zeros(len(gains), dtype=np.bool_)
    for fold in np.unique(folds):
        reasons[folds == fold] = is_always_better(gains[folds != fold])
    return reasons


@dataclass(frozen=True)
class Probe:
    """A linear forecast of what reasoning gains."""

    weights_D: Floats
    constant: float

    def gains(self, states: States) -> Floats:
        """(N, D) → (N,)"""
        forecast: Floats = states.astype(np.float64) @ self.weights_D + self.constant
        return forecast


@dataclass(frozen=True)
class _Sums:
    """What a ridge needs of some queries; adds up."""

    queries: int
    states_D: Floats
    products_DD: Floats
    gain: float
    gains_D: Floats

    @classmethod
    def of(cls, states: States, gains: Floats) -> _Sums:
        values = states.astype(np.float64)
        return cls(len(values), values.sum(axis=0), values.T @ values, float(gains.sum()), values.T @ gains)

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def probe(self, strength: float) -> Probe:
        """Ridge regression on standardised states, the constant not shrunk; one that never varies has no weight."""
        mean_D, gain = self.states_D / self.queries, self.gain / self.queries
        spread_DD = self.products_DD / self.queries - np.outer(mean_D, mean_D)
        scale_D = np.sqrt(np.maximum(np.diag(spread_DD), 0))
        scale_D[scale_D <= _CONSTANT * np.abs(mean_D)] = np.inf
        penalty_DD = strength / self.queries * np.eye(len(mean_D))
        right_D = (self.gains_D / self.queries - gain * mean_D) / scale_D
        weights_D = np.linalg.solve(spread_DD / np.outer(scale_D, scale_D) + penalty_DD, right_D) / scale_D
        return Probe(weights_D, float(gain - weights_D @ mean_D))


@dataclass(frozen=True)
class _Fold:
    states: States
    gains: Floats
    sums: _Sums

    def squared_errors(self, probes: Sequence[Probe]) -> list[float]:
        values = self.states.astype(np.float64)
        return [float(((values @ probe.weights_D + probe.constant - self.gains) ** 2).sum()) for probe in probes]


def fit_probe(states: States, gains: Floats, clusters: NDArray[np.int64]) -> Probe:
    """A probe of all these queries, its strength that of the least squared error over their folds.

    Args:
        states: (N, D), of `FOLDS` clusters at least.
        gains: (N,) scores of always minus those of never.
    """
    return _fitted(_folded(states, gains, folds_of(clusters)))


def cross_fitted_gains(states: States, gains: Floats, clusters: NDArray[np.int64]) -> Floats:
    """What reasoning gains (N,) by a probe of the other folds, whose strength is chosen among these."""
    folds, forecast = folds_of(clusters), np.empty(len(gains))
    every = _folded(states, gains, folds)
    for number, fold in enumerate(every):
        others = [other for other in every if other is not fold]
        forecast[folds == number] = _fitted(others).gains(fold.states)
    return forecast


def _folded(states: States, gains: Floats, folds: NDArray[np.int64]) -> list[_Fold]:
    parts = [(states[folds == number], gains[folds == number]) for number in range(FOLDS)]
    return [_Fold(*part, _Sums.of(*part)) for part in parts]


def _fitted(folds: Sequence[_Fold]) -> Probe:
    errors_S = np.zeros(len(STRENGTHS))
    for fold in folds:
        others = _joined(other for other in folds if other is not fold)
        errors_S += fold.squared_errors([others.probe(strength) for strength in STRENGTHS])
    return _joined(folds).probe(STRENGTHS[int(np.argmin(errors_S))])


def _joined(folds: Iterable[_Fold]) -> _Sums:
    return functools.reduce(operator.add, (fold.sums for fold in folds))
