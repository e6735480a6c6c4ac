"""Run by torchrun in tests: one step's gradient on two processes. Arguments: checkpoint, data folder, output file."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from mmemb_r1_model.training.batches import Plan, PlanConfig, StepReader, WeightedSet
from mmemb_r1_model.training.distributed import join_world, leave_world
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from tests.mmemb_r1.small_training import gradient, make_pairs, make_student


def main(checkpoint: str, folder: str, output: str) -> None:
    torch.set_num_threads(1)
    world = join_world("cpu")
    student = make_student(Path(checkpoint))
    if world.is_first:
        make_pairs(Path(folder), 24)
    world.wait()
    pairs, written = make_pairs(Path(folder), 24, write=False)
    sets = [WeightedSet(pairs, 1.0)]
    plan = PlanConfig(batch_size=12, distractors=2)
    reader = StepReader(Plan(sets, plan, 3, 0), student.reader.prompt, written, world.rank, world.size)
    contrast = ContrastConfig(temperature=0.05, micro_batch=4, gradient_caching=True)
    values = joint_backward(student, reader[1], contrast, world, seed=1)
    world.add_gradients(student.trained())
    if world.is_first:
        torch.save({"values": values, "gradient": gradient(student), "size": world.size}, output)
    leave_world(world)


if __name__ == "__main__":
    main(*sys.argv[1:])
