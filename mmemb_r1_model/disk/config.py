"""Configurations: YAML files that come with the package or are somebody's own, and `--set KEY=VALUE` on top."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from mmeb_harness import build_config, matching, parse_record, parse_yaml, read_yaml
from mmemb_r1_model.disk.errors import OptionError, UnknownNameError

__all__ = [
    "OPEN",
    "Above0",
    "Below1",
    "Least0",
    "Least0Float",
    "Least1",
    "Seed",
    "Share",
    "build_config",
    "closed",
    "named_config",
    "open_keys",
    "override",
    "parse_record",
    "read_yaml",
]

#: Numbers of configurations, which `build_config` holds to these bounds.
Least0 = Annotated[int, Ge(0)]
Least1 = Annotated[int, Ge(1)]
Least0Float = Annotated[float, Ge(0)]
Above0 = Annotated[float, Gt(0)]
Below1 = Annotated[float, Ge(0), Lt(1)]
Share = Annotated[float, Ge(0), Le(1)]
#: torch takes 64 bits, and steps are added.
Seed = Annotated[int, Ge(0), Lt(1 << 60)]

#: In a configuration that comes along: only who runs it can know the value.
OPEN = "???"
_PLACE = re.compile(r"(\w+)\[(\d+)\]")


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b.c=value`, or `a.b[0].c=value` in a list; the value is read as YAML.

    Raises:
        OptionError: no equals sign, no YAML, a path through something that is no mapping, or past a list's end.
    """
    import copy

    changed = copy.deepcopy(values)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise OptionError(f"--set {assignment!r} has no value; write --set train.loop.steps=100")
        *parents, last = path.split(".")
        inner = changed
        for parent in parents:
            inner = _below(inner, parent, assignment)
        try:
            inner[last] = parse_yaml(text)
        except ValueError as error:
            raise OptionError(f"--set {assignment!r}: {error}") from error
    return changed


def _below(outer: dict[str, Any], step: str, assignment: str) -> dict[str, Any]:
    """The group of settings one step down a path; made where there is none."""
    place = _PLACE.fullmatch(step)
    if place is None:
        inner = outer.setdefault(step, {})
    else:
        name, number = place[1], int(place[2])
        groups = outer.get(name)
        if not isinstance(groups, list) or number >= len(groups):
            raise OptionError(f"--set {assignment!r}: there is no {step}")
        inner = groups[number]
    if not isinstance(inner, dict):
        raise OptionError(f"--set {assignment!r}: {step} is no group of settings")
    return inner


def open_keys(values: Any, where: str = "") -> list[str]:
    """Keys whose value is still `OPEN`, as `--set` names them."""
    if values == OPEN:
        return [where]
    if isinstance(values, Mapping):
        return [key for name, value in values.items() for key in open_keys(value, f"{where}.{name}".lstrip("."))]
    if isinstance(values, list):
        return [key for place, value in enumerate(values) for key in open_keys(value, f"{where}[{place}]")]
    return []


def closed(values: Any) -> Any:
    """The same with a name in the place of every value that is still `OPEN`, where none of them matters."""
    if isinstance(values, Mapping):
        return {name: closed(value) for name, value in values.items()}
    if isinstance(values, list):
        return [closed(value) for value in values]
    return "unknown" if values == OPEN else values


def named_config(name: str, folder: Literal["configs", "studies"] = "configs") -> Path:
    """A file, or a configuration that comes with the package, by name.

    Raises:
        UnknownNameError: neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    known = {path.stem: path for path in matching(Path(__file__).resolve().parents[1] / folder, "*.yaml")}
    if name not in known:
        raise UnknownNameError("configuration", name, known)
    return known[name]
