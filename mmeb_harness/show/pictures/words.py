"""Wording that several pictures share."""

from __future__ import annotations

from collections.abc import Iterable

NO_COMMON = "the runs have no task in common"
NO_REASONING = "no query of these runs reasoned"


def listed(texts: Iterable[str], most: int = 10) -> str:
    """The first ones, and how many more there are."""
    found = list(texts)
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def counted(number: int, what: str) -> str:
    """ "1 task", "1,024 tasks"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def milliseconds(value: float) -> str:
    """As many digits as say something."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"
