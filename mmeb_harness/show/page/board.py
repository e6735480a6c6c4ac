"""Leaderboards as one HTML page, every table to sort, filter and unfold; and in whatever form somebody asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from mmeb_harness.results.scores import Origin
from mmeb_harness.show.leaderboard import Block, Column, Kind, Leaderboard, Row, Value, interval_text, name_text, shown
from mmeb_harness.show.leaderboard_formats import SUFFIXES, Format, render
from mmeb_harness.show.page.render import asset, shell, synthetic_warning

AnyFormat: TypeAlias = Format | Literal["html"]
#: A file's ending → its format.
FORMAT_OF: Mapping[str, AnyFormat] = {**SUFFIXES, ".html": "html"}


@dataclass(frozen=True)
class BoardCell:
    """A value to sort by, and what is shown of it."""

    value: Value
    text: str
    best: bool


@dataclass(frozen=True)
class BoardColumn:
    """A column; `part_of`: the key of the column under which it is folded away, or ""."""

    key: str
    title: str
    kind: Kind
    block: Block
    part_of: str


@dataclass(frozen=True)
class BoardRow:
    """A model, with a cell a column."""

    name: str
    rank: int | None
    interval: str
    ties: str
    unranked: str
    origin: Origin
    source: str
    cells: tuple[BoardCell, ...]


@dataclass(frozen=True)
class BoardTable:
    """One leaderboard. A JSON key is the field's name; board.js reads them by it. `warning`: of made-up data, or ""."""

    title: str
    warning: str
    columns: tuple[BoardColumn, ...]
    rows: tuple[BoardRow, ...]
    notes: tuple[str, ...]


def rendered(boards: Sequence[Leaderboard], wanted: AnyFormat) -> str:
    """Leaderboards in any format, as text."""
    return board_page(boards) if wanted == "html" else render(boards, wanted)


def board_page(boards: Sequence[Leaderboard]) -> str:
    """The page of these leaderboards, in their order."""
    tables = [dataclasses.asdict(_table(board)) for board in boards]
    titles = "; ".join(board.title for board in boards)
    summary = {"tables": tables, "written": datetime.now(UTC).strftime("%Y-%m-%d")}
    return "".join(shell("board", f"Leaderboard: {titles}", "Leaderboard", asset("board.html"), summary))


def _table(board: Leaderboard) -> BoardTable:
    keys = {column.key for column in board.columns}
    return BoardTable(
        title=board.title,
        warning=synthetic_warning(board.edition) if board.synthetic else "",
        columns=tuple(
            BoardColumn(column.key, column.title, column.kind, column.block, _folded_under(column.key, board, keys))
            for column in board.columns
        ),
        rows=tuple(_row(row, board) for row in board.rows),
        notes=board.notes,
    )


def _folded_under(key: str, board: Leaderboard, keys: set[str]) -> str:
    """The nearest wider column that the table has."""
    wider = board.part_of.get(key, "")
    while wider and wider not in keys:
        wider = board.part_of.get(wider, "")
    return wider


def _sorted_by(column: Column, value: Value) -> Value:
    """Words among numbers stand last."""
    return None if column.kind != "text" and isinstance(value, str) else value


def _row(row: Row, board: Leaderboard) -> BoardRow:
    return BoardRow(
        name=name_text(row),
        rank=row.rank,
        interval=interval_text(row),
        ties=row.ties,
        unranked=row.unranked,
        origin=row.origin,
        source=row.source,
        cells=tuple(
            BoardCell(_sorted_by(column, cell.value), shown(column.kind, cell.value), cell.best)
            for column, cell in zip(board.columns, row.cells, strict=True)
        ),
    )
