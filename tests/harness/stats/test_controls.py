"""What decides without a gate, and a forecast's calibration, held against plain loops and least squares."""

from __future__ import annotations

import numpy as np
import pytest

from mmeb_harness.stats.calibration import calibration_error
from mmeb_harness.stats.controls import (
    FOLDS,
    STRENGTHS,
    cross_fitted_gains,
    cross_fitted_mode,
    fit_probe,
    folds_of,
    is_always_better,
)
from mmeb_harness.stats.resampling import Floats


def test_folds_are_of_whole_clusters_and_alike_in_size() -> None:
    clusters = np.repeat(np.arange(23), np.random.default_rng(1).integers(1, 4, 23))
    folds = folds_of(clusters)
    assert all(len({*folds[clusters == cluster]}) == 1 for cluster in range(23))
    assert sorted(len(np.unique(clusters[folds == fold])) for fold in range(FOLDS)) == [4, 4, 5, 5, 5]
    assert (folds_of(clusters + 7) == folds).all()
    assert sorted(folds_of(np.array([5, 9, 5]))) == [0, 0, 1] or sorted(folds_of(np.array([5, 9, 5]))) == [0, 1, 1]


def test_a_query_is_decided_by_other_folds() -> None:
    rng = np.random.default_rng(2)
    clusters = rng.integers(0, 30, 60)
    gains = rng.integers(-1, 2, 60) / 3 + (clusters % 4 == 0)
    folds = folds_of(clusters)
    expected = []
    for own in folds:
        others = [gain for gain, fold in zip(gains, folds, strict=True) if fold != own]
        expected.append(sum(others) / len(others) > 1e-9)
    assert cross_fitted_mode(gains, clusters).tolist() == expected
    # What a query's own fold gained doesn't bear on it.
    changed = np.where(folds == 3, -50.0, gains)
    assert (cross_fitted_mode(changed, clusters)[folds == 3] == cross_fitted_mode(gains, clusters)[folds == 3]).all()


def test_as_good_is_never() -> None:
    assert not is_always_better(np.array([1.0, -1.0]))
    assert not is_always_better(np.array([0.1, 0.2, -0.3]))  # of which the sum isn't quite zero
    assert not is_always_better(np.array([]))
    assert is_always_better(np.array([1.0, -0.5]))
    # One cluster has nobody to learn from.
    assert not cross_fitted_mode(np.ones(4), np.zeros(4, dtype=np.int64)).any()
    assert cross_fitted_mode(np.ones(2), np.arange(2)).all()


def plain_ridge(states: Floats, gains: Floats, strength: float) -> tuple[Floats, Floats, Floats, float]:
    """Least squares with a row more for each weight."""
    mean, scale = states.mean(axis=0), states.std(axis=0)
    rows = np.vstack([(states - mean) / scale, np.sqrt(strength) * np.eye(states.shape[1])])
    right = np.concatenate([gains - gains.mean(), np.zeros(states.shape[1])])
    return mean, scale, np.linalg.lstsq(rows, right)[0], float(gains.mean())


def forecast(fitted: tuple[Floats, Floats, Floats, float], states: Floats) -> Floats:
    mean, scale, weights, constant = fitted
    gains: Floats = (states - mean) / scale @ weights + constant
    return gains


def plain_probe(states: Floats, gains: Floats, folds: Floats) -> tuple[Floats, Floats, Floats, float]:
    errors = []
    for strength in STRENGTHS:
        misses = [
            forecast(plain_ridge(states[folds != fold], gains[folds != fold], strength), states[folds == fold])
            - gains[folds == fold]
            for fold in np.unique(folds)
        ]
        errors.append(sum(float((miss**2).sum()) for miss in misses))
    return plain_ridge(states, gains, STRENGTHS[int(np.argmin(errors))])


@pytest.mark.parametrize("noise", [0.1, 3.0])
def test_a_probe_is_a_ridge_regression_whose_strength_is_chosen_inside(noise: float) -> None:
    rng = np.random.default_rng(3)
    states = (rng.normal(size=(200, 6)) * [1, 5, 0.1, 1, 1, 1] + [0, 20, 3, 0, 0, 0]).astype(np.float16)
    gains = states[:, 0] - 4.0 * states[:, 2] + noise * rng.normal(size=200)
    clusters = np.arange(200) // 2
    folds, values = folds_of(clusters), states.astype(np.float64)
    found = cross_fitted_gains(states, gains, clusters)
    for fold in range(FOLDS):
        plain = plain_probe(values[folds != fold], gains[folds != fold], folds[folds != fold])
        assert found[folds == fold] == pytest.approx(forecast(plain, values[folds == fold]), rel=1e-6)
    whole = fit_probe(states, gains, clusters).gains(states)
    assert whole == pytest.approx(forecast(plain_probe(values, gains, folds), values), rel=1e-6)


def test_numbers_of_the_state_that_never_vary_say_nothing() -> None:
    rng = np.random.default_rng(4)
    states = rng.normal(size=(100, 3)).astype(np.float16)
    gains = states[:, 1].astype(np.float64)
    constant = np.full((100, 2), [0, 6000], dtype=np.float16)
    with_constants = cross_fitted_gains(np.hstack([states, constant]), gains, np.arange(100))
    assert with_constants == pytest.approx(cross_fitted_gains(states, gains, np.arange(100)))


def plain_error(gates: Floats, pays: Floats) -> float:
    order, bins = sorted(range(len(gates)), key=lambda query: gates[query]), dict[int, list[int]]()
    for rank, query in enumerate(order):
        bins.setdefault(10 * rank // len(gates), []).append(query)
    gaps = [len(own) * abs(np.mean(gates[own]) - np.mean(pays[own])) for own in bins.values()]
    return float(sum(gaps) / len(gates))


@pytest.mark.parametrize("queries", [1, 7, 10, 100, 130])
def test_calibration_error_is_over_ten_bins_of_equally_many_queries(queries: int) -> None:
    rng = np.random.default_rng(queries)
    gates = rng.random(queries) ** 3
    pays = (rng.random(queries) < 0.5).astype(np.float64)
    assert calibration_error(gates, pays) == pytest.approx(plain_error(gates, pays))


def test_equal_forecasts_share_a_bin_in_whatever_order() -> None:
    gates = np.array([0.0] * 5 + [0.2] * 30 + [0.9] * 15)
    pays = np.zeros(50)
    pays[[0, 6, 7, 8, 9, 40]] = 1
    by_value = [abs(5 * 0.0 - 1), abs(30 * 0.2 - 4), abs(15 * 0.9 - 1)]
    assert calibration_error(gates, pays) == pytest.approx(sum(by_value) / 50)
    order = np.random.default_rng(5).permutation(50)
    assert calibration_error(gates[order], pays[order]) == pytest.approx(calibration_error(gates, pays))
    # Four equal ones begin in the first two places' bin; their middle is in the next one.
    gates, pays = np.array([0.0] + [0.5] * 4 + [1.0] * 15), np.array([1.0] + [0.0] * 4 + [1.0] * 15)
    assert calibration_error(gates, pays) == pytest.approx((1 + 4 * 0.5) / 20)
    assert calibration_error(np.full(20, 0.3), np.repeat([0.0, 1.0], [14, 6])) == pytest.approx(0.0)
