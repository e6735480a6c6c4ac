"""Stage 1: one batch's joint loss and its gradient.

    L = lambda_r L_ctr(z^r) + lambda_d L_ctr(z^d) + lambda_g L_gen + lambda_x L_cross

The terms L_ctr(z^r), L_ctr(z^d) and L_gen are the paper's, by secondary summaries; L_cross, the weights and all
numbers are ours. L_gen is the next-token loss over `<think> r </think> <emb>`, or over `<emb>` alone where a side
has no rationale, which is what starts the gate; its first token is smoothed, so that the gate stays undecided enough
to learn.

Large batches go through gradient caching (Gao et al. 2021): vectors first, without a graph; the gradient of the
loss with respect to them; then chunk by chunk again, with a graph. The same gradient as in one piece (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmemb_r1_model.disk.config import Above0, Least0, Share
from mmemb_r1_model.model.gate import DIRECT, LONG
from mmemb_r1_model.training.batches import Input, StepBatch, right_pairs
from mmemb_r1_model.training.distributed import World, seed_draws
from mmemb_r1_model.training.losses import JointWeights, contrastive_terms
from mmemb_r1_model.training.student import Student


@dataclass(frozen=True)
class ContrastConfig:
    """The joint loss.

    Attributes:
        micro_batch: items that the model sees at once; 0: one side of the whole batch.
        gradient_caching: keep no graph of one chunk while the others run. Costs a second forward pass, and is
            what lets a batch be larger than memory.
        gate_smoothing: share of the first token's target that goes to the other path. A gate that stage 1 made certain
            has no gradient left in stage 2: p (1 - p) is in it.
        own_from: share of the steps from which on the contrastive terms see what the student writes itself, greedily,
            wherever an item has a rationale; 1: never. A vector that has only been behind right rationales believes
            wrong ones, and a student's own are wrong more often than its teachers'. Costs the writing.
    """

    temperature: Above0 = 0.02
    weights: JointWeights = field(default_factory=JointWeights)
    micro_batch: Least0 = 0
    gradient_caching: bool = False
    gate_smoothing: Share = 0.1
    own_from: Share = 1.0

    def reads_own(self, step: int, steps: int) -> bool:
        """Whether the contrastive terms see the student's own rationales at a step, counted from 0."""
        return step >= round(self.own_from * steps)


@dataclass(frozen=True)
class ChunkResult:
    """Vectors (n, D) of a chunk's items on both paths, and the summed next-token loss."""

    direct: Tensor
    reasoned: Tensor
    generation: Tensor


def joint_backward(
    student: Student, batch: StepBatch, config: ContrastConfig, world: World, seed: int
) -> dict[str, float]:
    """Add the gradient of the joint loss over all processes' pairs to the parameters.

    Args:
        seed: of dropout, which must be the same in both passes of gradient caching.

    Returns:
        The unweighted terms and "loss", over the whole batch of all processes.
    """
    inputs = [*batch.queries, *batch.positives, *batch.extras]
    chunks = _chunks((batch.queries, batch.positives, batch.extras), config.micro_batch)
    num_tokens = sum(world.gather_objects(sum(_completion_length(student, given) for given in inputs)))
    # Split weights need equally many passes in every process; those further ones add nothing. Queries and positives are
    # shared out evenly, extra candidates are not.
    idle_passes = max(world.gather_objects(len(chunks))) - len(chunks) if world.sharded else 0
    passes = [*chunks, *[chunks[0][:1]] * idle_passes]
    with torch.set_grad_enabled(not config.gradient_caching):
        results = [_run(student, chunk, config.gate_smoothing, seed, number) for number, chunk in enumerate(passes)]
    if not config.gradient_caching:
        loss, terms = _loss(batch, results[: len(chunks)], config, world, num_tokens)
        idle = sum(result.generation for result in results[len(chunks) :])
        torch.autograd.backward((loss + 0 * idle) * world.loss_scale)
        return terms
    leaves = [
        ChunkResult(result.direct.requires_grad_(), result.reasoned.clone().requires_grad_(), result.generation)
        for result in results
    ]
    loss, terms = _loss(batch, leaves[: len(chunks)], config, world, num_tokens)
    torch.autograd.backward(loss)
    for number, (chunk, leaf) in enumerate(zip(passes, leaves, strict=True)):
        again = _run(student, chunk, config.gate_smoothing, seed, number)
        weight = config.weights.generation if number < len(chunks) else 0.0
        surrogate = weight * again.generation / num_tokens
        for vectors, gradient in ((again.direct, leaf.direct.grad), (again.reasoned, leaf.reasoned.grad)):
            if gradient is not None:
                surrogate = surrogate + (vectors * gradient).sum()
        torch.autograd.backward(surrogate * world.loss_scale)
    return terms


