"""Accuracy against what it cost, and how long queries took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmeb_harness.core.errors import counted, leading, shortened
from mmeb_harness.show.pictures.picture import NO_COMMON, NO_REASONING, LeftOut, Made, Picture
from mmeb_harness.show.pictures.points import ecdf, pareto_front
from mmeb_harness.show.pictures.runs import ShownRuns
from mmeb_harness.show.pictures.style import (
    MOST_LABELS,
    QUIET,
    colour,
    legend_below,
    line,
    log_milliseconds,
    mark,
    name_points,
    new_figure,
    settle,
    size,
)
from mmeb_harness.stats.resampling import Floats

#: A hundredth of a millisecond: on a logarithmic axis nothing takes no time.
_SHORTEST = 0.01


def accuracy_latency(shown: ShownRuns) -> Made:
    """A point a run: mean main metric over mean latency."""
    if not shown.common:
        return [LeftOut("accuracy-latency", NO_COMMON)]
    if shared := _shared(shown):
        return [LeftOut("accuracy-latency", shared)]
    costs = [
        max(_SHORTEST, 1000 * float(np.mean(run.query_traces(shown.common).latency_seconds))) for run in shown.runs
    ]
    texts = [f"{_few_digits(cost)} ms" for cost in costs]
    label = f"mean latency of a query in its batch, ms (logarithmic{shown.machines})"
    return [_accuracy_over(shown, "accuracy-latency", "Accuracy and latency", costs, texts, label, logarithmic=True)]


def accuracy_tokens(shown: ShownRuns) -> Made:
    """A point a run: mean main metric over generated tokens."""
    if not shown.common:
        return [LeftOut("accuracy-tokens", NO_COMMON)]
    costs = [float(np.mean(run.query_traces(shown.common).reasoning_tokens)) for run in shown.runs]
    if not any(costs):
        return [LeftOut("accuracy-tokens", NO_REASONING)]
    texts = [f"{cost:.1f} tokens" for cost in costs]
    label = "mean rationale tokens of a query"
    return [_accuracy_over(shown, "accuracy-tokens", "Accuracy and rationale tokens", costs, texts, label)]


def _shared(shown: ShownRuns) -> str:
    """Why latencies can't be shown; "" if they can."""
    runs = [run.name for run in shown.runs if np.isnan(run.query_traces(shown.common).latency_seconds).any()]
    if not runs:
        return ""
    return f"queries of {leading(runs)} were encoded in several modes at once; run each mode alone, with --fresh"


