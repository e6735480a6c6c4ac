"""What a shell offers after Tab: names that are registered, and folders of runs. docs/run.md says how to turn it on.

What can't be read offers nothing: the command itself says what is wrong, Tab has no place for it.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mmeb_harness.core.errors import HarnessError
from mmeb_harness.core.items import MODALITIES

#: Given what is typed of a word, what it may become.
Complete = Callable[[str], list[CompletionItem]]

#: Entries of a folder that are looked at: Tab must not wait for one with a million pictures.
_ENTRIES = 2_000


def complete_values(command: click.Command) -> None:
    """Give a command, and those below it, the completion that their parameters' names and metavars ask for."""
    for parameter in command.params:
        if complete := _completion_of(parameter):
            parameter.shell_complete = functools.partial(_without_context, complete)  # type: ignore[method-assign]
    for below in getattr(command, "commands", {}).values():
        complete_values(below)


def _completion_of(parameter: click.Parameter) -> Complete | None:
    metavar = parameter.metavar or ""
    if "RUN" in metavar or parameter.name == "run":
        return _runs
    if metavar == "FOLDER":
        return lambda begun: [CompletionItem(begun, type="dir")]
    return _NAMES.get(parameter.name or "")


def _without_context(complete: Complete, _context: click.Context, begun: str) -> list[CompletionItem]:
    return complete(begun)


def _names(list_names: Callable[[], Iterable[str]], begun: str, *, several: bool = True) -> list[CompletionItem]:
    """Names in whatever case they are begun; of several, the one after the last comma."""
    before, comma, last = begun.rpartition(",") if several else ("", "", begun)
    try:
        names = sorted(set(list_names()) - {*before.split(",")})
    except HarnessError:
        return []
    return [CompletionItem(f"{before}{comma}{name}") for name in names if name.lower().startswith(last.lower())]


def _tasks() -> Iterable[str]:
    from mmeb_harness.core.registry import load_tasks

    return load_tasks()


def _groups() -> Iterable[str]:
    from mmeb_harness.core.registry import load_tasks

    return (standing.task.group for standing in load_tasks().values())


def _models() -> Iterable[str]:
    from mmeb_harness.core.registry import model_names

    return model_names()


def _published() -> Iterable[str]:
    from mmeb_harness.results.published import load_published

    return (scores.name for scores in load_published())


#: By the name of a parameter.
_NAMES: Mapping[str, Complete] = {
    "tasks": functools.partial(_names, _tasks),
    "groups": functools.partial(_names, _groups),
    "modalities": functools.partial(_names, lambda: MODALITIES),
    "model": lambda begun: _names(_models, begun, several=False) or [CompletionItem(begun, type="file")],
    "published": functools.partial(_names, _published, several=False),
}


def _runs(begun: str) -> list[CompletionItem]:
    """Folders with a run.json, here or one below; where there is none, files and folders."""
    start = begun.rpartition("/")[2]
    written = begun.removesuffix(start)
    root = Path(written or ".").expanduser()
    near = [path for path in _folders_in(root) if path.name.startswith(start)]
    runs = [path for path in itertools.chain(near, *map(_folders_in, near)) if (path / "run.json").is_file()]
    return [CompletionItem(f"{written}{path.relative_to(root)}") for path in sorted(runs)] or [
        CompletionItem(begun, type="file")
    ]


def _folders_in(root: Path) -> Iterator[Path]:
    """Those that aren't hidden."""
    try:
        with os.scandir(root) as entries:
            some = list(itertools.islice(entries, _ENTRIES))
    except OSError:
        return
    yield from (root / entry.name for entry in some if entry.is_dir() and not entry.name.startswith("."))
