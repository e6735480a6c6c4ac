"""Where reasoning paid: over the share that reasons, query by query, and how long rationales are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from mmeb_harness.core.embedder import MODES, REASONING
from mmeb_harness.core.errors import ResultError, counted, shortened
from mmeb_harness.core.items import Scalar
from mmeb_harness.results.files import RunResult
from mmeb_harness.show.pictures.picture import NO_COMMON, NO_REASONING, LeftOut, Made, Picture
from mmeb_harness.show.pictures.points import share_curve, task_weights
from mmeb_harness.show.pictures.runs import ShownRuns
from mmeb_harness.show.pictures.style import (
    COLOURS,
    QUIET,
    asked_width,
    legend_below,
    name_points,
    new_figure,
    settle,
    size,
)
from mmeb_harness.show.runs import ShownRun
from mmeb_harness.show.tables import percent
from mmeb_harness.stats.resampling import Floats

BLUE, _, GREEN, RED, SKY, BLACK, _ = COLOURS
#: What tells the runs of one model in its modes apart.
_MODE_SETTINGS = (REASONING, "threshold")
_DEFAULT_THRESHOLD = 0.5
#: Middles of the bins of a difference of two scores, in points.
_GAPS = np.linspace(-100, 100, 21)
_MOST_BINS = 40
_ADAPTIVE_MARKS = "DvPX<o"
#: Inches, of panels beside each other.
_NARROWEST_PANEL = 4.6
_POINT: dict[str, Any] = {"ls": "none", "mec": "black", "mew": 0.6, "ms": 8, "zorder": 3, "clip_on": False}


@dataclass(frozen=True)
class Modes:
    """Runs of one model that differ only in when queries reason.

    Attributes:
        tasks: that all of these runs have.
    """

    model: str
    never: ShownRun
    always: ShownRun
    adaptive: tuple[ShownRun, ...]
    tasks: tuple[str, ...]

    @cached_property
    def never_scores(self) -> Floats:
        """(N,) main metric of all queries without a rationale, task after task."""
        return self.never.query_scores(self.tasks)

    @cached_property
    def always_scores(self) -> Floats:
        """(N,) main metric of the same queries with one."""
        return self.always.query_scores(self.tasks)

    @cached_property
    def gates(self) -> Floats | None:
        """(N,) p(reason), which doesn't depend on the mode; `None` if a query has none."""
        gates = self.always.query_traces(self.tasks).gates
        return None if np.isnan(gates).any() else gates

    @cached_property
    def weights(self) -> Floats:
        """(N,) with which the mean over queries is that over tasks."""
        return task_weights([len(self.never.queries[task].ids) for task in self.tasks])

    @cached_property
    def gaps(self) -> Floats:
        """(N,) what a rationale changes."""
        return self.always_scores - self.never_scores

    @cached_property
    def by_gate(self) -> tuple[Floats, Floats] | None:
        """The curve of the gate's threshold; `None` without a gate."""
        if self.gates is None:
            return None
        return share_curve(self.gates, self.weights, self.never_scores, self.always_scores)

    @cached_property
    def by_gap(self) -> tuple[Floats, Floats]:
        """The curve of the best choice at each share."""
        return share_curve(self.gaps, self.weights, self.never_scores, self.always_scores)

    @property
    def threshold(self) -> float:
        """Of the gate: a query reasons where its probability is above."""
        threshold = (self.adaptive or (self.always,))[0].run.model_settings.get("threshold")
        return float(threshold) if isinstance(threshold, int | float) else _DEFAULT_THRESHOLD

    def point(self, run: ShownRun) -> tuple[float, float]:
        """Share of queries that reasoned and score, both means over tasks, in %."""
        share = float(np.mean([run.traces[task].reasoned.mean() for task in self.tasks]))
        return 100 * share, 100 * run.score(self.tasks)


def find_modes(shown: ShownRuns) -> tuple[list[Modes], list[str]]:
    """Models with a run that never reasons and one that always does; and why others have none.

    Raises:
        ResultError: two of a model's runs are of other queries under a task's name.
    """
    by_model: dict[object, list[ShownRun]] = {}
    for candidate in shown.runs:
        if REASONING in candidate.run.model_settings:
            by_model.setdefault(frozenset(_identity(candidate.run).items()), []).append(candidate)
    if not by_model:
        return [], [f"no run says when queries reason (a setting named {REASONING} of the model)"]
    tried = [_modes(shown, runs) for runs in by_model.values()]
    return [modes for modes in tried if isinstance(modes, Modes)], [why for why in tried if isinstance(why, str)]


