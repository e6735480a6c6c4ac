"""Run by torchrun in tests: a step's gradient with all weights in both processes, and both stages with split weights.

Arguments: checkpoint, data, output.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from mmemb_r1_model.disk.files import write_json
from mmemb_r1_model.training.batches import Plan, PlanConfig, StepReader, WeightedSet
from mmemb_r1_model.training.distributed import World, join_world, leave_world
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.loop import FINAL, LoopConfig
from mmemb_r1_model.training.losses import JointWeights
from mmemb_r1_model.training.stage1 import TrainConfig, train
from mmemb_r1_model.training.stage2 import AdaptConfig, adapt
from tests.mmemb_r1.small_training import gradient, make_pairs, make_student

LOOP = LoopConfig(steps=3, learning_rate=1e-3, warmup=2, log_every=1, save_every=2, seed=3, cached_prompts=1000)
#: Of stage 2, whose steps are many times as dear.
SHORT = dataclasses.replace(LOOP, steps=2, save_every=1)
#: One extra candidate, so one process has a chunk more; two items a chunk, so some chunks have no picture.
CACHED = TrainConfig(
    plan=PlanConfig(batch_size=4, distractors=1),
    contrast=ContrastConfig(temperature=0.05, micro_batch=2, gradient_caching=True),
    loop=LOOP,
)
UNCACHED = dataclasses.replace(CACHED, contrast=dataclasses.replace(CACHED.contrast, gradient_caching=False))
ADAPT = AdaptConfig(
    plan=PlanConfig(batch_size=4),
    groups=2,
    micro_groups=1,
    negatives=3,
    rollouts=6,
    contrast=ContrastConfig(temperature=0.05, weights=JointWeights(generation=0.0)),
    loop=SHORT,
)
ADAPTERS = {"lora_rank": 4, "lora_alpha": 8, "gradient_checkpointing": True}


def gradient_of_a_step(checkpoint: Path, data: Path, world: World) -> dict[str, object]:
    """Its values, and its gradient on all weights in one vector."""
    student = make_student(checkpoint)
    pairs, written = make_pairs(data, 24, write=False)
    plan = Plan([WeightedSet(pairs, 1.0)], PlanConfig(batch_size=12, distractors=2), 3, 0)
    reader = StepReader(plan, student.reader.prompt, written, world.rank, world.size)
    contrast = ContrastConfig(temperature=0.05, micro_batch=4, gradient_caching=True)
    values = joint_backward(student, reader[1], contrast, world, seed=1)
    world.add_gradients(student.trained())
    return {"values": values, "gradient": gradient(student), "size": world.size}


def run_train(
    config: TrainConfig, checkpoint: Path, data: Path, folder: Path, world: World, **settings: object
) -> None:
    pairs, written = make_pairs(data, 24, write=False)
    train(make_student(checkpoint, world, **settings), [WeightedSet(pairs, 1.0)], written, config, folder, world)


def run_adapt(
    config: AdaptConfig, checkpoint: Path, data: Path, folder: Path, world: World, **settings: object
) -> None:
    pairs, written = make_pairs(data, 24, write=False)
    adapt(make_student(checkpoint, world, **settings), [WeightedSet(pairs, 1.0)], written, config, folder, world)


def main(checkpoint: Path, data: Path, output: Path) -> None:
    torch.set_num_threads(1)
    world = join_world("cpu", shard=True)
    parameters = list(make_student(checkpoint, world).module.parameters())
    kept = world.gather_objects(sum(one.to_local().numel() for one in parameters if isinstance(one, DTensor)))
    if world.is_first:
        write_json(output / "kept.json", {"kept": kept, "all": sum(one.numel() for one in parameters)})
    replicated = dataclasses.replace(world, sharded=False)
    step = gradient_of_a_step(checkpoint, data, replicated)
    if world.is_first:
        torch.save(step, output / "step.pt")
    run_train(CACHED, checkpoint, data, output / "train", world)
    run_train(UNCACHED, checkpoint, data, output / "train-lora", world, **ADAPTERS)
    run_train(CACHED, checkpoint, data, broken_off(output / "train", world, LOOP), world)
    graded = dataclasses.replace(ADAPT, short_tokens=3)
    for name, config, settings in (("adapt", ADAPT, {}), ("adapt-lora", graded, ADAPTERS)):
        run_adapt(config, checkpoint, data, output / name, world, **settings)
        run_adapt(config, checkpoint, data, output / f"{name}-replicated", replicated, **settings)
    run_adapt(graded, checkpoint, data, broken_off(output / "adapt-lora", world, SHORT), world, **ADAPTERS)
    for name, one in (("adapter", world), ("adapter-replicated", replicated)):
        make_student(checkpoint, one, **ADAPTERS).save_adapter(output / name)
    leave_world(world)


def broken_off(run: Path, world: World, loop: LoopConfig) -> Path:
    """A copy of a run as it was before its last step."""
    folder = run.with_name(f"{run.name}-resumed")
    if world.is_first:
        shutil.copytree(run, folder)
        shutil.rmtree(folder / FINAL)
        shutil.rmtree(folder / f"checkpoint-{loop.steps:07}", ignore_errors=True)
    world.wait()
    return folder


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
