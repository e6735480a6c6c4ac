"""Statistics against scipy, against closed forms, and against what they promise: 95 % of the intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mmeb_harness.stats.resampling import (
    Clusters,
    Uncertain,
    clusters_of,
    drawn_means,
    flip_signs,
    holm,
    interval,
    mean_over_tasks,
    p_of_no_difference,
    rank_intervals,
    resample,
)


def alone(scores: np.ndarray) -> Clusters:
    return clusters_of(scores, np.arange(len(scores)))


def mean_of(*tasks: Clusters, seed: int = 0, resamples: int = 2000) -> list[Uncertain]:
    rng = np.random.default_rng(seed)
    return mean_over_tasks([resample(one, rng, resamples) for one in tasks], rng)


def p_of(*differences: Clusters, seed: int = 0, draws: int = 10_000) -> float:
    rng = np.random.default_rng(seed)
    return p_of_no_difference([flip_signs(one, rng, draws) for one in differences])


def test_scores_are_added_up_by_cluster() -> None:
    found = clusters_of([[1.0, 0.0], [0.5, 1.0], [0.0, 1.0]], ["b", "a", "b"])
    np.testing.assert_allclose(found.sums_CK, [[0.5, 1.0], [1.0, 1.0]])
    np.testing.assert_allclose(found.sizes_C, [1, 2])
    np.testing.assert_allclose(found.means, [0.5, 2 / 3])


def test_the_bootstrap_is_that_of_scipy() -> None:
    scores = np.random.default_rng(0).beta(2, 1, size=300)
    found = mean_of(alone(scores), seed=1, resamples=20_000)[0]
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert found.queries.value == pytest.approx(scores.mean())
    assert found.queries.low == pytest.approx(theirs.low, abs=1e-3)
    assert found.queries.high == pytest.approx(theirs.high, abs=1e-3)
    assert found.tasks == found.queries


def test_few_units_widen_the_interval_to_students() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(
        0, np.sqrt(7 / 8), size=400_000
    )  # what a bootstrap of 8 values of variance 1 gives, times root n
    found = interval(0.0, draws, units=8)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 7), rel=0.03)
    assert interval(0.5, draws, units=1).low == -np.inf


def test_means_of_tasks_are_plain_means_and_tasks_add_their_own_spread() -> None:
    rng = np.random.default_rng(0)
    tasks = [alone((rng.random((n, 2)) < p).astype(float)) for n, p in ((2000, 0.2), (100, 0.5), (500, 0.8))]
    found = mean_of(*tasks)
    for run, one in enumerate(found):
        assert one.queries.value == pytest.approx(np.mean([task.means[run] for task in tasks]))
        assert one.tasks.high - one.tasks.low > 3 * (one.queries.high - one.queries.low)
    # Closed form: independent tasks, variance of the mean of means.
    errors = [task.means[0] * (1 - task.means[0]) / task.sizes_C.sum() for task in tasks]
    assert found[0].queries.high - found[0].queries.low == pytest.approx(2 * 1.96 * np.sqrt(sum(errors)) / 3, rel=0.06)


def test_the_same_seed_gives_the_same_numbers() -> None:
    task = alone(np.random.default_rng(0).random(50))
    assert mean_of(task, seed=3) == mean_of(task, seed=3)
    assert mean_of(task, seed=3) != mean_of(task, seed=4)


def test_resamples_in_parts_are_as_many_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmeb_harness.stats.resampling._AT_ONCE", 170)
    found = resample(alone(np.arange(50.0)), np.random.default_rng(0), 200).draws_BK
    assert found.shape == (200, 1)
    assert found.mean() == pytest.approx(24.5, abs=1.5)


def test_the_permutation_test_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for count in (9, 60):
        first, second = rng.random(count), rng.random(count) + 0.1
        theirs = stats.permutation_test(
            (first, second),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            n_resamples=20_000,
            rng=1,
            vectorized=True,
        ).pvalue
        ours = p_of(alone(first - second), seed=2)
        assert ours == pytest.approx(theirs, abs=1e-12 if count == 9 else 0.01)


def test_clusters_change_sides_together() -> None:
    """Ten copies of each of five differences are five witnesses, not fifty."""
    differences = np.array([0.2, 0.1, 0.3, 0.2, 0.1])
    copies = clusters_of(np.repeat(differences, 10), np.repeat(np.arange(5), 10))
    assert p_of(copies) == p_of(alone(differences)) == 2 / 2**5
    assert p_of(alone(np.repeat(differences, 10))) < 1e-3


def test_runs_that_agree_everywhere_do_not_differ() -> None:
    assert p_of(alone(np.zeros(40)), alone(np.zeros(3))) == 1.0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_rank_intervals() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([rng.normal(0.9, 0.001, 4000), rng.normal(0.5, 0.1, 4000), rng.normal(0.5, 0.1, 4000)], axis=1)
    assert rank_intervals(draws) == [(1, 1), (2, 3), (2, 3)]
    assert rank_intervals(np.full((10, 2), 0.5)) == [(1, 1), (1, 1)]


def test_published_means_spread_as_hits_do() -> None:
    draws = drawn_means(0.8, 1000, np.random.default_rng(0), 20_000)
    assert draws.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 1000), rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clusters", "members", "shared"),
    [pytest.param(60, 1, 0.0, id="60 queries"), pytest.param(40, 5, 0.6, id="200 queries of 40 videos")],
)
def test_95_percent_of_the_intervals_cover(clusters: int, members: int, shared: float) -> None:
    """hit@1 with a true mean of 0.7; of a video's queries most are right or wrong together."""
    rng = np.random.default_rng(5)
    trials, covered = 1500, 0
    labels = np.repeat(np.arange(clusters), members)
    for trial in range(trials):
        together = rng.random(clusters)[labels]
        own = rng.random(clusters * members)
        hits = np.where(rng.random(clusters)[labels] < shared, together, own) < 0.7
        found = mean_of(clusters_of(hits.astype(float), labels), seed=trial, resamples=600)[0].queries
        covered += found.low <= 0.7 <= found.high
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.slow
def test_intervals_that_ignore_clusters_do_not_cover() -> None:
    """Why clusters are kept: the same data, each query by itself."""
    rng = np.random.default_rng(5)
    labels, covered = np.repeat(np.arange(40), 5), 0
    for trial in range(300):
        hits = np.where(rng.random(40)[labels] < 0.6, rng.random(40)[labels], rng.random(200)) < 0.7
        found = mean_of(alone(hits.astype(float)), seed=trial, resamples=600)[0].queries
        covered += found.low <= 0.7 <= found.high
    assert covered / 300 < 0.85


def test_a_true_difference_of_zero_is_called_real_in_5_percent() -> None:
    rng = np.random.default_rng(1)
    called = 0
    for trial in range(600):
        first, second = rng.random((2, 40)) < 0.6
        called += p_of(alone(first.astype(float) - second), seed=trial, draws=400) < 0.05
    assert 0.02 < called / 600 < 0.07
