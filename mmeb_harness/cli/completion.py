"""What a shell offers after Tab: names that are registered, and folders of runs. docs/run.md says how to turn it on.

What can't be read offers nothing: the command itself says what is wrong, Tab has no place for it.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mmeb_harness.cli.options import MODE_NAMES
from mmeb_harness.core.errors import HarnessError

#: Given what is typed of a word, and the edition that is named before it, what it may become.
Complete = Callable[[str, str | None], list[CompletionItem]]

#: Entries of a folder that are looked at: Tab must not wait for one with a million pictures.
_ENTRIES = 2_000


def complete_values(command: click.Command) -> None:
    """Give a command, and those below it, the completion that their parameters' names and metavars ask for."""
    for parameter in command.params:
        if complete := _completion_of(parameter):
            parameter.shell_complete = functools.partial(_in_context, complete)  # type: ignore[method-assign]
    for below in getattr(command, "commands", {}).values():
        complete_values(below)


def _completion_of(parameter: click.Parameter) -> Complete | None:
    metavar = parameter.metavar or ""
    if "RUN" in metavar or parameter.name == "run":
        return lambda begun, _: _runs(begun)
    if metavar == "FOLDER":
        return lambda begun, _: [CompletionItem(begun, type="dir")]
    return _NAMES.get(parameter.name or "")


def _in_context(complete: Complete, context: click.Context, begun: str) -> list[CompletionItem]:
    edition = context.params.get("edition")
    return complete(begun, edition if isinstance(edition, str) else None)


def _names(
    list_names: Callable[[str | None], Iterable[str]], begun: str, edition: str | None, *, several: bool = True
) -> list[CompletionItem]:
    """Names in whatever case they are begun; of several, the one after the last comma."""
    before, comma, last = begun.rpartition(",") if several else ("", "", begun)
    try:
        names = sorted(set(list_names(edition)) - {*before.split(",")})
    except HarnessError:
        return []
    return [_item(f"{before}{comma}{name}") for name in names if name.lower().startswith(last.lower())]


def _item(text: str) -> CompletionItem:
    """A word as the shell takes it: bash, other than zsh and fish, puts it into the line as it is."""
    bash = any(name.endswith("_COMPLETE") and value == "bash_complete" for name, value in os.environ.items())
    return CompletionItem(re.sub(r"([\s()])", r"\\\1", text) if bash else text)


def _tasks(edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.registry import load_tasks

    return load_tasks(edition)


def _groups(edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.registry import load_tasks

    return (standing.task.group for standing in load_tasks(edition).values())


def _modalities(edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.registry import BENCHMARK, load_tasks

    tasks = load_tasks(edition).values()
    return (standing.task.modality for standing in tasks if standing.collection == BENCHMARK)


def _editions(_edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.registry import benchmark_editions

    return benchmark_editions()


def _editions_with_published(_edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.benchmark import MMEB_V2, MMEB_V3

    return (*MMEB_V2.editions, *MMEB_V3.editions)


def _models(_edition: str | None) -> Iterable[str]:
    from mmeb_harness.core.registry import model_names

    return model_names()


def _published(_edition: str | None) -> Iterable[str]:
    from mmeb_harness.results.published import load_published

    return (scores.name for scores in load_published())


#: By the name of a parameter.
_NAMES: Mapping[str, Complete] = {
    "tasks": functools.partial(_names, _tasks),
    "groups": functools.partial(_names, _groups),
    "modalities": functools.partial(_names, _modalities),
    "reasoning": functools.partial(_names, lambda _: MODE_NAMES),
    "edition": functools.partial(_names, _editions, several=False),
    "editions": functools.partial(_names, _editions_with_published, several=False),
    "model": lambda begun, _: _names(_models, begun, None, several=False) or [CompletionItem(begun, type="file")],
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
