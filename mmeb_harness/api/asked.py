"""What a configuration asks for, as values: the data, the tasks, how the model is made, where the results go."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.api.config import RunConfig
from mmeb_harness.core.benchmark import MMEB_V2, MMEB_V3, benchmark_of
from mmeb_harness.core.errors import DataError, ResultError, leading
from mmeb_harness.core.files import fingerprint, matching
from mmeb_harness.core.own_file import readable_parts
from mmeb_harness.core.registry import (
    BENCHMARK,
    ModelSpec,
    RegisteredTask,
    benchmark_edition,
    choose_tasks,
    known_forms,
    load_suite,
    own_tasks,
    resolve_model,
    select_tasks,
    suite_of_edition,
    with_tasks,
)
from mmeb_harness.core.terminal import say
from mmeb_harness.data.folder import OWN_REVISION, DataInfo, describe, ensure_suite, is_benchmark_tree
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings

DEFAULT_MODEL = "mmemb_r1"
#: Of tasks that are none of the benchmark's.
DEFAULT_SUITE = "mini"
#: Letters of a model's VALUE in the name of its results folder.
LONGEST_VALUE = 60


@dataclass(frozen=True)
class Chosen:
    """The data, and which tasks of it.

    Attributes:
        tasks: those that were chosen, in order.
        registered: all tasks they were chosen from, by name.
    """

    data: DataInfo
    tasks: Sequence[RegisteredTask]
    registered: Mapping[str, RegisteredTask]


@dataclass(frozen=True)
class Asked:
    """What is evaluated, and how."""

    chosen: Chosen
    settings: RunSettings


def choose(config: RunConfig) -> Chosen:
    """The tasks that a configuration names, of the folder it names.

    A folder of own data brings its tasks with it; without any named, they are all chosen. Of other folders that is the
    benchmark. The data is called what its manifest says, or as its folder is; "MMEB-V2" or "MMEB-V3" it is where tasks
    of that are: one folder may hold both.

    Raises:
        UnknownNameError: a task, group, modality or edition that isn't there.
        DataError: the folder is missing or holds no data, or the suite hasn't the tasks.
    """
    if not config.data:
        return _of_suite(config)
    root = Path(config.data).expanduser().resolve()
    data = describe(root)
    own = {} if is_benchmark_tree(root) else own_tasks(root)
    selection = (config.tasks, config.groups, config.modalities)
    own_groups = {registered.task.group for registered in own.values()}
    only_own = own and not config.edition and {*config.tasks} <= own.keys() and {*config.groups} <= own_groups
    if only_own:
        tasks = select_tasks(own, *selection) if any(selection) else list(own.values())
        return Chosen(dataclasses.replace(data, name=root.name or "data", revision=OWN_REVISION), tasks, own)
    if not own and not any(selection) and not is_benchmark_tree(root):
        raise DataError(
            f"{root} holds no data that is known: neither {benchmark_of(config.edition or '').name}'s (mmeb-eval data "
            f"get --data FOLDER) nor your own: {known_forms(root)}"
        )
    tasks, registered = choose_tasks(config.edition, *selection, own=own)
    if data.name in (MMEB_V2.name, MMEB_V3.name):
        edition = benchmark_edition(tasks)
        data = dataclasses.replace(data, name=benchmark_of(edition).name if edition else root.name or "data")
    return Chosen(data, tasks, registered)


def _of_suite(config: RunConfig) -> Chosen:
    tasks, registered = choose_tasks(config.edition, config.tasks, config.groups, config.modalities)
    suite = suite_of_edition(benchmark_edition(registered.values())) or load_suite(DEFAULT_SUITE)
    data = describe(ensure_suite(suite, config.seed, say))
    foreign = [
        task.task.name
        for task in tasks
        if task.task.name not in data.num_queries
        and task.task.annotations  # else it may bring its data with it
        and not any(matching(data.root, pattern) for pattern in task.task.annotations)
    ]
    if foreign:
        raise DataError(
            f"the {suite.name} suite, which is what runs without --data, has no {leading(foreign)}; name the data: "
            "--data FOLDER"
        )
    return Chosen(data, tasks, registered)


def asked_for(config: RunConfig) -> tuple[ModelSpec, list[Asked]]:
    """How the model is made, and what is evaluated with it, in each mode.

    Raises:
        HarnessError: as `choose`; a model that isn't there; an output that is no folder.
    """
    model, model_args = resolve_model(config.model or DEFAULT_MODEL, config.model_args)
    chosen = choose(config)
    asked = []
    for each in config.of_each_mode():
        output = Path(each.output) if each.output else default_output(each, model_args, chosen.data)
        asked.append(asked_of(each, chosen, output, model_args))
    return model_spec(model, model_args, config), asked


def asked_of(config: RunConfig, chosen: Chosen, output: Path, model_args: Mapping[str, str]) -> Asked:
    """The same for tasks that are chosen, with results in `output`.

    Raises:
        ResultError: that is no folder.
    """
    check_folder(output)
    registered = chosen.registered
    if any(task.collection == BENCHMARK for task in registered.values()):
        registered = with_tasks(registered, RunFolder(output).task_names(), config.edition)
    of_benchmark = any(task.collection == BENCHMARK for task in chosen.tasks)
    settings = RunSettings(
        output=output,
        edition=benchmark_edition(registered.values()) if of_benchmark else "",
        frames=config.frames,
        audio_seconds=config.audio_seconds,
        pages=config.pages,
        limit=config.limit,
        seed=config.seed,
        batch_tokens=config.batch_tokens,
        dimensions=config.dim,
        quantization=config.quantize,
        fresh=config.fresh,
        vectors=Path(config.vectors) if config.vectors else None,
        keep_states=config.keep_states,
        model_args=dict(model_args),
    )
    return Asked(Chosen(chosen.data, chosen.tasks, registered), settings)


def check_folder(output: Path) -> None:
    """Refuse an output that is no folder, before anything is computed for it.

    Raises:
        ResultError: it is a file.
        UnicodeEncodeError: tables can't be written under its name.
    """
    str(output).encode()
    if output.exists() and not output.is_dir():
        raise ResultError(f"--output {output} is a file; name a folder")


def model_spec(model: str, model_args: Mapping[str, str], config: RunConfig) -> ModelSpec:
    """How the model that a configuration asks for is made."""
    options: dict[str, str | int | bool | None] = {
        "device": config.device,
        "dtype": config.dtype,
        "reasoning": config.mode,
        "candidate_reasoning": config.candidate_reasoning,
        "trust_remote_code": config.trust_remote_code,
    }
    return ModelSpec(model, dict(model_args), options)


def default_output(config: RunConfig, model_args: Mapping[str, str], data: DataInfo) -> Path:
    """Named by what tells runs apart: data folders and arguments of the model by a hash, whichever way a path is spelt.

    Of VALUE in --model NAME:VALUE the last part is there as well, to be read; the hash is what tells it apart.
    """
    name, value = readable_parts(config.model or DEFAULT_MODEL)
    readable = re.sub(r"[^\w.+-]+", "_", re.split(r"[/:]", _spelt_once(value).rstrip("/"))[-1]).strip("._")
    args = {key: _spelt_once(text) for key, text in model_args.items()}
    parts = [data.name.lower()]
    parts += [fingerprint(str(data.root))[:6]] if config.data else []
    parts += [f"seed{config.seed}"] if config.seed and not config.data else []
    parts += [name]
    parts += [readable[:LONGEST_VALUE]] if readable else []
    parts += [fingerprint(args)[:6]] if args else []
    parts += [config.mode] if config.mode else []
    parts += [f"candidates-{config.candidate_reasoning}"] if config.candidate_reasoning else []
    parts += [config.edition] if config.edition else []
    parts += [f"frames{config.frames}"] if config.frames is not None else []
    parts += [f"audio{config.audio_seconds:g}"] if config.audio_seconds is not None else []
    parts += [f"{config.pages}-pages"] if config.pages is not None else []
    parts += [f"limit{config.limit}"] if config.limit is not None else []
    parts += [f"dim{config.dim}"] if config.dim is not None else []
    parts += [config.quantize] if config.quantize != "none" else []
    return Path("runs") / "-".join(parts).replace("/", "_").replace(":", "_")


def _spelt_once(value: str) -> str:
    """A path that exists as an absolute one without links; anything else as it is."""
    try:
        path = Path(value).expanduser()
        return str(path.resolve()) if value and path.exists() else value
    except (OSError, RuntimeError, ValueError):  # no path at all: a name on the hub, an address, a number
        return value