def _few_digits(value: float) -> str:
    """As many digits of milliseconds as say something."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _accuracy_over(
    shown: ShownRuns,
    name: str,
    title: str,
    costs: Sequence[float],
    texts: Sequence[str],
    label: str,
    *,
    logarithmic: bool = False,
) -> Picture:
    scores = [100 * run.score(shown.common) for run in shown.runs]
    names = [run.name for run in shown.runs]
    what = shown.mean_of(shown.common)

    def empty(legend: Sequence[str]) -> tuple[Figure, Axes]:
        figure = new_figure(7.5, 4.7, title, f"{what}; {shown.data}", legend)
        axes = figure.subplots()
        _set_limits(axes, costs, scores, logarithmic=logarithmic)
        axes.set_xlabel(label)
        axes.set_ylabel("main metric, %")
        return figure, axes

    legend = ["Pareto front: no other run is both as cheap and as good"]
    figure, axes = empty(legend)
    front, _ = _draw_points(axes, costs, scores)
    legend_below(figure, [front], legend)
    if len(names) > MOST_LABELS or not name_points(axes, list(zip(costs, scores, strict=True)), names):
        legend = [*names, "Pareto front"]
        figure, axes = empty(legend)
        front, points = _draw_points(axes, costs, scores)
        legend_below(figure, [*points, front], legend)
        settle(figure)
    each = shortened(f"{run} {score:.1f} % at {text}" for run, score, text in zip(names, scores, texts, strict=True))
    best = shortened(names[place] for place in pareto_front(costs, scores))
    return Picture(name, title, f"{title} ({what}): {each}. On the Pareto front: {best}.", figure)


def _set_limits(axes: Axes, costs: Sequence[float], scores: Sequence[float], *, logarithmic: bool) -> None:
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(log_milliseconds(axes.xaxis, min(costs), max(costs)))
    else:
        axes.set_xlim(-0.06 * max(costs), 1.12 * max(costs))
    room = max(2.0, 0.1 * (max(scores) - min(scores)))
    axes.set_ylim(max(min(scores) - room, -room / 2), min(max(scores) + 1.5 * room, 100 + room / 2))


def _draw_points(axes: Axes, costs: Sequence[float], scores: Sequence[float]) -> tuple[Line2D, list[Line2D]]:
    """The front as stairs (with this much to spend, so good a run can be had), which go on to the edge; the runs."""
    front = pareto_front(costs, scores)
    across = [*(costs[place] for place in front), axes.get_xlim()[1]]
    up = [*(scores[place] for place in front), scores[front[-1]]]
    axes.step(across, up, where="post", color=QUIET, linestyle=(0, (4, 2)), lw=1.1, zorder=1.5)
    points = [
        axes.plot(cost, score, mark(number), color=colour(number), ms=size(8), mec="black", mew=0.6, ls="none")[0]
        for number, (cost, score) in enumerate(zip(costs, scores, strict=True))
    ]
    return Line2D([], [], color=QUIET, ls=(0, (4, 2)), lw=1.1), points


def latency(shown: ShownRuns) -> Made:
    """A line a run: the share of queries that were ready within a time."""
    title = "Latency of queries"
    if not shown.common:
        return [LeftOut("latency", NO_COMMON)]
    if shared := _shared(shown):
        return [LeftOut("latency", shared)]
    each = [np.maximum(_SHORTEST, 1000 * run.query_traces(shown.common).latency_seconds) for run in shown.runs]
    what = f"{len(each[0]):,} queries of {counted(len(shown.common), 'task')}"
    quantiles = [[_few_digits(value) for value in np.percentile(times, [50, 95]).tolist()] for times in each]
    names = [f"{run.name}: p50 {p50}, p95 {p95} ms" for run, (p50, p95) in zip(shown.runs, quantiles, strict=True)]
    figure = new_figure(7.5, 4.3, title, f"{what}; {shown.data}{shown.machines}", names)
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(log_milliseconds(axes.xaxis, min(map(np.min, each)), max(map(np.max, each))))
    axes.set_ylim(0, 103)
    axes.set_xlabel("latency of a query in its batch, ms (logarithmic)")
    axes.set_ylabel("queries ready by then, %")
    legend_below(figure, [_draw_ecdf(axes, times, number) for number, times in enumerate(each)], names)
    told = shortened(f"{run.name} {p50} / {p95} ms" for run, (p50, p95) in zip(shown.runs, quantiles, strict=True))
    return [Picture("latency", title, f"{title}, median / 95th percentile: {told}.", settle(figure))]


def _draw_ecdf(axes: Axes, times: Floats, number: int) -> Line2D:
    values, shares = ecdf(times)
    style: dict[str, Any] = {"color": colour(number), "zorder": 2.5}
    axes.step([values[0], *values], [0, *(100 * shares)], where="post", linestyle=line(number), **style)
    tenths = np.percentile(times, [10, 30, 50, 70, 90], method="inverted_cdf")
    look: dict[str, Any] = {"marker": mark(number), "mec": "black", "mew": 0.5, "ms": 5.5}
    axes.plot(tenths, 100 * shares[np.searchsorted(values, tenths)], linestyle="none", **style, **look)
    return Line2D([], [], color=colour(number), linestyle=line(number), **look)
