"""Where reasoning paid: over the share that reasons, query by query, and how long rationales are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from mmeb_harness.errors import ResultError
from mmeb_harness.files import fingerprint
from mmeb_harness.pictures.picture import LeftOut, Made, Picture
from mmeb_harness.pictures.points import share_curve, task_weights
from mmeb_harness.pictures.runs import ShownRun, ShownRuns
from mmeb_harness.pictures.style import COLOURS, QUIET, legend_below, name_points, new_figure, settle
from mmeb_harness.pictures.words import listed
from mmeb_harness.statistics import Floats
from mmeb_harness.types import Scalar

BLUE, ORANGE, GREEN, RED, SKY, BLACK, PURPLE = COLOURS
#: What tells the runs of one model in its modes apart.
_MODE_SETTINGS = ("reasoning", "threshold")
_DEFAULT_THRESHOLD = 0.5
#: Middles of the bins of a difference of two scores in [0, 1].
_GAPS = np.linspace(-1, 1, 21)
_MOST_BINS = 40


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

    def _column(self, run: ShownRun, name: str) -> Floats:
        values: Floats = np.concatenate([getattr(run.queries[task], name) for task in self.tasks])
        return values

    @cached_property
    def never_scores(self) -> Floats:
        """(N,) of all queries, task after task."""
        return self._column(self.never, "scores")

    @cached_property
    def always_scores(self) -> Floats:
        """(N,)"""
        return self._column(self.always, "scores")

    @cached_property
    def gates(self) -> Floats | None:
        """(N,) p(reason), which doesn't depend on the mode; `None` if a query has none."""
        found = self._column(self.always, "gates")
        return None if np.isnan(found).any() else found

    @cached_property
    def weights(self) -> Floats:
        """(N,) with which the mean over queries is that over tasks."""
        return task_weights([len(self.never.queries[task].ids) for task in self.tasks])

    @property
    def threshold(self) -> float:
        """Of the gate: a query reasons where its probability is above."""
        found = (self.adaptive or (self.always,))[0].run.model_settings.get("threshold")
        return float(found) if isinstance(found, int | float) else _DEFAULT_THRESHOLD

    def point(self, run: ShownRun) -> tuple[float, float]:
        """Share of queries that reasoned and score, both means over tasks, in %."""
        share = float(np.mean([run.queries[task].reasoned.mean() for task in self.tasks]))
        return 100 * share, 100 * run.score(self.tasks)


def find_modes(shown: ShownRuns) -> tuple[list[Modes], list[str]]:
    """Models with a run that never reasons and one that always does; and why others have none.

    Raises:
        ResultError: two of a model's runs are of other queries under a task's name.
    """
    by_model: dict[str, list[ShownRun]] = {}
    for one in shown.runs:
        if "reasoning" in one.run.model_settings:
            by_model.setdefault(_apart_from_mode(one), []).append(one)
    if not by_model:
        return [], ["no run says when queries reason (a setting named reasoning of the model)"]
    found, reasons = [], []
    for runs in by_model.values():
        modes = _modes(shown, runs)
        if isinstance(modes, Modes):
            found.append(modes)
        else:
            reasons.append(modes)
    return found, reasons


def _apart_from_mode(one: ShownRun) -> str:
    run = one.run
    settings = {key: value for key, value in run.model_settings.items() if key not in _MODE_SETTINGS}
    data = (run.data, run.data_revision, run.edition, run.limit)
    return fingerprint(
        run.model, run.model_revision, run.model_dimensions, settings, dataclasses.asdict(run.profile), data
    )


def _modes(shown: ShownRuns, runs: Sequence[ShownRun]) -> Modes | str:
    by_mode = {mode: [one for one in runs if one.run.model_settings["reasoning"] == mode] for mode in _MODES}
    names = listed(one.name for one in runs)
    if missing := [mode for mode in ("never", "always") if not by_mode[mode]]:
        return f"{names}: no run with --reasoning {' or '.join(missing)}{_near(shown, runs, missing)}"
    never, always, adaptive = by_mode["never"][0], by_mode["always"][0], tuple(by_mode["adaptive"])
    tasks = shown.common_to([never, always, *adaptive])
    if not tasks:
        return f"{names}: these runs have no task in common"
    for task in tasks:
        for one in (always, *adaptive):
            if one.queries[task].ids != never.queries[task].ids:
                raise ResultError(f"{task}: {never.name} and {one.name} are of other queries; run both again")
    return Modes(never.run.model, never, always, adaptive, tasks)


_MODES = ("never", "always", "adaptive")


def _near(shown: ShownRuns, runs: Sequence[ShownRun], missing: Sequence[str]) -> str:
    """A run that would have been the missing one, but for some settings."""
    first = runs[0].run
    for one in shown.runs:
        run = one.run
        if run.model == first.model and run.model_settings.get("reasoning") in missing:
            return f" ({one.name} differs in {', '.join(_differing(_identity(one), _identity(runs[0])))})"
    return ""


