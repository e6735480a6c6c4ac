"""JSON and YAML into frozen dataclasses by their annotations, strictly: text is no number, and true is no 1.

What doesn't fit is one line with its source, its dotted place, its value and what would fit.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import math
import operator
import os
import re
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from mmeb_harness.core.errors import HarnessError, OptionError, ResultError, UnknownNameError, one_line
from mmeb_harness.core.files import check_plain, fingerprint, read_json, readable_size, regular_file, write_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails
    from yaml import MappingNode, Node, SafeLoader

Contents = TypeVar("Contents")

_CHECKSUM = "checksum"
#: Of a configuration file: bytes, levels of lists and mappings, values with all aliases written out.
_LARGEST_CONFIG = 1 << 20
_DEEPEST_YAML = 50
_MOST_VALUES = 20_000
_TAG = "tag:yaml.org,2002:"
#: A variable that pydantic reads whenever it makes an adapter.
_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


@dataclass(frozen=True)
class JsonFile(Generic[Contents]):
    """A kind of JSON file: a dataclass written whole, with a `schema_version`.

    Attributes:
        what: its name in messages, with the article.
        way_out, if_damaged: what to do about a file of another version or kind, and about a damaged one.
        mark: a field that only files of this kind have.
        added: fields that older files of the same version lack. Any other must be there, whatever its default.
        check: raises a HarnessError where a value is none that the field can have.
        others_pass: fields that it doesn't know are passed over.
        sparse: fields, by dotted place, that are written only where they hold something; they have to be in `added`.

    Contents with a field `checksum` are written with one over all the others, by which damage shows when they are read.
    Older files have none.
    """

    contents: type[Contents]
    what: str
    version: int
    way_out: str
    if_damaged: str
    mark: str = "schema_version"
    added: frozenset[str] = frozenset()
    error: type[HarnessError] = ResultError
    check: Callable[[Contents], None] = lambda _: None
    others_pass: bool = False
    sparse: frozenset[str] = frozenset()

    def write(self, path: Path, contents: Contents) -> Contents:
        """Write a file, whole or not at all; returns the contents with their checksum, if they have one.

        Raises:
            HarnessError: of the class `error`: it couldn't be read again, or can't be written.
        """
        values = self.values(contents)
        if _CHECKSUM in values:
            values[_CHECKSUM] = _checksum_of(values)
        try:
            written = _built(self.contents, values, "", "it")
        except HarnessError as error:
            raise self.error(f"{path} is not written, since {self.what} can't hold this: {error}") from error
        write_json(path, values)
        return written

    def values(self, contents: Contents) -> dict[str, Any]:
        """The contents as they stand in a file, but for the checksum."""
        values: dict[str, Any] = _without_empty(dataclasses.asdict(cast(Any, contents)), self.sparse)
        return values

    def read(self, path: Path, *, as_it_stands: bool = False) -> Contents:
        """What a file holds.

        Args:
            as_it_stands: also if its checksum says that it was changed.

        Raises:
            HarnessError: of the class `error`: not readable, something else, of another version, or damaged.
        """
        values = read_json(path, self.error, self.if_damaged)
        version = values.get("schema_version") if isinstance(values, dict) and self.mark in values else None
        if type(version) is not int:
            raise self.error(f"{path} is not {self.what} of this harness; {self.way_out}")
        if version != self.version:
            raise self._of_other_release(path, version)
        if self.others_pass:
            values = {name: values[name] for name in get_type_hints(self.contents) if name in values}
        try:
            contents = _built(self.contents, values, "", "it")
            there = set(_places(values))
            for place in _places(dataclasses.asdict(cast(Any, contents))):
                if place not in there and self.added.isdisjoint(place.split(".")):
                    raise OptionError(f"it lacks {place!r}")
            self.check(contents)
        except HarnessError as error:
            what = f"{self.what} of schema version {version}"
            raise self.error(f"{path} is not {what} ({error}); {self.if_damaged}") from error
        if not as_it_stands and _CHECKSUM in values and values[_CHECKSUM] != _checksum_of(values):
            raise self.error(f"{path} was changed since it was written (its checksum differs); {self.if_damaged}")
        return contents

    def _of_other_release(self, path: Path, version: int) -> HarnessError:
        what = f"this release reads up to {self.version}: upgrade mmeb-harness, or"
        error = self.error(
            f"{path} has schema version {version}, {what} {self.way_out}"
            if version > self.version
            else f"{path} was written by an older release (schema version {version}, this one writes {self.version}); "
            f"{self.way_out}"
        )
        error.other_release = True
        return error


def _without_empty(values: Any, sparse: frozenset[str], place: str = "") -> Any:
    """The same without empty fields at these places, which don't count the entries of a list."""
    if not sparse or not isinstance(values, (dict, list, tuple)):
        return values
    if not isinstance(values, dict):
        return [_without_empty(value, sparse, place) for value in values]
    inner = {key: f"{place}.{key}".removeprefix(".") for key in values}
    return {
        key: _without_empty(value, frozenset(name for name in sparse if name.startswith(inner[key])), inner[key])
        for key, value in values.items()
        if value or inner[key] not in sparse
    }


