"""Tasks, models and suites, found by entry point. Built-in ones arrive the same way as anybody's plugin.

[project.entry-points."mmeb_harness.tasks"]
my-tasks = "my_package"                 a module with TASKS (or EDITIONS: name → tasks), or a Task, or several

[project.entry-points."mmeb_harness.models"]
my-model = "my_package:MyEmbedder"      called with keyword arguments, returns an Embedder
                                            (`--model NAME:VALUE` sets its first parameter)

[project.entry-points."mmeb_harness.formats"]
my-form = "my_package:MY_FORM"          a FolderFormat: a form of people's own data folders

[project.entry-points."mmeb_harness.peers"]
my-library = "my_package:open_my_library"   called with a model and a value, returns a Peer; see `core/peer.py`
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import inspect
import itertools
import math
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, EntryPoints, distributions, entry_points
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from mmeb_harness.core.benchmark import MMEB_V3, BenchmarkRow
from mmeb_harness.core.collector import collector_paused
from mmeb_harness.core.embedder import REASONING, Embedder, ModelInfo, in_modes
from mmeb_harness.core.errors import (
    DataError,
    HarnessError,
    ModelError,
    OptionError,
    UnknownNameError,
    leading,
    no_room,
    one_line,
)
from mmeb_harness.core.files import is_data, is_plain
from mmeb_harness.core.items import MODALITIES, Medium, MetricName, Modality, Profile, Similarity
from mmeb_harness.core.own_file import content_mark, file_factory, files_like, is_file_model, sign, split_file_model
from mmeb_harness.core.peer import OpenPeer, Peer
from mmeb_harness.core.plugins import importing, plugin_code
from mmeb_harness.core.reading import members_of
from mmeb_harness.core.tasks import FolderFormat, Suite, Task
from mmeb_harness.core.terminal import say

TASKS_GROUP = "mmeb_harness.tasks"
MODELS_GROUP = "mmeb_harness.models"
SUITES_GROUP = "mmeb_harness.suites"
PEERS_GROUP = "mmeb_harness.peers"
FORMATS_GROUP = "mmeb_harness.formats"

#: The collection whose means are the benchmark's; the 78 tasks of MMEB-V2, in its later editions the 190 of MMEB-V3.
BENCHMARK = "mmeb-v2"

#: Collection of the tasks that a folder of own data holds.
OWN_DATA = "own data"

#: The package whose names in the registry nobody else can take.
OWN_PACKAGE = "mmeb-harness"
#: Longest import of a plugin that isn't asked for by name.
IMPORT_SECONDS = 10.0


class ImportTimeout(BaseException):
    """A plugin's import takes too long. No `Exception`: a plugin that tries again until it works would hold that."""


#: Words of letters, digits and a few signs; a / is a folder of the result's file.
_TASK_NAME = re.compile(r"[\w.+()-]+(?:[ /][\w.+()-]+)*")

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class RegisteredTask:
    """A task, and the entry point (collection) that brought it."""

    task: Task
    collection: str


@dataclass(frozen=True)
class TaskSurvey:
    """What the task plugins hold.

    Attributes:
        tasks: all that can be used, by name, the benchmark's first, in their own order.
        problems: a line for every plugin or task that can't be used, and why: it stops nothing but its own use.
        slow: some of them only take long.
    """

    tasks: Mapping[str, RegisteredTask]
    problems: tuple[str, ...] = ()
    slow: bool = False


def survey_tasks(
    edition: str | None = None, names: Iterable[str] | None = None, seconds: float | None = IMPORT_SECONDS
) -> TaskSurvey:
    """Import the task plugins and look at what they hold.

    Args:
        edition: of the benchmark; `None`: its default. Tasks that have no editions are there in any.
        names: of tasks; if the benchmark has them all, no other plugin is imported. `None`: all are.
        seconds: for the import of each plugin but the benchmark's own; `None`: as long as it takes.

    Raises:
        UnknownNameError: if the benchmark has no edition of that name.
    """
    tasks: dict[str, RegisteredTask] = {}
    problems = list(_unreadable())
    twice: set[str] = set()
    slow = False
    for point in sorted(_points(TASKS_GROUP), key=lambda point: (point.name != BENCHMARK, point.name)):
        try:
            with _within(None if point.name == BENCHMARK else seconds):
                listed = _tasks_of(point, edition)
        except UnknownNameError:
            raise
        except HarnessError as error:
            slow |= isinstance(error.__cause__, ImportTimeout)
            problems.append(str(error))
            continue
        for task in listed:
            if (problem := _problem_of(task, point, tasks)) is None:
                tasks[task.name] = RegisteredTask(task, point.name)
                continue
            problems.append(problem)
            twice |= {name for name in tasks if name == task.name}
        if point.name == BENCHMARK and names is not None and set(names) <= tasks.keys():
            break
    # Which of two equal names is meant nobody knows; only the benchmark's are its own.
    meant = {
        name: standing for name, standing in tasks.items() if name not in twice or standing.collection == BENCHMARK
    }
    return TaskSurvey(meant, tuple(problems), slow)


