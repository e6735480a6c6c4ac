"""`mmeb-eval leaderboard`: who ranks where, and how certainly.

As in `cli`: options become values, and heavy imports stay inside the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmeb_harness.cli.options import check_not_read
from mmeb_harness.cli.scores import PATH
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.terminal import ENDLESS, console, say, say_kept

if TYPE_CHECKING:
    from mmeb_harness.results.scores import Scores
    from mmeb_harness.show.leaderboard_formats import Format

FORMATS = ("md", "latex", "csv", "json", "html", "terminal")


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="[RUN|SCORES FILE]...")
@click.option("--published", multiple=True, metavar="MODEL", help="Add a published model; may be repeated.")
@click.option("--all-published", is_flag=True, help="Add every published model of the edition, a row each.")
@click.option("--published-file", type=PATH, metavar="FILE", help="Default: the table that comes with the package.")
@click.option("--edition", help="Of the table: page-fixed (default), v2.0.0 or v2.0.1.")
@click.option("--allow-editions", is_flag=True, help="Rank other editions beside it all the same, marked.")
@click.option("--tasks-too", is_flag=True, help="All tasks, not only groups, modalities and overall.")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(FORMATS),
    help="Default: by the suffix of --output (.md, .tex, .csv, .json, .html, .txt), else terminal.",
)
@click.option("--output", type=PATH, metavar="FILE", help="Write there instead of printing.")
def leaderboard(
    runs: tuple[Path, ...],
    published: tuple[str, ...],
    all_published: bool,
    published_file: Path | None,
    edition: str | None,
    allow_editions: bool,
    tasks_too: bool,
    wanted: Format | None,
    output: Path | None,
) -> None:
    """Rank run folders, imported scores and published ones by their mean over all tasks.

    Beside each rank stand the ranks that other queries of the same tasks might have given; models that can't be told
    apart share a letter. What is incomplete or limited is not ranked; synthetic scores are ranked among themselves.
    """
    from mmeb_harness.core.files import write_text
    from mmeb_harness.core.registry import benchmark_edition
    from mmeb_harness.show.leaderboard import Entry, load_entry, tasks_of_edition
    from mmeb_harness.show.leaderboard import leaderboard as rank
    from mmeb_harness.show.leaderboard_formats import print_board, render

    chosen = _format(wanted, output)
    check_not_read("--output", output, runs)
    registered = tasks_of_edition(edition)
    edition = edition or benchmark_edition(registered.values())
    entries = [load_entry(path) for path in runs]
    entries += [Entry(scores) for scores in _published(published, all_published, published_file, edition)]
    board = rank(entries, registered, edition=edition, allow_editions=allow_editions, with_tasks=tasks_too)
    if output is not None:
        write_text(output, render(board, chosen))
        say_kept(f"{len(board.ranked)} ranked, {len(board.apart)} not: {output}")
    elif chosen == "terminal":
        print_board(board, console(width_elsewhere=ENDLESS))
    else:
        say(render(board, chosen), end="")


def _format(wanted: Format | None, output: Path | None) -> Format:
    """As asked for, or by the suffix of the file; the two must not disagree."""
    from mmeb_harness.show.leaderboard_formats import SUFFIXES

    if output is None:
        return wanted or "terminal"
    by_suffix = SUFFIXES.get(output.suffix.lower())
    if wanted is None and by_suffix is None:
        raise OptionError(
            f"--output {output}: no format has the suffix {output.suffix!r}; use {', '.join(SUFFIXES)}, or --format"
        )
    if wanted is not None and by_suffix not in (None, wanted):
        raise OptionError(f"--output {output} and --format {wanted} disagree; leave --format out, or rename the file")
    return wanted or by_suffix or "terminal"


def _published(names: tuple[str, ...], every: bool, file: Path | None, edition: str) -> list[Scores]:
    from mmeb_harness.results.published import PUBLISHED_FILE, find_published, load_published
    from mmeb_harness.show.leaderboard import all_published

    if not names and not every:
        if file is not None:
            raise OptionError(
                f"--published-file {file}: nothing of it is asked for; add --published or --all-published"
            )
        return []
    known = load_published(file or PUBLISHED_FILE)
    named = [find_published(known, name) for name in names]
    return named + [scores for scores in all_published(known, edition) if every and scores not in named]