def _checksum_of(values: Mapping[str, Any]) -> str:
    """Of a file's values, but for the checksum itself."""
    return fingerprint({key: value for key, value in values.items() if key != _CHECKSUM})


def build_config(kind: type[Contents], values: object, source: str = "") -> Contents:
    """A dataclass from a mapping of its fields, as YAML holds it; what isn't given keeps its default.

    Args:
        source: the file, for messages.

    Raises:
        UnknownNameError: a key that is no field; the nearest is suggested.
        OptionError: a value of the wrong type, or a field without a default that is missing.
    """
    return _built(kind, values, source, source or "the configuration", numbers_as_text=True)


def parse_record(kind: type[Contents], line: bytes, source: str) -> Contents:
    """A dataclass from a line of JSON, strictly; what isn't there keeps its default.

    Args:
        source: file and line, for messages.

    Raises:
        UnknownNameError: a key that is no field; the nearest is suggested.
        OptionError: no JSON, a value of the wrong type, or a field without a default that is missing.
    """
    from pydantic import ValidationError

    try:
        return cast(Contents, _adapter(cast(Hashable, kind)).validate_json(b"[%b]" % line)[0])
    except ValidationError as error:
        raise _misfit(kind, error.errors(include_url=False), source, source) from error


def read_yaml(path: Path, texts: Sequence[str] = ()) -> dict[str, Any]:
    """A configuration file's mapping. See `parse_yaml` for what its words mean.

    Args:
        texts: keys whose mappings hold text, whatever it looks like: `{graphs: off, revision: 0012345}`.

    Raises:
        OptionError: not readable, not YAML, no mapping, or values that nobody can mean.
    """
    try:
        content = regular_file(path).read_bytes()
        if len(content) > _LARGEST_CONFIG:
            raise ValueError(f"{readable_size(len(content))} are no configuration")
        values = parse_yaml(content.decode("utf-8-sig"), texts)
    except (OSError, ValueError) as error:
        raise OptionError(f"can't read configuration {path}: {one_line(error)}; write it as YAML, in UTF-8") from error
    if not isinstance(values, dict):
        raise OptionError(f"configuration {path} must be a mapping of names to values")
    return values


