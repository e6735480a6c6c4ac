"""`mmeb.compare` and `mmeb.leaderboard`: finished runs side by side, as values, as frames, and as they are printed."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.files import write_text
from mmeb_harness.core.terminal import paper
from mmeb_harness.results.outcome import Run
from mmeb_harness.results.published import find_published, load_published
from mmeb_harness.show.compare import Comparison, print_comparison
from mmeb_harness.show.compare import compare as compare_scores
from mmeb_harness.show.contests import (
    Entry,
    benchmark_to_compare,
    load_entry,
    other_metrics,
    published_entry,
    rows_of,
    tasks_to_compare,
)
from mmeb_harness.show.leaderboard import Leaderboard, leaderboards
from mmeb_harness.show.leaderboard_formats import print_boards
from mmeb_harness.show.names import labelled
from mmeb_harness.show.paired_tables import as_json, paired_json, print_gate, print_paired
from mmeb_harness.show.tables import print_lines
from mmeb_harness.stats.gate import Gate, judge_gate
from mmeb_harness.stats.paired import Paired, compare_runs
from mmeb_harness.stats.policies import mode_runs
from mmeb_harness.stats.queries import has_queries

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

#: A run, or where one is; a file of scores that `mmeb-eval import` wrote.
RunOrPath = Run | str | PathLike[str]
#: Letters in a line of a text that stands for a table.
_WIDTH = 160


@dataclass(frozen=True)
class Compared:
    """Runs, imported and published scores side by side; the first is the reference.

    Attributes:
        comparison: means, and their differences.
        paired: what each further run is called beside the first → the two query by query.
        gate: what deciding is worth, of one model's runs never, always and adaptive.
        unpaired: runs that hold no single queries.
    """

    comparison: Comparison
    paired: dict[str, Paired]
    folders: dict[str, tuple[Path, Path]]
    gate: Gate | None
    unpaired: tuple[Path, ...]
    with_tasks: bool

    def table(self) -> pd.DataFrame:
        """A row a mean and task that both runs of a pair have: difference and interval as fractions, p, wins, …"""
        import pandas as pd

        rows = [
            {
                "pair": pair,
                "name": row.name,
                "tasks": row.tasks,
                "difference": row.difference.queries.value,
                "low": row.difference.queries.low,
                "high": row.difference.queries.high,
                "p": row.p,
                "wins": row.wins,
                "losses": row.losses,
                "ties": row.ties,
            }
            for pair, paired in self.paired.items()
            for row in (*paired.means, *paired.tasks)
        ]
        return pd.DataFrame(rows)

    def print(self, console: Console) -> None:
        """Print it as `mmeb-eval compare` does."""
        print_comparison(self.comparison, console)
        for folder in self.unpaired:
            lacks = f"{folder} holds no single queries (no folder queries), so it isn't compared query by query"
            print_lines(console, lacks)
        for pair, paired in self.paired.items():
            print_paired(paired, pair, console, with_tasks=self.with_tasks)
        if self.gate is not None:
            print_gate(self.gate, console)

    def as_json(self) -> dict[str, Any]:
        """All of it, and the queries that changed sides."""
        pairs = [
            {"first": str(self.folders[pair][0]), "second": str(self.folders[pair][1]), **paired_json(paired)}
            for pair, paired in self.paired.items()
        ]
        return {"scores": as_json(self.comparison), "paired": pairs, "gate": as_json(self.gate)}

    def __str__(self) -> str:
        text = io.StringIO()
        self.print(paper(text, _WIDTH))
        return text.getvalue()

    def _repr_html_(self) -> str:
        return _preformatted(str(self))


def compare(
    *runs: RunOrPath,
    published: Sequence[str] = (),
    allow_editions: bool = False,
    with_tasks: bool = False,
    fitted_on: Sequence[RunOrPath] = (),
) -> Compared:
    """Compare finished runs query by query, each with the first, as `mmeb-eval compare` does.

    Args:
        published: names of published models, to stand beside them.
        allow_editions: across editions of the benchmark all the same.
        with_tasks: print all tasks, not only means.
        fitted_on: the same model's runs, never and always, on held-out queries of the same tasks: on these the controls
            of its gate are fitted.

    Raises:
        OptionError: nothing to compare, or nothing to fit.
        ResultError: a run that can't be read, or scores that must not stand in one table.
        UnknownNameError: no published model of that name.
    """
    if not runs and not published:
        raise OptionError("nothing to compare; name runs, or published models")
    folders = [_folder(run) for run in runs]
    return put_side_by_side(
        folders,
        published,
        allow_editions=allow_editions,
        with_tasks=with_tasks,
        fitted_on=[_folder(run) for run in fitted_on],
    )


def put_side_by_side(
    paths: Sequence[Path],
    published: Sequence[str],
    *,
    published_file: Path | None = None,
    allow_editions: bool = False,
    with_tasks: bool = False,
    labels: Sequence[str] = (),
    fitted_on: Sequence[Path] = (),
) -> Compared:
    """The same of folders and score files, under the names that somebody wants for them.

    Args:
        published_file: `None`: the table that comes with the package.
        labels: RUN=NAME each; see `names.labelled`.

    Raises:
        HarnessError: as `compare`; labels that fit no run.
    """
    entries = [load_entry(path) for path in paths]
    if published:
        known = load_published(published_file)
        entries += [published_entry(find_published(known, name)) for name in published]
    columns = labelled([entry.scores for entry in entries], paths, labels)
    tasks = tasks_to_compare(entries)
    comparison = compare_scores(
        columns,
        benchmark_to_compare(entries),
        allow_editions=allow_editions,
        with_tasks=with_tasks,
        others=other_metrics(entries),
    )
    shown = {
        path: f"[{number}] {column.name}"
        for number, (path, column) in enumerate(zip(paths, comparison.columns, strict=False), 1)
    }
    runs = [path for path in paths if path.is_dir()]
    whole = [path for path in runs if has_queries(path)]
    modes = mode_runs(whole)
    if fitted_on and modes is None:
        raise OptionError(
            f"--fitted-on {fitted_on[0]}: there is nothing to fit; compare one model's runs never, always and "
            "adaptive, and no other run"
        )
    pairs = {f"{shown[path]} - {shown[whole[0]]}": (whole[0], path) for path in whole[1:]}
    return Compared(
        comparison=comparison,
        paired={pair: compare_runs(*of_pair, rows_of(tasks)) for pair, of_pair in pairs.items()},
        folders=pairs,
        gate=judge_gate(modes, fitted_on) if modes else None,
        unpaired=tuple(path for path in runs if path not in whole),
        with_tasks=with_tasks,
    )


@dataclass(frozen=True)
class Boards:
    """Leaderboards: one an edition, and one a data set of other tasks.

    Attributes:
        whole: the same with a column a task.
    """

    boards: tuple[Leaderboard, ...]
    whole: Callable[[], tuple[Leaderboard, ...]] = field(repr=False)

    def table(self) -> pd.DataFrame:
        """A row a model and table: rank, its interval, and every column's value, scores in fractions."""
        import pandas as pd

        rows = [
            {
                "table": board.title,
                "model": row.name,
                "rank": row.rank,
                "rank_low": row.rank_interval[0] if row.rank_interval else None,
                "rank_high": row.rank_interval[1] if row.rank_interval else None,
                "unranked": row.unranked,
                **{column.key: cell.value for column, cell in zip(board.columns, row.cells, strict=True)},
            }
            for board in self.boards
            for row in board.rows
        ]
        return pd.DataFrame(rows)

    def save(self, path: str | PathLike[str]) -> None:
        """Write it in the form of the suffix: .md, .tex, .csv, .json, .html (with all tasks, folded) or .txt.

        Raises:
            OptionError: another suffix.
        """
        from mmeb_harness.show.page.board import FORMAT_OF, rendered

        file = Path(path)
        if (wanted := FORMAT_OF.get(file.suffix.lower())) is None:
            raise OptionError(f"{path}: no format has the suffix {file.suffix!r}; use {', '.join(FORMAT_OF)}")
        write_text(file, rendered(self.whole() if wanted == "html" else self.boards, wanted))

    def __str__(self) -> str:
        text = io.StringIO()
        print_boards(self.boards, paper(text, _WIDTH))
        return text.getvalue()

    def _repr_html_(self) -> str:
        return _preformatted(str(self))


def leaderboard(
    runs: Sequence[RunOrPath],
    *,
    published: Sequence[str] = (),
    editions: Sequence[str] = (),
    allow_editions: bool = False,
    with_tasks: bool = False,
) -> Boards:
    """Rank finished runs by their mean over all tasks, as `mmeb-eval leaderboard` does.

    Args:
        published: names of published models, a row each.
        editions: of the tables; default: those that the runs have.
        allow_editions: all in one table, of the one edition that is named.
        with_tasks: a column a task; an HTML page has them in any case.

    Raises:
        OptionError: nothing to rank, or one of them twice.
        ResultError: a run that can't be read, or scores that must not stand in one table.
    """
    entries: list[Entry] = [load_entry(_folder(run)) for run in runs]
    if published:
        known = load_published()
        entries += [published_entry(find_published(known, name)) for name in published]
    rank = partial(leaderboards, entries, editions=editions, allow_editions=allow_editions)
    return Boards(rank(with_tasks=with_tasks), partial(rank, with_tasks=True))


def _folder(run: RunOrPath) -> Path:
    return run.folder if isinstance(run, Run) else Path(run)


def _preformatted(text: str) -> str:
    import html

    return f"<pre>{html.escape(text)}</pre>"
