"""Tables of text, on a terminal and as Markdown, and how what stands in them is written.

Public for plugins too: their reports look like the harness's own.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from mmeb_harness.core.items import Profile

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: Stands where there is no value.
NONE = "-"
_SMALLEST_P = 1e-4


def percent(value: float | None) -> str:
    """A fraction in %, to a tenth."""
    return NONE if value is None or math.isnan(value) else f"{_tenths(100 * value):.1f}"


def points(value: float) -> str:
    """A difference of fractions in points, with its sign."""
    return signed(100 * value)


def signed(value: float | None) -> str:
    """A difference that is in points already; empty where there is none to tell."""
    if value is None:
        return ""
    return f"{_tenths(value):+.1f}" if _tenths(value) else "0.0"


def bounds(low: float, high: float) -> str:
    """[low, high] of fractions, in % or points; empty where nothing is known."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{_tenths(100 * low):.1f}, {_tenths(100 * high):.1f}]"


def _tenths(value: float) -> float:
    """Without the sign of a zero; numpy's own numbers would be rounded otherwise."""
    return round(float(value), 1) + 0.0


def p_text(p: float) -> str:
    """A p-value to three digits, or that it is smaller."""
    return f"< {_SMALLEST_P:g}" if p < _SMALLEST_P else f"{p:.3f}" if p >= 0.001 else f"{p:.4f}"


def milliseconds(seconds: float | None) -> str:
    """Seconds as whole milliseconds."""
    return NONE if seconds is None else f"{1000 * seconds:,.0f}"


def profile_line(profile: Profile) -> str:
    """The choices that move a score, in one line."""
    frames = profile.frames
    pixels = [
        f"{low or 0:,} to {'any' if high is None else format(high, ',')} pixels {what}"
        for low, high, what in (
            (profile.min_pixels, profile.max_pixels, "an image"),
            (profile.video_min_pixels, profile.video_max_pixels, "a video"),
        )
        if low is not None or high is not None
    ]
    parts = [
        f"profile {profile.name}: instruction {profile.instruction}",
        f"candidate instruction {profile.candidate_instruction}",
        f"{frames.video} frames a video, {frames.clip} a clip, short ones {frames.short}",
        *pixels,
        f"text whitespace {profile.whitespace}",
        f"pooling {profile.pooling}",
        *([] if profile.dimensions is None else [f"first {profile.dimensions} dimensions"]),
        *([] if profile.quantization == "none" else [f"{profile.quantization} vectors"]),
    ]
    return "; ".join(parts) + "."


def counted(number: int, what: str) -> str:
    """A number with its noun: "1 task", "1,024 tasks"."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are: what looks like markup is text, and the terminal wraps them."""
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def terminal_table(
    heads: Sequence[str],
    *blocks: Iterable[Sequence[str | Text]],
    title: str = "",
    bold: str = "overall",
    names: Container[int] = (0,),
) -> Table:
    """A table for a terminal, a line between its blocks.

    Args:
        bold: name of the row that stands out.
        names: positions of the columns that stand on the left; the others are numbers.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", title_style="", show_edge=False, pad_edge=False)
    for place, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if place in names else "right", overflow="fold")
    for block in blocks:
        for row in block:
            cells = [Text(cell) if isinstance(cell, str) else cell for cell in row]
            table.add_row(*cells, style="bold" if row[0] == bold else None)
        table.add_section()
    return table


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Container[int] = ()) -> str:
    """A table as Markdown, without a line break at its end.

    Args:
        heads, rows: as Markdown: who shows foreign text escapes it.
        numeric: positions of the columns that stand on the right.
    """
    rule = ["---:" if column in numeric else "---" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
