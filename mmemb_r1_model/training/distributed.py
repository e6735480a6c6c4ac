"""One process or many: gathering vectors and adding gradients up. Started by torchrun, or alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from mmeb_harness.adapter.checkpoints import resolve_place
from mmemb_r1_model.disk.errors import OptionError

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        sharded: parameters are split over the processes (FSDP), which averages gradients by itself. Then every process
            must run the model equally often.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    sharded: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def loss_scale(self) -> float:
        """By what a loss over the whole batch is multiplied so that the gradients add up to its own."""
        return float(self.size) if self.sharded else 1.0

    def gather(self, local_ND: Tensor) -> Tensor:
        """Rows of all processes, in their order; only this process's own carry a gradient.

        The loss over all rows, differentiated on every process for its own rows and added up, has the gradient
        of a single process that holds them all.
        """
        if self.size == 1:
            return local_ND
        lengths: list[int] = self.gather_objects(len(local_ND))
        padded = local_ND.new_zeros(max(lengths), *local_ND.shape[1:])
        padded[: len(local_ND)] = local_ND.detach()
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        rows = [part[:length] for part, length in zip(parts, lengths, strict=True)]
        rows[self.rank] = local_ND
        return torch.cat(rows)

    def gather_objects(self, local: Value) -> list[Value]:
        """One value of every process, in their order."""
        if self.size == 1:
            return [local]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, local)
        return values

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of all processes, in one message per type."""
        if self.size == 1 or self.sharded:
            return
        gradients: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:  # its part of the model saw nothing here, but may have elsewhere
                    parameter.grad = torch.zeros_like(parameter)
                gradients.setdefault(parameter.dtype, []).append(parameter.grad)
        for group in gradients.values():
            flat = nn.utils.parameters_to_vector(group)
            distributed.all_reduce(flat)
            nn.utils.vector_to_parameters(flat, group)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()


def leave_world(world: World) -> None:
    """Wait for all and close the connections: a process that just exits can make its neighbour abort."""
    if world.size > 1 and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what is drawn on a device from here on, dropout above all."""
    if device.type == "cpu":
        # Else torch notes for a GPU that isn't there who has asked: a millisecond each time.
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def join_world(device: str, shard: bool = False) -> World:
    """Join the processes that torchrun started; alone if there are none.

    Args:
        device: "auto", "cpu" or "cuda".
        shard: split weights, gradients and optimiser state over the processes.

    Raises:
        OptionError: `shard` with one process, which has nobody to share with; or no device.
        ModelError: no GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if shard and size == 1:
        raise OptionError(
            "student.shard: true needs several processes: torchrun --nproc_per_node N -m mmemb_r1_model.cli …; or set "
            "it to false"
        )
    kind, _ = resolve_place(torch, device, "auto", "device")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(kind, local_rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    return World(int(os.environ.get("RANK", "0")), size, place, shard)
