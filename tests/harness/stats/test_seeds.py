"""Means over seeds: in closed form, against scipy, and by how often the interval over queries covers."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from scipy import stats

from mmeb_harness.stats.policies import head_room_closed
from mmeb_harness.stats.resampling import RESAMPLES, Floats, Resampled, clusters_of, resample
from mmeb_harness.stats.seeds import statistic_over_seeds, student_interval

FIRST = operator.itemgetter((..., 0))


def seed_of(scores: Floats, seed: int, resamples: int = RESAMPLES) -> Resampled:
    return resample(clusters_of(scores, np.arange(len(scores))), np.random.default_rng(seed), resamples)


def test_in_closed_form() -> None:
    """What the study of the replication computed by itself before: plain percentiles of means over seeds."""
    rng = np.random.default_rng(0)
    scores = [rng.random((40, 2)) for _ in range(3)]
    seeds = [seed_of(values, number) for number, values in enumerate(scores)]
    ratio = statistic_over_seeds(seeds, lambda means: means[..., 0] / means[..., 1])
    over_both = np.mean([values.mean(axis=0) for values in scores], axis=0)
    assert ratio.value == over_both[0] / over_both[1]
    draws = []
    for number, values in enumerate(scores):
        times = np.random.default_rng(number).multinomial(40, np.full(40, 1 / 40), size=RESAMPLES)
        draws.append(times @ values / 40)
    over_seeds = np.mean(draws, axis=0)
    assert ratio.queries == tuple(np.quantile(over_seeds[:, 0] / over_seeds[:, 1], [0.025, 0.975]))
    each = np.array([values.mean(axis=0)[0] / values.mean(axis=0)[1] for values in scores])
    assert ratio.seeds == student_interval(each)


def test_students_interval_is_that_of_scipy() -> None:
    values = np.array([0.9, 0.95, 0.92])
    expected = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(values))
    assert student_interval(values) == pytest.approx(expected)
    assert all(np.isnan(student_interval(values[:1])))


def test_resamples_without_head_room_are_left_out() -> None:
    never, always = np.zeros(30), np.arange(30) < 29  # the oracle is better on the last query alone
    scores = np.stack([never, always, always, always, always, np.ones(30)], axis=1).astype(float)
    closed = statistic_over_seeds([seed_of(scores, 0)], head_room_closed)
    assert closed.queries == (0.0, 0.0)
    nothing = statistic_over_seeds([seed_of(np.ones((4, 6)), 0)], head_room_closed)
    assert all(np.isnan(value) for value in (nothing.value, *nothing.queries))


@pytest.mark.slow
def test_95_percent_of_the_intervals_over_queries_cover() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        seeds = [seed_of((rng.random(50) < 0.7).astype(float), 2 * trial + number, 1000) for number in range(2)]
        low, high = statistic_over_seeds(seeds, FIRST).queries
        covered += low <= 0.7 <= high
    assert 0.92 <= covered / 300 <= 0.98