def load_tasks(edition: str | None = None) -> dict[str, RegisteredTask]:
    """All registered tasks that can be used, by name, the benchmark's first, in their own order.

    Raises:
        UnknownNameError: as `survey_tasks`.
    """
    return dict(survey_tasks(edition).tasks)


def choose_tasks(
    edition: str | None,
    tasks: Sequence[str] = (),
    groups: Sequence[str] = (),
    modalities: Sequence[str] = (),
    own: Mapping[str, RegisteredTask] | None = None,
) -> tuple[list[RegisteredTask], Mapping[str, RegisteredTask]]:
    """The tasks that `select_tasks` selects, and what it selected them from; only plugins that it takes are imported.

    Of those a broken one is told in a line, on standard error.

    Args:
        own: tasks of a data folder, to select from as well.

    Raises:
        UnknownNameError: for a name that is none, or can't be used.
    """
    names = None if groups else tasks
    survey = survey_tasks(edition, names)
    known = {standing.task.group for standing in survey.tasks.values()}
    if survey.slow and not ({*tasks} <= survey.tasks.keys() and {*groups} <= known):
        survey = survey_tasks(edition, names, seconds=None)
    known_tasks = {**survey.tasks, **(own or {})}
    chosen = select_tasks(known_tasks, tasks, groups, modalities, survey.problems)
    for problem in survey.problems:
        say(f"can't be used, and isn't asked for by name: {problem}", err=True)
    return chosen, known_tasks


def with_tasks(
    registered: Mapping[str, RegisteredTask], names: Iterable[str], edition: str | None
) -> Mapping[str, RegisteredTask]:
    """The same tasks; those of all other plugins as well, if some of the names aren't among them."""
    return registered if set(names) <= registered.keys() else load_tasks(edition)


def select_tasks(
    registered: Mapping[str, RegisteredTask],
    tasks: Sequence[str] = (),
    groups: Sequence[str] = (),
    modalities: Sequence[str] = (),
    problems: Sequence[str] = (),
) -> list[RegisteredTask]:
    """The tasks that are named, or in a named group, or of a named modality; all of the benchmark if none is.

    A modality, or "agent" for MMEB-V3's three, means the benchmark's tasks: other collections have data of their own,
    which a run of the benchmark lacks. They are chosen by name or by group.

    Args:
        problems: why plugins or tasks aren't among those registered.

    Raises:
        UnknownNameError: for a name that is none; the nearest is suggested, and the problems are told.
    """
    of_benchmark = [standing.task for standing in registered.values() if standing.collection == BENCHMARK]
    unions = {union.name: union.modalities for union in MMEB_V3.unions}
    modalities = [part for name in modalities for part in unions.get(name, (name,))]
    for kind, wanted, known in (
        ("task", tasks, registered.keys()),
        ("group", groups, {standing.task.group for standing in registered.values()}),
        ("modality", modalities, {task.modality for task in of_benchmark} or MODALITIES),
    ):
        for name in wanted:
            if name not in known:
                raise UnknownNameError(kind, name, known, problems, _editions_with(name) if of_benchmark else ())
    if not (tasks or groups or modalities):
        return [standing for standing in registered.values() if standing.collection == BENCHMARK]
    return [
        standing
        for standing in registered.values()
        if standing.task.name in tasks
        or standing.task.group in groups
        or (standing.collection == BENCHMARK and standing.task.modality in modalities)
    ]


def benchmark_editions() -> Mapping[str, Sequence[Task]]:
    """The benchmark's editions → their tasks; the first is the default."""
    editions: Mapping[str, Sequence[Task]] = _load(_named(TASKS_GROUP, "collection", BENCHMARK)).EDITIONS
    return editions


