"""`mmemb-r1 adapt`: stage 2, in which the model learns when to reason, and to write what pays.

A group is one prompt with the direct path and K sampled rationales: both halves are forced, so the utility gap can
always be measured. With a short budget it has one path more: the greedy rationale, closed. GRPO after the paper's
abstract; group make-up, scores and weights are ours (see policy.py). The contrastive terms of stage 1 stay: without
them the embedding drifts.
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
from mmemb_r1_model.disk.config import Below1, Least0, Least0Float, Least1
from mmemb_r1_model.disk.errors import OptionError, progress_of
from mmemb_r1_model.disk.trackers import OpenCurves, log_alone
from mmemb_r1_model.model.gate import LONG, SHORT, action_logits, prefers_short, reason_logit
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.model.settings import Short
from mmemb_r1_model.training import policy
from mmemb_r1_model.training.bank import Bank, make_bank
from mmemb_r1_model.training.batches import (
    Input,
    PlanConfig,
    Rationales,
    StepBatch,
    Steps,
    WeightedSet,
    described_pairs,
)
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.loop import FINAL, Loop, LoopConfig, is_finished, within_memory
from mmemb_r1_model.training.losses import JointWeights
from mmemb_r1_model.training.packing import Packed
from mmemb_r1_model.training.policy import Advantages, RewardConfig
from mmemb_r1_model.training.prompts import PromptCache
from mmemb_r1_model.training.rollouts import (
    LocalSampler,
    Rollout,
    Sampler,
    ServerSampler,
    shortened,
    stopping,
    with_own_rationales,
    with_short_rationales,
)
from mmemb_r1_model.training.saved import check_saved, pair_item
from mmemb_r1_model.training.student import Encoded, Student, evaluating
from mmemb_r1_model.vllm.rollouts import check_log_ratio, check_rollout_server
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
        advantages: of the sampled rationales; see `policy.group_advantages`.
        short_tokens: of a short rationale, which makes the gate a graded one: none, short or long; 0: binary. Goes into
            the checkpoint. Every second pair's rationales are then closed there in the contrastive terms, too.
        gate_weight, token_weight: of the two policy losses; 0 switches one off.
        gate_entropy: see `policy.gate_loss`; 0 leaves the expected reward alone.
        gate_entropy_end: what it has come to at the last step, in equal parts a step; `None`: it stays.
        kl_weight: of the divergence from the stage-1 model, on the rationale's tokens.
        negatives: of each data set, cached.
        sigma_decay: of the running standard deviation of delta.
        server: who writes the rollouts; `None`: the student itself.
    """

    plan: PlanConfig = field(default_factory=PlanConfig)
    prompts: PlanConfig | None = None
    groups: Least1 = 32
    micro_groups: Least0 = 0
    rollouts: Least1 = 8
    sides: tuple[Side, ...] = ("query",)
    reward: RewardConfig = field(default_factory=RewardConfig)
    advantages: Advantages = "centred"
    short_tokens: Least0 = 0
    gate_weight: Least0Float = 1.0
    gate_entropy: Least0Float = 0.0
    gate_entropy_end: Least0Float | None = None
    token_weight: Least0Float = 1.0
    clip_low: Least0Float = 0.2
    clip_high: Least0Float = 0.28
    kl_weight: Least0Float = 0.02
    negatives: Least1 = 256
    sigma_decay: Below1 = 0.9
    server: Server | None = None
    contrast: ContrastConfig = field(default_factory=lambda: ContrastConfig(weights=JointWeights(generation=0.0)))
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(learning_rate=3e-6))


