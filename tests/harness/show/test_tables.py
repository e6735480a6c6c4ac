"""How values are written, and tables on a terminal and as Markdown."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from mmeb_harness.core.errors import leading, shortened
from mmeb_harness.show.tables import (
    bounds,
    counted,
    markdown_table,
    milliseconds,
    p_text,
    percent,
    points,
    print_lines,
    signed,
    terminal_table,
)


@pytest.mark.parametrize("value", [*np.random.default_rng(0).random(60).tolist(), 0.0, 0.0035, 0.5, 0.9995, 1.0])
def test_a_percentage_is_rounded_as_python_does_it(value: float) -> None:
    assert percent(value) == percent(np.float64(value)) == f"{100 * value:.1f}"


def test_what_is_written_of_nothing_and_of_zero() -> None:
    assert [percent(None), percent(math.nan), percent(-1e-5)] == ["-", "-", "0.0"]
    assert [signed(None), signed(-0.04), signed(0.06), points(-0.0123)] == ["", "0.0", "+0.1", "-1.2"]
    assert [bounds(-0.0001, 0.25), bounds(-math.inf, math.inf), bounds(math.nan, math.nan)] == ["[0.0, 25.0]", "", ""]
    assert [milliseconds(None), milliseconds(1.2346)] == ["-", "1,235"]
    assert [p_text(0.00001), p_text(0.00042), p_text(0.25)] == ["< 0.0001", "0.0004", "0.250"]


def test_lists() -> None:
    assert [counted(1, "task"), counted(1024, "task")] == ["1 task", "1,024 tasks"]
    assert [shortened("abc", most=2), shortened("ab")] == ["a, b and 1 more", "a, b"]
    assert [leading("abcdef"), leading("ab")] == ["a, b, c, d, e …", "a, b"]


def test_on_a_terminal_markup_is_text_and_blocks_are_apart() -> None:
    file = io.StringIO()
    console = Console(file=file, width=60)
    print_lines(console, "[bold]as it is[/bold]")
    console.print(terminal_table(("", "[1] name"), [("a", "[red]1")], [("overall", "2")], title="of two"))
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "[bold]as it is[/bold]",
        "of two",
        "        ┃ [1] name",
        "━━━━━━━━╇━━━━━━━━━",
        "a       │   [red]1",
        "────────┼─────────",
        "overall │        2",
    ]


def test_as_markdown() -> None:
    assert markdown_table(("task", "score"), [("a", "1.0")], numeric=(1,)) == (
        "| task | score |\n| --- | ---: |\n| a | 1.0 |"
    )
