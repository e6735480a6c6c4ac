"""JSON and YAML into frozen dataclasses by their annotations, strictly: text is no number, and true is no 1.

What doesn't fit is one line with its source, its dotted place, its value and what would fit.
"""

from __future__ import annotations

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
    """A kind of JSON file that is written whole, from a dataclass with a `schema_version`.

    Attributes:
        what: its name in messages, with the article.
        way_out: of a damaged file, for messages.
        if_older, if_foreign, if_newer: ways out where they differ; a foreign file has no schema version, or no `mark`.
        added: fields that older files of the same version lack; any other that is absent is an error, even if the
            dataclass has a default.
    """

    contents: type[Contents]
    what: str
    version: int
    way_out: str
    if_older: str = ""
    if_foreign: str = ""
    if_newer: str = "upgrade mmeb-harness"
    mark: str = "schema_version"
    added: frozenset[str] = frozenset()
    error: type[HarnessError] = ResultError

    def read(self, path: Path) -> Contents:
        """What a file holds.

        Raises:
            HarnessError: of the class `error`: not readable, something else, of another version, or damaged.
        """
        values = read_json(path, self.error, self.way_out)
        version = values.get("schema_version") if isinstance(values, dict) and self.mark in values else None
        if type(version) is not int:
            raise self.error(f"{path} is not {self.what} of this harness; {self.if_foreign or self.way_out}")
        if version > self.version:
            raise self.error(
                f"{path} has schema version {version}, this release reads up to {self.version}: {self.if_newer}"
            )
        if version < self.version:
            raise self.error(
                f"{path} was written by an older release (schema version {version}, this one writes {self.version}); "
                f"{self.if_older or self.way_out}"
            )
        try:
            contents = _built(self.contents, values)
            absent = (place for place in _absent(contents, values) if place.rpartition(".")[2] not in self.added)
            if (place := next(absent, None)) is not None:
                raise OptionError(f"it lacks {place!r}")
        except HarnessError as error:
            raise self.error(
                f"{path} is not {self.what} of schema version {version} ({error}); {self.way_out}"
            ) from error
        return contents


def build_config(kind: type[Contents], values: object, source: str = "") -> Contents:
    """A dataclass from a mapping of its fields, as YAML holds it; what isn't given keeps its default.

    Args:
        source: the file, for messages.

    Raises:
        UnknownNameError: a key that is no field; the nearest is suggested.
        OptionError: a value of the wrong type, or a field without a default that is missing.
    """
    return _built(kind, values, source, is_config=True)


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


def _built(kind: type[Contents], values: object, source: str = "", is_config: bool = False) -> Contents:
    from pydantic import ValidationError

    whole = source or ("the configuration" if is_config else "it")
    try:
        # As JSON: there a list may become a tuple and a mapping a dataclass, while scalars stay strict.
        text = json.dumps([values])
    except (TypeError, ValueError) as error:  # YAML has dates, sets and more
        raise OptionError(f"{whole}: {error}; put the value in quotes") from error
    try:
        (contents,) = _adapter(cast(Hashable, kind)).validate_json(text)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        mended = _with_numbers(values, problems) if is_config else values
        if mended != values:
            return _built(kind, mended, source, is_config)
        raise _misfit(kind, problems, source, whole) from None
    return cast(Contents, contents)


@functools.cache
def _adapter(kind: Hashable) -> TypeAdapter[tuple[object]]:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple, since an adapter takes no settings for a dataclass itself; the dataclasses in it have no others.
    return TypeAdapter(tuple[kind], config=ConfigDict(extra="forbid", strict=True))  # type: ignore


def _with_numbers(values: object, problems: Sequence[ErrorDetails]) -> object:
    """Values with a number wherever one is wanted and text spells it: YAML reads 1.0e-4 as a number, 1e-4 as text."""
    mended = copy.deepcopy(values)
    for problem in problems:
        if problem["type"] == "float_type" and isinstance(problem["input"], str):
            *parents, last = problem["loc"][1:]
            try:
                functools.reduce(operator.getitem, parents, mended)[last] = float(problem["input"])  # type: ignore
            except ValueError:
                continue  # stays a problem
    return mended


def _misfit(kind: type, problems: Sequence[ErrorDetails], source: str, whole: str) -> HarnessError:
    """The error that names what doesn't fit; of several a key that is no field, since it explains one that lacks."""
    problem = min(problems, key=lambda problem: problem["type"] != "unexpected_keyword_argument")
    (_, *steps), value = problem["loc"], problem["input"]
    name = steps.pop() if problem["type"] in ("unexpected_keyword_argument", "missing") else None
    place, wanted = _found_at(kind, steps)
    where = ": ".join(filter(None, (source, place))) or whole
    if problem["type"] == "unexpected_keyword_argument":
        return UnknownNameError(f"setting in {where}", str(name), get_type_hints(wanted))
    if isinstance(name, str):
        return OptionError(f"{where} lacks {name!r}")
    if isinstance(value, list) and get_origin(wanted) is tuple:
        return OptionError(f"{where} must have {len(get_args(wanted))} values, not {len(value)}")
    return OptionError(f"{where} must be {_described(wanted)}, not {value!r}")


def _found_at(kind: Any, steps: Sequence[str | int]) -> tuple[str, Any]:
    """The dotted place that steps lead to, and its annotation."""
    place = ""
    for step in steps:
        arguments = get_args(kind)
        if _is_union(kind):
            break  # what follows is one of its members
        if isinstance(step, int):
            place += f"[{step}]"
            kind = arguments[0 if arguments[-1] is Ellipsis else step]
        else:
            place += f".{step}" if place else step
            kind = get_type_hints(kind)[step] if dataclasses.is_dataclass(kind) else arguments[-1]
        kind = _without_none(kind)
    return place, kind


def _described(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        return "a list"
    if _is_union(kind):
        return " or ".join(_described(member) for member in get_args(kind) if member is not types.NoneType)
    is_mapping = dataclasses.is_dataclass(kind) or get_origin(kind) is not None
    return "a mapping" if is_mapping else str(kind.__name__)


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (types.UnionType, typing.Union)


def _without_none(kind: Any) -> Any:
    members = [member for member in get_args(kind) if member is not types.NoneType]
    return members[0] if _is_union(kind) and len(members) == 1 else kind


def _absent(made: object, values: Any, place: str = "") -> Iterator[str]:
    """Places of fields that the values lack, so that they have their defaults."""
    if dataclasses.is_dataclass(made):
        for field in dataclasses.fields(made):
            inner = f"{place}.{field.name}".lstrip(".")
            if field.name in values:
                yield from _absent(getattr(made, field.name), values[field.name], inner)
            else:
                yield inner
    elif isinstance(made, Mapping):
        for name, value in made.items():
            yield from _absent(value, values[name], f"{place}.{name}".lstrip("."))
    elif isinstance(made, tuple):
        for index, value in enumerate(made):
            yield from _absent(value, values[index], f"{place}[{index}]")