def parse_yaml(text: str, texts: Sequence[str] = ()) -> Any:
    """What YAML text holds. Only words that mean one thing in every reading of YAML are more than text: null, true and
    false, whole numbers without leading zeros, decimals. `off`, `0012345`, `1_000`, `1e3` and dates stay what they say;
    a field of a configuration that wants a number or a truth value takes them as one where they spell it.

    Args:
        texts: see `read_yaml`.

    Raises:
        ValueError: not YAML, a key twice, or nested too deep.
    """
    import yaml

    try:
        loader = _yaml_loader()(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _check_node(loader, root, {})
        for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value in texts and isinstance(value, yaml.MappingNode):
                _take_as_text(value)
        values = loader.construct_document(root)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error
    check_plain(values)
    return values


@functools.cache
def _yaml_loader() -> type[SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: typing.ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    for kind, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0|[1-9][0-9]{0,39})", list("-+0123456789")),
        ("float", r"[-+]?(0|[1-9][0-9]*)?\.[0-9]*([eE][-+][0-9]+)?(?<!\.)|[-+]?\.(inf|nan)", list("-+.0123456789")),
        ("merge", r"<<", ["<"]),
    ):
        Loader.add_implicit_resolver(f"{_TAG}{kind}", re.compile(f"({pattern})\\Z"), first)
    return Loader


def _check_node(loader: SafeLoader, node: Node, sizes: dict[int, int], depth: int = 0) -> int:
    """How many values a node holds with all its aliases written out; a few lines of them may stand for billions."""
    import yaml

    if depth > _DEEPEST_YAML:
        raise ValueError(f"it is nested more than {_DEEPEST_YAML} levels deep, or holds itself")
    if id(node) not in sizes:
        is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
        meant: str = loader.resolve(type(node), node.value, (is_plain, not is_plain))  # type: ignore[no-untyped-call]
        if node.tag not in (meant, f"{_TAG}str"):
            raise ValueError(f"line {node.start_mark.line + 1} has the tag {node.tag!r}; write the value without it")
        inner = [] if isinstance(node, yaml.ScalarNode) else list(node.value)
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in inner if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
            if twice := next((key for key in keys if keys.count(key) > 1), None):
                raise ValueError(f"key {twice!r} is there twice, in line {node.start_mark.line + 1} and below")
            inner = [part for pair in inner for part in pair]
        sizes[id(node)] = 1 + sum(_check_node(loader, part, sizes, depth + 1) for part in inner)
    if sizes[id(node)] > _MOST_VALUES:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES:,} values")
    return sizes[id(node)]


def _take_as_text(mapping: MappingNode) -> None:
    """Scalars of a mapping as their own text; an empty one is "none", as on the command line."""
    import yaml

    for pair in mapping.value:
        for node in pair:
            if isinstance(node, yaml.ScalarNode) and not (node.style is None and node.value == "<<"):
                if node.style is None and node.value in ("", "~"):
                    node.value = "none"
                node.tag = f"{_TAG}str"


def _built(kind: type[Contents], values: object, source: str, whole: str, numbers_as_text: bool = False) -> Contents:
    from pydantic import ValidationError

    try:
        # As JSON: there a list may become a tuple and a mapping a dataclass, while scalars stay strict.
        text = json.dumps([values], default=lambda value: _refuse(value, whole), allow_nan=False)
    except (TypeError, ValueError) as error:  # keys that are dates, values that hold themselves, no finite numbers
        strange = _first_not_finite(values) if "JSON compliant" in str(error) else None
        raise OptionError(f"{whole}: {f'{strange}, expected a finite number' if strange else error}") from error
    try:
        return cast(Contents, _adapter(cast(Hashable, kind)).validate_json(text)[0])
    except ValidationError as error:
        problems = error.errors(include_url=False)
    if numbers_as_text and (mended := _with_numbers(values, problems)) != values:
        return _built(kind, mended, source, whole)
    raise _misfit(kind, problems, source, whole)


def _first_not_finite(values: object, path: str = "") -> str | None:
    """Where a number is infinite or none, as `means.overall is nan`."""
    if isinstance(values, float) and not math.isfinite(values):
        return f"{path or 'it'} is {values}"
    if isinstance(values, Mapping):
        inner = [(f"{path}.{key}".lstrip("."), value) for key, value in values.items()]
    else:
        inner = [(f"{path}[{place}]", value) for place, value in enumerate(values)] if isinstance(values, list) else []
    return next(filter(None, (_first_not_finite(value, where) for where, value in inner)), None)


