"""What `mmeb-eval compare` prints of two runs query by query, and of one model's three modes; and all of it as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmeb_harness.show.compare import difference_text
from mmeb_harness.stats.paired import Paired, PairedRow
from mmeb_harness.stats.policies import Gate, PolicyRow
from mmeb_harness.stats.resampling import Interval, Uncertain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Tasks that are named as differing most.
MOST = 5
_SMALLEST_P = 1e-4


def print_paired(paired: Paired, title: str, console: Console, *, with_tasks: bool) -> None:
    """Print the differences of two runs, how sure they are, and where they lie.

    Args:
        title: which run minus which.
        with_tasks: a row a task, too; where there are no means there is nothing else.
    """
    console.print(f"\n{title}, in points\n", highlight=False, markup=False)
    table = _table("", "tasks", "difference", "95 % of queries", "and of tasks", "p", "better", "worse", "same")
    if with_tasks or not paired.means:
        _add(table, paired.tasks)
    groups = [row for row in paired.means if row.name != "overall"]
    _add(table, groups)
    _add(table, [row for row in paired.means if row.name == "overall"], style="bold")
    console.print(table)
    console.print("")
    for line in paired_remarks(paired):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def paired_remarks(paired: Paired) -> list[str]:
    """What the columns mean, where the runs differ most, and how many queries changed sides."""
    most = sorted(paired.tasks, key=lambda row: -abs(row.difference.queries.value))[:MOST]
    gained, lost = (sum(len(getattr(one, kind)) for one in paired.single.values()) for kind in ("gained", "lost"))
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
    """Print a model's three modes beside a random gate and the oracle, and the gate's calibration."""
    console.print(
        f"\n{gate.model}: never, always and adaptive; means over {_tasks(len(gate.tasks))}\n", highlight=False
    )
    table = _table("policy", "score", "95 % of queries", "reasons", "tokens", "p50 ms", "p95 ms", "adaptive - it", "p")
    against = {one.policy: one for one in gate.against}
    for row in gate.policies:
        other = against.get(row.policy)
        difference = (
            ["", ""]
            if other is None
            else [f"{points(other.difference.queries.value)} {bounds(other.difference.queries)}", p_text(other.p)]
        )
        table.add_row(*_policy_cells(row), *difference, style="bold" if row.policy == "adaptive" else None)
    console.print(table)
    console.print("")
    if gate.bins:
        console.print(_bins_table(gate))
        console.print("")
    for line in gate_remarks(gate):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def gate_remarks(gate: Gate) -> list[str]:
    """Head-room, calibration, and what random and oracle are."""
    closed = gate.head_room_closed.queries
    lines = [
        "head-room closed: the oracle wins nothing over the better fixed mode."
        if math.isnan(closed.value)
        else f"head-room closed, of what the oracle wins over the better fixed mode: {percent(closed.value)} % "
        f"{bounds(closed)}.",
        "random: reasons as often as the gate in each task, in expectation. oracle: each query's better path; a bound.",
    ]
    if gate.brier is not None and gate.base_rate_brier is not None:
        lines.append(
            f"Brier score of the gate as a forecast that reasoning pays: {gate.brier:.3f}; of the base rate: "
            f"{gate.base_rate_brier:.3f}."
        )
    return lines


def as_json(value: Any) -> Any:
    """Dataclasses as dictionaries, NaN and infinities as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def paired_json(paired: Paired) -> dict[str, Any]:
    """Rows, and of each task the queries that changed sides."""
    return {
        "tasks": as_json(paired.tasks),
        "means": as_json(paired.means),
        "clustered": paired.clustered,
        "changed": {name: {"gained": list(one.gained), "lost": list(one.lost)} for name, one in paired.single.items()},
    }


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    return difference_text(100 * value)


def percent(value: float) -> str:
    """A fraction in %."""
    return f"{100 * value:.1f}"


def bounds(interval: Interval) -> str:
    """[low, high] in points; empty where nothing is known."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return ""
    low, high = (round(100 * one, 1) + 0.0 for one in (interval.low, interval.high))
    return f"[{low:.1f}, {high:.1f}]"


def p_text(p: float) -> str:
    """Three digits, or that it is smaller."""
    return f"< {_SMALLEST_P:g}" if p < _SMALLEST_P else f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"


def _add(table: Table, rows: Sequence[PairedRow], style: str | None = None) -> None:
    for row in rows:
        table.add_row(
            row.name,
            str(row.tasks),
            points(row.difference.queries.value),
            bounds(row.difference.queries),
            bounds(row.difference.tasks) if row.tasks > 1 else "",
            p_text(row.p),
            *(f"{count:,}" for count in (row.wins, row.losses, row.ties)),
            style=style,
        )
    table.add_section()


def _policy_cells(row: PolicyRow) -> list[str]:
    score: Uncertain = row.score
    milliseconds = ["" if one is None else f"{1000 * one:,.0f}" for one in (row.p50, row.p95)]
    return [
        row.policy,
        percent(score.queries.value),
        bounds(score.queries),
        percent(row.share),
        f"{row.reasoning_tokens:.1f}",
        *milliseconds,
    ]


def _bins_table(gate: Gate) -> Table:
    table = _table("gate", "queries", "reasoning pays", "hurts", "always - never")
    for one in gate.bins:
        table.add_row(
            f"{one.low:.1f} to {one.low + 0.1:.1f}",
            f"{one.queries:,}",
            percent(one.pays),
            percent(one.hurts),
            points(one.gap),
        )
    return table


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"


def _table(first: str, *others: str) -> Table:
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table
