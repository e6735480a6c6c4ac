"""Weights split over the processes (FSDP2): each keeps a part of every tensor and gathers a layer when it runs.

Every pass and every whole tensor is a message among all processes: all must make the same ones, in the same order.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from mmemb_r1_model.disk.errors import ModelError
from mmemb_r1_model.training.distributed import World

Module = TypeVar("Module", bound=nn.Module)

#: What is gathered and let go of as one; all else is the root's. Not the vision tower's blocks: they run only where
#: there are pictures, and a process that has none would leave the others waiting for its part.
_UNIT = "Qwen3VLTextDecoderLayer"


def shard(module: nn.Module, world: World) -> None:
    """Split a module's parameters in place and bring it to the device.

    Parameters and gradients keep their type, on the way as well: whether bfloat16 computes is autocast's business.

    Raises:
        ModelError: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator, FullyShardedDataParallelPlugin
        from accelerate.utils import fsdp2_prepare_model
    except ImportError as error:
        raise ModelError(
            "student.shard: true needs accelerate: pip install 'mmeb-harness[train]'; or set it to false"
        ) from error
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=[_UNIT]
    )
    accelerator = Accelerator(cpu=world.device.type == "cpu", mixed_precision="no", fsdp_plugin=plugin)
    # Not `accelerator.prepare`: on a CPU accelerate 1.15 drops the plugin and replicates the model (DDP). What
    # `prepare` calls to shard runs on a CPU as well, so that the tests run what a GPU runs.
    accelerator.state.fsdp_plugin = plugin
    fsdp2_prepare_model(accelerator, module)
    # The root as well, which FSDP leaves whole for the backward pass: where none follows (the reference's vectors),
    # the next pass would not see what the optimiser or a checkpoint has changed since.
    cast(FSDPModule, module).set_reshard_after_forward(True)


def is_sharded(module: nn.Module) -> bool:
    """Whether the parameters of a module are split over processes."""
    return isinstance(module, FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split; if it is, every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_on_first(tensors: Iterable[tuple[str, Tensor]], world: World) -> dict[str, Tensor]:
    """Whole tensors by name in the first process's main memory, nothing in the others'; every process must call it."""
    whole_tensors = {}
    for name, tensor in tensors:
        gathered = whole(tensor.detach())
        if world.is_first:
            whole_tensors[name] = gathered.cpu()
    return whole_tensors


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor what this process keeps of `like`; all of it where `like` isn't split or of another shape."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor
    # No source: every process has read the whole.
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def without_weights(module: Module) -> Module:
    """A copy whose parameters take no memory, to be filled by `with_weights`; buffers are copied."""
    return with_weights(module, {name: torch.empty_like(own, device="meta") for name, own in module.named_parameters()})


def with_weights(module: Module, weights: Mapping[str, Tensor]) -> Module:
    """A copy with other weights, none of which learns; parameters that are shared in the module stay shared."""
    # What stands in deepcopy's memo counts as copied already.
    replaced = {id(own): nn.Parameter(weights[name], requires_grad=False) for name, own in module.named_parameters()}
    return copy.deepcopy(module, replaced)
