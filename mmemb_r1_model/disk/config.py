"""From a YAML file to frozen dataclasses, by their annotations; what doesn't fit is named with its place."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from mmemb_r1_model.disk.errors import OptionError, UnknownNameError, one_line

Config = TypeVar("Config")

#: In a configuration that comes along: only who runs it can know the value.
OPEN = "???"
_PLACE = re.compile(r"(\w+)\[(\d+)\]")


def build_config(kind: type[Config], values: Any, where: str) -> Config:
    """A dataclass from a mapping of its fields; what isn't given keeps its default.

    Args:
        where: the place of `values`, for messages, e.g. "train.loop".

    Raises:
        UnknownNameError: a key that is no field; the nearest is suggested.
        OptionError: a value of the wrong type, or a field without a default that is missing.
    """
    if not isinstance(values, Mapping):
        raise OptionError(f"{where or 'the configuration'} must be a mapping, not {values!r}")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind))}
    for key in values:
        if key not in fields:
            raise UnknownNameError(f"setting in {where or 'the configuration'}", str(key), fields)
    given = {key: _value(hints[key], value, f"{where}.{key}".lstrip(".")) for key, value in values.items()}
    for name, field in fields.items():
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in given and not has_default:
            raise OptionError(f"{where or 'the configuration'} lacks {name!r}")
    return kind(**given)


def _value(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (one for one in arguments if one is not type(None))
        return _value(hint, value, where)
    if origin is Literal:
        if value not in arguments:
            raise OptionError(f"{where} must be one of {', '.join(map(str, arguments))}, not {value!r}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, where)
    if dataclasses.is_dataclass(hint):
        return build_config(cast(type[Any], hint), value, where)
    return _scalar(hint, value, where)


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise OptionError(f"{where} must be a list, not {value!r}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_value(arguments[0], one, f"{where}[{place}]") for place, one in enumerate(value))
    if len(value) != len(arguments):
        raise OptionError(f"{where} must have {len(arguments)} values, not {len(value)}")
    return tuple(
        _value(one, each, f"{where}[{place}]") for place, (one, each) in enumerate(zip(arguments, value, strict=True))
    )


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML reads 1e-4 as text; 1.0e-4 it reads as a number
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise OptionError(f"{where} must be {hint.__name__}, not {value!r}")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping.

    Raises:
        OptionError: not readable, not YAML, or no mapping.
    """
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OptionError(f"can't read configuration {path}: {one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise OptionError(f"configuration {path} must be a mapping of settings to values")
    return loaded


def override(values: dict[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Apply `a.b.c=value`, or `a.b[0].c=value` in a list; the value is read as YAML.

    Raises:
        OptionError: no equals sign, a path through something that is no mapping, or past a list's end.
    """
    import copy

    import yaml

    changed = copy.deepcopy(values)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise OptionError(f"--set {assignment!r} has no value; write --set train.loop.steps=100")
        *parents, last = path.split(".")
        inner = changed
        for parent in parents:
            inner = _below(inner, parent, assignment)
        inner[last] = yaml.safe_load(text)
    return changed


def _below(outer: dict[str, Any], step: str, assignment: str) -> dict[str, Any]:
    """The group of settings one step down a path; made where there is none."""
    place = _PLACE.fullmatch(step)
    if place is None:
        inner = outer.setdefault(step, {})
    else:
        name, number = place[1], int(place[2])
        ones = outer.get(name)
        if not isinstance(ones, list) or number >= len(ones):
            raise OptionError(f"--set {assignment!r}: there is no {step}")
        inner = ones[number]
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


def named_config(name: str, folder: Literal["configs", "studies"] = "configs") -> Path:
    """A file, or a configuration that comes with the package, by name.

    Raises:
        UnknownNameError: neither.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return path
    known = {one.stem: one for one in (Path(__file__).resolve().parents[1] / folder).glob("*.yaml")}
    if name not in known:
        raise UnknownNameError("configuration", name, known)
    return known[name]
