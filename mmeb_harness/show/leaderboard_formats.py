"""Leaderboards as Markdown, LaTeX, CSV, JSON, or in a terminal; `page.board` makes a page of them.

For people they are laid out once, as grids of text; each format then only sets and escapes them. CSV and JSON hold the
values themselves.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from mmeb_harness.core.terminal import paper, shown_name
from mmeb_harness.show.leaderboard import Cell, Column, Leaderboard, Row, Value, interval_text, name_text, shown
from mmeb_harness.show.tables import NONE, markdown_table, print_lines, print_table

if TYPE_CHECKING:
    from rich.console import Console

Format = Literal["md", "latex", "csv", "json", "terminal"]

SCHEMA_VERSION = 1
#: Of a terminal's lines in a file.
WIDTH = 200
_TASKS_A_GRID = 39
#: Between two columns in a terminal.
_GAP = 3

SUFFIXES: Mapping[str, Format] = {
    ".md": "md",
    ".tex": "latex",
    ".csv": "csv",
    ".json": "json",
    ".txt": "terminal",
}


@dataclass(frozen=True)
class Text:
    """What stands in a place of a grid."""

    text: str
    bold: bool = False


@dataclass(frozen=True)
class Head:
    """The head of a grid's column."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Grid:
    """One table for people.

    Attributes:
        label: the column whose cells name their rows.
        steep: whether the heads are long, and on paper best set upright.
    """

    caption: str
    heads: tuple[Head, ...]
    rows: tuple[tuple[Text, ...], ...]
    label: int = 0
    steep: bool = False


def render(boards: Sequence[Leaderboard], wanted: Format) -> str:
    """Leaderboards in a format, as text."""
    return _RENDERERS[wanted](boards)


def print_boards(boards: Sequence[Leaderboard], console: Console) -> None:
    """Print leaderboards in a terminal, one below the other."""
    for number, board in enumerate(boards):
        print_lines(console, *([""] if number else []), board.title)
        for grid in _narrow(board):
            print_lines(console, f"\n{grid.caption}")
            print_lines(console, "")
            _print_grid(grid, console)
        print_lines(console, "", *board.notes)


def _wide(board: Leaderboard) -> list[Grid]:
    """For formats that can scroll: everything of a model in one row; tasks apart, a row each."""
    return [
        *_ranked_grid(board, _columns(board, lambda column: column.block != "tasks")),
        *_apart_grid(board),
        *_task_grids(board),
    ]


def _narrow(board: Leaderboard) -> list[Grid]:
    """For formats with a width: groups, and what a model was run on, in tables of their own."""
    first = _columns(board, lambda column: column.block in ("overall", "about") and column.kind != "text")
    groups = _columns(board, lambda column: column.block == "groups")
    return [
        *_ranked_grid(board, first),
        *(_grid("Groups", board.ranked, [_MODEL, *groups]) if groups else []),
        *_grid("Data and profiles", board.ranked, [_MODEL, *_columns(board, lambda column: column.kind == "text")]),
        *_apart_grid(board),
        *_task_grids(board),
    ]


#: A column of a grid with a row a model.
Shown: TypeAlias = tuple[Head, Callable[[Row], Text]]

_RANK: Shown = (Head("rank"), lambda row: Text(str(row.rank)))
_INTERVAL: Shown = (Head("rank 95 %"), lambda row: Text(interval_text(row)))
_MODEL: Shown = (Head("model", numeric=False), lambda row: Text(name_text(row)))
_TIES: Shown = (Head("ties", numeric=False), lambda row: Text(row.ties or NONE))
_WHY: Shown = (Head("why", numeric=False), lambda row: Text(row.unranked))


def _columns(board: Leaderboard, wanted: Callable[[Column], bool]) -> list[Shown]:
    return [
        (_head(column), partial(_cell_text, column, place))
        for place, column in enumerate(board.columns)
        if wanted(column)
    ]