def _editions_with(name: str) -> list[str]:
    """The benchmark's editions that have a task, group or modality of this name."""
    return [
        edition
        for edition, tasks in benchmark_editions().items()
        if any(name in (task.name, task.group, task.modality) for task in tasks)
    ]


def folder_formats() -> list[FolderFormat]:
    """All forms of own data that are known.

    Raises:
        HarnessError: an entry point that is none; or there are none, of an install older than its code.
    """
    formats = []
    for point in _points(FORMATS_GROUP):
        form = _load(point)
        if not isinstance(form, FolderFormat):
            raise HarnessError(f"entry point {point.name!r} in {FORMATS_GROUP} is no FolderFormat")
        formats.append(form)
    if not formats:
        raise HarnessError(f"no form of own data is registered ({FORMATS_GROUP}); install {OWN_PACKAGE} again")
    return sorted(formats, key=lambda form: form.name)


def data_sets_in(folder: Path) -> list[tuple[Path, FolderFormat, tuple[Task, ...]]]:
    """The data sets in a folder of own data, with their forms and tasks: the folder itself, or some sub-folders.

    Raises:
        HarnessError: settings of one that can't be read.
    """
    formats = folder_formats()
    inner = [path for name in listed_names(folder) if (path := folder / name).is_dir()]
    for level in ([folder], inner):
        sets = [(path, form, tasks) for path in level for form in formats if (tasks := _tasks_in(path, form))]
        if sets:
            return sets
    return []


def listed_names(folder: Path) -> list[str]:
    """The names in a folder that can be data, sorted.

    Raises:
        DataError: it can't be listed.
    """
    try:
        return sorted(filter(is_data, os.listdir(folder)))
    except OSError as error:
        raise DataError(f"{folder} can't be listed: {error.strerror or error}; name a folder that can") from error


def known_forms(folder: Path) -> str:
    """The forms of own data, what a folder holds instead, and the way out: the end of a message."""
    forms = "; ".join(f"{form.files} ({form.name})" for form in folder_formats())
    holds = leading(listed_names(folder)) or "nothing"
    return f"{forms}. It holds {holds}; mmeb-eval new dataset FOLDER writes an example"


def _tasks_in(folder: Path, form: FolderFormat) -> tuple[Task, ...] | None:
    with plugin_code(f"{folder} can't be looked at as data of the form {form.name!r}"):
        return form.find(folder)


def own_tasks(folder: Path) -> dict[str, RegisteredTask]:
    """The tasks of a folder of own data, by name; none if it holds none.

    Raises:
        DataError: two of one name, or one with the name of a benchmark's task.
        HarnessError: as `data_sets_in`.
    """
    tasks: dict[str, RegisteredTask] = {}
    places: dict[str, Path] = {}
    taken = survey_tasks(names=()).tasks
    for path, _, own in data_sets_in(folder):
        for task in own:
            if task.name in taken or task.name in tasks:
                other = "a task of the benchmark" if task.name in taken else f"that of {places[task.name]}"
                raise DataError(
                    f"{path}: its task would be called {task.name!r}, like {other}; give it a name in dataset.yaml"
                )
            within = path.relative_to(folder)
            patterns = tuple((glob.escape(str(within)) / Path(pattern)).as_posix() for pattern in task.annotations)
            listed = tuple((within / name).as_posix() for name in task.listed)
            tasks[task.name] = RegisteredTask(replace(task, annotations=patterns, listed=listed), OWN_DATA)
            places[task.name] = path
    return tasks


def benchmark_edition(registered: Iterable[RegisteredTask]) -> str:
    """The edition that the benchmark's tasks are of; "" if there are none."""
    return next((standing.task.edition for standing in registered if standing.collection == BENCHMARK), "")


def benchmark_rows(registered: Iterable[RegisteredTask]) -> list[BenchmarkRow]:
    """The benchmark's tasks: what its means must cover."""
    tasks = (standing.task for standing in registered if standing.collection == BENCHMARK)
    return [BenchmarkRow(task.name, task.modality, task.group, task.metric, task.edition) for task in tasks]


