"""The gate as a forecast that reasoning pays, as arithmetic: its scale, its threshold, and what both are worth.

Legend: N prompts. A gap is what reasoning changes of a prompt's score, 1 to -1; it pays above 0 and hurts below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from mmeb_harness.stats.calibration import calibrate
from mmeb_harness.stats.resampling import Floats
from mmemb_r1_model.model.settings import Calibration

#: Fewer prompts tell nothing: even a share that reasons is uncertain by 5 points.
FEWEST = 100
FOLDS = 5
#: Nearer to 0 or 1 logits of a p(reason) in float32 are noise.
_NEAREST = 1e-6
#: Significant digits of what is stored.
_DIGITS = 6


@dataclass(frozen=True)
class Forecast:
    """What one gate is worth on prompts.

    Attributes:
        brier, ece: as a forecast that reasoning pays.
        share: of the prompts that reason by its threshold.
        score: mean of all prompts, each on its path.
    """

    brier: float
    ece: float
    share: float
    score: float


@dataclass(frozen=True)
class Fit:
    """A calibration, and what it changes.

    Attributes:
        pays, hurts: share of the prompts.
        never, always: mean score.
        raw: the gate as it was, with its own threshold.
        calibrated: each prompt by a calibration of the others, in five folds.
    """

    calibration: Calibration
    pays: float
    hurts: float
    never: float
    always: float
    raw: Forecast
    calibrated: Forecast

    def __str__(self) -> str:
        before, after = self.raw, self.calibrated
        return (
            f"gate calibrated on {self.calibration.prompts:,} held-out prompts: Brier {before.brier:.3f} → "
            f"{after.brier:.3f}, ECE {before.ece:.3f} → {after.ece:.3f}, reasons {before.share:.1%} → "
            f"{after.share:.1%} at a score of {before.score:.1%} → {after.score:.1%}; it does above "
            f"{self.calibration.threshold:.3f}"
        )


def fit(logits_N: Floats, gaps_N: Floats, price: float) -> Calibration:
    """Scale and threshold of a gate.

    The threshold isn't the one that scored best on these prompts: over a broad top of the curve that is chance.
    Reasoning is worth its price where the fitted p(pays) - p(hurts) is above it, two curves of two numbers each.

    Args:
        logits_N: raw ones, any order.
        gaps_N: 1, 0 or -1.
        price: least expected gain for which a rationale is written.
    """
    pays, hurts = _logistic(logits_N, gaps_N > 0, least_slope=0.0), _logistic(logits_N, gaps_N < 0)
    probability_N = expit(pays[0] * logits_N + pays[1])
    worth_N = probability_N - expit(hurts[0] * logits_N + hurts[1]) - price
    slope, intercept, threshold = (
        float(f"{value:.{_DIGITS}g}") for value in (*pays, _threshold(probability_N, worth_N))
    )
    return Calibration(slope, intercept, threshold, len(logits_N))


def _logistic(logits_N: Floats, labels_N: NDArray[np.bool_], least_slope: float = -math.inf) -> tuple[float, float]:
    """(slope, intercept) of p(label), by maximum likelihood of labels that are softened by a prior.

    Platt (1999), section 2.2: with n prompts of a label it counts as (n + 1) / (n + 2), so that prompts which can be
    told apart exactly, or are all alike, have a finite fit as well.

    Args:
        least_slope: 0: a gate that is the wrong way round is worth no more than the base rate.
    """
    positive = int(labels_N.sum())
    targets_N = np.where(labels_N, (positive + 1) / (positive + 2), 1 / (len(labels_N) - positive + 2))
    centre, scale = float(logits_N.mean()), float(logits_N.std()) or 1.0
    x_N = (logits_N - centre) / scale

    def loss(weights: Floats) -> tuple[float, Floats]:
        z_N = weights[0] * x_N + weights[1]
        error_N = expit(z_N) - targets_N
        value = float(np.mean(np.logaddexp(0, z_N) - targets_N * z_N))
        return value, np.array([np.mean(error_N * x_N), np.mean(error_N)])

    rate = float(targets_N.mean())
    start = np.array([0.0, math.log(rate / (1 - rate))])
    bounds = [(least_slope, None), (None, None)]
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    slope = float(fitted.x[0]) / scale
    return slope, float(fitted.x[1]) - slope * centre


def _threshold(probability_N: Floats, worth_N: Floats) -> float:
    """Above which the worth of all that reasons is greatest; of equals the highest, so that least is written."""
    order = np.argsort(-probability_N, kind="stable")
    falling_N = probability_N[order]
    # How many may reason: none, or up to a prompt behind which the probability falls.
    counts = np.concatenate([[0], np.flatnonzero(np.diff(falling_N, append=-1.0)) + 1])
    worth = np.concatenate([[0.0], np.cumsum(worth_N[order])])[counts]
    count = int(counts[np.argmax(worth)])
    if count in (0, len(falling_N)):
        return 0.0 if count else 1.0
    return float(falling_N[count - 1] + falling_N[count]) / 2


def judged(gates_N: Floats, never_N: Floats, always_N: Floats, price: float, raw_threshold: float) -> Fit:
    """Fit a calibration to prompts, and say what it is worth on prompts that it wasn't fitted to.

    Args:
        gates_N: raw p(reason), in an order that says nothing.
        never_N, always_N: the score on either path, 1 or 0.
        raw_threshold: above which the raw gate reasons.
    """
    gaps_N = always_N - never_N
    logits_N: Floats = logit(np.clip(gates_N, _NEAREST, 1 - _NEAREST))
    folds_N = np.arange(len(gates_N)) % FOLDS
    probability_N, reasons_N = np.empty(len(gates_N)), np.empty(len(gates_N), dtype=bool)
    for fold in range(FOLDS):
        here = folds_N == fold
        own = fit(logits_N[~here], gaps_N[~here], price)
        probability_N[here] = expit(own.slope * logits_N[here] + own.intercept)
        reasons_N[here] = probability_N[here] > own.threshold

    def forecast(gate_N: Floats, reason_N: NDArray[np.bool_]) -> Forecast:
        calibration = calibrate(gate_N, gaps_N)
        score = float(np.where(reason_N, always_N, never_N).mean())
        return Forecast(calibration.brier, calibration.ece, float(reason_N.mean()), score)

    return Fit(
        calibration=fit(logits_N, gaps_N, price),
        pays=float((gaps_N > 0).mean()),
        hurts=float((gaps_N < 0).mean()),
        never=float(never_N.mean()),
        always=float(always_N.mean()),
        raw=forecast(gates_N, gates_N > raw_threshold),
        calibrated=forecast(probability_N, reasons_N),
    )