def _refuse(value: object, whole: str) -> object:
    """YAML has dates, sets and more."""
    raise OptionError(f"{whole}: {value} is read as a {type(value).__name__}; put it in quotes if it is meant as text")


@functools.cache
def _adapter(kind: Hashable) -> TypeAdapter[tuple[object]]:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple, since an adapter takes no settings for a dataclass itself; the dataclasses in it have no others.
    settings = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    with _without_plugins():
        return TypeAdapter(tuple[kind], config=settings)  # type: ignore[arg-type, valid-type]


@contextlib.contextmanager
def _without_plugins() -> Iterator[None]:
    """None of pydantic's plugins: to find them it reads the entry points of every package, and ends at a broken one."""
    before = os.environ.get(_PLUGINS)
    os.environ[_PLUGINS] = "__all__"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_PLUGINS]
        else:
            os.environ[_PLUGINS] = before


def _with_numbers(values: object, problems: Sequence[ErrorDetails]) -> object:
    """Values with a number or a truth value wherever one is wanted and text spells it, in whatever reading of YAML."""
    mended: Any = copy.deepcopy(values)
    for problem in problems:
        text, kind = problem["input"], problem["type"]
        if isinstance(text, str) and kind in _SPELLED and (spelled := _SPELLED[kind](text)) is not None:
            *parents, last = problem["loc"][1:]
            functools.reduce(operator.getitem, parents, mended)[last] = spelled
    return mended


def _spelled_float(text: str) -> float | None:
    """1e-4, 1_000; not 010, which some read as 8."""
    try:
        return None if re.match(r"[-+]?0[0-9_]|.*[^-+.0-9eE_]", text) else float(text)
    except ValueError:  # no number: the problem stays
        return None


def _spelled_int(text: str) -> int | None:
    """1_000; what is in quotes without such a mark stays text."""
    return int(text) if re.fullmatch(r"[-+]?[1-9][0-9]{0,2}(_[0-9]{3}){1,9}", text) else None


#: What pydantic calls the want of a number or of a truth value → what text spells one.
_SPELLED: Mapping[str, Callable[[str], float | int | None]] = {
    "float_type": _spelled_float,
    "int_type": _spelled_int,
    "bool_type": lambda text: {"yes": True, "on": True, "no": False, "off": False}.get(text.lower()),
}


#: What pydantic calls the bound of a number → how it is said.
_BOUNDS: Mapping[str, str] = {"ge": "at least ", "gt": "above ", "le": "at most ", "lt": "below "}


def _misfit(kind: type, problems: Sequence[ErrorDetails], source: str, whole: str) -> HarnessError:
    """The error that names what doesn't fit; of several a key that is no field, since it explains one that lacks."""
    problem = min(problems, key=lambda problem: problem["type"] != "unexpected_keyword_argument")
    if problem["type"] == "json_invalid" or not problem["loc"]:  # two values in a line
        return OptionError(f"{source} is not one whole JSON object: {problem['msg']}")
    (_, *steps), value = problem["loc"], problem["input"]
    name = steps.pop() if problem["type"] in ("unexpected_keyword_argument", "missing") else None
    place, wanted = _followed(kind, steps)
    where = ": ".join(filter(None, (source, place))) or whole
    if problem["type"] == "value_error":  # of the dataclass itself
        return OptionError(f"{where}: {problem['ctx']['error']}")
    if problem["type"] == "unexpected_keyword_argument":
        return UnknownNameError(f"setting in {where}", str(name), get_type_hints(wanted[0]))
    if isinstance(name, str):
        return OptionError(f"{where} lacks {name!r}")
    if isinstance(value, list) and get_origin(wanted[0]) is tuple:
        return OptionError(f"{where} must have {len(get_args(wanted[0]))} values, not {len(value)}")
    bounds = [word + str(problem["ctx"][key]) for key, word in _BOUNDS.items() if key in problem.get("ctx", {})]
    return OptionError(f"{where} must be {' or '.join(bounds or map(_described, wanted))}, not {value!r}")


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
