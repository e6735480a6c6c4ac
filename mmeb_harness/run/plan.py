"""What a run will evaluate, before anything is encoded: profiles, fingerprints, and whether all can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from mmeb_harness.core.embedder import Embedder
from mmeb_harness.core.errors import DataError, OptionError
from mmeb_harness.core.items import Frames, Profile, Quantization
from mmeb_harness.core.tasks import Task
from mmeb_harness.data.folder import DataInfo, data_revision, load_samples
from mmeb_harness.results.files import model_fingerprint, task_fingerprint


@dataclass(frozen=True)
class PlannedTask:
    """A task, the revision of its data, and the fingerprint that its result will have."""

    task: Task
    data_revision: str
    fingerprint: str
    profile: Profile


def plan_task(task: Task, info: DataInfo, embedder: Embedder, profile: Profile, limit: int | None) -> PlannedTask:
    """What a task's result will be of."""
    revision = data_revision(task, info)
    mark = task_fingerprint(
        task.name,
        task.edition,
        task.metric,
        data=info.name,
        synthetic=info.synthetic,
        data_revision=revision,
        model=fingerprint_of(embedder),
        profile=profile,
        limit=limit,
    )
    return PlannedTask(task, revision, mark, profile)


def run_profile(embedder: Embedder, frames: int | None, dimensions: int | None, quantization: Quantization) -> Profile:
    """The model's profile, with the run's own choices: frames, dimensions, quantization.

    A clip is never shown with more frames than the model's profile has for one: few were saved.

    Raises:
        OptionError: the model's vectors can't be shortened or quantised so.
    """
    profile = embedder.info.profile
    if frames is not None:
        clip = min(frames, profile.frames.clip)
        shown = dataclasses.replace(profile.frames, video=frames, clip=clip)
        profile = dataclasses.replace(profile, frames=shown)
    if dimensions is None and quantization == "none":
        return profile
    _check_compressible(embedder, dimensions)
    compared = None if dimensions == embedder.info.dimensions else dimensions
    return dataclasses.replace(profile, dimensions=compared, quantization=quantization)


def _check_compressible(embedder: Embedder, dimensions: int | None) -> None:
    name, width = embedder.info.name, embedder.info.dimensions
    if embedder.info.similarity == "max_sim":
        raise OptionError(
            f"--dim and --quantize are for models of one vector an item; {name!r} gives several (late interaction)"
        )
    if dimensions is not None and not 1 <= dimensions <= width:
        raise OptionError(f"--dim {dimensions}: the vectors of {name!r} have {width} dimensions; choose 1 to {width}")


def fingerprint_of(embedder: Embedder) -> str:
    """Names a model's vectors."""
    info = embedder.info
    return model_fingerprint(info.name, info.revision, info.dimensions, info.settings, info.profile)


def check_readable(tasks: Sequence[Task], info: DataInfo, frames: Frames) -> None:
    """Read every task once before the first item is encoded: what is missing shows now, not after hours.

    Raises:
        DataError: the first task's problem, and the names of the others that have one.
    """
    problems: list[tuple[str, DataError]] = []
    for task in tasks:
        try:
            load_samples(task, info, frames)
        except DataError as error:
            problems.append((task.name, error))
    if problems:
        others = ", ".join(name for name, _ in problems[1:6]) + (" …" if len(problems) > 6 else "")
        more = f" ({len(problems) - 1} more tasks can't be read: {others})" if len(problems) > 1 else ""
        raise DataError(f"{problems[0][1]}{more}") from problems[0][1]
