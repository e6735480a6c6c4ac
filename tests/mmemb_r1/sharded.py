"""Run by torchrun in tests: both stages with weights split over two processes. Arguments: checkpoint, output folder."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import torch

from mmemb_r1_model.losses import JointWeights
from mmemb_r1_model.training.batches import PlanConfig, WeightedSet
from mmemb_r1_model.training.distributed import World, join_world, leave_world
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.loop import LoopConfig
from mmemb_r1_model.training.stage1 import TrainConfig, train
from mmemb_r1_model.training.stage2 import AdaptConfig, adapt
from tests.mmemb_r1.training import make_pairs, make_student

LOOP = LoopConfig(steps=6, learning_rate=1e-3, warmup=2, log_every=1, save_every=4, seed=3, cached_prompts=1000)
#: Three extra candidates over two processes, two at once: one process has a chunk more than the other.
TRAIN = TrainConfig(
    plan=PlanConfig(batch_size=8, distractors=3),
    contrast=ContrastConfig(temperature=0.05, micro_batch=1, gradient_caching=True),
    loop=LOOP,
)
ADAPT = AdaptConfig(
    plan=PlanConfig(batch_size=8),
    groups=4,
    micro_groups=1,
    negatives=6,
    rollouts=4,
    contrast=ContrastConfig(temperature=0.05, weights=JointWeights(generation=0.0)),
    loop=dataclasses.replace(LOOP, steps=3, save_every=2),
)
ADAPTERS = {"lora_rank": 4, "lora_alpha": 8}


def run_train(checkpoint: Path, data: Path, folder: Path, world: World, uncached: bool = False, **settings: object) -> None:
    pairs, written = make_pairs(data, 24, write=False)
    config = TRAIN
    if uncached:
        config = dataclasses.replace(config, contrast=dataclasses.replace(TRAIN.contrast, gradient_caching=False))
    train(make_student(checkpoint, world, **settings), [WeightedSet(pairs, 1.0)], written, config, folder, world)


def run_adapt(checkpoint: Path, data: Path, folder: Path, world: World, **settings: object) -> None:
    pairs, written = make_pairs(data, 24, write=False)
    adapt(make_student(checkpoint, world, **settings), [WeightedSet(pairs, 1.0)], written, ADAPT, folder, world)


def main(checkpoint: str, output: str) -> None:
    torch.set_num_threads(1)
    world, folder = join_world("cpu", shard=True), Path(output)
    import time
    t=time.time()
    def say(x):
        nonlocal t
        if world.is_first: print(x, time.time()-t, flush=True)
        t=time.time()
    data = folder / "data"
    together = dataclasses.replace(world, sharded=False)
    run_train(Path(checkpoint), data, folder / "full", world)
    say("full")
    run_train(Path(checkpoint), data, folder / "uncached", world, uncached=True)
    say("uncached")
    run_train(Path(checkpoint), data, folder / "repl", together)
    say("repl")
    run_train(Path(checkpoint), data, folder / "lora", world, **ADAPTERS)
    say("lora")
    if world.is_first:
        shutil.copytree(folder / "full" / "checkpoint-0000004", folder / "resumed" / "checkpoint-0000004")
    world.wait()
    run_train(Path(checkpoint), data, folder / "resumed", world)
    say("resumed")
    for name, settings in (("adapt-full", {}), ("adapt-lora", ADAPTERS)):
        run_adapt(Path(checkpoint), data, folder / f"{name}-sharded", world, **settings)
        say("a")
        run_adapt(Path(checkpoint), data, folder / f"{name}-whole", together, **settings)
        say("b")
    leave_world(world)


if __name__ == "__main__":
    main(*sys.argv[1:])