def load_suite(name: str) -> Suite:
    """A suite by its registered name.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    suite = _load(_named(SUITES_GROUP, "suite", name))
    if not isinstance(suite, Suite):
        raise HarnessError(f"entry point {name!r} in {SUITES_GROUP} is not a Suite")
    return suite


def suite_of_edition(edition: str) -> Suite | None:
    """The suite that has the tasks of an edition of the benchmark; `None` if no suite has."""
    suites = (load_suite(point.name) for point in _points(SUITES_GROUP))
    return next((suite for suite in suites if edition in suite.editions), None)


def find_peer(wanted: str) -> EntryPoint:
    """The entry point of a peer, `NAME` or `NAME=VALUE`.

    Raises:
        UnknownNameError: no peer of that name; the nearest is suggested.
    """
    return _named(PEERS_GROUP, "peer", wanted.partition("=")[0])


def open_peer(embedder: Embedder, wanted: str) -> Peer:
    """A peer with a model's weights.

    Args:
        wanted: as registered, or `NAME=VALUE`.

    Raises:
        UnknownNameError: no peer of that name; the nearest is suggested.
        OptionError: it isn't installed, can't do anything with this model, or VALUE is none of its own.
        ModelError, PluginError: its plugin can't be imported, or its own code raised an error.
    """
    name, equals, value = wanted.partition("=")
    open_it: OpenPeer = _load(find_peer(wanted))
    with plugin_code(f"peer {name!r} can't be opened"):
        peer = open_it(embedder, value if equals else None)
    if not isinstance(peer, Peer) or [peer.encode, peer.evaluate, peer.rank].count(None) != 2:
        raise HarnessError(f"entry point {name!r} in {PEERS_GROUP} makes no Peer that encodes, evaluates or ranks")
    return peer


def model_names() -> list[str]:
    """Names of all registered models, without importing them."""
    return sorted(point.name for point in _points(MODELS_GROUP))


def model_summaries() -> list[tuple[str, str, str]]:
    """(name, where it comes from, first line of its docstring) of all models; a broken plugin says why."""
    broken = [("?", "?", f"broken: {problem}") for problem in _unreadable()]
    return [*map(_summary, sorted(_points(MODELS_GROUP), key=lambda point: point.name)), *broken]


def resolve_model(model: str, args: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`NAME:VALUE` in full: the registered name, and the arguments with VALUE as the factory's first parameter.

    A plain name comes back as it is, its plugin not imported; a file as `PATH:CLASS` (see `core.own_file`). VALUE may
    hold further colons.

    Raises:
        UnknownNameError: no model NAME; the nearest is suggested.
        OptionError: no VALUE, a model without parameters, the parameter is among `args` as well, or no such file.
        ModelError: the plugin can't be imported.
    """
    name, colon, value = split_file_model(model) if is_file_model(model) else model.partition(":")
    if not colon:
        _check_named(name)
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
    """How a model is made; picklable, so that another process can make the same one. See `load_model`.

    Attributes:
        modes: several in which it embeds queries at once, if it can: else it has the first.
    """

    model: str
    args: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str | int | bool | None] = field(default_factory=dict)
    modes: tuple[str, ...] = ()

    def load(self) -> Embedder:
        """Build the model that is described.

        Raises:
            HarnessError: as `load_model`.
        """
        embedder = load_model(self.model, self.args, self.options)
        if not self.modes:
            return embedder
        with plugin_code(f"model {self.model!r} can't be made with modes {', '.join(self.modes)}"):
            return in_modes(embedder, self.modes)

    def in_modes(self, modes: Sequence[str | None]) -> ModelSpec:
        """The same model, asked to reason so; `None` alone: as it does by default."""
        named = tuple(mode for mode in modes if mode is not None)
        asked = {**self.options, REASONING: named[0]} if named else self.options
        return replace(self, options=asked, modes=named if len(named) > 1 else ())


def load_model(model: str, args: Mapping[str, str], options: Mapping[str, str | int | bool | None]) -> Embedder:
    """Build a model from its name, arguments and options.

    Args:
        model: as registered, `NAME:VALUE` or a file (see `resolve_model`).
        args: `--model-arg key=value`, as text; parsed by the annotations of the model's factory.
        options: the run's own options (device, dtype, reasoning …); `None` means "not asked for". Each is
            handed over if the factory has a parameter of that name.

    Raises:
        UnknownNameError: no such model, or the model takes no such argument.
        OptionError: a value that doesn't parse or is missing, or an option that the model doesn't have.
        ModelError: the plugin can't be imported, or what it makes is no Embedder.
        PluginError: its own code raised an error.
    """
    name, args = resolve_model(model, args)
    factory, mark = _factory(name), content_mark(name)
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
    with plugin_code(f"model {name!r} can't be made"), collector_paused():  # here it imports torch
        embedder: Embedder = factory(**keywords)
    check_embedder(name, embedder)
    if mark:
        sign(embedder, mark)
    return embedder


