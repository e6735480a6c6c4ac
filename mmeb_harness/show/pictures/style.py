"""How pictures look: readable in grey and by colour-blind people, the same on every machine.

No state of matplotlib is changed for longer than a picture takes, and pyplot is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from mmeb_harness.stats.resampling import Floats

#: The hues of Okabe and Ito, which colour-blind people can tell apart, lightened and darkened so that in grey, too,
#: each is a step away from the others.
COLOURS = ("#004C8C", "#EBAE1A", "#1AAF85", "#C04000", "#8FD0F5", "#000000", "#CC79A7")
# Nine marks, five lines and eight hatches on seven colours: their pairs repeat late.
MARKS = "osD^vPX*<"
LINES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (9, 2)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "++", "oo")
INK, QUIET = "#222222", "#666666"

#: Up to so many points are named where they stand; more would not find room, and get a legend.
MOST_LABELS = 12
_LONGEST_LINE = 28
#: Where a name may stand: how far off its point, in points, and on which side: right, left, above, below, then the
#: corners; a row a place, the nearest first.
_SIDES = np.tile([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)], (4, 1))
_DISTANCES = np.repeat([7.0, 12.0, 20.0, 30.0], 8)[:, None]
#: Inches.
EDGE, _LEGEND_ROW = 0.12, 0.19
_TITLE, _SUBTITLE = 12.0, 8.5
#: Points of the plain text, and the width in inches from which on it isn't made smaller.
_FONT, _FULL_WIDTH = 9.0, 7.5
_SMALLEST_SHARE = 0.75

_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9.5,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 3,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # TrueType: journals refuse Type 3, and its text can be searched
    "savefig.dpi": 150,
    "svg.hashsalt": "mmeb-eval plot",
    "text.color": INK,
    "text.parse_math": False,  # a folder's name may hold dollar signs
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
}


_asked_width: ContextVar[float | None] = ContextVar("asked_width", default=None)


@contextmanager
def house_style(width: float | None = None) -> Iterator[None]:
    """Ours, whatever the user's own settings are; theirs again afterwards.

    Args:
        width: of all figures, in inches, as on the paper that they are for; `None`: each has its own.
    """
    share = 1.0 if width is None else min(1.0, max(_SMALLEST_SHARE, (width / _FULL_WIDTH) ** 0.4))
    sizes = {name: share * value for name, value in _STYLE.items() if name.endswith("size")}
    token = _asked_width.set(width)
    try:
        with matplotlib.style.context(["default", _STYLE, sizes]):
            yield
    finally:
        _asked_width.reset(token)


def asked_width() -> float | None:
    """The width that all figures are to have, in inches."""
    return _asked_width.get()


def size(points: float) -> float:
    """Of a font, or of what stands beside text: smaller in figures that are narrower."""
    return points * float(matplotlib.rcParams["font.size"]) / _FONT


def new_figure(
    width: float, height: float, title: str, subtitle: str, legend: Sequence[str] = (), *, least: float = 0.6
) -> Figure:
    """An empty figure with a heading, and more height for a legend of these names.

    Args:
        width, height: inches, of a figure whose width nobody asked for.
        least: where it is made narrower, the share of its height that is kept.
    """
    asked = asked_width() or width
    inner = (height - _header(1, 1)) * max(least, min(1.0, asked / width))
    figure = Figure(figsize=(asked, height))
    title, subtitle = (
        wrapped(figure, text, asked - 2 * EDGE, points, weight)
        for text, points, weight in ((title, _TITLE, "bold"), (subtitle, _SUBTITLE, "normal"))
    )
    title_lines = title.count("\n") + 1
    header = _header(title_lines, subtitle.count("\n") + 1)
    total = header + inner + size(_LEGEND_ROW) * _legend_lines(asked, legend)
    figure.set_size_inches(asked, total)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - header / total), w_pad=EDGE, h_pad=EDGE / 2)
    left = EDGE / asked
    figure.text(left, 1 - EDGE / total, title, va="top", fontsize=size(_TITLE), fontweight="bold")
    below = 1 - (EDGE + size(0.24) * title_lines) / total
    figure.text(left, below, subtitle, va="top", fontsize=size(_SUBTITLE), color=QUIET)
    return figure


def _header(title_lines: int, subtitle_lines: int) -> float:
    """Inches above the axes."""
    return EDGE + size(0.24) * title_lines + size(0.15) * subtitle_lines + 0.05


def wrapped(figure: Figure, text: str, inches: float, points: float, weight: str = "normal") -> str:
    """A text in lines that are no longer than that; a word that is longer stays whole."""
    lines: list[str] = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and _text_size(figure, longer, points, weight)[0] > inches * figure.dpi:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def settle(figure: Figure) -> Figure:
    """Lay everything out, once: what is drawn later moves nothing, and written twice it is the same.

    What is written at axes and would run off the figure goes on in a second line.
    """
    figure.draw_without_rendering()
    if asked_width() is not None:
        for _ in range(2):  # other room makes other ticks, and these other room
            for text in _texts(figure):
                _into_figure(figure, text)
            figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _texts(figure: Figure) -> list[Text]:
    """What is written at axes, and in legends."""
    legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
    at_axes = [text for axes in figure.axes for text in (axes.xaxis.label, axes.title, axes._left_title)]  # type: ignore[attr-defined]
    return [*at_axes, *(text for legend in legends for text in legend.get_texts())]


def _into_figure(figure: Figure, text: Text) -> None:
    """Wrap a text that is wider than what lies between where it begins and the figure's edges."""
    extent, edge = text.get_window_extent(), EDGE * figure.dpi
    width = figure.bbox.width - edge - max(edge, extent.x0)
    if text.get_horizontalalignment() == "center":
        middle = (extent.x0 + extent.x1) / 2
        width = 2 * (min(middle, figure.bbox.width - middle) - edge)
    if text.get_text() and extent.width > width + 1:
        points = float(text.get_fontsize()) / size(1)
        text.set_text(wrapped(figure, text.get_text().replace("\n", " "), width / figure.dpi, points))