def _cell_text(column: Column, place: int, row: Row) -> Text:
    return _text(column, row.cells[place])


def _grid(caption: str, rows: Sequence[Row], shown: Sequence[Shown], label: int = 0) -> list[Grid]:
    """A row a model; where there is none, no grid."""
    texts = tuple(tuple(text(row) for _, text in shown) for row in rows)
    return [Grid(caption, tuple(head for head, _ in shown), texts, label)] if rows else []


def _ranked_grid(board: Leaderboard, shown: Sequence[Shown]) -> list[Grid]:
    overall, *others = shown
    return _grid(_ranked_by(board), board.ranked, [_RANK, _INTERVAL, _MODEL, overall, _TIES, *others], label=2)


def _ranked_by(board: Leaderboard) -> str:
    return f"Ranked by {board.columns[0].title}"


def _apart_grid(board: Leaderboard) -> list[Grid]:
    means = _columns(board, lambda column: column.block in ("overall", "groups"))
    return _grid("Not ranked", board.apart, [_MODEL, *means, _WHY])


def _task_grids(board: Leaderboard) -> Iterable[Grid]:
    """A row a task and a column a model; in parts, since no page holds 78 rows."""
    places = [number for number, column in enumerate(board.columns) if column.block == "tasks"]
    heads = (Head("task", numeric=False), *(Head(name_text(row)) for row in board.rows))
    for first in range(0, len(places), _TASKS_A_GRID):
        part = places[first : first + _TASKS_A_GRID]
        rows = tuple(
            (
                Text(board.columns[place].title),
                *(_text(board.columns[place], row.cells[place]) for row in board.rows),
            )
            for place in part
        )
        caption = f"Tasks {first + 1} to {first + len(part)}" if len(part) > 1 else f"Task {first + 1}"
        yield Grid(caption, heads, rows, steep=True)


def _head(column: Column) -> Head:
    return Head(column.title, numeric=column.kind != "text")


def _text(column: Column, cell: Cell) -> Text:
    return Text(shown(column.kind, cell.value), cell.best)


def _markdown(boards: Sequence[Leaderboard]) -> str:
    parts = []
    for board in boards:
        parts.append(f"# {_escape_markdown(board.title)}")
        for grid in _wide(board):
            parts += [f"**{_escape_markdown(grid.caption)}**", _markdown_table(grid)]
        parts.append("\n".join(f"- {_escape_markdown(note)}" for note in board.notes))
    return "\n\n".join(parts) + "\n"


def _markdown_table(grid: Grid) -> str:
    return markdown_table(
        [_escape_markdown(head.title) for head in grid.heads],
        [[_markdown_text(text) for text in row] for row in grid.rows],
        numeric=[place for place, head in enumerate(grid.heads) if head.numeric],
    )


def _markdown_text(text: Text) -> str:
    escaped = _escape_markdown(text.text)
    return f"**{escaped}**" if text.bold else escaped


_MARKDOWN = {**{ord(mark): f"\\{mark}" for mark in "\\`*_{}[]#|~$@!"}, ord("<"): "&lt;", ord(">"): "&gt;"}


def _escape_markdown(text: str) -> str:
    return text.replace("&", "&amp;").translate(_MARKDOWN)


_LATEX_HEAD = "% In the preamble: \\usepackage{booktabs,graphicx}"
#: Only what is too wide is made narrower.
_LATEX_FIT = "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%"


def _latex(boards: Sequence[Leaderboard]) -> str:
    tables = []
    for number, board in enumerate(boards):
        name = _slug("leaderboard", f"{number + 1} {board.title}" if number else "")
        grids = _narrow(board)
        tables += [_latex_table(board, grid, name, board.notes if grid is grids[0] else ()) for grid in grids]
    return "\n\n".join([_LATEX_HEAD, *tables]) + "\n"


def _slug(*texts: str) -> str:
    """Words for a label, of letters and digits."""
    return "-".join(word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower()))