def _identity(one: ShownRun) -> dict[str, Scalar]:
    run = one.run
    settings = {key: value for key, value in run.model_settings.items() if key not in _MODE_SETTINGS}
    apart: dict[str, Scalar] = {
        "revision": run.model_revision,
        "dimensions": run.model_dimensions,
        "profile": str(run.profile),
        "data": run.data,
        "data revision": run.data_revision,
        "edition": run.edition,
        "limit": run.limit,
    }
    return settings | apart


def _differing(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> list[str]:
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def reasoning_share(shown: ShownRuns) -> Made:
    """Score over the share of queries that reason: the gate's threshold moved, chance, and the best choice."""
    title, name = "Accuracy over the share that reasons", "reasoning-share"
    found, reasons = find_modes(shown)
    left_out: list[Picture | LeftOut] = [LeftOut(name, reason) for reason in reasons]
    if not found:
        return left_out
    figure, panels = _panels(shown, found, title, 4.1)
    handles: dict[str, Artist] = {}
    for axes, modes in zip(panels, found, strict=True):
        handles |= _draw_curves(axes, modes)
    panels[0].set_ylabel("main metric, %")
    legend_below(figure, list(handles.values()), list(handles))
    settle(figure)
    for axes, modes in zip(panels, found, strict=True):
        own = [("never", modes.never), ("always", modes.always), *((one.name, one) for one in modes.adaptive)]
        name_points(axes, [modes.point(run) for _, run in own], [text for text, _ in own])
    return [Picture(name, title, f"{title}: {'; '.join(_told(modes) for modes in found)}.", figure), *left_out]


def _panels(shown: ShownRuns, found: Sequence[Modes], title: str, height: float) -> tuple[Figure, list[Axes]]:
    """A panel a model, with what its means are over."""
    subtitle = shown.data if len(found) > 1 else f"{shown.mean_of(found[0].tasks)}; {shown.data}"
    figure = new_figure(max(7.5, 5.2 * len(found)), height + 1, title, subtitle)
    panels = list(figure.subplots(1, len(found), squeeze=False)[0])
    for axes, modes in zip(panels, found, strict=True):
        alone = sum(modes.model == other.model for other in found) == 1
        text = modes.model if alone else f"{modes.model}: {modes.never.name}, {modes.always.name}"
        axes.set_title(text if len(found) == 1 else f"{text} ({shown.mean_of(modes.tasks)})")
    return figure, panels


def _draw_curves(axes: Axes, modes: Modes) -> dict[str, Artist]:
    never, always = (modes.point(run)[1] for run in (modes.never, modes.always))
    gaps = modes.always_scores - modes.never_scores
    shares, scores = share_curve(gaps, modes.weights, modes.never_scores, modes.always_scores)
    handles: dict[str, Artist] = {}
    (handles["oracle: the queries that gain most"],) = axes.plot(
        100 * shares, 100 * scores, color=GREEN, ls=(0, (5, 1, 1, 1)), lw=1.5
    )
    if modes.gates is not None:
        moved = share_curve(modes.gates, modes.weights, modes.never_scores, modes.always_scores)
        (handles["gate, its threshold moved"],) = axes.plot(100 * moved[0], 100 * moved[1], color=BLUE, lw=2.2)
    (handles["random gate"],) = axes.plot([0, 100], [never, always], color=QUIET, ls=(0, (1, 1.2)), lw=1.5)
    look = {"ls": "none", "mec": "black", "mew": 0.6, "ms": 8, "zorder": 3, "clip_on": False}
    best = int(scores.argmax())
    (handles[f"oracle, best: {100 * scores[best]:.1f} %"],) = axes.plot(
        100 * shares[best], 100 * scores[best], "*", color=GREEN, **{**look, "ms": 12}
    )
    axes.plot(0, never, "s", color=BLACK, **look)
    axes.plot(100, always, "^", color=BLACK, **look)
    for run in modes.adaptive:
        axes.plot(*modes.point(run), "D", color=RED, **look)
    axes.set_xlabel("queries that reason, % (mean over tasks)")
    low, high = 100 * scores.min(), 100 * scores.max()
    low = min(low, never, always)
    axes.set_ylim(low - 0.1 * max(1, high - low), high + 0.12 * max(1, high - low))
    axes.set_xlim(-2, 102)
    return handles


def _told(modes: Modes) -> str:
    gaps = modes.always_scores - modes.never_scores
    shares, scores = share_curve(gaps, modes.weights, modes.never_scores, modes.always_scores)
    best = int(scores.argmax())
    parts = [f"{modes.model} never {modes.point(modes.never)[1]:.1f} %, always {modes.point(modes.always)[1]:.1f} %"]
    parts += [f"{one.name} {y:.1f} % with {x:.0f} % reasoning" for one in modes.adaptive for x, y in [modes.point(one)]]
    if modes.gates is not None:
        moved = share_curve(modes.gates, modes.weights, modes.never_scores, modes.always_scores)
        top = int(moved[1].argmax())
        parts.append(f"best threshold {100 * moved[1][top]:.1f} % with {100 * moved[0][top]:.0f} % reasoning")
    parts.append(f"oracle {100 * scores[best]:.1f} % with {100 * shares[best]:.0f} %")
    return ", ".join(parts)


def utility_gap(shown: ShownRuns) -> Made:
    """Histogram of what reasoning changed, query by query, on either side of the gate."""
    title, name = "What reasoning changes, query by query", "utility-gap"
    found, reasons = find_modes(shown)
    left_out: list[Picture | LeftOut] = [LeftOut(name, reason) for reason in reasons]
    if not found:
        return left_out
    figure, panels = _panels(shown, found, title, 4)
    told = []
    for axes, modes in zip(panels, found, strict=True):
        sides = _sides(modes)
        _draw_gaps(axes, modes, sides)
        told += [f"{modes.model}, {_side_text(modes, side, chosen)}" for side, chosen in sides.items()]
    panels[0].set_ylabel("queries of that side, %")
    return [Picture(name, title, f"{title}: {'; '.join(told)}.", settle(figure)), *left_out]


def _sides(modes: Modes) -> dict[str, NDArray[np.bool_]]:
    if modes.gates is None:
        return {"all queries": np.ones(len(modes.never_scores), dtype=np.bool_)}
    reasons = modes.gates > modes.threshold
    return {"gate: embed at once": ~reasons, "gate: reason": reasons}


def _side_text(modes: Modes, side: str, chosen: NDArray[np.bool_]) -> str:
    gaps = (modes.always_scores - modes.never_scores)[chosen]
    if not len(gaps):
        return f"{side}: no query"
    better, worse = int((gaps > 0).sum()), int((gaps < 0).sum())
    return f"{side}: {len(gaps):,} queries, {better:,} better, {worse:,} worse, mean {100 * gaps.mean():+.1f} points"


def _draw_gaps(axes: Axes, modes: Modes, sides: Mapping[str, NDArray[np.bool_]]) -> None:
    edges = np.concatenate([_GAPS - 0.05, [_GAPS[-1] + 0.05]])
    width = 0.084 / len(sides)
    handles = []
    for number, chosen in enumerate(sides.values()):
        gaps = (modes.always_scores - modes.never_scores)[chosen]
        counts = np.histogram(gaps, edges)[0] / max(1, len(gaps))
        face, hatch, edge = ((SKY, "////", BLACK), (BLUE, "", BLACK))[number]
        axes.bar(
            _GAPS + (number - (len(sides) - 1) / 2) * width, 100 * counts, width, color=face, hatch=hatch, edgecolor=edge,
            linewidth=0.6,
        )  # fmt: skip
        handles.append(Patch(facecolor=face, hatch=hatch, edgecolor=edge, linewidth=0.6))
    axes.axvline(0, color=QUIET, lw=0.8, zorder=0)
    axes.set_xlim(-1.12, 1.12)
    axes.set_xlabel("main metric with a rationale minus without")
    axes.legend(
        handles, [_side_text(modes, *side) for side in sides.items()], loc="lower left", bbox_to_anchor=(0, 1.06),
        borderaxespad=0,
    )  # fmt: skip


def rationale_length(shown: ShownRuns) -> Made:
    """Histograms of generated tokens, a panel a run."""
    title, name = "Length of rationales", "rationale-length"
    lengths = {one.name: tokens[tokens > 0] for one in shown.runs for tokens in [one.tokens(one.results)]}
    lengths = {run: tokens for run, tokens in lengths.items() if len(tokens)}
    if not lengths:
        return [LeftOut(name, "no query of these runs reasoned")]
    figure = new_figure(7.5, 1.1 + 1.5 * len(lengths), title, f"queries that reasoned; {shown.data}")
    panels = figure.subplots(len(lengths), sharex=True, squeeze=False)[:, 0]
    edges = _length_edges(max(tokens.max() for tokens in lengths.values()))
    told = []
    for axes, (run, tokens) in zip(panels, lengths.items(), strict=True):
        p50, p95 = np.percentile(tokens, [50, 95])
        shares = 100 * np.histogram(tokens, edges)[0] / len(tokens)
        axes.stairs(shares, edges, fill=True, facecolor=SKY, edgecolor=BLUE, linewidth=1.2)
        axes.axvline(p50, color=BLACK, lw=1.4, ls=(0, (4, 2)))
        axes.axvline(p95, color=BLACK, lw=1.4, ls=(0, (1, 1.2)))
        text = f"{run}: {len(tokens):,} queries, median {p50:.0f} (dashed), 95th percentile {p95:.0f} (dotted)"
        axes.set_title(text, fontsize=9)
        axes.set_ylabel("%")
        told.append(f"{run} median {p50:.0f}, 95th percentile {p95:.0f} of {len(tokens):,} queries")
    panels[-1].set_xlabel("tokens, markers included")
    return [Picture(name, title, f"{title} in tokens: {listed(told)}.", settle(figure))]


def _length_edges(longest: float) -> Floats:
    """A bin a token, or of equally many tokens each."""
    width = max(1, -(-int(longest) // _MOST_BINS))
    return np.arange(0, longest + width + 1, width) - 0.5
