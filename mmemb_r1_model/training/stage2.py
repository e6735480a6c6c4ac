"""`mmemb-r1 adapt`: stage 2, in which the model learns when to reason, and to write what pays.

A group is one prompt with the direct path and K sampled rationales: both halves are forced, so the utility gap can
always be measured. GRPO after the paper's abstract; group make-up, scores and weights are ours (see policy.py).
The contrastive terms of stage 1 stay: without them the embedding drifts.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmemb_r1_model.data.pairs import Item, Side
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.training import policy
from mmemb_r1_model.training.bank import Bank, make_bank
from mmemb_r1_model.training.batches import Input, Labels, PlanConfig, Rationales, StepBatch, WeightedSet, open_steps
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.loop import FINAL, Loop, LoopConfig, within_memory
from mmemb_r1_model.training.losses import JointWeights
from mmemb_r1_model.training.packing import Packed
from mmemb_r1_model.training.policy import RewardConfig
from mmemb_r1_model.training.prompts import PromptCache
from mmemb_r1_model.training.rollouts import LocalSampler, Rollout, Sampler, ServerSampler
from mmemb_r1_model.training.student import Encoded, Student, StudentConfig
from mmemb_r1_model.vllm.rollouts import check_rollout_server
from mmemb_r1_model.vllm.server import Server


@dataclass(frozen=True)
class AdaptConfig:
    """The settings of stage 2.

    Attributes:
        plan: of the contrastive term's batches.
        prompts: of the batches whose first pairs are rolled out; `None`: the contrastive term's own. Pairs that no
            contrastive term sees show what reasoning is worth; those known by heart need none.
        groups: prompts of a step, over all processes, that are rolled out; at most the batch's pairs.
        micro_groups: of them at once; 0: all.
        rollouts: G of a group. Half of them reason: one greedily, as the model will, which the gate learns from; the
            others at temperature 1, whose tokens learn. The other half are one: the direct path has no chance in it.
        sides: whose policy learns.
        gate_weight, token_weight: of the two policy losses; 0 switches one off.
        gate_entropy: see `policy.gate_loss`; 0 leaves the expected reward alone.
        kl_weight: of the divergence from the stage-1 model, on the rationale's tokens.
        negatives: of each data set, cached.
        sigma_decay: of the running standard deviation of delta.
        server: who writes the rollouts; `None`: the student itself.
    """

    plan: PlanConfig = field(default_factory=PlanConfig)
    prompts: PlanConfig | None = None
    groups: int = 32
    micro_groups: int = 0
    rollouts: int = 8
    sides: tuple[Side, ...] = ("query",)
    reward: RewardConfig = field(default_factory=RewardConfig)
    gate_weight: float = 1.0
    gate_entropy: float = 0.0
    token_weight: float = 1.0
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_weight: float = 0.02
    negatives: int = 256
    sigma_decay: float = 0.9
    server: Server | None = None
    contrast: ContrastConfig = field(default_factory=lambda: ContrastConfig(weights=JointWeights(generation=0.0)))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(learning_rate=3e-6))


@dataclass(frozen=True)
class Groups:
    """Inputs that are rolled out together, all of one side."""

    side: Side
    inputs: tuple[Input, ...]
    anchors: tuple[Prompt, ...]  # the other side's
    labels: tuple[Labels, ...]
    datasets: tuple[str, ...]


def adapt(
    student: Student,
    sets: Sequence[WeightedSet],
    rationales: Rationales,
    config: AdaptConfig,
    folder: Path,
    world: World,
    sampler: Sampler | None = None,
) -> Path:
    """Run stage 2 in `folder`, from its last checkpoint if it has one; the folder of the trained checkpoint.

    Args:
        student: opened from stage 1's checkpoint, which is also the reference.
        rationales: the same as in stage 1; others would change the model for another reason than the policy.
        sampler: of rollouts, instead of the configured one.

    Raises:
        OptionError: a configuration that doesn't fit the data, or another one than the folder's.
        ModelError: a server that can't be used.
        TrainingError: see `Loop.run` and `ServerSampler.sample`.
    """
    _check(config, student.config, world)
    described = {
        "adapt": _described(config),
        "student": dataclasses.asdict(student.config),
        "rationales": rationales.fingerprint,
    }
    loop = Loop(student, config.loop, world, folder, described)
    if loop.is_done:
        return folder / FINAL
    read = PromptCache(student.reader.prompt, config.loop.cached_prompts)
    reference = Reference(student)
    banks = _make_banks(reference, sets, config, read)
    start = loop.restore()
    steps = open_steps(sets, config.plan, config.loop, read, rationales, world, start)
    prompts = (
        steps
        if config.prompts is None
        else open_steps(sets, config.prompts, config.loop, read, rationales, world, start)
    )
    sampler = sampler or _make_sampler(student, config, folder, world)
    stage = _Stage(student, reference, sampler, banks, config, world, loop.extra_state)

    def step(number: int) -> dict[str, float]:
        def attempt(size: int) -> dict[str, float]:
            return stage.step(number, steps[number], prompts[number], size)

        whole = config.micro_groups or config.groups // world.size
        return within_memory(attempt, whole, "adapt.micro_groups", world)

    loop.run(start, step, steps.describe)
    return folder / FINAL


def _make_sampler(student: Student, config: AdaptConfig, folder: Path, world: World) -> Sampler:
    if config.server is None:
        return LocalSampler(student)
    return ServerSampler(student, config.server, folder, world)


def _described(config: AdaptConfig) -> dict[str, Any]:
    """What decides what a run makes: of a server only how old its weights may be, not where it is."""
    described = dataclasses.asdict(config)
    server = described.pop("server")
    return described if server is None else {**described, "server": {"reload_every": server["reload_every"]}}


def _check(config: AdaptConfig, student: StudentConfig, world: World) -> None:
    if config.rollouts < 6 or config.rollouts % 2:
        raise OptionError(
            f"adapt.rollouts must be even and at least 6, not {config.rollouts}: half of them reason, one greedily"
        )
    batch_size = (config.prompts or config.plan).batch_size
    if config.groups > batch_size:
        raise OptionError(f"adapt.groups {config.groups} is more than the batch of {batch_size} pairs")
    if config.groups % world.size:
        raise OptionError(f"adapt.groups {config.groups} can't be split over {world.size} processes")
    if config.server is not None:
        check_rollout_server(config.server, student.lora_rank)


class Reference:
    """The stage-1 model: the student before it learns anything. With adapters it is the model under them."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._has_adapters = hasattr(student.backbone, "peft_config")
        self._module = student.module if self._has_adapters else student.frozen_copy()

    def encode(self, packed: Packed, scored: Sequence[int] = ()) -> Encoded:
        """As the student's, without a graph and without dropout."""
        with torch.no_grad(), self._switched():
            return self._student.encode(packed, scored)

    @contextlib.contextmanager
    def _switched(self) -> Iterator[None]:
        student, module = self._student, self._student.module
        training = module.training
        student.module = self._module
        self._module.eval()
        try:
            with student.backbone.disable_adapter() if self._has_adapters else contextlib.nullcontext():
                yield
        finally:
            student.module = module
            module.train(training)

    def embed(self, prompts: Sequence[Prompt], size: int = 64) -> Tensor:
        """The direct vectors (n, D) of prompts."""
        student = self._student
        parts = []
        for first in range(0, len(prompts), size):
            some = prompts[first : first + size]
            parts.append(self.encode(student.pack(some, [[[student.emb]]] * len(some))).vectors_RD)
        return torch.cat(parts)


