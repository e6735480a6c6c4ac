"""Pictures of a study: readable in grey, by line style and mark as well as by colour."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARKS = "osD^vPX"
#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@contextlib.contextmanager
def _picture(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[Any]:
    """An axis to draw on, or axes (rows, columns); then the picture is written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True})
    pyplot.rcParams.update({"grid.alpha": 0.3, "savefig.dpi": 130, "savefig.bbox": "tight"})
    figure, axes = pyplot.subplots(rows, columns, figsize=size)
    yield axes
    figure.savefig(path)
    pyplot.close(figure)


def losses(logs: Mapping[str, Sequence[Sequence[Mapping[str, float]]]], path: Path) -> None:
    """Loss curves of both stages, a line a seed. `logs`: stage → seed → rows of log.jsonl."""
    terms = {
        "joint": ("direct", "reasoned", "cross", "generation"),
        "adaptive": ("direct", "share", "length", "delta"),
    }
    with _picture(path, (14, 5.5), 2, 4) as axes:
        for above, (stage, names) in enumerate(terms.items()):
            for axis, name in zip(axes[above], names, strict=True):
                for number, rows in enumerate(logs[stage]):
                    points = [(row["step"], row[name]) for row in rows if name in row]
                    if points:
                        style = ("-", "--", ":")[number % 3]
                        axis.plot(
                            *zip(*points, strict=True), style, color=COLOURS[number], lw=1.2, label=f"seed {number + 1}"
                        )
                axis.set_title(f"stage {above + 1}: {name}")
                axis.set_xlabel("step")
        axes[0][0].legend(frameon=False)
        axes[0][0].figure.tight_layout()


def costs(curves: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Accuracy over the share that reasons, a point a length cost, a line a task."""
    with _picture(path, (6.5, 4.5)) as axis:
        for number, (task, points) in enumerate(curves.items()):
            shares = [100 * point["share_adaptive"] for point in points]
            scores = [100 * point["score_adaptive"] for point in points]
            axis.plot(shares, scores, marker=MARKS[number], color=COLOURS[number], label=task)
            for point, x, y in zip(points, shares, scores, strict=True):
                axis.annotate(f"c={point['cost']:g}", (x, y), textcoords="offset points", xytext=(4, 5), fontsize=7)
        axis.set_xlabel("share of queries that reason, %")
        axis.set_ylabel("adaptive, main metric, %")
        axis.legend(frameon=False)


def calibration(points: Sequence[Mapping[str, float]], path: Path) -> None:
    """How often reasoning pays and hurts, over the gate's probability; area: queries."""
    with _picture(path, (5.5, 4.5)) as axis:
        gate = [point["gate"] for point in points]
        largest = max(point["queries"] for point in points)
        sizes = [20 + 300 * point["queries"] / largest for point in points]
        for name, mark, colour in (("pays", "o", COLOURS[0]), ("hurts", "X", COLOURS[1])):
            values = [point[name] for point in points]
            axis.plot(gate, values, color=colour, lw=1)
            axis.scatter(gate, values, s=sizes, marker=mark, color=colour, alpha=0.7, label=f"reasoning {name}")
        axis.plot([0, 1], [0, 1], ":", color="grey", lw=1)
        axis.set_xlabel("gate: p(reason)")
        axis.set_ylabel("share of queries")
        axis.legend(frameon=False, markerscale=0.5)
