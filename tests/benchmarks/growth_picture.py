"""Time against size, a panel a size: the points, their range over the repeats, and the power law fitted to them.

matplotlib is imported when the picture is drawn, not with the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mmeb_harness.show.pictures.picture import Picture
from mmeb_harness.show.pictures.style import QUIET, colour, house_style, mark, new_figure, settle
from tests.benchmarks.growth import Curve, Fit, Growth

#: Room left and right of the first and last point, and below and above, as factors.
_ROOM_ACROSS, _ROOM_UP = 1.6, 2.0
#: An axis that spans less has more numbers on it.
_FEW_DECADES = 50


def draw_growth(growth: Growth) -> Picture:
    """One picture of all panels."""
    overs = list(dict.fromkeys(curve.over for curve in growth.curves))
    title = "How the time grows"
    with house_style():
        rows = -(-len(overs) // 2)
        machine = f"{growth.machine.get('gpus') or 'CPU'}, {growth.repeats} repeats"
        figure = new_figure(8.5, 3.1 * rows + 0.6, title, f"{growth.model}; {machine}; both axes logarithmic")
        grid = figure.subplots(rows, 2, squeeze=False).flat
        for axes, over in zip(grid, overs, strict=False):
            _draw_panel(axes, over, [curve for curve in growth.curves if curve.over == over])
        for axes in list(grid)[len(overs) :]:
            axes.set_axis_off()
        settle(figure)
    told = "; ".join(f"{curve.what} over {curve.over}: {in_words(curve.fit)}" for curve in growth.curves)
    return Picture("growth", title, f"{title}: {told}.", figure)


def in_words(fit: Fit | None) -> str:
    """The exponent, its range over the repeats, and where it was fitted."""
    if fit is None:
        return "too few sizes for an exponent"
    spread = fit.exponent
    return (
        f"exponent {spread.median:.2f} [{spread.low:.2f}, {spread.high:.2f}] from {fit.first:,.4g} to {fit.last:,.4g}"
    )


def _draw_panel(axes: Axes, over: str, curves: Sequence[Curve]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    for number, curve in enumerate(curves):
        _draw_curve(axes, number, curve)
    sizes = [point.size for curve in curves for point in curve.points]
    seconds = [value for curve in curves for point in curve.points for value in point.each]
    axes.set_xlim(min(sizes) / _ROOM_ACROSS, max(sizes) * _ROOM_ACROSS)
    axes.set_ylim(min(seconds) / _ROOM_UP, max(seconds) * _ROOM_UP ** (1 + len(curves)))  # room for the legend
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _FEW_DECADES * low else (1,)))
        axis.set_major_formatter(FuncFormatter(_plain))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(over)
    axes.set_ylabel("seconds")
    axes.legend(loc="upper left", handlelength=1, fontsize=8)


def _draw_curve(axes: Axes, number: int, curve: Curve) -> None:
    sizes = np.array([point.size for point in curve.points])
    medians = np.array([point.seconds.median for point in curve.points])
    spread = np.array(
        [
            [point.seconds.median - point.seconds.low for point in curve.points],
            [point.seconds.high - point.seconds.median for point in curve.points],
        ]
    )
    look: dict[str, Any] = {"marker": mark(number), "color": colour(number), "mec": "black", "mew": 0.6, "ms": 5.5}
    label = curve.what if curve.fit is None else f"{curve.what}: exponent {curve.fit.exponent.median:.2f}"
    axes.errorbar(sizes, medians, yerr=spread, ls="none", elinewidth=1, label=label, zorder=2.5, **look)
    if curve.fit is not None:
        ends = np.array([curve.fit.first, curve.fit.last])
        fitted = curve.fit.scale * ends**curve.fit.exponent.median
        axes.plot(ends, fitted, color=QUIET, ls=(0, (4, 2)), lw=1.1, zorder=1.5)


def _plain(value: float, _: object) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
