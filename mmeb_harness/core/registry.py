"""Tasks, models and suites, found by entry point. Built-in ones arrive the same way as anybody's plugin.

[project.entry-points."mmeb_harness.tasks"]
my-tasks = "my_package"                 a module with TASKS (or EDITIONS: name → tasks), or a Task, or several

[project.entry-points."mmeb_harness.models"]
my-model = "my_package:MyEmbedder"      called with keyword arguments, returns an Embedder
                                            (`--model NAME:VALUE` sets its first parameter)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import HarnessError, ModelError, OptionError, UnknownNameError
from mmeb_harness.core.items import MODALITIES, Modality
from mmeb_harness.core.reading import members_of
from mmeb_harness.core.tasks import Suite, Task

TASKS_GROUP = "mmeb_harness.tasks"
MODELS_GROUP = "mmeb_harness.models"
SUITES_GROUP = "mmeb_harness.suites"

#: The collection whose means are the benchmark's; the 78 tasks of MMEB-V2.
BENCHMARK = "mmeb-v2"

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class RegisteredTask:
    """A task, and the entry point (collection) that brought it."""

    task: Task
    collection: str


def load_tasks(edition: str | None = None) -> dict[str, RegisteredTask]:
    """All registered tasks by name, the benchmark's first, in their own order.

    Args:
        edition: of the benchmark; `None`: its default. Tasks that have no editions are there in any.

    Raises:
        HarnessError: if two plugins register one name, or a plugin can't be imported.
        UnknownNameError: if no plugin has an edition of that name.
    """
    registered: dict[str, RegisteredTask] = {}
    for point in sorted(_points(TASKS_GROUP), key=lambda point: (point.name != BENCHMARK, point.name)):
        for task in _tasks_of(point, edition):
            if not re.fullmatch(r"[\w.+-]+", task.name):
                raise HarnessError(
                    f"task name {task.name!r} (of {point.name!r}) must consist of letters, digits and . _ + -: "
                    "result files are named by it"
                )
            if task.name in registered:
                raise HarnessError(
                    f"task {task.name!r} is registered twice, by {registered[task.name].collection!r} and "
                    f"{point.name!r}; uninstall one of the two packages"
                )
            registered[task.name] = RegisteredTask(task, point.name)
    return registered


def select_tasks(
    registered: Mapping[str, RegisteredTask],
    tasks: Sequence[str] = (),
    groups: Sequence[str] = (),
    modalities: Sequence[str] = (),
) -> list[RegisteredTask]:
    """The tasks that are named, or in a named group, or of a named modality; all of the benchmark if none is.

    A modality means the benchmark's tasks: other collections have data of their own, which a run of the benchmark
    lacks. They are chosen by name or by group.

    Raises:
        UnknownNameError: for a name that is none; the nearest is suggested.
    """
    known_groups = {standing.task.group for standing in registered.values()}
    for kind, wanted, known in (
        ("task", tasks, registered.keys()),
        ("group", groups, known_groups),
        ("modality", modalities, MODALITIES),
    ):
        for name in wanted:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if not (tasks or groups or modalities):
        return [standing for standing in registered.values() if standing.collection == BENCHMARK]
    return [
        standing
        for standing in registered.values()
        if standing.task.name in tasks
        or standing.task.group in groups
        or (standing.collection == BENCHMARK and standing.task.modality in modalities)
    ]


def benchmark_edition(registered: Iterable[RegisteredTask]) -> str:
    """The edition that the benchmark's tasks are of; "" if there are none."""
    return next((standing.task.edition for standing in registered if standing.collection == BENCHMARK), "")


def benchmark_rows(registered: Iterable[RegisteredTask]) -> list[tuple[str, Modality, str]]:
    """(task, modality, group) of the benchmark's tasks: what its means must cover."""
    tasks = (standing.task for standing in registered if standing.collection == BENCHMARK)
    return [(task.name, task.modality, task.group) for task in tasks]


def load_suite(name: str) -> Suite:
    """A suite by its registered name.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    suite = _load(_named(SUITES_GROUP, "suite", name))
    if not isinstance(suite, Suite):
        raise HarnessError(f"entry point {name!r} in {SUITES_GROUP} is not a Suite")
    return suite


def model_names() -> list[str]:
    """Names of all registered models, without importing them."""
    return sorted(point.name for point in _points(MODELS_GROUP))


def model_summaries() -> list[tuple[str, str, str]]:
    """(name, where it comes from, first line of its docstring) of all models; a broken plugin says why."""
    return [_summary(point) for point in sorted(_points(MODELS_GROUP), key=lambda point: point.name)]


def resolve_model(model: str, args: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`NAME:VALUE` in full: the registered name, and the arguments with VALUE as the factory's first parameter.

    A plain name comes back as it is, its plugin not imported. VALUE may hold further colons.

    Raises:
        UnknownNameError: no model NAME; the nearest is suggested.
        OptionError: no VALUE, a model without parameters, or the parameter is among `args` as well.
        ModelError: the plugin can't be imported.
    """
    name, colon, value = model.partition(":")
    if not colon:
        _named(MODELS_GROUP, "model", name)
        return name, dict(args)
    first = next(iter(_parameters(_factory(name))), None)
    if first is None:
        raise OptionError(f"model {name!r} takes no argument, so nothing can follow in {model!r}; use {name!r}")
    if not value:
        raise OptionError(f"model {model!r}: no value of {first!r} after the colon")
    if first in args:
        raise OptionError(f"{first!r} is given twice, in {model!r} and as --model-arg {first}={args[first]}")
    return name, {first: value, **args}


