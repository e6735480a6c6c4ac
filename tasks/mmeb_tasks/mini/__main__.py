"""`python -m mmeb_tasks.mini FOLDER --split train --queries 500`: make a split, e.g. to train on."""

from __future__ import annotations

from pathlib import Path

import click

from mmeb_harness import HarnessError
from mmeb_tasks.mini import TEST_QUERIES, Split, make_split


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["train", "test"]), default="test", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--queries", type=int, default=TEST_QUERIES, show_default=True, help="Queries of each task.")
def main(folder: Path, split: Split, seed: int, queries: int) -> None:
    """Make a split of the mini suite in FOLDER."""
    try:
        make_split(folder, seed, split, queries)
    except HarnessError as error:
        raise click.ClickException(str(error)) from error


main()
