"""Tables of text, on a terminal and as Markdown, and how what stands in them is written.

Public for plugins too: their reports look like the harness's own.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from mmeb_harness.core.items import Modality, Profile
from mmeb_harness.core.terminal import print_shown, shown_name

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Stands where there is no value.
NONE = "-"
#: Stands where the model doesn't take what would be scored.
UNSUPPORTED = "unsupported"
_SMALLEST_P = 1e-4
#: Of a sound, officially, for the values that are published.
WINDOW = 30.0
#: Between two columns of a table.
_GAP = 3


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


def text_limit(profile: Profile | None) -> str:
    """At how many tokens texts were cut."""
    if profile is None or profile.max_text_tokens is None:
        return "text limit unstated"
    return f"texts cut at {profile.max_text_tokens:,} tokens"


def profile_line(profile: Profile, modalities: Collection[Modality] = ()) -> str:
    """The choices that move a score, in one line.

    Args:
        modalities: of the tasks that were scored: how much of a sound or text a model had stands where it moves them,
            or is not the usual.
    """
    heard = profile.audio_seconds != WINDOW or "audio" in modalities
    read = profile.max_text_tokens is not None or not {"text", "tool", "memory"}.isdisjoint(modalities)
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
        *([f"the first {profile.audio_seconds:g} s of a sound"] if heard else []),
        *([] if frames.pages == "stored" else [f"pages {frames.pages}"]),
        *pixels,
        *([text_limit(profile)] if read else []),
        f"text whitespace {profile.whitespace}",
        f"pooling {profile.pooling}",
        *([] if profile.dimensions is None else [f"first {profile.dimensions} dimensions"]),
        *([] if profile.quantization == "none" else [f"{profile.quantization} vectors"]),
    ]
    return "; ".join(parts) + "."


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are: what looks like markup is text. On a terminal they are broken between words."""
    for line in lines:
        print_shown(console, _broken(line, console.width) if console.is_terminal else line)


def _broken(text: str, width: int) -> str:
    """A text in lines of so many letters; what is longer than a line, and where it begins, stay as they are."""
    return "\n".join(
        textwrap.fill(
            line.lstrip(),
            width,
            initial_indent=(indent := line[: len(line) - len(line.lstrip())]),
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def print_table(
    console: Console,
    heads: Sequence[str],
    *blocks: Iterable[Sequence[str | Text]],
    title: str = "",
    bold: str = "overall",
    names: Container[int] = (0,),
    label: int = 0,
) -> None:
    """Print a table, a line between its blocks; where it is too wide, in parts below each other.

    Names and heads fold. A number is never cut: where not even one column fits beside the labels, the table is wider
    than the terminal.

    Args:
        bold: name of the row that stands out.
        names: positions of the columns that stand on the left; the others are numbers.
        label: the column whose cells name their rows; each part begins with the columns up to it, or with it.
    """
    from rich.table import Table
    from rich.text import Text

    rows = [
        [[cell if isinstance(cell, Text) else Text(shown_name(cell)) for cell in row] for row in block]
        for block in blocks
    ]
    cells = [max((row[place].cell_len for block in rows for row in block), default=0) for place in range(len(heads))]
    least = [1 if place in names else cells[place] for place in range(len(heads))]
    words = [max(map(len, head.split()), default=0) for head in heads]
    wide = [min(console.width // 2, max(cells[place], words[place])) for place in range(len(heads))]
    folded = [max(pair) for pair in zip(wide, least, strict=True)]
    for number, places in enumerate(_fitting(folded, label, console)):
        if number:
            print_lines(console, "")
        table = Table(title_justify="left", title_style="", show_edge=False, pad_edge=False)
        table.title = Text(shown_name(title)) if title and not number else None
        whole = sum(max(cells[place], len(heads[place])) for place in places) + _GAP * (len(places) - 1)
        for place in places:
            side: Literal["left", "right"] = "left" if place in names else "right"
            most = folded[place] if whole > console.width and place not in names else None  # heads fold before names do
            head = Text(shown_name(heads[place]))
            table.add_column(head, justify=side, overflow="fold", min_width=least[place], max_width=most)
        for block in rows:
            for row in block:
                style = "bold" if row[label].plain == bold else None
                table.add_row(*(row[place] for place in places), style=style)
            table.add_section()
        console.print(table, crop=False)


def _fitting(lengths: Sequence[int], label: int, console: Console) -> list[list[int]]:
    """Columns in parts that fit beside one another's labels."""
    parts, used = [list(range(label + 1))], sum(lengths[: label + 1]) + _GAP * label
    for place in range(label + 1, len(lengths)):
        if used + _GAP + lengths[place] > console.width and parts[-1][-1] != label:
            parts.append([label])
            used = lengths[label]
        parts[-1].append(place)
        used += _GAP + lengths[place]
    return parts


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Container[int] = ()) -> str:
    """A table as Markdown, without a line break at its end.

    Args:
        heads, rows: as Markdown: who shows foreign text escapes it.
        numeric: positions of the columns that stand on the right.
    """
    rule = ["---:" if column in numeric else "---" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows))
