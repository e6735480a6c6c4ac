"""Estimates and tables as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmemb_r1_model.study.statistics import Estimate


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as long as the header."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def percent(value: float | Estimate | None) -> str:
    """A fraction in %, one decimal; nothing for nothing, a dash for what isn't defined."""
    if value is None:
        return ""
    number = value.value if isinstance(value, Estimate) else value
    return "–" if math.isnan(number) else f"{100 * number:.1f}"


def interval(one: Estimate | None) -> str:
    """In %: value, interval over queries, interval over seeds."""
    if one is None or math.isnan(one.value):
        return percent(one)
    bounds = [one.queries] if math.isnan(one.seeds[0]) else [one.queries, one.seeds]
    return " ".join([percent(one), *(f"[{percent(low)}, {percent(high)}]" for low, high in bounds)])
