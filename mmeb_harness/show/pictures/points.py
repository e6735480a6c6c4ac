"""The numbers behind the pictures.

Legend: N queries, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmeb_harness.stats.resampling import Floats


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Positions of what nothing beats: no other costs as little and scores as much, one of them strictly so.

    Cheapest first.
    """
    points = list(zip(costs, scores, strict=True))
    front = [
        place
        for place, (cost, score) in enumerate(points)
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points)
    ]
    return sorted(front, key=lambda place: (costs[place], place))


def share_curve(ranked_by_N: Floats, weights_N: Floats, never_N: Floats, always_N: Floats) -> tuple[Floats, Floats]:
    """Score over the share of queries that reason, if those with the highest values do.

    Ranked by the gate's probability this is what moving its threshold gives, a point a distinct value; ranked by the
    gap between both scores, what the best choice of queries gives at each share.

    Args:
        weights_N: of the queries in the mean; they sum to 1.

    Returns:
        (P,) shares from 0 to 1 and (P,) scores, from that of never to that of always.
    """
    order = np.argsort(-ranked_by_N, kind="stable")
    ranked = ranked_by_N[order]
    weights = weights_N[order]
    shares = np.concatenate([[0.0], np.cumsum(weights)])
    gains = np.concatenate([[0.0], np.cumsum(weights * (always_N - never_N)[order])])
    # Queries of one value change sides together.
    ends = np.concatenate([[True], np.diff(ranked) != 0, [True]]) if len(ranked) else np.array([True])
    return shares[ends], float(weights_N @ never_N) + gains[ends]


def task_weights(sizes: Sequence[int]) -> Floats:
    """(N,) weights with which a mean over queries is the plain mean over tasks."""
    return np.concatenate([np.full(size, 1 / (size * len(sizes))) for size in sizes])


def ecdf(values_N: Floats) -> tuple[Floats, Floats]:
    """Distinct values, ascending, and of each the share of values that are not above it."""
    values, counts = np.unique(values_N, return_counts=True)
    return values, np.cumsum(counts) / len(values_N)
