"""`python -m mmeb_tasks.miniworld FOLDER --split train --queries 12000`: make a split of the world in miniature."""

import click

from mmeb_harness import run_command
from mmeb_tasks.mini.command import split_command
from mmeb_tasks.miniworld import WORKERS, make_split
from mmeb_tasks.miniworld.render import MAX_DOTS
from mmeb_tasks.miniworld.tasks import EVERY_SPLIT

workers = click.Option(
    ["--workers"],
    type=click.Choice(list(WORKERS)),
    default="careful",
    show_default=True,
    help="careful: only the wrong one errs; fallible: each does, and of some sides all they write is wrong.",
)
hops = click.Option(
    ["--hops"],
    type=click.IntRange(0, MAX_DOTS),
    multiple=True,
    help="Hops of chains; may be repeated. Default: each task's own.",
)
run_command(split_command("the world in miniature", make_split, EVERY_SPLIT, 2048, workers, hops))
