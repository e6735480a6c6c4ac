"""`python -m mmeb_tasks.mini FOLDER --split train --queries 500`: make a split, e.g. to train on."""

import click

from mmeb_harness import run_command
from mmeb_tasks.mini import SPLITS, TEST_QUERIES, WORKERS, make_split
from mmeb_tasks.mini.command import split_command

workers = click.Option(
    ["--workers"],
    type=click.Choice(WORKERS),
    default=WORKERS[0],
    show_default=True,
    help="Of a training split. naming: rationales of what is to be classified end in the class.",
)
run_command(split_command("the mini suite", make_split, SPLITS, TEST_QUERIES, workers))
