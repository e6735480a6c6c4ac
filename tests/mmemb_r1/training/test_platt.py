"""A gate's scale and threshold where they are known by hand, and where there is nothing to fit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit

from mmeb_harness.stats.resampling import Floats
from mmemb_r1_model.training.platt import fit, judged


def gaps(*counts: tuple[int, int, int]) -> Floats:
    """Gaps of prompts that lie together: so many on which reasoning pays, changes nothing, and hurts."""
    return np.concatenate([np.repeat([1.0, 0.0, -1.0], own) for own in counts])


def test_two_kinds_of_prompts_get_their_own_rates() -> None:
    # Two numbers fit two rates exactly; Platt's targets are (n + 1) / (n + 2) of n that pay, 1 / (n + 2) of n others.
    logits = np.repeat([-1.0, 3.0], 100)
    found = fit(logits, gaps((20, 80, 0), (70, 20, 10)), price=0.0)
    pays, not_pays = 91 / 92, 1 / 112
    for value, count in ((-1.0, 20), (3.0, 70)):
        rate = (count * pays + (100 - count) * not_pays) / 100
        assert found.slope * value + found.intercept == pytest.approx(logit(rate), abs=1e-4)
    assert found.prompts == 200


def test_what_has_nothing_to_be_fitted_has_a_rule() -> None:
    logits = np.linspace(-3, 3, 100)
    never, always = fit(logits, gaps((0, 90, 10)), 0.1), fit(logits, gaps((100, 0, 0)), 0.1)
    assert (never.slope, never.threshold) == (0, 1)
    assert expit(never.intercept) == pytest.approx(1 / 102, rel=1e-3)
    assert (always.slope, always.threshold) == (0, 0)
    apart = fit(logits, gaps((0, 50, 0), (50, 0, 0)), 0.1)
    assert 0 < apart.slope < 100
    reasons = expit(apart.slope * logits + apart.intercept) > apart.threshold
    assert reasons[50:].all()
    assert not reasons[:30].any()
    assert fit(np.zeros(100), gaps((30, 70, 0)), 0.1).threshold == 0
    assert fit(np.zeros(100), gaps((5, 95, 0)), 0.1).threshold == 1


def test_a_gate_that_is_the_wrong_way_round_is_worth_no_more_than_the_rate() -> None:
    found = fit(np.linspace(3, -3, 100), gaps((0, 60, 0), (40, 0, 0)), 0.1)
    assert found.slope == 0
    assert expit(found.intercept) == pytest.approx((40 * 41 / 42 + 60 / 62) / 100, abs=1e-4)


def world(count: int, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Raw gates that say too much too often, and scores: reasoning hurts where it seldom pays."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, count)
    drawn = rng.random(count)
    pays, hurts = expit(0.7 * logits - 2), 0.1 * expit(-logits)
    change = np.where(drawn < pays, 1, np.where(drawn > 1 - hurts, -1, 0))
    never = np.where(change == 0, rng.integers(0, 2, count), change == -1)
    return expit(logits), never.astype(np.float64), (never + change).astype(np.float64)


def test_the_threshold_is_where_a_rationale_is_worth_its_price() -> None:
    gates, never, always = world(20_000)
    thresholds = [fit(logit(gates), always - never, price).threshold for price in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert thresholds == sorted(thresholds)
    assert thresholds[-1] == 1
    grid = np.linspace(-8, 8, 10_001)
    worth = expit(0.7 * grid - 2) - 0.1 * expit(-grid)
    for price, threshold in zip((0.05, 0.1, 0.5), thresholds[1:], strict=False):
        assert threshold == pytest.approx(expit(0.7 * grid - 2)[np.argmax(worth > price)], abs=0.02)


def test_what_a_calibration_is_worth_is_told_of_prompts_that_it_did_not_see() -> None:
    gates, never, always = world(2000)
    found = judged(gates, never, always, price=0.1, raw_threshold=0.5)
    assert found.raw.share == pytest.approx(np.mean(gates > 0.5))
    assert found.raw.score == pytest.approx(np.where(gates > 0.5, always, never).mean())
    assert found.raw.brier == pytest.approx(np.mean((gates - (always > never)) ** 2))
    assert (found.never, found.always) == (never.mean(), always.mean())
    assert found.calibrated.brier < 0.6 * found.raw.brier
    assert found.calibrated.ece < 0.2 * found.raw.ece
    assert found.calibrated.score == pytest.approx(found.raw.score, abs=0.01)
    # Of noise nothing is learnt, and that must show: a fit judged on its own prompts would say otherwise.
    noise = np.random.default_rng(1).permutation(always - never)
    told = judged(gates, np.maximum(0, -noise), np.maximum(0, noise), 0.1, 0.5).calibrated
    rate = float(np.mean(noise > 0))
    assert told.brier >= rate * (1 - rate) - 1e-3
    sure = judged(np.round(gates), never, always, price=0.1, raw_threshold=0.5)  # gates of 0 and 1
    assert all(np.isfinite(dataclasses.astuple(sure.calibration)))