def adapt(
    student: Student,
    sets: Sequence[WeightedSet],
    rationales: Rationales,
    config: AdaptConfig,
    folder: Path,
    world: World,
    sampler: Sampler | None = None,
    open_curves: OpenCurves = log_alone,
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
    _check(config, student, world)
    described = {
        "adapt": _described(config),
        "student": dataclasses.asdict(student.config),
        "rationales": rationales.fingerprint,
        **described_pairs(sets),
    }
    loop = Loop(student, config.loop, world, folder, described, open_curves)
    if is_finished(folder):
        return folder / FINAL
    read = PromptCache(student.reader.read, config.loop.cached_prompts)
    student.set_short(Short(config.short_tokens, 0.0) if config.short_tokens else None)
    reference = Reference(student, config.contrast.micro_batch or 64)
    if config.short_tokens:
        logits_BA = reference.gates([read(pair_item(sets, number)) for number in range(BIAS_ITEMS)])
        bias = float((logits_BA[:, LONG] - logits_BA[:, SHORT]).mean())
        student.set_short(Short(config.short_tokens, float(f"{bias:.6g}")))

    def embed(items: Sequence[Item]) -> Tensor:
        return reference.embed([read(item) for item in items])

    banks = {}
    with progress_of(f"{folder.name}, negatives of data sets", len(sets), shown=world.is_first) as advance:
        for weighted in sets:
            for side in config.sides:
                bank = make_bank(weighted.pairs, side, config.negatives, embed, config.loop.seed)
                banks[weighted.pairs.name, side] = bank
            advance()
    start = loop.restore()
    steps = prompts = Steps(sets, config.plan, config.loop, read, rationales, world, start)
    if config.prompts is not None:
        prompts = Steps(sets, config.prompts, config.loop, read, rationales, world, start)
    if sampler is None:
        sampler = ServerSampler(student, config.server, folder, world) if config.server else LocalSampler(student)
    loop.extra_state.setdefault("sigma", 1.0)
    stage = AdaptStep(student, reference, sampler, banks, config, world, loop.extra_state)

    def step(number: int) -> dict[str, float]:
        def attempt(size: int) -> dict[str, float]:
            return stage.step(number, steps[number], prompts[number], size)

        whole = config.micro_groups or config.groups // world.size
        values = within_memory(attempt, whole, "adapt.micro_groups", world)
        if config.server is not None and number == start:  # its adapters are as old as the student's
            with stopping():
                check_log_ratio(values["log_ratio"])
        return values

    loop.run(start, step, steps.describe, lambda saved: check_saved(student, sets, read, folder, saved))
    return folder / FINAL


def gate_entropy(config: AdaptConfig, step: int) -> float:
    """What one nat of the gate's entropy is worth at a step, counted from 0."""
    if config.gate_entropy_end is None:
        return config.gate_entropy
    share = step / max(1, config.loop.steps - 1)
    return config.gate_entropy + share * (config.gate_entropy_end - config.gate_entropy)


def _described(config: AdaptConfig) -> dict[str, Any]:
    """What decides what a run makes: of a server only how old its weights may be, not where it is."""
    described = dataclasses.asdict(config)
    server = described.pop("server")
    return described if server is None else {**described, "server": {"reload_every": server["reload_every"]}}


def _check(config: AdaptConfig, student: Student, world: World) -> None:
    if config.rollouts < 6 or config.rollouts % 2:
        raise OptionError(
            f"adapt.rollouts must be even and at least 6, not {config.rollouts}: half of them reason, one greedily"
        )
    if config.short_tokens >= student.settings.max_new_tokens:
        raise OptionError(
            f"adapt.short_tokens {config.short_tokens} must be below the {student.settings.max_new_tokens} of a long "
            f"rationale (max_new_tokens in {student.checkpoint.name}/mmemb_r1.json)"
        )
    batch_size = (config.prompts or config.plan).batch_size
    if config.groups > batch_size:
        raise OptionError(f"adapt.groups {config.groups} is more than the batch of {batch_size} pairs")
    if config.groups % world.size:
        raise OptionError(f"adapt.groups {config.groups} can't be split over {world.size} processes")
    if config.server is not None:
        check_rollout_server(config.server, student.config.lora_rank)


class Reference:
    """The stage-1 model: the student before it learns anything. With adapters it is the model under them."""

    def __init__(self, student: Student, micro_batch: int) -> None:
        """Copy the student unless it has adapters.

        Args:
            micro_batch: most items that are embedded at once.
        """
        self._student, self._micro_batch = student, micro_batch
        self._has_adapters = student.module.has_adapters
        self._module = student.module if self._has_adapters else student.frozen_copy()

    @torch.no_grad()
    def encode(self, packed: Packed, scored: Sequence[int] = ()) -> Encoded:
        """As the student's, without a graph and without dropout."""
        student = self._student
        with evaluating(self._module), student.as_it_started() if self._has_adapters else contextlib.nullcontext():
            return student.encode(packed, scored, self._module)

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """The direct vectors (n, D) of prompts."""
        return torch.cat([encoded.vectors_RD for encoded in self._directly(prompts)])

    def gates(self, prompts: Sequence[Prompt]) -> Tensor:
        """Log-probabilities (n, A) of the gate's tokens."""
        return torch.cat([encoded.gate_BA for encoded in self._directly(prompts)])

    def _directly(self, prompts: Sequence[Prompt]) -> Iterator[Encoded]:
        student, size = self._student, self._micro_batch
        for first in range(0, len(prompts), size):
            some = prompts[first : first + size]
            yield self.encode(student.pack(some, [[[student.emb]]] * len(some)))


#: Prompts over which a short rationale begins as likely as a long one, on average.
BIAS_ITEMS = 64
#: What a micro-batch of groups showed, as the log calls it: a number of each group, of each rollout, or of it whole.
Seen = dict[str, Tensor]


@dataclass(frozen=True)
class AdaptStep:
    """Everything that a step of stage 2 needs.

    Attributes:
        banks: by data set and the side whose rollouts are scored.
        state: goes on with the run: "sigma", the running standard deviation of delta.
    """

    student: Student
    reference: Reference
    sampler: Sampler
    banks: dict[tuple[str, Side], Bank]
    config: AdaptConfig
    world: World
    state: dict[str, Any]

    def step(self, number: int, batch: StepBatch, prompts: StepBatch, micro_groups: int) -> dict[str, float]:
        """Gradients of `batch`'s contrastive terms and, `micro_groups` of `prompts` at once, of both policies."""
        config, world = self.config, self.world
        seed = config.loop.seed + number
        mine = range(config.groups // world.size)
        parts = [slice(first, min(first + micro_groups, len(mine))) for first in mine[::micro_groups]]
        # All rollouts first: split weights are gathered once, and let go of before there are gradients.
        self.sampler.refresh(number)
        written: list[tuple[Side, slice, list[list[Rollout]]]] = []
        for side in config.sides:
            for position, here in enumerate(parts):
                draw = (seed * 2 + config.sides.index(side)) * 4099 + position * world.size + world.rank
                written.append((side, here, self._sample(prompts, side, here, draw)))
        if config.contrast.reads_own(number, config.loop.steps):
            at_once = config.contrast.micro_batch or len(batch.names)
            batch = with_own_rationales(batch, self.sampler, self.student.settings.max_new_tokens, at_once)
        if config.short_tokens:
            batch = with_short_rationales(batch, self.student, config.short_tokens)
        self.sampler.release()
        values = joint_backward(self.student, batch, config.contrast, world, seed)
        entropy = gate_entropy(config, number)
        seen = [self._backward(prompts, side, here, rollouts, entropy) for side, here, rollouts in written]
        all_seen = [chunk for part in world.gather_objects(seen) for chunk in part]
        columns = {name: torch.cat([chunk[name] for chunk in all_seen]) for name in all_seen[0]}
        decay = config.sigma_decay
        self.state["sigma"] = decay * self.state["sigma"] + (1 - decay) * max(float(columns["delta"].std()), 1e-3)
        means = {name: float(column.mean()) for name, column in columns.items()}
        return {**values, **means, "sigma": self.state["sigma"]}

    def _sample(self, batch: StepBatch, side: Side, here: slice, seed: int) -> list[list[Rollout]]:
        """Rollouts of one side's items of some pairs of a batch."""
        longest = self.student.settings.max_new_tokens
        return self.sampler.sample(_inputs(batch, side)[here], self.config.rollouts // 2, longest, seed)

    def _backward(
        self, batch: StepBatch, side: Side, here: slice, rollouts: Sequence[Sequence[Rollout]], entropy: float
    ) -> Seen:
        """Gradients of both policies on those pairs."""
        student, config = self.student, self.config
        longest = student.settings.max_new_tokens
        inputs = _inputs(batch, side)[here]
        read_out = [[*own, shortened(own[0], config.short_tokens)] if config.short_tokens else own for own in rollouts]
        completions = [[[student.emb], *(list(rollout.ids) for rollout in own)] for own in read_out]
        packed = student.pack([given.prompt for given in inputs], completions)
        # Of each prompt's branches the first is the direct path, the second the greedy rollout, the last one closed.
        branches = len(completions[0])
        sampled = [index for index in range(len(packed.branches)) if 1 < index % branches <= config.rollouts // 2]
        encoded = student.encode(packed, sampled)
        given = self._rewards(batch, side, here, read_out, encoded.vectors_RD.detach())
        logits_GA = action_logits(encoded.gate_BA, student.settings.short)
        gate = policy.gate_loss(logits_GA, given.actions, entropy)
        reference = self.reference.encode(packed, sampled)
        flat = [rollout for own in rollouts for rollout in own[1:]]
        advantages = policy.group_advantages(given.reasoned_GK[:, 1:], config.advantages).flatten().tolist()
        tokens, divergence, log_ratio = self._token_losses(flat, advantages, encoded, reference, longest)
        loss = config.gate_weight * gate + config.token_weight * tokens + config.kl_weight * divergence
        # A mean over all groups of the step, whichever process has them.
        share = len(inputs) / config.groups
        torch.autograd.backward(loss * share * self.world.loss_scale)
        return _seen(given, logits_GA.detach(), rollouts, divergence.item(), log_ratio)

    def _rewards(
        self, batch: StepBatch, side: Side, here: slice, read_out: Sequence[Sequence[Rollout]], vectors_RD: Tensor
    ) -> policy.Rewards:
        config = self.config
        datasets, labels = batch.datasets[here], batch.labels[here]
        anchors = _inputs(batch, "positive" if side == "query" else "query")[here]
        vectors_GRD = vectors_RD.view(len(read_out), 1 + len(read_out[0]), -1)  # the direct path first
        anchors_GD = self.reference.embed([anchor.prompt for anchor in anchors])
        positive_GR = torch.einsum("grd,gd->gr", vectors_GRD, anchors_GD)
        negatives = torch.zeros(*positive_GR.shape, config.negatives, device=vectors_RD.device)
        excluded = torch.ones_like(negatives, dtype=torch.bool)
        for name in set(datasets):
            rows = [row for row, dataset in enumerate(datasets) if dataset == name]
            bank = self.banks[name, side]
            size = len(bank.labels)
            negatives[rows, :, :size] = vectors_GRD[rows] @ bank.vectors_MD.T
            excluded[rows, :, :size] = bank.excluded([labels[row] for row in rows], side)[:, None]
        score_GR = policy.ranking_score(positive_GR, negatives, excluded, config.reward)
        emb_GR = policy.embedding_reward(positive_GR, negatives, excluded, config.reward)
        device = vectors_RD.device
        well_formed = torch.tensor([[float(rollout.well_formed) for rollout in own] for own in read_out], device=device)
        lengths = torch.tensor([[float(rollout.length) for rollout in own] for own in read_out], device=device)
        shares = lengths / self.student.settings.max_new_tokens
        graded = config.short_tokens > 0
        return policy.rewards(score_GR, emb_GR, well_formed, shares, self.state["sigma"], config.reward, graded)

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
        config = self.config
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


def _inputs(batch: StepBatch, side: Side) -> tuple[Input, ...]:
    return batch.queries if side == "query" else batch.positives


def _seen(
    given: policy.Rewards, logits_GA: Tensor, rollouts: Sequence[Sequence[Rollout]], divergence: float, log_ratio: float
) -> Seen:
    flat = [rollout for own in rollouts for rollout in own]
    pays_G, gate_G = (given.delta_G > 0).float(), torch.sigmoid(reason_logit(logits_GA))
    columns = {
        "share": (gate_G > 0.5).float(),
        "gate": gate_G,
        "delta": given.delta_G,
        "pays": pays_G,
        "reward_reasoned": given.reasoned_GK[:, 0],
        "reward_direct": given.direct_G,
        # Brier score of the gate as a forecast that reasoning pays: 0 is perfect, 0.25 a coin.
        "brier": (gate_G.float() - pays_G) ** 2,
        "constant_groups": policy.is_constant(given.reasoned_GK[:, 1:]).double(),
        "malformed": torch.tensor([float(not rollout.well_formed) for rollout in flat], dtype=torch.float64),
        "length": torch.tensor([float(rollout.length) for rollout in flat], dtype=torch.float64),
        "divergence": torch.tensor([divergence], dtype=torch.float64),
        "log_ratio": torch.tensor([log_ratio], dtype=torch.float64),
    }
    if given.short_G is not None:
        columns["short"] = ((gate_G > 0.5) & prefers_short(logits_GA)).float()
        columns["reward_short"] = given.short_G
    return {name: column.cpu() for name, column in columns.items()}