def check_embedder(name: str, embedder: Any) -> None:
    """Refuse what the harness can't work with, before anything is read.

    Raises:
        ModelError: it is no Embedder, or says of itself what can't be.
        PluginError: its own code raised an error.
    """
    with plugin_code(f"model {name!r} can't be made"):
        problem = _problem_of_embedder(embedder)
    if problem:
        raise ModelError(f"model {name!r} is no Embedder: {problem}")


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


def _check_named(name: str) -> None:
    if not is_file_model(name):
        _named(MODELS_GROUP, "model", name)


def _factory(name: str) -> Callable[..., Any]:
    if is_file_model(name):
        factory, what = file_factory(name), name
    else:
        factory, what = _load(_named(MODELS_GROUP, "model", name)), f"entry point of model {name!r}"
    if not callable(factory):
        raise ModelError(f"{what} is not callable; it must return an Embedder")
    made: Callable[..., Any] = factory
    return made


def _parameters(factory: Callable[..., Any]) -> dict[str, Any]:
    """Keyword parameters of a factory and their annotations (str where there is none)."""
    function = factory.__init__ if inspect.isclass(factory) else factory
    with plugin_code(f"the annotations of {getattr(factory, '__qualname__', factory)!s}"):
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


def _registered(group: str, path: tuple[str, ...]) -> Iterable[EntryPoint]:
    return _points_of(group, path)[0]


def _unreadable() -> tuple[str, ...]:
    """A line for every package whose entry points can't be read, which costs no other package its own."""
    return _points_of(TASKS_GROUP, tuple(sys.path))[1]


@functools.cache
def _points_of(group: str, path: tuple[str, ...]) -> tuple[EntryPoints, tuple[str, ...]]:
    """By every package on the path, and `_unreadable`: to look for them reads a file of each."""
    try:
        return entry_points(group=group), ()
    except Exception as error:  # of one package
        _raise_if_the_systems(error)
    points: dict[str, EntryPoints] = {}
    problems: list[str] = []
    for package in distributions():
        try:
            points.setdefault(package.name, package.entry_points.select(group=group))
        except Exception as error:
            _raise_if_the_systems(error)
            folder = getattr(package, "_path", package.locate_file(""))
            problems.append(f"entry points in {folder} can't be read ({one_line(error, 200)}); install it again")
    return EntryPoints(itertools.chain.from_iterable(points.values())), tuple(problems)