@dataclass(frozen=True)
class ModelSpec:
    """How a model is made; picklable, so that another process can make the same one. See `load_model`."""

    model: str
    args: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str | int | bool | None] = field(default_factory=dict)

    def load(self) -> Embedder:
        """Build the model that is described.

        Raises:
            HarnessError: as `load_model`.
        """
        return load_model(self.model, self.args, self.options)


def load_model(model: str, args: Mapping[str, str], options: Mapping[str, str | int | bool | None]) -> Embedder:
    """Build a model from its name, arguments and options.

    Args:
        model: as registered, or `NAME:VALUE` (see `resolve_model`).
        args: `--model-arg key=value`, as text; parsed by the annotations of the model's factory.
        options: the run's own options (device, dtype, reasoning …); `None` means "not asked for". Each is
            handed over if the factory has a parameter of that name.

    Raises:
        UnknownNameError: no such model, or the model takes no such argument.
        OptionError: a value that doesn't parse or is missing, or an option that the model doesn't have.
        ModelError: the plugin can't be imported.
    """
    name, args = resolve_model(model, args)
    factory = _factory(name)
    parameters = _parameters(factory)
    keywords: dict[str, Any] = {}
    for key, text in args.items():
        if key not in parameters:
            raise UnknownNameError(f"argument of model {name!r}", key, parameters)
        keywords[key] = parse_value(f"--model-arg {key}", text, parameters[key])
    for key, value in options.items():
        if value is None:
            continue
        if key not in parameters:
            flag = "--" + key.replace("_", "-")
            raise OptionError(f"model {name!r} has no option {flag}; leave it out, or choose another model")
        if key in keywords:
            raise OptionError(f"{key!r} is given twice, as an option and as a --model-arg")
        keywords[key] = value
    if missing := next((key for key in _required(factory) if key not in keywords), None):
        short = f"--model {name}:VALUE, or " if missing == next(iter(parameters)) else ""
        raise OptionError(f"model {name!r} needs {missing!r}: {short}--model-arg {missing}=VALUE")
    embedder: Embedder = factory(**keywords)
    return embedder


def parse_value(label: str, text: str, annotation: Any) -> Any:
    """Parse `text` as the type that `annotation` names: str, int, float, bool, a Literal, or one of them or None.

    Raises:
        OptionError: if it doesn't parse.
    """
    if type(None) in get_args(annotation) and text.lower() in ("none", "null"):
        return None
    kinds = members_of(annotation)
    for kind in kinds:
        try:
            return _parse_one(text, kind)
        except (KeyError, ValueError):
            continue
    raise OptionError(f"{label}: {text!r} is not {' or '.join(map(_type_name, kinds))}")


def _parse_one(text: str, kind: Any) -> Any:
    """Not as a file's values are read: there "3" is text."""
    if kind is bool:
        return _BOOLEANS[text.lower()]
    if get_origin(kind) is Literal:
        return {str(choice): choice for choice in get_args(kind)}[text]
    return kind(text) if callable(kind) else text


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    return {"str": "text", "int": "an integer", "float": "a number", "bool": "true or false"}.get(
        getattr(kind, "__name__", ""), str(kind)
    )


def _factory(name: str) -> Callable[..., Any]:
    factory: Callable[..., Any] = _load(_named(MODELS_GROUP, "model", name))
    if not callable(factory):
        raise ModelError(f"entry point of model {name!r} is not callable; it must return an Embedder")
    return factory


def _parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword parameters of a factory and their annotations (str where there is none)."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    hints = get_type_hints(function)
    return {parameter.name: hints.get(parameter.name, str) for parameter in _named_parameters(factory)}


def _required(factory: Callable[..., Any]) -> list[str]:
    """Parameters without a default."""
    return [parameter.name for parameter in _named_parameters(factory) if parameter.default is parameter.empty]


def _named_parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    return [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]


def _points(group: str) -> list[EntryPoint]:
    """One entry point a name and group: an editable install may list its own twice."""
    return list({(point.name, point.value): point for point in entry_points(group=group)}.values())


def _named(group: str, kind: str, name: str) -> EntryPoint:
    points = [point for point in _points(group) if point.name == name]
    if not points:
        raise UnknownNameError(kind, name, (point.name for point in _points(group)))
    if len(points) > 1:
        values = ", ".join(point.value for point in points)
        raise HarnessError(f"{kind} {name!r} is registered more than once: {values}; uninstall one package")
    return points[0]


def _load(point: EntryPoint) -> Any:
    """Import what an entry point names. Only the import error is turned into one line; it names the plugin."""
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"plugin {point.name!r} ({point.value}) can't be imported: {error}; is its package complete?"
        ) from error


def _tasks_of(point: EntryPoint, edition: str | None) -> Sequence[Task]:
    loaded = _load(point)
    tasks = getattr(loaded, "TASKS", loaded)
    if edition is not None and point.name == BENCHMARK:
        editions: Mapping[str, Sequence[Task]] = loaded.EDITIONS
        if edition not in editions:
            raise UnknownNameError("edition", edition, editions)
        tasks = editions[edition]
    listed = [tasks] if isinstance(tasks, Task) else list(tasks) if isinstance(tasks, (tuple, list)) else []
    if not listed or not all(isinstance(task, Task) for task in listed):
        raise HarnessError(f"task plugin {point.name!r} ({point.value}) holds no Task, TASKS or sequence of Tasks")
    return listed


def _summary(point: EntryPoint) -> tuple[str, str, str]:
    source = point.dist.name if point.dist else "?"
    try:
        doc = inspect.getdoc(_load(point)) or ""
    except ModelError as error:
        return point.name, source, f"broken: {error}"
    return point.name, source, doc.split("\n")[0]
