"""`mmeb-eval leaderboard`: who ranks where, and how certainly.

As in `cli`: options become values, and heavy imports stay inside the command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmeb_harness.cli.options import PATH, check_not_read, label_option
from mmeb_harness.core.errors import OptionError
from mmeb_harness.core.terminal import ENDLESS, console, say, say_kept
from mmeb_harness.core.waiting import each_of

if TYPE_CHECKING:
    from mmeb_harness.show.contests import Entry
    from mmeb_harness.show.page.board import AnyFormat

FORMATS = ("md", "latex", "csv", "json", "html", "terminal")


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="[RUN|SCORES FILE]...")
@click.option("--published", multiple=True, metavar="MODEL", help="Add a published model; may be repeated.")
@click.option("--all-published", is_flag=True, help="Add every published model of the table's edition, a row each.")
@click.option("--published-file", type=PATH, metavar="FILE", help="Default: the table that comes with the package.")
@click.option(
    "--edition",
    "editions",
    multiple=True,
    help="Of the table: page-fixed, v2.0.0, v2.0.1, v3, v3-unfixed, or a source of MMEB-V3's published means; may be "
    "repeated. Default: those of the runs, a table each.",
)
@click.option("--allow-editions", is_flag=True, help="Rank other editions in one table all the same, marked.")
@click.option("--tasks-too", is_flag=True, help="All tasks, not only groups, modalities and overall.")
@label_option
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
    editions: tuple[str, ...],
    allow_editions: bool,
    tasks_too: bool,
    labels: tuple[str, ...],
    wanted: AnyFormat | None,
    output: Path | None,
) -> None:
    """Rank run folders, imported scores and published ones by their mean over all tasks.

    Beside each rank stand the ranks that other queries of the same tasks might have given; models that can't be told
    apart share a letter. What is incomplete or limited is not ranked. Editions, made-up data and data of your own have
    a table each.
    """
    from mmeb_harness.core.files import write_text
    from mmeb_harness.show.contests import load_entry
    from mmeb_harness.show.leaderboard import leaderboards
    from mmeb_harness.show.leaderboard_formats import print_boards
    from mmeb_harness.show.names import labelled
    from mmeb_harness.show.page.board import rendered

    chosen = _format(wanted, output)
    check_not_read("--output", output, runs)
    if allow_editions and len(editions) > 1:
        raise OptionError(f"--allow-editions ranks all in one table, of one --edition, not of {', '.join(editions)}")
    editions = tuple(dict.fromkeys(editions))
    entries = [load_entry(path) for path in each_of("reading runs", runs)]
    entries += _published(published, all_published, published_file, editions, entries)
    named = labelled([entry.scores for entry in entries], runs, labels)
    entries = [dataclasses.replace(entry, scores=scores) for entry, scores in zip(entries, named, strict=True)]
    tasks_too = tasks_too or chosen == "html"  # there they are folded
    boards = leaderboards(entries, editions=editions, allow_editions=allow_editions, with_tasks=tasks_too)
    if output is not None:
        write_text(output, rendered(boards, chosen))
        ranked, apart = sum(len(board.ranked) for board in boards), sum(len(board.apart) for board in boards)
        tables = f", {len(boards)} tables" if len(boards) > 1 else ""
        say_kept(f"{ranked} ranked, {apart} not{tables}: {output}")
    elif chosen == "terminal":
        print_boards(boards, console(width_elsewhere=ENDLESS))
    else:
        say(rendered(boards, chosen), end="")


def _format(wanted: AnyFormat | None, output: Path | None) -> AnyFormat:
    """As asked for, or by the suffix of the file; the two must not disagree."""
    from mmeb_harness.show.page.board import FORMAT_OF

    if output is None:
        return wanted or "terminal"
    by_suffix = FORMAT_OF.get(output.suffix.lower())
    if wanted is None and by_suffix is None:
        raise OptionError(
            f"--output {output}: no format has the suffix {output.suffix!r}; use {', '.join(FORMAT_OF)}, or --format"
        )
    if wanted is not None and by_suffix not in (None, wanted):
        raise OptionError(f"--output {output} and --format {wanted} disagree; leave --format out, or rename the file")
    return wanted or by_suffix or "terminal"


def _published(
    names: tuple[str, ...], every: bool, file: Path | None, editions: Sequence[str], entries: Sequence[Entry]
) -> list[Entry]:
    """Those that are named, and every one of the editions asked for: by default those of the real runs here."""
    from mmeb_harness.core.registry import benchmark_edition, load_tasks
    from mmeb_harness.results.published import find_published, load_published
    from mmeb_harness.show.contests import published_entry
    from mmeb_harness.show.leaderboard import all_published

    if not names and not every:
        if file is not None:
            raise OptionError(
                f"--published-file {file}: nothing of it is asked for; add --published or --all-published"
            )
        return []
    known = load_published(file)
    chosen = [find_published(known, name) for name in names]
    own = [entry.scores.edition for entry in entries if not entry.scores.synthetic and entry.scores.edition]
    shown = list(editions or dict.fromkeys(own)) or [benchmark_edition(load_tasks().values())]
    for edition in shown if every else []:
        chosen += [scores for scores in all_published(known, edition) if scores not in chosen]
    return [published_entry(scores) for scores in chosen]
