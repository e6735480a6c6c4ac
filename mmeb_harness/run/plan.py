"""What is asked for, as one value: derived once, where options become values, and only read from then on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.errors import ModelError, OptionError
from mmeb_harness.core.items import Medium, PageFiles, Profile, Quantization
from mmeb_harness.core.registry import RegisteredTask
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo, data_revision
from mmeb_harness.encode.chunks import DEFAULT_BATCH_TOKENS
from mmeb_harness.results.files import model_fingerprint, task_fingerprint, unsupported_text
from mmeb_harness.results.folder import RunFolder


@dataclass(frozen=True)
class RunSettings:
    """How to evaluate, besides what and with which model.

    Attributes:
        edition: of the benchmark, as the tasks are of; stands in the results.
        frames: frames of a video to show; `None`: as many as the model's profile asks for.
        audio_seconds: of a sound, from its start; `None`: as many as the profile asks for.
        pages: how pages of documents are written; `None`: as the model's profile says.
        limit: only the first queries of each task; marks the results, which are then never ranked.
        dimensions: how many of the vectors' first ones to compare; `None`: all.
        quantization: of the vectors compared.
        fresh: forget what the folder holds and start over, encoding too; stored vectors stay for other runs.
        forgets: names of the chunks of vectors that it then forgets; `None`: all that are stored.
        vectors: where vectors are kept; `None`: `.vectors` beside `output`.
        keep_states: keep of each query the state that the model's gate reads.
    """

    output: Path
    edition: str = ""
    frames: int | None = None
    audio_seconds: float | None = None
    pages: PageFiles | None = None
    limit: int | None = None
    seed: int = 0
    batch_tokens: int = DEFAULT_BATCH_TOKENS
    dimensions: int | None = None
    quantization: Quantization = "none"
    fresh: bool = False
    forgets: frozenset[str] | None = None
    vectors: Path | None = None
    keep_states: bool = False
    model_args: Mapping[str, str] = field(default_factory=dict)

    @property
    def vectors_folder(self) -> Path:
        """Holds a folder of vectors for every model's fingerprint."""
        return self.vectors or self.output.resolve().parent / ".vectors"


@dataclass(frozen=True)
class PlannedTask:
    """A task, the revision of its data, and the fingerprint that its result will have."""

    task: Task
    data_revision: str
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """One evaluation, before anything is read or encoded.

    Attributes:
        tasks: that are asked for and that the model takes, by name, in order.
        unsupported: that are asked for, too → the media that they need and the model doesn't take.
        others: of which the folder has results of earlier invocations; they stay part of the run while they are of
            the same model, settings and data.
        registered: all tasks known, by name; those of the benchmark decide which means are complete.
        model: of the vectors; `fingerprint` names them, and `candidate_fingerprint` those of candidates.
        profile: the model's, with the run's own choices.
        pending: whether anything is left to be encoded for it, as far as is known; else its results are there.
    """

    tasks: Mapping[str, PlannedTask]
    unsupported: Mapping[str, tuple[Medium, ...]]
    others: Mapping[str, PlannedTask]
    registered: Mapping[str, RegisteredTask]
    data: DataInfo
    model: ModelInfo
    fingerprint: str
    candidate_fingerprint: str
    profile: Profile
    settings: RunSettings
    pending: bool = True

    @property
    def folder(self) -> RunFolder:
        """Where the results go."""
        return RunFolder(self.settings.output)

    @property
    def vectors(self) -> Path:
        """Where the model's vectors are."""
        return self.settings.vectors_folder / self.fingerprint

    @property
    def candidate_vectors(self) -> Path:
        """Where those of candidates are written: the same folder, or one of all models that encode candidates alike."""
        return self.settings.vectors_folder / self.candidate_fingerprint


