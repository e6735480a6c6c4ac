"""`mmeb-eval report`: finished runs as one HTML page."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from mmeb_harness.cli.options import PATH, check_not_read, label_option
from mmeb_harness.core.errors import counted
from mmeb_harness.core.terminal import say, say_kept
from mmeb_harness.core.waiting import each_of

DEFAULT_THUMBNAILS = 8


@click.command()
@click.argument("runs", nargs=-1, type=PATH, metavar="RUN...", required=True)
@click.option("--output", type=PATH, required=True, metavar="FILE", help="The HTML file to write.")
@click.option("--data", type=PATH, metavar="FOLDER", help="Of the runs. Default: the suite's, for runs of a suite.")
@click.option(
    "--thumbnails",
    type=int,
    default=DEFAULT_THUMBNAILS,
    show_default=True,
    metavar="N",
    help="Queries of each task that are shown with their pictures.",
)
@click.option("--allow-editions", is_flag=True, help="Runs of several editions of the benchmark on one page.")
@label_option
def report(
    runs: tuple[Path, ...],
    output: Path,
    data: Path | None,
    thumbnails: int,
    allow_editions: bool,
    labels: tuple[str, ...],
) -> None:
    """Write one HTML page of runs: scores, all tasks, every query side by side.

    It holds all it needs and opens from a file. The first run is the reference. Pictures are shown of the queries
    over which the runs disagree, then of wrong ones.
    """
    from mmeb_harness.show.page.make import make_page
    from mmeb_harness.show.page.values import InlinePicture
    from mmeb_harness.show.pictures import pictures_of
    from mmeb_harness.show.pictures.picture import png_of

    check_not_read("--output", output, runs)
    pictures, left_out = pictures_of(runs, allow_editions=allow_editions, labels=labels)
    summary = make_page(
        runs,
        output,
        data=data,
        thumbnails=thumbnails,
        allow_editions=allow_editions,
        labels=labels,
        pictures=[InlinePicture(picture.title, picture.alt, png_of(picture)) for picture in pictures],
        progress=partial(each_of, "report, tasks"),
    )
    for line in left_out:
        say(f"no picture of {line}", err=True)
    for remark in summary.remarks:
        say(f"remark: {remark}", err=True)
    holds = (counted(len(summary.runs), "run"), counted(len(summary.tasks), "task"))
    queries = sum(task.num_queries for task in summary.tasks)
    say_kept(f"{', '.join(holds)}, {queries:,} queries, {output.stat().st_size / 2**20:.1f} MB: {output}")
