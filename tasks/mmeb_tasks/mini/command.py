"""The command that makes a split of a suite, which `python -m` runs of the mini suite and of the world in miniature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click


def split_command(
    what: str, make_split: Callable[..., None], splits: Sequence[str], queries: int, *options: click.Option
) -> click.Command:
    """A command over a `make_split` of a suite that is called `what`; `queries` a task by default.

    Args:
        options: of this suite alone, handed on by name.
    """

    @click.command(help=f"Make a split of {what} in FOLDER.")
    @click.argument("folder", type=click.Path(path_type=Path))
    @click.option("--split", type=click.Choice(splits), default="test", show_default=True)
    @click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
    @click.option("--queries", type=click.IntRange(1), default=queries, show_default=True, help="Queries of each task.")
    @click.option("--task", "tasks", multiple=True, help="A task; may be repeated. Default: all that the split has.")
    def main(folder: Path, split: str, seed: int, queries: int, tasks: tuple[str, ...], **others: Any) -> None:
        make_split(folder, seed, split, queries, tasks or None, **others)

    main.params += options
    return main
