"""What `mmeb-eval compare` prints of two runs query by query, and of one model's three modes; and all of it as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.benchmark import level_of
from mmeb_harness.core.errors import counted
from mmeb_harness.show.tables import (
    bounds,
    milliseconds,
    p_text,
    percent,
    points,
    print_lines,
    print_table,
)
from mmeb_harness.stats.calibration import Bin
from mmeb_harness.stats.controls import FOLDS
from mmeb_harness.stats.gate import Against, Gate, PolicyRow
from mmeb_harness.stats.paired import Paired, PairedRow

if TYPE_CHECKING:
    from rich.console import Console

#: Tasks that are named as differing most.
MOST = 5


def print_paired(paired: Paired, title: str, console: Console, *, with_tasks: bool) -> None:
    """Print the differences of two runs, how sure they are, and where they lie.

    Args:
        title: which run minus which.
        with_tasks: a row a task, too; where there are no means there is nothing else.
    """
    groups = [row for row in paired.means if level_of(row.name) != "overall"]
    overall = [row for row in paired.means if level_of(row.name) == "overall"]
    blocks = [paired.tasks if with_tasks or not paired.means else (), groups, overall]
    heads = ("", "tasks", "difference", "95 % of queries", "and of tasks", "p", "better", "worse", "same")
    print_lines(console, f"\n{title}, in points\n")
    bold = overall[0].name if overall else ""
    print_table(console, heads, *(map(_paired_cells, block) for block in blocks if block), bold=bold)
    print_lines(console, "", *paired_remarks(paired))


def paired_remarks(paired: Paired) -> list[str]:
    """What the columns mean, where the runs differ most, and how many queries changed sides."""
    most = sorted(paired.tasks, key=lambda row: -abs(row.difference.queries.value))[:MOST]
    gained, lost = (sum(len(getattr(task, kind)) for task in paired.single.values()) for kind in ("gained", "lost"))
    lines = [
        "95 % of queries: other queries of these tasks; and of tasks: other tasks as well (bootstrap of clusters).",
        f"p: that there is no difference (sign flips of clusters); a task's is Holm's, for {len(paired.tasks)} tests.",
        "differ most: "
        + ", ".join(f"{row.name} {points(row.difference.queries.value)} (p {p_text(row.p)})" for row in most)
        + ".",
        f"wholly right now and not before: {gained:,} queries; no longer: {lost:,}; --json FILE lists them.",
    ]
    if not paired.clustered:
        lines.append(
            "written by an earlier release: each query counts as its own cluster, so the intervals are too close."
        )
    return lines


def print_gate(gate: Gate, console: Console) -> None:
    """Print a model's three modes beside what decides without its gate, and the gate's calibration."""
    against = {other.policy: other for other in gate.against}
    rows = [_policy_cells(row, against.get(row.policy)) for row in gate.policies]
    heads = ("policy", "score", "95 % of queries", "reasons", "tokens", "p50 ms", "p95 ms", "adaptive - it", "p")
    means = f"means over {counted(len(gate.tasks), 'task')}"
    print_lines(console, f"\n{gate.model}: never, always and adaptive; {means}\n")
    print_table(console, heads, rows, bold="adaptive")
    if gate.bins:
        print_lines(console, "")
        bins = ("gate", "queries", "reasoning pays", "hurts", "always - never")
        print_table(console, bins, map(_bin_cells, gate.bins))
    print_lines(console, "", *gate_remarks(gate))


def gate_remarks(gate: Gate) -> list[str]:
    """Head-room, what the policies are that no run has, and calibration."""
    closed = gate.head_room_closed.queries
    lines = [
        "head-room closed: the oracle wins nothing over the better fixed mode."
        if math.isnan(closed.value)
        else f"head-room closed, of what the oracle wins over the better fixed mode: {percent(closed.value)} % "
        f"{bounds(closed.low, closed.high)}.",
        "random: reasons as often as the gate in each task, in expectation. oracle: each query's better path; a bound, "
        "and in part luck.",
        f"fixed: never or always, whichever is better in the task on {_fitted_on(gate)}; as good: never.",
        f"probe: none; {gate.no_probe}."
        if gate.no_probe
        else "probe: reasons where a ridge regression on the state that the gate reads, fitted on the same queries, "
        "forecasts a gain.",
    ]
    if gate.brier is not None and gate.base_rate_brier is not None and gate.ece is not None:
        lines.append(
            f"the gate as a forecast that reasoning pays: Brier score {gate.brier:.3f} (of the base rate "
            f"{gate.base_rate_brier:.3f}), ECE {gate.ece:.3f} (ten bins of equally many queries)."
        )
    return lines


def _fitted_on(gate: Gate) -> str:
    if gate.fitted_on:
        return f"held-out queries ({', '.join(gate.fitted_on)})"
    return f"other queries of these runs (cross-fitted, {FOLDS} folds)"


def as_json(value: Any) -> Any:
    """Dataclasses as dictionaries, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def paired_json(paired: Paired) -> dict[str, Any]:
    """Rows, and of each task the queries that changed sides."""
    return {
        "tasks": as_json(paired.tasks),
        "means": as_json(paired.means),
        "clustered": paired.clustered,
        "changed": {
            name: {"gained": list(task.gained), "lost": list(task.lost)} for name, task in paired.single.items()
        },
    }


def _paired_cells(row: PairedRow) -> list[str]:
    queries, tasks = row.difference.queries, row.difference.tasks
    return [
        row.name,
        str(row.tasks),
        points(queries.value),
        bounds(queries.low, queries.high),
        bounds(tasks.low, tasks.high) if row.tasks > 1 else "",
        p_text(row.p),
        *(f"{count:,}" for count in (row.wins, row.losses, row.ties)),
    ]


def _policy_cells(row: PolicyRow, against: Against | None) -> list[str]:
    score = row.score.queries
    difference = against and against.difference.queries
    return [
        row.policy,
        percent(score.value),
        bounds(score.low, score.high),
        percent(row.share),
        f"{row.reasoning_tokens:.1f}",
        *("" if seconds is None else milliseconds(seconds) for seconds in (row.p50, row.p95)),
        f"{points(difference.value)} {bounds(difference.low, difference.high)}" if difference else "",
        p_text(against.p) if against else "",
    ]


def _bin_cells(tenth: Bin) -> list[str]:
    return [
        f"{tenth.low:.1f} to {tenth.low + 0.1:.1f}",
        f"{tenth.queries:,}",
        percent(tenth.pays),
        percent(tenth.hurts),
        points(tenth.gap),
    ]
