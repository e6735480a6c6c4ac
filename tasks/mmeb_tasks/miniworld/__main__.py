"""`python -m mmeb_tasks.miniworld FOLDER --split train --queries 12000`: make a split of the world in miniature."""

from mmeb_tasks.mini.command import split_command
from mmeb_tasks.miniworld import make_split
from mmeb_tasks.miniworld.tasks import EVERY_SPLIT

split_command("the world in miniature", make_split, EVERY_SPLIT, 2048)()
