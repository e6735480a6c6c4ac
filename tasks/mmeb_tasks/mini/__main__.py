"""`python -m mmeb_tasks.mini FOLDER --split train --queries 500`: make a split, e.g. to train on."""

from mmeb_tasks.mini import SPLITS, TEST_QUERIES, make_split
from mmeb_tasks.mini.command import split_command

split_command("the mini suite", make_split, SPLITS, TEST_QUERIES)()