def make_plan(
    tasks: Sequence[RegisteredTask],
    registered: Mapping[str, RegisteredTask],
    data: DataInfo,
    model: ModelInfo,
    settings: RunSettings,
) -> Plan:
    """What evaluating `model` on `tasks`, some of the registered ones, means.

    Raises:
        OptionError: the model's vectors can't be shortened or quantised as the settings say, or it gives no states.
        ModelError: it takes none of the tasks.
        DataError: a task's annotations are missing.
    """
    if settings.keep_states and model.state_dimensions is None:
        raise OptionError(
            f"--keep-states: {model.name!r} gives no state that a gate reads (no `info.state_dimensions`); leave it out"
        )
    unsupported = unsupported_tasks([each.task for each in tasks], model)
    if len(unsupported) == len(tasks):
        check_taken([each.task for each in tasks], model)
    choices = (settings.dimensions, settings.quantization, settings.audio_seconds, settings.pages)
    profile = run_profile(model, settings.frames, *choices, edition=settings.edition)
    fingerprint = fingerprint_of(model)
    folder = RunFolder(settings.output)

    def planned(task: Task) -> PlannedTask:
        revision = data_revision(task, data)
        mark = task_fingerprint(
            task.name,
            task.edition,
            task.metric,
            data=data.name,
            synthetic=data.synthetic,
            data_revision=revision,
            model=fingerprint,
            profile=profile,
            limit=settings.limit,
        )
        return PlannedTask(task, revision, mark)

    asked_for = [each.task.name for each in tasks if each.task.name not in unsupported]
    apart = {*asked_for, *unsupported}
    left = [name for name in registered if name not in apart and folder.task_file(name).is_file()]
    return Plan(
        tasks={name: planned(registered[name].task) for name in asked_for},
        unsupported=unsupported,
        others={} if settings.fresh else {name: planned(registered[name].task) for name in left},
        registered=registered,
        data=data,
        model=model,
        fingerprint=fingerprint,
        candidate_fingerprint=fingerprint_of(model.of_candidates) if model.query_settings else fingerprint,
        profile=profile,
        settings=settings,
    )


def unsupported_tasks(tasks: Sequence[Task], model: ModelInfo) -> dict[str, tuple[Medium, ...]]:
    """The tasks that need what a model doesn't take → which media those are."""
    lacked = {task.name: tuple(medium for medium in task.media if medium not in model.media) for task in tasks}
    return {name: media for name, media in lacked.items() if media}


def check_taken(tasks: Sequence[Task], model: ModelInfo) -> None:
    """Refuse tasks that a model doesn't take.

    Raises:
        ModelError: there are some.
    """
    if unsupported := unsupported_tasks(tasks, model):
        raise ModelError(
            f"model {model.name!r} can't be run on {unsupported_text(unsupported)}; choose other tasks, or another "
            "model (a model's `info.media` says what it takes)"
        )


def run_profile(
    model: ModelInfo,
    frames: int | None,
    dimensions: int | None = None,
    quantization: Quantization = "none",
    audio_seconds: float | None = None,
    pages: PageFiles | None = None,
    *,
    edition: str = "",
) -> Profile:
    """The model's profile, with the run's own choices: frames, pages, dimensions, quantization, seconds of a sound; and
    how its edition shows clips that have fewer frames.

    A clip is never shown with more frames than the model's profile has for one: few were saved.

    Raises:
        OptionError: the model's vectors can't be shortened or quantised so.
    """
    shown = model.profile.frames
    if benchmark_of(edition).spreads_frames:
        shown = dataclasses.replace(shown, short="spread")
    if frames is not None:
        shown = dataclasses.replace(shown, video=frames, clip=min(frames, shown.clip))
    profile = dataclasses.replace(model.profile, frames=shown)
    if audio_seconds is not None:
        profile = dataclasses.replace(profile, audio_seconds=audio_seconds)
    if pages is not None:
        profile = dataclasses.replace(profile, frames=dataclasses.replace(profile.frames, pages=pages))
    if dimensions is None and quantization == "none":
        return profile
    _check_compressible(model, dimensions)
    compared = None if dimensions == model.dimensions else dimensions
    return dataclasses.replace(profile, dimensions=compared, quantization=quantization)


def _check_compressible(model: ModelInfo, dimensions: int | None) -> None:
    name, width = model.name, model.dimensions
    if model.similarity == "max_sim":
        raise OptionError(
            f"--dim and --quantize are for models of one vector an item; {name!r} gives several (late interaction)"
        )
    if dimensions is not None and not 1 <= dimensions <= width:
        raise OptionError(f"--dim {dimensions}: the vectors of {name!r} have {width} dimensions; choose 1 to {width}")


def fingerprint_of(model: ModelInfo) -> str:
    """Names a model's vectors."""
    return model_fingerprint(model.name, model.revision, model.dimensions, model.settings, model.profile)
