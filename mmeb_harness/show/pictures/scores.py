"""Scores by group, and of every task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from mmeb_harness.core.errors import shortened
from mmeb_harness.results.files import TaskResult
from mmeb_harness.show.pictures.picture import LeftOut, Made, Picture
from mmeb_harness.show.pictures.runs import ShownRuns
from mmeb_harness.show.pictures.style import (
    INK,
    QUIET,
    asked_width,
    colour,
    grey,
    hatch,
    legend_below,
    new_figure,
    settle,
    size,
)
from mmeb_harness.show.runs import ShownRun
from mmeb_harness.show.tables import percent

#: Light where the score is low, and darker all the way.
HEAT = "YlGnBu"
#: Bars in one row; more go into several rows.
_MOST_BARS = 84
#: Tasks in one column of the heat map; more go into two.
_MOST_ROWS = 44


def groups(shown: ShownRuns) -> Made:
    """Bars: a group's mean main metric, a bar a run."""
    shared = {
        group: common
        for group, tasks in shown.scored.items()
        if (common := [task for task in tasks if all(task in run.results for run in shown.runs)])
    }
    lost = [group for group in shown.scored if group not in shared]
    why = [LeftOut("groups", f"{', '.join(lost)}: no task that all runs have")] if lost else []
    if not shared:
        return why
    return [_bars(shown, shared), *why]


def _bars(shown: ShownRuns, shared: Mapping[str, Sequence[str]]) -> Picture:
    title = "Scores by group"
    most_bars = len(shared) * len(shown.runs) / _MOST_BARS
    if (asked := asked_width()) is not None:
        label = size(0.07) * max(map(len, shared)) + 0.05  # names of groups stand below their bars
        most_bars = max(most_bars * 11.5 / asked, len(shared) * label / (asked - 0.6))
    num_rows = min(len(shared), math.ceil(most_bars))
    per_row = -(-len(shared) // num_rows)
    names = list(shared)
    width = max(7.5, min(11.5, 2 + 0.17 * per_row * (len(shown.runs) + 1.5)))
    legend = [*(run.name for run in shown.runs), "chance"]
    about = f"mean over a group's tasks; {shown.data}"
    figure = new_figure(width, 0.9 + (2.8 if num_rows == 1 else 2.3 if asked else 2.8) * num_rows, title, about, legend)
    rows = figure.subplots(num_rows, squeeze=False)[:, 0]
    for number, axes in enumerate(rows):
        _draw_groups(axes, shown, {name: shared[name] for name in names[number * per_row : (number + 1) * per_row]})
    handles = [
        Patch(facecolor=colour(place), edgecolor="black", linewidth=0.6, hatch=hatch(place))
        for place in range(len(shown.runs))
    ]
    chance = Line2D([], [], color="black", lw=1.4, ls=(0, (1.5, 1)))
    legend_below(figure, [*handles, chance], legend)
    told = [f"{group} {' / '.join(percent(run.score(tasks)) for run in shown.runs)}" for group, tasks in shared.items()]
    runs = " / ".join(run.name for run in shown.runs)
    return Picture("groups", title, f"{title} in % ({runs}): {shortened(told, 20)}.", settle(figure))


def _draw_groups(axes: Axes, shown: ShownRuns, shared: Mapping[str, Sequence[str]]) -> None:
    width = 0.82 / len(shown.runs)
    places = np.arange(len(shared))
    for number, run in enumerate(shown.runs):
        axes.bar(
            places + (number - (len(shown.runs) - 1) / 2) * width,
            [100 * run.score(tasks) for tasks in shared.values()],
            0.92 * width,
            color=colour(number),
            edgecolor=_edge(number),
            hatch=hatch(number),
            linewidth=0,
        )
    for place, tasks in zip(places.tolist(), shared.values(), strict=True):
        chance = 100 * float(np.mean([shown.runs[0].results[task].chance for task in tasks]))
        axes.plot([place - 0.45, place + 0.45], [chance, chance], color="white", lw=3)
        axes.plot([place - 0.45, place + 0.45], [chance, chance], color="black", lw=1.4, ls=(0, (1.5, 1)))
    axes.set_xticks(places, [_group_label(group, tasks, shown) for group, tasks in shared.items()])
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(shared) - 0.4)
    axes.set_ylim(0, 100)
    axes.set_ylabel("main metric, %")
    axes.grid(visible=False, axis="x")


def _edge(number: int) -> str:
    """Of the hatch: dark on light bars, light on dark ones."""
    return "white" if grey(colour(number)) < 0.5 else "black"


def _group_label(group: str, tasks: Sequence[str], shown: ShownRuns) -> str:
    of = len(shown.groups[group])
    return f"{group}\n({len(tasks)} of {of})" if len(tasks) < of else f"{group}\n({of})"


def tasks(shown: ShownRuns) -> Made:
    """Heat map: a row a task, a column a run, groups apart."""
    title = "Scores of all tasks"
    count = sum(map(len, shown.scored.values()))
    if (heat := _heat(shown)) is None:
        needed = _narrowest(shown, [dict(shown.scored)])
        return [
            LeftOut("tasks", f"{len(shown.runs)} runs and the names of tasks need {needed:.1f} inches; see --width")
        ]
    columns, height, width = heat.columns, heat.height, heat.width
    figure = new_figure(width, height, title, f"main metric, %; {count} tasks; {shown.data}", least=1)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _draw_heat(axes, shown.runs, column, heat.names)
        axes.set_ylim(max(map(_height_of, columns)) - 0.5, -0.5)
    whole = all(task in run.results for run in shown.runs for of_group in shown.scored.values() for task in of_group)
    _draw_scale(figure, panels, "main metric, %" if whole else "main metric, %; hatched: not run")
    told = (f"{run.name} {_range(run)}" for run in shown.runs)
    return [
        Picture("tasks", title, f"{title}, {count} tasks, {len(shown.runs)} runs: {shortened(told)}.", settle(figure))
    ]