def _raise_if_the_systems(error: Exception) -> None:
    """Too many open files, no memory: no package is to blame."""
    if no_room(error) or (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        raise error


def _points(group: str) -> list[EntryPoint]:
    """One entry point a name and group: an editable install may list its own twice. Our own names are nobody else's."""
    points = list({(point.name, point.value): point for point in _registered(group, tuple(sys.path))}.values())
    several = {name for name, count in Counter(point.name for point in points).items() if count > 1}
    own = {point.name for point in points if point.name in several and _package(point) == OWN_PACKAGE}
    return [point for point in points if point.name not in own or _package(point) == OWN_PACKAGE]


def _package(point: EntryPoint) -> str:
    with contextlib.suppress(Exception):  # its METADATA is no text, or names nobody
        return (point.dist and point.dist.name) or "?"
    return "?"


def _named(group: str, kind: str, name: str) -> EntryPoint:
    points = [point for point in _points(group) if point.name == name]
    if not points:
        files = files_like(name) if group == MODELS_GROUP else []
        raise UnknownNameError(kind, name, [*(point.name for point in _points(group)), *files], _unreadable())
    if len(points) > 1:
        values = ", ".join(point.value for point in points)
        raise HarnessError(f"{kind} {name!r} is registered more than once: {values}; uninstall one package")
    return points[0]


def _load(point: EntryPoint) -> Any:
    """Import what an entry point names.

    Raises:
        ModelError, PluginError: it can't be imported; the plugin is named.
    """
    who = f"plugin {point.name!r} ({point.value}) can't be imported"
    if not point.pattern.match(point.value):
        raise ModelError(f"{who}: what it registers is no MODULE:OBJECT")
    with importing(who):
        return point.load()


@contextmanager
def _within(seconds: float | None) -> Iterator[None]:
    """Code of a plugin that has so long; only the main thread can be called away from what it is at."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise ImportTimeout(f"takes longer than {seconds:g} s")

    started, handler = time.monotonic(), signal.signal(signal.SIGALRM, end)
    others = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, others and max(0.001, others - (time.monotonic() - started)))
        signal.signal(signal.SIGALRM, handler)


def _tasks_of(point: EntryPoint, edition: str | None) -> Sequence[Task]:
    loaded = _load(point)
    who = f"task plugin {point.name!r} ({point.value})"
    with plugin_code(f"{who} can't be used"):
        tasks = getattr(loaded, "TASKS", loaded)
        if edition is not None and point.name == BENCHMARK:
            editions: Mapping[str, Sequence[Task]] = loaded.EDITIONS
            if edition not in editions:
                raise UnknownNameError("edition", edition, editions)
            tasks = editions[edition]
        listed = [tasks] if isinstance(tasks, Task) else list(tasks) if isinstance(tasks, (tuple, list)) else []
    if not listed or not all(isinstance(task, Task) for task in listed):
        raise HarnessError(f"{who} holds no Task, TASKS or sequence of Tasks")
    return listed


def _problem_of(task: Task, point: EntryPoint, taken: Mapping[str, RegisteredTask]) -> str | None:
    """Why a plugin's task can't be used."""
    if (
        not isinstance(task.name, str)
        or not _TASK_NAME.fullmatch(task.name)
        or not {".", ".."}.isdisjoint(task.name.split("/"))
    ):
        return (
            f"task name {task.name!r} (of {point.name!r}) must consist of letters, digits and . _ + - ( ), with single "
            "spaces and / between: result files are named by it"
        )
    if task.name in taken:
        return (
            f"task {task.name!r} is registered twice, by {taken[task.name].collection!r} and {point.name!r}; uninstall "
            "one of the two packages"
        )
    choices: Sequence[tuple[str, object, Sequence[str]]] = (
        ("modality", task.modality, get_args(Modality)),
        ("metric", task.metric, get_args(MetricName)),
    )
    for kind, value, known in choices:
        if value not in known:
            return f"task {task.name!r} (of {point.name!r}): {kind} {value!r} is none of {', '.join(known)}"
    if not callable(task.load) or not isinstance(task.group, str):
        return f"task {task.name!r} (of {point.name!r}): `load` has to be callable, and `group` a text"
    return None


def _problem_of_embedder(embedder: Any) -> str | None:
    """Why the harness can't work with what a factory made."""
    info = getattr(embedder, "info", None)
    if not isinstance(info, ModelInfo) or not callable(getattr(embedder, "encode", None)):
        return f"{type(embedder).__name__} has to have an `info`, which is a ModelInfo, and a method `encode`"
    if not all(isinstance(text, str) and text for text in (info.name, info.revision)):
        return f"name {info.name!r} and revision {info.revision!r} of its `info` have to be texts"
    if isinstance(info.dimensions, bool) or not isinstance(info.dimensions, int) or info.dimensions < 1:
        return f"{info.dimensions!r} dimensions; its `info` has to say how many numbers a vector has"
    if info.similarity not in get_args(Similarity) or not isinstance(info.profile, Profile):
        return f"similarity {info.similarity!r} and profile {info.profile!r:.80} of its `info`"
    if isinstance(info.media, str) or set(info.media) - set(get_args(Medium)):
        return f"media {info.media!r} of its `info`: a tuple of {', '.join(get_args(Medium))}, or of none"
    strange = [
        key
        for key, value in dict(info.settings).items()
        if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value))
    ]
    if strange:
        return f"settings {strange} of its `info` are no texts, finite numbers or booleans"
    if unknown := set(info.query_settings) - info.settings.keys():
        return f"query_settings {sorted(unknown)} of its `info` are no names of settings"
    texts = (info.name, info.revision, dict(info.settings))
    return None if is_plain(texts) else f"half a character (a lone surrogate) in its `info`: {texts!r:.200}"


def _summary(point: EntryPoint) -> tuple[str, str, str]:
    try:
        with _within(IMPORT_SECONDS):
            loaded = _load(_named(MODELS_GROUP, "model", point.name))
        with plugin_code("its docstring"):
            says = (inspect.getdoc(loaded) or "").split("\n")[0] if callable(loaded) else "broken: not callable"
    except HarnessError as error:
        says = f"broken: {error}"
    return point.name, _package(point), says
