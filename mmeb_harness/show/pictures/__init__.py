"""Pictures of finished runs: what they scored, what that cost, and where reasoning paid.

matplotlib is imported when pictures are drawn, not with this package.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb_harness.core.errors import OptionError, UnknownNameError

if TYPE_CHECKING:
    from mmeb_harness.show.pictures.picture import Picture

# On its first use in a home folder matplotlib says, after five seconds, that it is building its cache of fonts.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)

#: In the order in which they are drawn.
NAMES = (
    "accuracy-latency",
    "accuracy-tokens",
    "groups",
    "tasks",
    "reasoning-share",
    "utility-gap",
    "rationale-length",
    "latency",
)
#: Inches between the margins of papers: a column and a page of ICML's and CVPR's, a page of NeurIPS's and ICLR's.
WIDTHS = {"column": 3.25, "text": 5.5, "page": 6.75}
_NARROWEST, _WIDEST = 2.5, 40.0


def inches_of(width: str) -> float:
    """A width as somebody writes it: one of `WIDTHS`, or inches.

    Raises:
        OptionError: it is neither, or nothing could be read in it.
    """
    try:
        inches = WIDTHS[width] if width in WIDTHS else float(width)
    except ValueError:
        inches = 0.0
    if not _NARROWEST <= inches <= _WIDEST:
        known = ", ".join(WIDTHS)
        raise OptionError(f"--width {width}: inches from {_NARROWEST:g} to {_WIDEST:g} are wanted, or one of {known}")
    return inches


def pictures_of(
    folders: Sequence[Path],
    *,
    allow_editions: bool = False,
    only: Sequence[str] = (),
    labels: Sequence[str] = (),
    width: float | None = None,
) -> tuple[list[Picture], list[str]]:
    """Draw the runs in these folders.

    Args:
        allow_editions: put runs of different editions into one picture all the same.
        only: names of the pictures wanted; all if there are none.
        labels: RUN=NAME each, of runs that are to be shown under another name.
        width: of all pictures in inches, so that they needn't be made smaller on paper; text stays readable.

    Returns:
        The pictures, and for what is left out of them a line that says why.

    Raises:
        ResultError: a run that can't be read or isn't finished, or runs that must not stand side by side.
        UnknownNameError: `only` has a name that is none of `NAMES`.
    """
    if unknown := next((name for name in only if name not in NAMES), None):
        raise UnknownNameError("picture", unknown, NAMES)
    from mmeb_harness.show.pictures import costs, reasoning, scores
    from mmeb_harness.show.pictures.picture import LeftOut, Picture
    from mmeb_harness.show.pictures.runs import shown_runs
    from mmeb_harness.show.pictures.style import house_style

    makers = {
        "accuracy-latency": costs.accuracy_latency,
        "accuracy-tokens": costs.accuracy_tokens,
        "groups": scores.groups,
        "tasks": scores.tasks,
        "reasoning-share": reasoning.reasoning_share,
        "utility-gap": reasoning.utility_gap,
        "rationale-length": reasoning.rationale_length,
        "latency": costs.latency,
    }
    shown = shown_runs(folders, allow_editions=allow_editions, labels=labels)
    with house_style(width):
        drawn = [made for name in NAMES if not only or name in only for made in makers[name](shown)]
    pictures = [dataclasses.replace(made, width=width) for made in drawn if isinstance(made, Picture)]
    return pictures, [f"{made.name}: {made.why}" for made in drawn if isinstance(made, LeftOut)]
