"""Whether what a stage saves is what it trained: both models on a few of the stage's own items.

The saved model is run as it will be, with weights in the type that the student computes in. Rounding alone moves
vectors a little, in all directions alike, so their cosine to the live ones says nothing of a stage that moved them by
less. What is lost systematically shows in the weights: in the share of what adapters have learnt that they have.

Legend of shapes: I items, D hidden size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from mmemb_r1_model.data.pairs import Item, item_of
from mmemb_r1_model.disk.errors import say
from mmemb_r1_model.disk.files import write_json
from mmemb_r1_model.model.checkpoint import load_weights, open_checkpoint
from mmemb_r1_model.model.gate import action_logits, of_reasoning
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.training.batches import Input, WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import TrainingError
from mmemb_r1_model.training.rollouts import LocalSampler
from mmemb_r1_model.training.student import Learnt, Student, evaluating

#: Items that both models read: vectors have so many numbers that few items tell one model from another.
ITEMS = 8
#: Tokens of a rationale that are compared, at most; each costs a step of both models.
TOKENS = 256
#: Rounding to bfloat16 leaves 0.999 and more (the embedded checkpoint); a weight left out, or added twice, doesn't.
LEAST_COSINE = 0.99
#: Of p(reason). bfloat16 rounds logits of 16 by up to 0.06: both models' two move it by 0.06 at most.
MOST_GATE = 0.1
#: Float32 adds what it is given. Sums that are rounded to bfloat16 fall back to what they were: a tenth (LOG.md).
LEAST_KEPT = 0.99
#: Below it, a line says so: what is learnt is less than that type tells apart, as after very few steps.
LEAST_SERVED = 0.8

NAME = "saved.json"

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Distance:
    """How far the saved model is from the live one.

    Attributes:
        cosine: of their vectors on both paths, the least.
        gate: difference of p(reason), the greatest.
        rationales: share of items whose greedy rationale is another one. Not bounded: where two tokens are nearly
            equally likely any rounding chooses, and all that follows differs.
        kept: share of what adapters have learnt that the saved weights have. `None`: there are no adapters.
        served: the same of these weights when each is rounded as it will be: 1 if as many go up as down, less where
            they began as numbers of that type and have learnt little. Reported, not bounded: the file has it all.
    """

    cosine: float
    gate: float
    rationales: float
    kept: float | None = None
    served: float | None = None

    def __str__(self) -> str:
        said = (
            f"cosine at least {self.cosine:.5f}, gate within {self.gate:.4f}, {self.rationales:.0%} of rationales "
            "differ"
        )
        if self.kept is None or self.served is None:
            return said
        return f"{said}, {self.kept:.1%} of what adapters learnt is kept, {self.served:.1%} as it will run"

    @property
    def is_near(self) -> bool:
        """Whether it could be rounding."""
        kept = 1.0 if self.kept is None else self.kept
        return self.cosine >= LEAST_COSINE and self.gate <= MOST_GATE and kept >= LEAST_KEPT


def check_saved(
    student: Student, sets: Sequence[WeightedSet], read: Callable[[Item], Prompt], folder: Path, saved: Path
) -> None:
    """Compare a student with what it wrote; every process must call it.

    Args:
        folder: of the run, in which saved.json says what was found.
        saved: the checkpoint that was written.

    Raises:
        TrainingError: they differ by more than rounding.
    """
    items = [pair_item(sets, number) for number in range(ITEMS)]
    apart = distance(student, [Input(item, read(item), None) for item in items], saved)
    if apart is not None:
        write_json(folder / NAME, dataclasses.asdict(apart))
        say(f"{folder.name}: the saved model beside the trained one: {apart}")
        if apart.served is not None and apart.served < LEAST_SERVED:
            say(
                f"{folder.name}: {student.config.dtype} tells too little of that apart: run the model with --dtype "
                "float32, or train it for more steps or at a higher rate"
            )
    (apart, *_) = student.world.gather_objects(apart)
    if apart is not None and not apart.is_near:
        raise TrainingError(
            f"{saved} isn't the model that was trained: {apart}. Bounds: cosine {LEAST_COSINE}, gate {MOST_GATE}, "
            f"kept {LEAST_KEPT:.0%}. It stays for you to look at; this is a fault of the program, or the files were "
            "changed meanwhile"
        )


def pair_item(sets: Sequence[WeightedSet], number: int) -> Item:
    """The query of a pair: of one data set after the other, as often as it takes."""
    pairs = sets[number % len(sets)].pairs
    return item_of(pairs[number // len(sets) % len(pairs)], "query")


def distance(student: Student, inputs: Sequence[Input], saved: Path) -> Distance | None:
    """Between a student and the checkpoint that it wrote; `None` in all processes but the first.

    Every process must call it: weights may be split.
    """
    longest = min(student.settings.max_new_tokens, TOKENS)
    written = _rationales(student, inputs, longest)
    live = _read(student, inputs, written)
    learnt = list(student.learnt()) if student.module.has_adapters else []
    if not student.world.is_first:
        return None
    kept, served = _shares(student, learnt, saved) if learnt else (None, None)
    other = _opened(student, saved)
    then = _read(other, inputs, written)
    changed = [own != again for own, again in zip(written, _rationales(other, inputs, longest), strict=True)]
    return Distance(
        cosine=float(functional.cosine_similarity(live.vectors_ID, then.vectors_ID, dim=-1).min()),
        gate=float((live.gate_I - then.gate_I).abs().max()),
        rationales=sum(changed) / len(changed),
        kept=kept,
        served=served,
    )


@dataclass(frozen=True)
class _Seen:
    """Of each item the vectors (2 I, D) on both paths, and p(reason)."""

    vectors_ID: Tensor
    gate_I: Tensor


def _shares(student: Student, learnt: Sequence[Learnt], saved: Path) -> tuple[float, float]:
    """How far weights went along the way of the live ones: as saved, and rounded. 1 where these went none."""
    checkpoints = student.checkpoint, open_checkpoint(str(saved), None)
    before, after = (load_weights(checkpoint, _CPU, torch.float32, "sdpa") for checkpoint in checkpoints)
    way = along = along_rounded = 0.0
    for own in learnt:
        update, old, new = own.update(), own.part_of(before), own.part_of(after)
        way += _dot(update, update)
        along += _dot(new - old, update)
        along_rounded += _dot(_rounded(student, new) - _rounded(student, old), update)
    return (along / way, along_rounded / way) if way else (1.0, 1.0)


def _rounded(student: Student, weight: Tensor) -> Tensor:
    return weight.to(getattr(torch, student.config.dtype)).float()


def _dot(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))


def _rationales(student: Student, inputs: Sequence[Input], longest: int) -> list[tuple[int, ...]]:
    sampler = LocalSampler(student)
    sampler.refresh(0)
    return [rollout.ids for (rollout,) in sampler.sample(inputs, 1, longest, seed=0)]


@torch.no_grad()
def _read(student: Student, inputs: Sequence[Input], written: Sequence[tuple[int, ...]]) -> _Seen:
    """One item after the other: what training may hold is no measure for what fits here."""
    seen = []
    with evaluating(student.module):
        for given, ids in zip(inputs, written, strict=True):
            seen.append(student.encode(student.pack([given.prompt], [[[student.emb], list(ids)]])))
    gates_IA = action_logits(torch.cat([encoded.gate_BA for encoded in seen]), student.settings.short)
    vectors_ID = torch.cat([encoded.vectors_RD for encoded in seen])
    return _Seen(vectors_ID.double().cpu(), of_reasoning(torch.softmax(gates_IA, dim=-1)).sum(dim=-1).cpu())


def _opened(student: Student, saved: Path) -> Student:
    """A checkpoint as it will be run, by this process alone."""
    config = dataclasses.replace(student.config, checkpoint=str(saved), revision=None, lora_rank=0, shard=False)
    checkpoint = open_checkpoint(config.checkpoint, None)
    model = load_weights(checkpoint, student.device, getattr(torch, config.dtype), "sdpa")
    return Student(checkpoint, model, config, World(device=student.device))
