"""`python -m mmeb_tasks.miniworld FOLDER --split train --queries 12000`: make a split of the world in miniature."""

from __future__ import annotations

from pathlib import Path

import click

from mmeb_harness import HarnessError
from mmeb_tasks.miniworld import make_split
from mmeb_tasks.miniworld.world import EVERY_SPLIT, Split


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(EVERY_SPLIT), default="test", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--queries", type=click.IntRange(1), default=2048, show_default=True, help="Queries of each task.")
@click.option("--task", "tasks", multiple=True, help="A task; may be repeated. Default: all that the split has.")
def main(folder: Path, split: Split, seed: int, queries: int, tasks: tuple[str, ...]) -> None:
    """Make a split of the world in miniature in FOLDER."""
    try:
        make_split(folder, seed, split, queries, tasks or None)
    except HarnessError as error:
        raise click.ClickException(str(error)) from error


main()