def _modes(shown: ShownRuns, runs: Sequence[ShownRun]) -> Modes | str:
    by_mode = {mode: [run for run in runs if run.run.model_settings[REASONING] == mode] for mode in MODES}
    names = shortened(run.name for run in runs)
    if missing := [mode for mode in ("never", "always") if not by_mode[mode]]:
        return f"{names}: no run with --reasoning {' or '.join(missing)}{_near(shown, runs, missing)}"
    never, always, adaptive = by_mode["never"][0], by_mode["always"][0], tuple(by_mode["adaptive"])
    tasks = shown.common_to([never, always, *adaptive])
    if not tasks:
        return f"{names}: these runs have no task in common"
    for task in tasks:
        for run in (always, *adaptive):
            if run.queries[task].ids != never.queries[task].ids:
                raise ResultError(f"{task}: {never.name} and {run.name} are of other queries; run both again")
    return Modes(never.run.model, never, always, adaptive, tasks)


def _near(shown: ShownRuns, runs: Sequence[ShownRun], missing: Sequence[str]) -> str:
    """A run that would have been the missing one, but for some settings."""
    first = _identity(runs[0].run)
    for other in shown.runs:
        own = _identity(other.run)
        if own["model"] == first["model"] and other.run.model_settings.get(REASONING) in missing:
            differing = [key for key in own | first if own.get(key) != first.get(key)]
            return f" ({other.name} differs in {', '.join(differing)})"
    return ""


def _identity(run: RunResult) -> dict[str, Scalar]:
    """What is equal of runs of one model in its modes."""
    return {
        **{key: value for key, value in run.model_settings.items() if key not in _MODE_SETTINGS},
        "model": run.model,
        "revision": run.model_revision,
        "dimensions": run.model_dimensions,
        "profile": str(run.profile),
        "data": run.data,
        "data revision": run.data_revision,
        "edition": run.edition,
        "limit": run.limit,
    }


def _of_models(
    shown: ShownRuns, name: str, title: str, draw: Callable[[ShownRuns, Sequence[Modes], str], tuple[Figure, str]]
) -> Made:
    """A picture of all models that have the modes, with what it tells; and why others aren't in it."""
    models, reasons = find_modes(shown)
    left_out = [LeftOut(name, reason) for reason in reasons]
    if not models:
        return left_out
    figure, told = draw(shown, models, title)
    return [Picture(name, title, f"{title}: {told}.", figure), *left_out]


def reasoning_share(shown: ShownRuns) -> Made:
    """Score over the share of queries that reason: the gate's threshold moved, chance, and the best choice."""
    return _of_models(shown, "reasoning-share", "Accuracy over the share that reasons", _draw_shares)


def _draw_shares(shown: ShownRuns, models: Sequence[Modes], title: str) -> tuple[Figure, str]:
    means = [shown.mean_of(modes.tasks) for modes in models]

    def drawn(*, with_runs: bool) -> tuple[Figure, list[Axes]]:
        own = [run for modes in models for run in _own_points(modes)[1]] if with_runs else []
        figure, panels = _panels(shown, models, title, means, legend=[*_CURVES, *dict.fromkeys(own)])
        handles: dict[str, Artist] = {}
        for axes, modes in zip(panels, models, strict=True):
            curves, runs = _draw_curves(axes, modes), _draw_runs(axes, modes)
            handles |= curves | (runs if with_runs else {})
        _say_at_the_left(panels, "main metric, %")
        legend_below(figure, list(handles.values()), list(handles))
        return settle(figure), panels

    figure, panels = drawn(with_runs=False)
    if not all(name_points(axes, *_own_points(modes)) for axes, modes in zip(panels, models, strict=True)):
        figure, _ = drawn(with_runs=True)
    return figure, "; ".join(map(_told, models))


