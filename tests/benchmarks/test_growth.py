"""Exponents are fitted to the part of a curve that grows, and the picture says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmeb_harness.bench.values import Spread
from mmeb_harness.show.pictures.picture import save_pictures
from tests.benchmarks.growth import Curve, Growth, Sizes, curve_of, power_law, ranking_over_candidates
from tests.benchmarks.growth_picture import draw_growth, in_words


def test_a_power_law_is_found_exactly() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert power_law(sizes, [3.0 * size for size in sizes]) == pytest.approx((1.0, 3.0))
    assert power_law(sizes, [0.5 * size**2 for size in sizes]) == pytest.approx((2.0, 0.5))
    # A constant hides the growth of small sizes: the upper half is what is fitted.
    curve = curve_of("n", "squares", {size: [max(16.0, size**2)] * 2 for size in [1.0, 2.0, *sizes, 16.0, 32.0]}, 2)
    assert curve.fit is not None
    assert curve.fit.exponent == Spread(*(pytest.approx(2.0),) * 3)
    assert (curve.fit.first, curve.fit.last) == (8.0, 32.0)
    assert curve_of("n", "one point", {1.0: [1.0]}, 1).fit is None


def test_growth_is_measured_and_drawn(tmp_path: Path) -> None:
    sizes = Sizes(candidates=(100, 200, 400), ranked_queries=3, dimensions=8)
    curve = ranking_over_candidates(sizes, 2)
    assert [point.size for point in curve.points] == [100, 200, 400]
    assert all(len(point.each) == 2 and min(point.each) > 0 for point in curve.points)
    other = Curve("frames", "one", curve.points[:1], None)
    growth = Growth("toy", {}, {}, (curve, other), (), 2, sizes, {}, 1, {}, None)
    picture = draw_growth(growth)
    assert "ranking of 3 queries over candidates: exponent" in picture.alt
    assert in_words(None) in picture.alt
    paths = save_pictures([picture], tmp_path)
    assert [path.name for path in paths] == ["growth.png", "growth.svg"]
