"""How values are written, and tables on a terminal and as Markdown."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from rich.console import Console

from mmeb_harness.core.errors import counted, leading, shortened
from mmeb_harness.core.terminal import paper
from mmeb_harness.show.tables import (
    bounds,
    markdown_table,
    milliseconds,
    p_text,
    percent,
    points,
    print_lines,
    print_table,
    signed,
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
    print_table(console, ("", "[1] name"), [("a", "[red]1")], [("overall", "2")], title="of two")
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "[bold]as it is[/bold]",
        "of two",
        "        ┃ [1] name",
        "━━━━━━━━╇━━━━━━━━━",
        "a       │   [red]1",
        "────────┼─────────",
        "overall │        2",
    ]


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60])
def test_no_number_is_cut_however_narrow_the_terminal(width: int) -> None:
    file = io.StringIO()
    heads = ("", "tasks", "95 % of queries", "a/very-long-name-of-a-model", "p")
    rows = [(f"group {name}", "3 of 78", "[-12.5, +33.4]", "98765.4", "< 0.0001") for name in "ab"]
    print_table(paper(file, width), heads, rows)
    lines = file.getvalue().splitlines()
    for number in rows[0][1:]:
        assert sum(number in line for line in lines) == 2
    assert "…" not in file.getvalue()
    assert width < 30 or max(map(len, lines)) <= width


def test_heads_fold_before_names_do() -> None:
    file = io.StringIO()
    print_table(paper(file, 33), ("", "items", "p50 ms", "p95 ms"), [("candidates", "17,276", "1", "9")])
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "           ┃        ┃ p50 ┃ p95",
        "           ┃  items ┃  ms ┃  ms",
        "━━━━━━━━━━━╇━━━━━━━━╇━━━━━╇━━━━",
        "candidates │ 17,276 │   1 │   9",
    ]


def test_what_a_terminal_would_obey_is_spelled_out_in_tables() -> None:
    file = io.StringIO()
    print_table(paper(file, 60), ("", "\x1b]0;title\x07"), [("a\u202eb\nc", "\x9b31m1")], title="\x1b[2J")
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "\\u001b[2J",
        "            ┃ \\u001b]0;title\\u0007",
        "━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━",
        "a\\u202eb\\nc │           \\u009b31m1",
    ]


def test_as_markdown() -> None:
    assert markdown_table(("task", "score"), [("a", "1.0")], numeric=(1,)) == (
        "| task | score |\n| --- | ---: |\n| a | 1.0 |"
    )


def test_prose_is_broken_between_words_on_a_terminal_only() -> None:
    prose, path = "settled at random instead, the mean would be 52.3", "/a/path/that/is/longer/than/one/line"
    shown = {}
    for is_terminal in (True, False):
        text = io.StringIO()
        print_lines(Console(file=text, width=24, force_terminal=is_terminal, color_system=None), f"  {prose}", path, "")
        shown[is_terminal] = text.getvalue()
    assert shown[False] == f"  {prose}\n{path}\n\n"
    assert shown[True] == f"  settled at random\n  instead, the mean\n  would be 52.3\n{path}\n\n"
