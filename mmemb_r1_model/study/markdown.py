"""Estimates and tables as Markdown, written as the harness writes its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mmeb_harness.show.tables import bounds, markdown_table, percent
from mmeb_harness.stats.seeds import OverSeeds


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows as long as the header, as lines."""
    return markdown_table(header, rows) + "\n"


def value_of(estimate: OverSeeds | None) -> str:
    """An estimate's value in %; empty where there is none."""
    return "" if estimate is None else percent(estimate.value)


def interval(estimate: OverSeeds | None) -> str:
    """An estimate in %: value, interval over queries, interval over seeds."""
    if estimate is None or math.isnan(estimate.value):
        return value_of(estimate)
    parts = (value_of(estimate), bounds(*estimate.queries), bounds(*estimate.seeds))
    return " ".join(part for part in parts if part)