def _chunks(sides: Sequence[Sequence[Input]], size: int) -> list[Sequence[Input]]:
    """Pieces of at most `size` items, none of which spans two sides."""
    chunks: list[Sequence[Input]] = []
    for side in sides:
        step = size or max(len(side), 1)
        chunks += [side[first : first + step] for first in range(0, len(side), step)]
    return chunks


def _completion_length(student: Student, given: Input) -> int:
    if not given.taught:
        return 0
    return 1 if given.rationale is None else len(student.completion(given.rationale))


def _run(student: Student, chunk: Sequence[Input], smoothing: float, seed: int, number: int) -> ChunkResult:
    """The direct and the reasoned path of a chunk's items."""
    seed_draws(seed * 1009 + number, student.device)
    completions = [[[student.emb]] for _ in chunk]
    taught_branches, place = [], 0
    for own, given in zip(completions, chunk, strict=True):
        if given.rationale is not None and (given.taught or given.written is None):
            taught_branches.append(place + len(own))
            own.append(student.completion(given.rationale))
        if given.written is not None:
            own.append(list(given.written))
        place += len(own)
    packed = student.pack([given.prompt for given in chunk], completions)
    direct = [index for index, branch in enumerate(packed.branches) if branch.end - branch.start == 1]
    encoded = student.encode(packed, taught_branches)
    of_row = {branch.row: index for index, branch in enumerate(packed.branches)}  # the reasoned one is the last
    device = encoded.gate_BA.device
    has = torch.tensor([given.rationale is not None for given in chunk], device=device)
    taught = torch.tensor([given.taught for given in chunk], device=device)
    think, emb = encoded.gate_BA[:, LONG], encoded.gate_BA[:, DIRECT]
    first = torch.where(has, torch.lerp(think, emb, smoothing), torch.lerp(emb, think, smoothing)) * taught
    rest = [log_probs.sum() for log_probs in encoded.log_probs]
    return ChunkResult(
        direct=encoded.vectors_RD[direct],
        reasoned=encoded.vectors_RD[[of_row[row] for row in range(len(chunk))]],
        generation=-(first.sum() + (torch.stack(rest).sum() if rest else 0.0)),
    )


def _loss(
    batch: StepBatch, results: Sequence[ChunkResult], config: ContrastConfig, world: World, num_tokens: int
) -> tuple[Tensor, dict[str, float]]:
    n = len(batch.names)
    direct = torch.cat([result.direct for result in results])
    reasoned = torch.cat([result.reasoned for result in results])
    extra_ED = world.gather(direct[2 * n :])
    on_direct, on_reasoned = (
        (world.gather(vectors[:n]), world.gather(vectors[n : 2 * n])) for vectors in (direct, reasoned)
    )
    sides = zip(batch.queries, batch.positives, strict=True)
    reasons = [query.rationale is not None or positive.rationale is not None for query, positive in sides]
    shared = world.gather_objects((batch.labels, batch.extra_labels, reasons))
    labels = [own for part in shared for own in part[0]]
    extra_labels = [label for part in shared for label in part[1]]
    has_rationale = torch.tensor([has for part in shared for has in part[2]])
    # Where a candidate is as right for a query as its own positive.
    same_NM = right_pairs([own.right for own in labels], [*(own.has for own in labels), *extra_labels])
    terms = contrastive_terms(
        on_direct, on_reasoned, extra_ED, config.temperature, same_NM.to(direct.device), has_rationale
    )
    terms["generation"] = torch.stack([result.generation for result in results]).sum() / num_tokens
    values = {name: term.item() for name, term in terms.items()}
    values["generation"] = sum(world.gather_objects(values["generation"]))
    return config.weights.loss(terms), {**values, "loss": config.weights.loss(values)}
