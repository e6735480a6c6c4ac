"""What runs and models go by where they are shown."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mmeb_harness.core.errors import OptionError, UnknownNameError
from mmeb_harness.results.scores import Scores


def plain(text: str) -> str:
    """Text from files on one line, without what a terminal or browser would obey rather than show."""
    shown = "".join(" " if mark.isspace() else mark if mark.isprintable() else "\ufffd" for mark in text)
    return " ".join(shown.split()) or "unnamed"


def distinct_names(columns: Sequence[Scores]) -> list[Scores]:
    """Two runs may be named alike: then they go by where they come from."""
    names = Counter(scores.name for scores in columns)
    return [
        scores if names[scores.name] == 1 else dataclasses.replace(scores, name=scores.source) for scores in columns
    ]


def labelled(columns: Sequence[Scores], paths: Sequence[Path], labels: Sequence[str]) -> list[Scores]:
    """The same scores under the names that somebody wants for them.

    Args:
        paths: where the first of the columns come from; the others were published.
        labels: RUN=NAME each; RUN is one of the paths, or what the column is named.

    Raises:
        OptionError: no RUN=NAME, or one run or name in several.
        UnknownNameError: a RUN that none of them is.
    """
    wanted: dict[int, str] = {}
    for label in labels:
        place, name = _label(label, columns, paths)
        if place in wanted:
            raise OptionError(f"--label: {columns[place].name} is to be {wanted[place]!r} and {name!r}; label it once")
        wanted[place] = name
    renamed = [dataclasses.replace(own, name=wanted.get(place, own.name)) for place, own in enumerate(columns)]
    names = Counter(scores.name for scores in renamed)
    for place, name in wanted.items():
        if names[name] > 1:
            raise OptionError(
                f"--label {columns[place].name}={name}: another one is called {name!r}, too; give each its own name"
            )
    return renamed


def _label(label: str, columns: Sequence[Scores], paths: Sequence[Path]) -> tuple[int, str]:
    """Which column is meant, and its name; a path or a name may hold a = of its own."""
    run, equals, name = label.rpartition("=")
    if not (equals and run.strip() and name.strip()):
        raise OptionError(f"--label {label}: write RUN=NAME, with a run that is shown here and what it is to be called")
    for end in (place for place, mark in enumerate(label) if mark == "="):
        places = _places(label[:end], columns, paths)
        if len(places) > 1:
            raise OptionError(f"--label {label}: {len(places)} of these are named {label[:end]!r}; name the folder")
        if places and label[end + 1 :].strip():
            return places[0], plain(label[end + 1 :])
    raise UnknownNameError("run", run, [*map(str, paths), *(scores.name for scores in columns)])


def _places(run: str, columns: Sequence[Scores], paths: Sequence[Path]) -> list[int]:
    meant = Path(run).expanduser().resolve()
    by_path = [place for place, path in enumerate(paths) if path.expanduser().resolve() == meant]
    return by_path or [place for place, scores in enumerate(columns) if scores.name == run]
