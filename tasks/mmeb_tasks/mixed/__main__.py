"""`python -m mmeb_tasks.mixed FOLDER --split train --queries 4000`: make a split of the suite "mixed"."""

from mmeb_harness import run_command
from mmeb_tasks.mini.command import split_command
from mmeb_tasks.miniworld.tasks import EVERY_SPLIT
from mmeb_tasks.mixed import TEST_QUERIES, make_split

run_command(split_command("the suite mixed", make_split, EVERY_SPLIT, TEST_QUERIES))