def colour(number: int) -> str:
    """Of the run at this place."""
    return COLOURS[number % len(COLOURS)]


def mark(number: int) -> str:
    """Of the run at this place."""
    return MARKS[number % len(MARKS)]


def line(number: int) -> Any:
    """Line style of the run at this place."""
    return LINES[number % len(LINES)]


def hatch(number: int) -> str:
    """Of the run at this place."""
    return HATCHES[number % len(HATCHES)]


def grey(shade: str | tuple[float, float, float, float]) -> float:
    """How light a colour prints in grey, from 0 to 1."""
    return float(np.dot(to_rgb(shade), (0.299, 0.587, 0.114)))


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """One legend for the whole figure, in as many columns as its names leave room for."""
    columns = _legend_columns(figure.get_figwidth(), names)
    figure.legend(handles, names, loc="outside lower left", ncols=columns)


def _legend_columns(width: float, names: Sequence[str]) -> int:
    entry = size(0.55 + 0.075 * max(map(len, names), default=0))
    return max(1, min(len(names), int((width - 2 * EDGE) / entry)))


def _legend_lines(width: float, names: Sequence[str]) -> int:
    """How high a legend of these names is; in one column a name may take several lines."""
    columns = _legend_columns(width, names)
    if columns > 1 or not names or asked_width() is None:
        return -(-len(names) // columns)
    room = width - 2 * EDGE - size(0.55)
    return sum(max(1, -(-int(size(0.075) * 1000 * len(name)) // int(1000 * room))) for name in names)


def log_milliseconds(axis: Any, low: float, high: float) -> tuple[float, float]:
    """Make an axis logarithmic with plain numbers on it; returns limits that hold (low, high) with some room."""
    middle, room = (low * high) ** 0.5, max((high / low) ** 0.5, 1.6) * 1.25
    few = room < (30 if (asked_width() or _FULL_WIDTH) > 5 else 7)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator() if few else LogLocator(subs=tuple(range(2, 10))))
    axis.set_minor_formatter(NullFormatter())
    return middle / room, middle * room


def name_points(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> bool:
    """Write each name beside its point, clear of other names and of points, and of lines where there is room.

    The figure is laid out by this; nothing may be added afterwards.

    Returns:
        Whether there was room for all.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    settle(figure)
    pixels = figure.dpi / 72
    edges = axes.get_window_extent()
    inside = Bbox.from_extents(edges.x0, edges.y0, figure.bbox.x1 - 3 * pixels, edges.y1)  # right of it all is blank
    centres = np.asarray(axes.transData.transform(points), dtype=np.float64)
    taken = _around(centres, 5 * pixels)
    lines = np.concatenate([_around(_along(line, 3 * pixels), 1.5 * pixels) for line in axes.lines])
    room = True
    for centre, point, name in zip(centres, points, names, strict=True):
        text = _in_lines(name)
        extent = _text_size(figure, text)
        # Of -1, 0 and 1, how much of the text lies left of where it is put, and below.
        corners = centre + _SIDES * _DISTANCES * pixels - extent * (1 - _SIDES) / 2
        boxes = np.concatenate([corners, corners + extent], axis=1)
        covered = _overlaps(boxes, taken) + extent.prod() - _overlaps(boxes, np.array([inside.extents]))
        # Free if possible, then near and off the lines; the first of equals.
        costs = 100 * covered * (covered >= 1) + _overlaps(boxes, lines) + 4 * _DISTANCES[:, 0]
        best = int(costs.argmin())
        taken = np.concatenate([taken, boxes[[best]]])
        room = room and bool(covered[best] < 1)
        x, y = ((boxes[best, :2] - centre) / pixels).tolist()
        _write_name(axes, text, point, (x, y), joined=bool(_DISTANCES[best, 0] > 12))
    return room


def _write_name(
    axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], *, joined: bool
) -> None:
    axes.annotate(
        text,
        point,
        xytext=offset,
        textcoords="offset points",
        ha="left",
        va="bottom",
        fontsize=size(_SUBTITLE),
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": QUIET, "lw": 0.7, "shrinkA": 0, "shrinkB": 4} if joined else None,
    )


def _in_lines(name: str) -> str:
    """Broken where names have joints; a longer part stays whole."""
    longest = _LONGEST_LINE * min(1, (asked_width() or _FULL_WIDTH) / 6)
    lines = [""]
    for part in re.split(r"(?<=[-_/ ])", name):
        if lines[-1] and len(lines[-1] + part) > longest:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _text_size(figure: Figure, text: str, points: float = _SUBTITLE, weight: str = "normal") -> Floats:
    """Its width and height in pixels."""
    drawn = figure.text(0, 0, text, fontsize=size(points), fontweight=weight)
    extent = drawn.get_window_extent()
    drawn.remove()
    return np.array([extent.width, extent.height])


def _along(line: Line2D, step: float) -> Floats:
    """(N, 2) places on a line, close together, in pixels."""
    corners = np.asarray(line.get_transform().transform(line.get_path().vertices), dtype=np.float64)
    if line.get_linestyle() == "None" or len(corners) < 2:
        return np.empty((0, 2))
    lengths = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    places = np.arange(0, lengths[-1], step)
    return np.stack([np.interp(places, lengths, corners[:, axis]) for axis in (0, 1)], axis=1)


def _around(centres: Floats, half: float) -> Floats:
    """(N, 4) boxes: left, bottom, right, top."""
    return np.concatenate([centres - half, centres + half], axis=1)


def _overlaps(boxes: Floats, others: Floats) -> Floats:
    """(N,) area that the others cover of each box, or more where they overlap one another."""
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    areas: Floats = sides.clip(min=0).prod(axis=2).sum(axis=1)
    return areas
