"""What a run says before it begins: the model and its origin, what computes, what lies idle, where the results go."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmeb_harness.api.asked import Asked
from mmeb_harness.api.config import RunConfig
from mmeb_harness.api.crew import Crew, Part
from mmeb_harness.core import environment
from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.errors import counted
from mmeb_harness.core.items import Scalar

#: Letters of a revision that tell it from others.
_REVISION = 12


def introduction(config: RunConfig, asked: Sequence[Asked], crew: Crew, part: Part) -> list[str]:
    """Two lines, three where there are GPUs; none of the processes that leave the telling to another one."""
    if part.ranks is not None and not part.ranks.is_first:
        return []
    info, chosen = crew.models[0], asked[0].chosen
    data = chosen.data
    what = f"{counted(len(chosen.tasks), 'task')} of {data.name}{', synthetic' if data.synthetic else ''}"
    modes = [f"queries in {len(asked)} modes at once"] if len(asked) > 1 else []
    outputs = ", ".join(str(each.settings.output) for each in asked)
    return [
        _origin(config, info),
        "; ".join((_place(info, crew), what, *modes, f"results: {outputs}")),
        *_gpus(config, info, part),
    ]


def _origin(config: RunConfig, info: ModelInfo) -> str:
    given = f" ({config.model})" if config.model and config.model != info.name else ""
    checkpoint = info.settings.get("checkpoint")
    parts = [
        f"model {info.name}{given}",
        *([f"checkpoint {checkpoint}"] if checkpoint else []),
        f"revision {info.revision[:_REVISION]}",
        *([] if info.parameters is None else [f"{info.parameters:,} parameters"]),
        f"{info.dimensions:,} dimensions",
    ]
    return ", ".join(parts)


def _place(info: ModelInfo, crew: Crew) -> str:
    settings = info.settings
    attention: Scalar = settings.get("attention")
    parts = [
        f"device {settings['device']}" if "device" in settings else "device not stated by the model",
        *([str(settings["dtype"])] if "dtype" in settings else []),
        *([f"attention {attention}"] if attention else []),
        *([] if crew.workers is None else [counted(crew.workers, "worker") if crew.workers else "no workers"]),
    ]
    return ", ".join(parts)


def _gpus(config: RunConfig, info: ModelInfo, part: Part) -> list[str]:
    """Those of this machine by name, and a hint where some lie idle that nobody has hidden."""
    device = info.settings.get("device")
    here = environment.visible_gpus(os.environ)
    if device is None or not here or config.ray:
        return []
    if device == "cpu":
        asked_for = config.device not in (None, "auto")
        return [] if asked_for else [f"{_named(here)}: not used, since the model's library sees no GPU"]
    if part.ranks is not None:
        return [f"{part.ranks.share.count} processes, a GPU each: {here[0]}"]
    _, _, number = (config.device or "").partition(":")
    used = here[int(number)] if number.isdecimal() and int(number) < len(here) else here[0]
    if len(here) == 1 or part.shard is not None:
        return [f"GPU: {used}"]
    all_of_them = f"torchrun --nproc-per-node {len(here)} --no-python mmeb-eval run …"
    return [f"GPU: {used}; {len(here)} GPUs are here, 1 is used: {all_of_them}"]


def _named(gpus: tuple[str, ...]) -> str:
    return f"GPU: {gpus[0]}" if len(gpus) == 1 else f"{len(gpus)} GPUs: {', '.join(dict.fromkeys(gpus))}"
