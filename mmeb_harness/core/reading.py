"""JSON and YAML into frozen dataclasses by their annotations, strictly: text is no number, and true is no 1.

What doesn't fit is one line with its source, its dotted place, its value and what would fit.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import operator
import types
import typing
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from mmeb_harness.core.errors import HarnessError, OptionError, ResultError, UnknownNameError, one_line
from mmeb_harness.core.files import read_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Contents = TypeVar("Contents")


@dataclass(frozen=True)
class JsonFile(Generic[Contents]):
    """A kind of JSON file: a dataclass written whole, with a `schema_version`.

    Attributes:
        what: its name in messages, with the article.
        way_out, if_damaged: what to do about a file of another version or kind, and about a damaged one.
        mark: a field that only files of this kind have.
        added: fields that older files of the same version lack. Any other must be there, whatever its default.
    """

    contents: type[Contents]
    what: str
    version: int
    way_out: str
    if_damaged: str
    mark: str = "schema_version"
    added: frozenset[str] = frozenset()
    error: type[HarnessError] = ResultError

    def read(self, path: Path) -> Contents:
        """What a file holds.

        Raises:
            HarnessError: of the class `error`: not readable, something else, of another version, or damaged.
        """
        values = read_json(path, self.error, self.if_damaged)
        version = values.get("schema_version") if isinstance(values, dict) and self.mark in values else None
        if type(version) is not int:
            raise self.error(f"{path} is not {self.what} of this harness; {self.way_out}")
        if version > self.version:
            raise self.error(
                f"{path} has schema version {version}, this release reads up to {self.version}: upgrade mmeb-harness, "
                f"or {self.way_out}"
            )
        if version < self.version:
            raise self.error(
                f"{path} was written by an older release (schema version {version}, this one writes {self.version}); "
                f"{self.way_out}"
            )
        try:
            contents = _built(self.contents, values, "", "it")
            there = set(_places(values))
            for place in _places(dataclasses.asdict(cast(Any, contents))):
                if place not in there and place.rpartition(".")[2] not in self.added:
                    raise OptionError(f"it lacks {place!r}")
        except HarnessError as error:
            what = f"{self.what} of schema version {version}"
            raise self.error(f"{path} is not {what} ({error}); {self.if_damaged}") from error
        return contents


def build_config(kind: type[Contents], values: object, source: str = "") -> Contents:
    """A dataclass from a mapping of its fields, as YAML holds it; what isn't given keeps its default.

    Args:
        source: the file, for messages.

    Raises:
        UnknownNameError: a key that is no field; the nearest is suggested.
        OptionError: a value of the wrong type, or a field without a default that is missing.
    """
    return _built(kind, values, source, source or "the configuration", numbers_as_text=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file's mapping.

    Raises:
        OptionError: not readable, not YAML, or no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise OptionError(f"can't read configuration {path}: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise OptionError(f"configuration {path} must be a mapping of names to values")
    return values


def _built(kind: type[Contents], values: object, source: str, whole: str, numbers_as_text: bool = False) -> Contents:
    from pydantic import ValidationError

    try:
        # As JSON: there a list may become a tuple and a mapping a dataclass, while scalars stay strict.
        text = json.dumps([values], default=lambda value: _refuse(value, whole))
    except (TypeError, ValueError) as error:  # keys that are dates, values that hold themselves
        raise OptionError(f"{whole}: {error}") from error
    try:
        return cast(Contents, _adapter(cast(Hashable, kind)).validate_json(text)[0])
    except ValidationError as error:
        problems = error.errors(include_url=False)
    if numbers_as_text and (mended := _with_numbers(values, problems)) != values:
        return _built(kind, mended, source, whole)
    raise _misfit(kind, problems, source, whole)


def _refuse(value: object, whole: str) -> object:
    """YAML has dates, sets and more."""
    raise OptionError(f"{whole}: {value} is read as a {type(value).__name__}; put it in quotes if it is meant as text")


@functools.cache
def _adapter(kind: Hashable) -> TypeAdapter[tuple[object]]:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple, since an adapter takes no settings for a dataclass itself; the dataclasses in it have no others.
    return TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid", strict=True))  # type: ignore[arg-type, valid-type]


def _with_numbers(values: object, problems: Sequence[ErrorDetails]) -> object:
    """Values with a number wherever one is wanted and text spells it: YAML reads 1.0e-4 as a number, 1e-4 as text."""
    mended: Any = copy.deepcopy(values)
    for problem in problems:
        if problem["type"] == "float_type" and isinstance(problem["input"], str):
            *parents, last = problem["loc"][1:]
            with contextlib.suppress(ValueError):  # no number: the problem stays
                functools.reduce(operator.getitem, parents, mended)[last] = float(problem["input"])
    return mended


def _misfit(kind: type, problems: Sequence[ErrorDetails], source: str, whole: str) -> HarnessError:
    """The error that names what doesn't fit; of several a key that is no field, since it explains one that lacks."""
    problem = min(problems, key=lambda problem: problem["type"] != "unexpected_keyword_argument")
    (_, *steps), value = problem["loc"], problem["input"]
    name = steps.pop() if problem["type"] in ("unexpected_keyword_argument", "missing") else None
    place, wanted = _followed(kind, steps)
    where = ": ".join(filter(None, (source, place))) or whole
    if problem["type"] == "unexpected_keyword_argument":
        return UnknownNameError(f"setting in {where}", str(name), get_type_hints(wanted[0]))
    if isinstance(name, str):
        return OptionError(f"{where} lacks {name!r}")
    if isinstance(value, list) and get_origin(wanted[0]) is tuple:
        return OptionError(f"{where} must have {len(get_args(wanted[0]))} values, not {len(value)}")
    return OptionError(f"{where} must be {' or '.join(map(_described, wanted))}, not {value!r}")


def _followed(kind: Any, steps: Sequence[str | int]) -> tuple[str, list[Any]]:
    """The dotted place that steps lead to, and the types that may stand there."""
    place, allowed = "", members_of(kind)
    for step in steps:
        kind, *others = allowed
        if others:
            break  # what follows names one of them
        arguments = get_args(kind)
        if isinstance(step, int):
            place += f"[{step}]"
            inner = arguments[0 if arguments[-1] is Ellipsis else step]
        else:
            place = f"{place}.{step}".lstrip(".")
            inner = get_type_hints(kind)[step] if dataclasses.is_dataclass(kind) else arguments[-1]
        allowed = members_of(inner)
    return place, allowed


def members_of(kind: Any) -> list[Any]:
    """The types of a union, without None; of any other annotation it alone."""
    is_union = get_origin(kind) in (types.UnionType, typing.Union)
    return [member for member in get_args(kind) if member is not types.NoneType] if is_union else [kind]


def _described(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if origin is None and not dataclasses.is_dataclass(kind):
        return str(kind.__name__)
    return "a list" if origin is tuple else "a mapping"


def _places(value: object, place: str = "") -> Iterator[str]:
    """The dotted places of all that mappings and lists hold."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        yield (below := f"{place}.{key}".lstrip("."))
        yield from _places(inner, below)
