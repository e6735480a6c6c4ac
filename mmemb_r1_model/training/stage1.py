"""`mmemb-r1 train`: stage 1, from pairs and selected rationales to a checkpoint with both paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmemb_r1_model.disk.trackers import OpenCurves, log_alone
from mmemb_r1_model.training.batches import PlanConfig, Rationales, Steps, WeightedSet, described_pairs
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.loop import FINAL, Loop, LoopConfig, is_finished, within_memory
from mmemb_r1_model.training.prompts import PromptCache
from mmemb_r1_model.training.rollouts import LocalSampler, with_own_rationales
from mmemb_r1_model.training.saved import check_saved
from mmemb_r1_model.training.student import Student


@dataclass(frozen=True)
class TrainConfig:
    """The settings of stage 1."""

    plan: PlanConfig = field(default_factory=PlanConfig)
    contrast: ContrastConfig = field(default_factory=ContrastConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)


def train(
    student: Student,
    sets: Sequence[WeightedSet],
    rationales: Rationales,
    config: TrainConfig,
    folder: Path,
    world: World,
    open_curves: OpenCurves = log_alone,
) -> Path:
    """Run stage 1 in `folder`, from its last checkpoint if it has one; the folder of the trained checkpoint.

    Raises:
        OptionError: a configuration that doesn't fit the data, or another one than the folder's.
        TrainingError: see `Loop.run`.
    """
    described = {
        "train": dataclasses.asdict(config),
        "student": dataclasses.asdict(student.config),
        "rationales": rationales.fingerprint,
        **described_pairs(sets),
    }
    student.set_short(None)  # of the stage 2 that a checkpoint may have been through
    loop = Loop(student, config.loop, world, folder, described, open_curves)
    if is_finished(folder):
        return folder / FINAL
    start = loop.restore()
    read = PromptCache(student.reader.read, config.loop.cached_prompts)
    steps = Steps(sets, config.plan, config.loop, read, rationales, world, start)
    sampler, longest = LocalSampler(student), student.settings.max_new_tokens

    def step(number: int) -> dict[str, float]:
        given, contrast = steps[number], config.contrast
        whole = contrast.micro_batch or len(given.names)

        def attempt(size: int) -> dict[str, float]:
            smaller = (
                contrast if size == whole else dataclasses.replace(contrast, micro_batch=size, gradient_caching=True)
            )
            batch = given
            if contrast.reads_own(number, config.loop.steps):
                sampler.refresh(number)
                batch = with_own_rationales(given, sampler, longest, size)
                sampler.release()
            return joint_backward(student, batch, smaller, world, config.loop.seed + number)

        return within_memory(attempt, whole, "train.contrast.micro_batch (with gradient_caching)", world)

    loop.run(start, step, steps.describe, lambda saved: check_saved(student, sets, read, folder, saved))
    return folder / FINAL