def _make_banks(
    reference: Reference, sets: Sequence[WeightedSet], config: AdaptConfig, read: PromptCache
) -> dict[tuple[str, Side], Bank]:
    def embed(items: Sequence[Item]) -> Tensor:
        return reference.embed([read(item) for item in items])

    return {
        (weighted.pairs.name, side): make_bank(weighted.pairs, side, config.negatives, embed, config.loop.seed)
        for weighted in sets
        for side in config.sides
    }


class _Stage:
    """Everything that a step of stage 2 needs."""

    def __init__(
        self,
        student: Student,
        reference: Reference,
        sampler: Sampler,
        banks: dict[tuple[str, Side], Bank],
        config: AdaptConfig,
        world: World,
        state: dict[str, Any],
    ) -> None:
        self._student, self._reference, self._sampler = student, reference, sampler
        self._banks, self._config, self._world, self._state = banks, config, world, state
        state.setdefault("sigma", 1.0)

    def step(self, number: int, batch: StepBatch, prompts: StepBatch, micro_groups: int) -> dict[str, float]:
        """Gradients of `batch`'s contrastive terms and, `micro_groups` of `prompts` at once, of both policies."""
        config, world = self._config, self._world
        seed = config.loop.seed + number
        self._sampler.refresh(number)
        values = joint_backward(self._student, batch, config.contrast, world, seed)
        seen: list[_Seen] = []
        for side in config.sides:
            for position, groups in enumerate(self._groups(prompts, side, micro_groups)):
                draw = (seed * 2 + config.sides.index(side)) * 4099 + position * world.size + world.rank
                seen.append(self._backward(groups, draw))
        all_seen = [chunk for part in world.gather_objects(seen) for chunk in part]
        deltas = torch.cat([chunk.delta_G for chunk in all_seen])
        decay = config.sigma_decay
        self._state["sigma"] = decay * self._state["sigma"] + (1 - decay) * max(float(deltas.std()), 1e-3)
        return {**values, **_summary(all_seen), "sigma": self._state["sigma"]}

    def _groups(self, batch: StepBatch, side: Side, size: int) -> Iterator[Groups]:
        mine = self._config.groups // self._world.size
        own, other = (batch.queries, batch.positives) if side == "query" else (batch.positives, batch.queries)
        for first in range(0, mine, size):
            here = slice(first, min(first + size, mine))
            yield Groups(
                side=side,
                inputs=own[here],
                anchors=tuple(anchor.prompt for anchor in other[here]),
                labels=batch.labels[here],
                datasets=batch.datasets[here],
            )

    def _backward(self, groups: Groups, seed: int) -> _Seen:
        student, config = self._student, self._config
        longest = student.settings.max_new_tokens
        rollouts = self._sampler.sample(groups.inputs, config.rollouts // 2, longest, seed)
        completions = [[[student.emb], *(list(rollout.ids) for rollout in own)] for own in rollouts]
        packed = student.pack([given.prompt for given in groups.inputs], completions)
        # Of each prompt's branches the first is the direct path, the second the greedy rollout.
        sampled = [index for index in range(len(packed.branches)) if index % (1 + config.rollouts // 2) > 1]
        encoded = student.encode(packed, sampled)
        given = self._rewards(groups, rollouts, encoded.vectors_RD.detach())
        gate_logit = encoded.gate_B2[:, 0] - encoded.gate_B2[:, 1]
        gate = policy.gate_loss(gate_logit, given.reasoned_GK[:, 0], given.direct_G, config.gate_entropy)
        reference = self._reference.encode(packed, sampled)
        flat = [rollout for own in rollouts for rollout in own[1:]]
        advantages = policy.group_advantages(given.reasoned_GK[:, 1:]).flatten().tolist()
        tokens, divergence, log_ratio = self._token_losses(flat, advantages, encoded, reference, longest)
        loss = config.gate_weight * gate + config.token_weight * tokens + config.kl_weight * divergence
        # A mean over all groups of the step, whichever process has them.
        share = len(groups.inputs) / config.groups
        torch.autograd.backward(loss * share * self._world.loss_scale)
        return _seen(given, torch.sigmoid(gate_logit).detach(), rollouts, divergence.item(), log_ratio)

    def _rewards(self, groups: Groups, rollouts: Sequence[Sequence[Rollout]], vectors_RD: Tensor) -> policy.Rewards:
        config = self._config
        num_groups, per_group = len(groups.inputs), config.rollouts // 2
        vectors_GRD = vectors_RD.view(num_groups, 1 + per_group, -1)  # the direct path first
        anchors_GD = self._reference.embed(groups.anchors)
        positive_GR = torch.einsum("grd,gd->gr", vectors_GRD, anchors_GD)
        negatives = torch.zeros(num_groups, 1 + per_group, config.negatives, device=vectors_RD.device)
        excluded = torch.ones_like(negatives, dtype=torch.bool)
        for name in set(groups.datasets):
            rows = [row for row, dataset in enumerate(groups.datasets) if dataset == name]
            bank = self._banks[name, groups.side]
            size = len(bank.labels)
            negatives[rows, :, :size] = vectors_GRD[rows] @ bank.vectors_MD.T
            excluded[rows, :, :size] = bank.excluded([groups.labels[row] for row in rows], groups.side)[:, None]
        score = policy.ranking_score(positive_GR, negatives, excluded, config.reward)
        emb = policy.embedding_reward(positive_GR, negatives, excluded, config.reward)
        device = vectors_RD.device
        well_formed = torch.tensor([[float(rollout.well_formed) for rollout in own] for own in rollouts], device=device)
        lengths = torch.tensor([[float(rollout.length) for rollout in own] for own in rollouts], device=device)
        return policy.rewards(
            score[:, 1:],
            score[:, 0],
            emb[:, 1:],
            emb[:, 0],
            well_formed,
            lengths / self._student.settings.max_new_tokens,
            self._state["sigma"],
            config.reward,
        )

    def _token_losses(
        self,
        sampled: Sequence[Rollout],
        advantages: Sequence[float],
        encoded: Encoded,
        reference: Encoded,
        longest: int,
    ) -> tuple[Tensor, Tensor, float]:
        """(policy loss, divergence, mean distance of now and when sampled).

        A rollout's tokens are summed and divided by the greatest length, then averaged over rollouts. Divided by its
        own length, a long bad rationale would be blamed less a token than a short one.
        """
        config = self._config
        losses, divergences, log_ratios = [], [], []
        for rollout, now, before, advantage in zip(
            sampled, encoded.log_probs, reference.log_probs, advantages, strict=True
        ):
            chosen = slice(0, rollout.sampled)
            old = torch.tensor(rollout.log_probs, device=now.device)[chosen]
            same = torch.full_like(old, advantage)
            losses.append(policy.policy_loss(now[chosen], old, same, config.clip_low, config.clip_high).sum() / longest)
            divergences.append(policy.k3_divergence(now[chosen], before[chosen]).sum() / longest)
            log_ratios += (now.detach()[chosen] - old).abs().tolist()
        return torch.stack(losses).mean(), torch.stack(divergences).mean(), sum(log_ratios) / max(1, len(log_ratios))


@dataclass(frozen=True)
class _Seen:
    """What one micro-batch of groups showed, for the log and for sigma."""

    delta_G: Tensor
    gate_G: Tensor
    reasoned_G: Tensor
    direct_G: Tensor
    constant: int
    malformed: int
    lengths: tuple[int, ...]
    divergence: float
    log_ratio: float


def _seen(
    given: policy.Rewards,
    gate_G: Tensor,
    rollouts: Sequence[Sequence[Rollout]],
    divergence: float,
    log_ratio: float,
) -> _Seen:
    flat = [rollout for own in rollouts for rollout in own]
    return _Seen(
        delta_G=given.delta_G.cpu(),
        gate_G=gate_G.cpu(),
        reasoned_G=given.reasoned_GK[:, 0].cpu(),
        direct_G=given.direct_G.cpu(),
        constant=int(policy.is_constant(given.reasoned_GK[:, 1:]).sum()),
        malformed=sum(not rollout.well_formed for rollout in flat),
        lengths=tuple(rollout.length for rollout in flat),
        divergence=divergence,
        log_ratio=log_ratio,
    )


def _summary(seen: Sequence[_Seen]) -> dict[str, float]:
    gate = torch.cat([chunk.gate_G for chunk in seen])
    delta = torch.cat([chunk.delta_G for chunk in seen])
    lengths = [length for chunk in seen for length in chunk.lengths]
    return {
        "share": float((gate > 0.5).float().mean()),
        "gate": float(gate.mean()),
        "delta": float(delta.mean()),
        "pays": float((delta > 0).float().mean()),
        "reward_reasoned": float(torch.cat([chunk.reasoned_G for chunk in seen]).mean()),
        "reward_direct": float(torch.cat([chunk.direct_G for chunk in seen]).mean()),
        "brier": policy.calibration(gate, delta > 0),
        "constant_groups": sum(chunk.constant for chunk in seen) / len(delta),
        "malformed": sum(chunk.malformed for chunk in seen) / len(lengths),
        "length": sum(lengths) / len(lengths),
        "divergence": sum(chunk.divergence for chunk in seen) / len(seen),
        "log_ratio": sum(chunk.log_ratio for chunk in seen) / len(seen),
    }
