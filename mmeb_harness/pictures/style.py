"""How pictures look: readable in grey and by colour-blind people, the same on every machine.

No state of matplotlib is changed for longer than a picture takes, and pyplot is not used.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

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
#: Inches.
HEADER, EDGE = 0.62, 0.12

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
    "savefig.dpi": 150,
    "svg.hashsalt": "mmeb-eval plot",
    "text.color": INK,
    "text.parse_math": False,  # a folder's name may hold dollar signs
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Ours, whatever the user's own settings are; theirs again afterwards."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def new_figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """An empty figure of that many inches, with a heading."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - HEADER / height), w_pad=EDGE, h_pad=EDGE)
    left = EDGE / width
    figure.text(left, 1 - EDGE / height, title, va="top", fontsize=12, fontweight="bold")
    figure.text(left, 1 - (EDGE + 0.24) / height, subtitle, va="top", fontsize=8.5, color=QUIET)
    return figure


def settle(figure: Figure) -> Figure:
    """Lay everything out, once: what is drawn later moves nothing, and written twice it is the same."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


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


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """One legend for the whole figure, in as many columns as its names leave room for."""
    entry = 0.55 + 0.075 * max(len(name) for name in names)  # inches
    columns = max(1, min(len(names), int((figure.get_figwidth() - 2 * EDGE) / entry)))
    figure.legend(handles, names, loc="outside lower left", ncols=columns)


def log_milliseconds(axis: Any, low: float, high: float) -> tuple[float, float]:
    """Make an axis logarithmic with plain numbers on it; returns limits that hold (low, high) with some room."""
    middle, room = (low * high) ** 0.5, max((high / low) ** 0.5, 1.6) * 1.25
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if room < 30 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator() if room < 30 else LogLocator(subs=tuple(range(2, 10))))
    axis.set_minor_formatter(NullFormatter())
    return middle / room, middle * room


def name_points(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write each name beside its point, clear of all other names and points, with a line where it stands off.

    The figure is laid out by this; nothing may be added afterwards.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    settle(figure)
    pixels = figure.dpi / 72
    centres = [tuple(axes.transData.transform(point)) for point in points]
    taken = [_box(x - 5 * pixels, y - 5 * pixels, 10 * pixels, 10 * pixels) for x, y in centres]
    for (x, y), point, name in zip(centres, points, names, strict=True):
        text = textwrap.fill(name, 26)
        size = _text_size(figure, text)
        right, up, distance, box = _free_place((x, y), size, taken, axes.get_window_extent(), pixels)
        taken.append(box)
        axes.annotate(
            text,
            point,
            xytext=(right, up),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=8.5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": QUIET, "lw": 0.7, "shrinkB": 4} if distance > 10 else None,
        )


def _text_size(figure: Figure, text: str) -> tuple[float, float]:
    drawn = figure.text(0, 0, text, fontsize=8.5)
    extent = drawn.get_window_extent()
    drawn.remove()
    return extent.width, extent.height


def _box(left: float, bottom: float, width: float, height: float) -> Bbox:
    return Bbox.from_bounds(left, bottom, width, height)


#: Where a name may stand, as seen from its point: right, left, above, below, then the corners.
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))


def _free_place(
    centre: tuple[float, float], size: tuple[float, float], taken: Sequence[Bbox], inside: Bbox, pixels: float
) -> tuple[float, float, float, Bbox]:
    """Offset in points, distance and box of the first place that is free, or else of the one least covered."""
    (x, y), (width, height) = centre, size
    best: tuple[float, float, float, float, Bbox] | None = None
    for distance in (7.0, 15.0, 25.0, 37.0, 51.0):
        for right, up in _SIDES:
            left = x + right * distance * pixels - (0, width / 2, width)[0 if right > 0 else 1 if right == 0 else 2]
            bottom = y + up * distance * pixels - (0, height / 2, height)[0 if up > 0 else 1 if up == 0 else 2]
            box = _box(left, bottom, width, height)
            covered = sum(_overlap(box, other) for other in taken) + width * height - _overlap(box, inside)
            if best is None or covered < best[0]:
                best = covered, (left - x) / pixels, (bottom - y) / pixels, distance, box
            if covered < 1:
                return best[1:]
    assert best is not None
    return best[1:]


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else float(common.width * common.height)