def _latex_table(board: Leaderboard, grid: Grid, name: str, notes: Sequence[str]) -> str:
    body = [" & ".join(_latex_text(text) for text in row) + r" \\" for row in grid.rows]
    return "\n".join(
        [
            r"\begin{table}[tp]",
            r"\centering",
            rf"\caption{{{_escape_latex(f'{board.title}. {grid.caption}.')}}}",
            rf"\label{{tab:{_slug(name, '' if grid.caption == _ranked_by(board) else grid.caption)}}}",
            _LATEX_FIT,
            rf"\begin{{tabular}}{{{''.join('r' if head.numeric else 'l' for head in grid.heads)}}}",
            r"\toprule",
            " & ".join(_latex_head(head, steep=grid.steep) for head in grid.heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}%",
            "}",
            *(rf"\par\smallskip{{\footnotesize\raggedright {_escape_latex(note)}\par}}" for note in notes),
            r"\end{table}",
        ]
    )


def _latex_head(head: Head, *, steep: bool) -> str:
    title = _escape_latex(head.title)
    return rf"\rotatebox{{90}}{{{title}}}" if steep and head.numeric else f"{{{title}}}"


def _latex_text(text: Text) -> str:
    escaped = _escape_latex(text.text)
    return rf"\textbf{{{escaped}}}" if text.bold else f"{{{escaped}}}"


_LATEX_NAMES = {
    **{"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"},
    "†": "dagger",
}
_LATEX = {
    **{ord(mark): f"\\{mark}" for mark in "&%$#_{}"},
    **{ord(mark): f"\\text{name}{{}}" for mark, name in _LATEX_NAMES.items()},
    ord("–"): "--",
    ord("…"): r"\ldots{}",
}


def _escape_latex(text: str) -> str:
    return text.translate(_LATEX)


def _csv(boards: Sequence[Leaderboard]) -> str:
    """Fractions and seconds as they are; an empty field where there is nothing. Of several tables their names too."""
    file = io.StringIO()
    rows = [_csv_row(board, row) for board in boards for row in board.rows]
    if len(boards) > 1:
        titles = [board.title for board in boards for _ in board.rows]
        rows = [{"table": title, **row} for title, row in zip(titles, rows, strict=True)]
    writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _csv_row(board: Leaderboard, row: Row) -> dict[str, Value]:
    low, high = row.rank_interval or (None, None)
    values = {column.key: cell.value for column, cell in zip(board.columns, row.cells, strict=True)}
    places = {"rank": row.rank, "rank_low": low, "rank_high": high, "ties": row.ties, "model": row.name}
    return places | values | {"tasks": row.tasks, "unranked": row.unranked, "origin": row.origin, "source": row.source}


def _json(boards: Sequence[Leaderboard]) -> str:
    """The first table's values, and below `further_tables` those of the others, where there are some."""
    first, *others = [_json_values(board) for board in boards]
    values = {"schema_version": SCHEMA_VERSION, **first, **({"further_tables": others} if others else {})}
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _json_values(board: Leaderboard) -> dict[str, object]:
    values = dataclasses.asdict(board)
    del values["part_of"]
    return values


def _terminal(boards: Sequence[Leaderboard]) -> str:
    file = io.StringIO()
    print_boards(boards, paper(file, WIDTH))
    return file.getvalue()


def _print_grid(grid: Grid, console: Console) -> None:
    from rich.text import Text as Styled

    heads = [head.title for head in grid.heads]
    names = [place for place, head in enumerate(grid.heads) if not head.numeric]
    rows = [[Styled(shown_name(text.text), style="bold" if text.bold else "") for text in row] for row in grid.rows]
    print_table(console, heads, rows, names=names, label=grid.label)


_RENDERERS: Mapping[Format, Callable[[Sequence[Leaderboard]], str]] = {
    "md": _markdown,
    "latex": _latex,
    "csv": _csv,
    "json": _json,
    "terminal": _terminal,
}