def _panels(
    shown: ShownRuns, models: Sequence[Modes], title: str, whats: Sequence[str], legend: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """A panel a model, with what is shown of each."""
    subtitle = f"{whats[0]}; {shown.data}" if len(models) == 1 else shown.data
    asked = asked_width()
    beside = len(models) if asked is None else min(len(models), max(1, int(asked / _NARROWEST_PANEL)))
    rows = -(-len(models) // beside)
    figure = new_figure(max(7.5, 5.2 * beside), 1 + 3.6 * rows, title, subtitle, legend)
    panels = list(figure.subplots(rows, beside, squeeze=False).flat)
    for axes in panels[len(models) :]:
        axes.remove()
    for axes, modes, what in zip(panels, models, whats, strict=False):
        alone = sum(modes.model == other.model for other in models) == 1
        text = modes.model if alone else f"{modes.model}: {modes.never.name}, {modes.always.name}"
        axes.set_title(text if len(models) == 1 else f"{text} ({what})")
    return figure, panels[: len(models)]


def _say_at_the_left(panels: Sequence[Axes], label: str) -> None:
    for axes in panels:
        if (place := axes.get_subplotspec()) is None or place.is_first_col():
            axes.set_ylabel(label)


#: What the legend calls them.
_CURVES = GATE, ORACLE, RANDOM, BEST = (
    "gate, its threshold moved",
    "oracle: those that gain most first",
    "random gate",
    "oracle: just those that gain",
)


def _draw_curves(axes: Axes, modes: Modes) -> dict[str, Artist]:
    never, always = (modes.point(run)[1] for run in (modes.never, modes.always))
    shares, scores = modes.by_gap
    handles: dict[str, Artist] = {}
    if modes.by_gate is not None:
        (handles[GATE],) = axes.plot(*(100 * along for along in modes.by_gate), color=BLUE, lw=2.2)
    (handles[ORACLE],) = axes.plot(100 * shares, 100 * scores, color=GREEN, ls=(0, (5, 1, 1, 1)), lw=1.5)
    (handles[RANDOM],) = axes.plot([0, 100], [never, always], color=QUIET, ls=(0, (1, 1.2)), lw=1.5)
    best = int(scores.argmax())
    (handles[BEST],) = axes.plot(100 * shares[best], 100 * scores[best], "*", color=GREEN, **_POINT | {"ms": 12})
    axes.set_xlabel("queries that reason, % (mean over tasks)")
    adaptive = [modes.point(run)[1] for run in modes.adaptive]
    low, high = min(never, always, *adaptive), max([100 * float(scores.max()), *adaptive])
    axes.set_ylim(low - 0.1 * max(1, high - low), high + 0.12 * max(1, high - low))
    axes.set_xlim(-2, 102)
    return handles


def _draw_runs(axes: Axes, modes: Modes) -> dict[str, Artist]:
    points, names = _own_points(modes)
    looks = [("s", BLACK), ("^", BLACK), *((_ADAPTIVE_MARKS[number % 6], RED) for number in range(len(modes.adaptive)))]
    return {
        name: axes.plot(x, y, look, color=face, **_POINT)[0]
        for (x, y), name, (look, face) in zip(points, names, looks, strict=True)
    }


def _own_points(modes: Modes) -> tuple[list[tuple[float, float]], list[str]]:
    """Where the runs themselves lie, and what they are called."""
    runs = [modes.never, modes.always, *modes.adaptive]
    names = [modes.never.label or "never", modes.always.label or "always", *(run.name for run in modes.adaptive)]
    return [modes.point(run) for run in runs], names


def _told(modes: Modes) -> str:
    shares, scores = modes.by_gap
    best = int(scores.argmax())
    parts = [f"{modes.model} never {modes.point(modes.never)[1]:.1f} %, always {modes.point(modes.always)[1]:.1f} %"]
    parts += [f"{run.name} {y:.1f} % with {x:.0f} % reasoning" for run in modes.adaptive for x, y in [modes.point(run)]]
    if modes.by_gate is not None:
        reason, score = (100 * along[modes.by_gate[1].argmax()] for along in modes.by_gate)
        parts.append(f"best threshold {score:.1f} % with {reason:.0f} % reasoning")
    parts.append(f"oracle {percent(scores[best])} % with {100 * shares[best]:.0f} %")
    return ", ".join(parts)


def utility_gap(shown: ShownRuns) -> Made:
    """Histogram of what reasoning changed, query by query, on either side of the gate."""
    return _of_models(shown, "utility-gap", "What reasoning changes, query by query", _draw_utility)


def _draw_utility(shown: ShownRuns, models: Sequence[Modes], title: str) -> tuple[Figure, str]:
    counts = [f"{len(modes.gaps):,} queries of {counted(len(modes.tasks), 'task')}" for modes in models]
    figure, panels = _panels(shown, models, title, counts, legend=["", ""] * 2)
    told = []
    for axes, modes in zip(panels, models, strict=True):
        texts = _draw_gaps(axes, modes, narrow=len(models) > 1)
        told += [f"{modes.model}, {text}" for text in texts]
    _say_at_the_left(panels, "queries of that side, %")
    return settle(figure), "; ".join(told)


def _sides(modes: Modes) -> dict[str, NDArray[np.bool_]]:
    if modes.gates is None:
        return {"all queries": np.ones(len(modes.never_scores), dtype=np.bool_)}
    reasons = modes.gates > modes.threshold
    return {"gate: embed at once": ~reasons, "gate: reason": reasons}


def _side_text(modes: Modes, side: str, chosen: NDArray[np.bool_]) -> str:
    gaps = modes.gaps[chosen]
    if not len(gaps):
        return f"{side}: no query"
    better, worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    return f"{side}: {len(gaps):,} queries, {better:,} better, {worse:,} worse, mean {100 * gaps.mean():+.1f} points"


def _draw_gaps(axes: Axes, modes: Modes, *, narrow: bool) -> list[str]:
    """Two bars a bin, with a legend under them, whose texts are returned."""
    sides = _sides(modes)
    edges = np.concatenate([_GAPS - 5, [_GAPS[-1] + 5]])
    width = 8.4 / len(sides)
    looks: list[dict[str, Any]] = [{"facecolor": SKY, "hatch": "////"}, {"facecolor": BLUE}]
    for number, (chosen, look) in enumerate(zip(sides.values(), looks, strict=False)):
        shares = np.histogram(100 * modes.gaps[chosen], edges)[0] / max(1, int(chosen.sum()))
        places = _GAPS + (number - (len(sides) - 1) / 2) * width
        axes.bar(places, 100 * shares, width, edgecolor=BLACK, linewidth=0.6, **look)
    axes.axvline(0, color=QUIET, lw=0.8, zorder=0)
    axes.set_xlim(-112, 112)
    axes.set_ylim(0, 100)
    marks = range(-100, 101, 50 if (asked_width() or 8) > 3 else 100)
    axes.set_xticks(marks, [f"{gap:+}" if gap else "0" for gap in marks])
    axes.set_xlabel("with a rationale minus without, points")
    texts = [_side_text(modes, *side) for side in sides.items()]
    patches = [Patch(edgecolor=BLACK, linewidth=0.6, **look) for look in looks[: len(sides)]]
    shown = [text.replace(" queries, ", " queries,\n") for text in texts] if narrow or asked_width() else texts
    below = axes.transAxes + ScaledTranslation(0, -size(0.5), axes.figure.dpi_scale_trans)
    axes.legend(patches, shown, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=below, borderaxespad=0)
    return texts


def rationale_length(shown: ShownRuns) -> Made:
    """Histograms of generated tokens, a panel a run."""
    title, name = "Length of rationales", "rationale-length"
    if not shown.common:
        return [LeftOut(name, NO_COMMON)]
    traces = {run.name: run.query_traces(shown.common) for run in shown.runs}
    lengths = {run: own.reasoning_tokens[own.reasoned] for run, own in traces.items() if own.reasoned.any()}
    if not lengths:
        return [LeftOut(name, NO_REASONING)]
    figure = new_figure(7.5, 1.0 + 1.45 * len(lengths), title, f"queries that reasoned; {shown.data}", least=0.85)
    panels = figure.subplots(len(lengths), sharex=True, squeeze=False)[:, 0]
    edges = _length_edges(np.concatenate(list(lengths.values())))
    told = []
    for axes, (run, tokens) in zip(panels, lengths.items(), strict=True):
        p50, p95 = np.percentile(tokens, [50, 95])
        axes.stairs(
            100 * np.histogram(tokens, edges)[0] / len(tokens), edges, fill=True, facecolor=SKY, edgecolor=BLUE, lw=1.2
        )
        axes.axvline(p50, color=BLACK, lw=1.4, ls=(0, (4, 2)))
        axes.axvline(p95, color=BLACK, lw=1.4, ls=(0, (1, 1.2)))
        text = f"{run}: {len(tokens):,} queries, median {p50:.0f} (dashed), 95th percentile {p95:.0f} (dotted)"
        axes.set_title(text, fontsize=size(9))
        axes.set_ylabel("%")
        told.append(f"{run} median {p50:.0f}, 95th percentile {p95:.0f} of {len(tokens):,} queries")
    panels[-1].set_xlabel("tokens, markers included")
    return [Picture(name, title, f"{title} in tokens: {shortened(told)}.", settle(figure))]


def _length_edges(lengths: Floats) -> Floats:
    """A bin a token, or of equally many tokens each."""
    shortest, longest = int(lengths.min()), int(lengths.max())
    width = max(1, -(-(longest - shortest + 1) // _MOST_BINS))
    edges: Floats = np.arange(shortest, longest + width + 1, width, dtype=np.float64) - 0.5
    return edges