def _columns(scored: Mapping[str, Sequence[str]]) -> list[dict[str, Sequence[str]]]:
    """All groups in one column, or in two that are about as long."""
    if sum(map(len, scored.values())) <= _MOST_ROWS:
        return [dict(scored)]
    names = list(scored)
    halves = [({name: scored[name] for name in names[:cut]}, {name: scored[name] for name in names[cut:]})
              for cut in range(1, len(names))] or [({**scored}, {})]  # fmt: skip
    return [half for half in min(halves, key=lambda pair: max(map(_height_of, pair))) if half]


def _height_of(column: Mapping[str, Sequence[str]]) -> float:
    """Rows, and half a row between groups."""
    return sum(map(len, column.values())) + 0.5 * (len(column) - 1)


@dataclass(frozen=True)
class _Heat:
    """How the heat map is laid out: groups in columns, inches, and points of the tasks' names."""

    columns: Sequence[Mapping[str, Sequence[str]]]
    height: float
    width: float
    names: float


#: Points and inches below which nothing can be read; inches of a letter for each point.
_SMALLEST_NAME, _NARROWEST_CELL, _NAME_WIDTH = 5.5, 0.22, 0.0076


def _heat(shown: ShownRuns) -> _Heat | None:
    """The layout; `None` where the width that was asked for has no room for it."""
    columns, asked = _columns(shown.scored), asked_width()
    if asked is not None:
        one: list[dict[str, Sequence[str]]] = [dict(shown.scored)]
        fitting = (own for own in (columns, one) if _narrowest(shown, own) <= asked)
        if (narrow := next(fitting, None)) is None:
            return None
        columns = narrow
    longest = max(len(task) for tasks in shown.scored.values() for task in tasks)
    names = max(len(run.name) for run in shown.runs)
    width = len(columns) * (0.9 + 0.075 * longest + 0.46 * max(2, len(shown.runs))) + 0.8
    points, row = size(8), 0.2
    if asked is not None:
        room = _SMALLEST_NAME + (asked - _narrowest(shown, columns)) / len(columns) / (_NAME_WIDTH * longest)
        points = min(points, room)
        row = 1.5 * points / 72
    height = 1.2 + 0.05 * names + row * max(4.0, max(map(_height_of, columns)))
    return _Heat(columns, height, max(6.5, width), points)


def _narrowest(shown: ShownRuns, columns: Sequence[Mapping[str, Sequence[str]]]) -> float:
    """Inches of a heat map with the smallest names and cells that can be read."""
    longest = max(len(task) for tasks in shown.scored.values() for task in tasks)
    name = _NAME_WIDTH * _SMALLEST_NAME * longest
    return len(columns) * (name + 0.3 + _NARROWEST_CELL * max(2, len(shown.runs))) + 0.3


def _draw_heat(axes: Axes, runs: Sequence[ShownRun], column: Mapping[str, Sequence[str]], points: float) -> None:
    heat = colormaps[HEAT]
    top, places, names = 0.0, [], []
    for group, tasks in column.items():
        for row, task in enumerate(tasks):
            places.append(top + row)
            names.append(task)
            for place, run in enumerate(runs):
                _draw_cell(axes, place, top + row, run.results.get(task), heat, points)
        axes.annotate(
            group, (1, top + (len(tasks) - 1) / 2), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", rotation=270 if len(tasks) > 3 else 0, va="center", ha="left", fontsize=points,
            fontweight="bold",
        )  # fmt: skip
        top += len(tasks) + 0.5
    axes.set_xlim(-0.5, len(runs) - 0.5)
    axes.set_yticks(places, names, fontsize=points)
    axes.set_xticks(
        range(len(runs)), [run.name for run in runs], rotation=90 if len(runs) > 1 else 0, fontsize=points * 1.06
    )
    axes.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _draw_cell(axes: Axes, x: float, y: float, result: TaskResult | None, heat: Colormap, points: float) -> None:
    corner = (x - 0.5, y - 0.5)
    if result is None:
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="white", edgecolor="#bbbbbb", hatch="////", linewidth=0))
        return
    score = result.score
    shade = heat(score)
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=shade, edgecolor="white", linewidth=0.8))
    text = "100" if score > 0.9995 else percent(score)
    axes.text(x, y, text, ha="center", va="center", fontsize=points * 0.94, color="white" if grey(shade) < 0.5 else INK)


def _draw_scale(figure: Figure, panels: Sequence[Axes], label: str) -> None:
    scale = figure.colorbar(
        ScalarMappable(Normalize(0, 100), HEAT), ax=list(panels), location="bottom", shrink=0.5, aspect=40, pad=0.02
    )
    scale.set_label(label, fontsize=size(8.5), color=INK)
    scale.ax.tick_params(labelsize=size(8), color=QUIET)
    scale.outline.set_visible(False)


def _range(run: ShownRun) -> str:
    scores = {name: result.score for name, result in run.results.items()}
    low, high = min(scores, key=lambda name: scores[name]), max(scores, key=lambda name: scores[name])
    mean = percent(run.score(list(scores)))
    return f"mean {mean}, from {percent(scores[low])} ({low}) to {percent(scores[high])} ({high})"
