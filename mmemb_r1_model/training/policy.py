"""Stage 2 as arithmetic: scores, rewards, advantages, and the two losses. No model, no data.

Legend: G pairs (groups), A actions (see model/gate.py), K reasoned rollouts of each (the first is greedy), M cached
negatives, D dimensions, T tokens.

Two things are learned. Whether to reason, and of a graded gate how long, is one choice a prompt: its expected reward
and that reward's gradient, p_a (R_a - mean R), of two actions p (1 - p) (R_reason - R_direct), are known exactly, so
nothing is sampled. What is written is a sequence: its tokens get the advantage of their rollout over the mean of the
sampled ones of the prompt. The rewards' ingredients (delta, R_ada, GRPO) are the paper's, by its abstract and secondary
summaries; the formulas are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmemb_r1_model.disk.config import Above0, Least0Float
from mmemb_r1_model.model.gate import DIRECT, of_reasoning, reason_logit

#: See `group_advantages`.
Advantages = Literal["centred", "divided"]


@dataclass(frozen=True)
class RewardConfig:
    """R = fmt R_fmt + emb R_emb + ada R_ada.

    Attributes:
        length_cost: c; what a rationale of the greatest length costs, in the units of clip(delta / sigma).
        ranking_temperature: of the soft-max over the positive and the negatives that `s` is the logarithm of.
        negative_temperature: of the weights with which R_emb averages the negatives.
        largest_score: |s| is cut off there.
    """

    fmt: Least0Float = 1.0
    emb: Least0Float = 1.0
    ada: Least0Float = 1.0
    length_cost: Least0Float = 0.1
    ranking_temperature: Above0 = 0.05
    negative_temperature: Above0 = 0.5
    largest_score: Above0 = 8.0


def ranking_score(positive: Tensor, negatives_M: Tensor, excluded_M: Tensor, config: RewardConfig) -> Tensor:
    """s: log-probability of the positive among the cached negatives; leading dimensions broadcast.

    By rank and margin, not by raw cosine: the two paths have different scales.

    Args:
        positive: (...) cosine to the positive.
        negatives_M: (..., M) cosines to the negatives.
        excluded_M: (..., M) true where a "negative" is right as well.
    """
    others = (negatives_M / config.ranking_temperature).masked_fill(excluded_M, -torch.inf)
    own = positive / config.ranking_temperature
    score = own - torch.logsumexp(torch.cat([own[..., None], others], dim=-1), dim=-1)
    return score.clamp(-config.largest_score, config.largest_score)


def embedding_reward(positive: Tensor, negatives_M: Tensor, excluded_M: Tensor, config: RewardConfig) -> Tensor:
    """R_emb = (is the positive ranked first) x (its cosine - soft-max-weighted mean cosine of the negatives).

    The share of the top k that is right, with one positive and so k = 1; form after UME-R1 and Embed-RL.
    A tie with a negative is no first place. Beside excluded negatives alone there is nothing to be gained: 0.
    """
    kept = negatives_M.masked_fill(excluded_M, -torch.inf)
    weights = torch.softmax(kept / config.negative_temperature, dim=-1)
    mean_negative = (weights * negatives_M).sum(dim=-1)
    first = (positive > kept.amax(dim=-1)).to(positive.dtype)
    return torch.where(excluded_M.all(dim=-1), 0.0, first * (positive - mean_negative))


@dataclass(frozen=True)
class Rewards:
    """Rewards of G groups.

    Attributes:
        reasoned_GK: of every rollout.
        direct_G: of the direct path.
        delta_G: s of the greedy rollout - s of the direct path: the utility gap of what the model would really write.
        short_G: of the greedy rollout closed after its short budget; `None`: the gate is binary.
    """

    reasoned_GK: Tensor
    direct_G: Tensor
    delta_G: Tensor
    short_G: Tensor | None = None

    @property
    def actions(self) -> Tensor:
        """(G, A) of the gate's actions, in its order; the long rationale is the greedy one."""
        own = [self.reasoned_GK[:, 0], self.direct_G, *([] if self.short_G is None else [self.short_G])]
        return torch.stack(own, dim=1)


def rewards(
    score_GR: Tensor,
    emb_GR: Tensor,
    well_formed_GK: Tensor,
    length_GK: Tensor,
    sigma: float,
    config: RewardConfig,
    graded: bool = False,
) -> Rewards:
    """Put the three terms together.

        R_ada = + clip(delta / sigma, -1, 1) - c len / L_max    if it reasoned
                - clip(delta / sigma, -1, 1)                    if it answered directly

    For a rollout's own tokens delta is that rollout's. The direct path is held against the greedy one: samples at
    temperature 1 are worse than what is written later, and a gate that learns from them learns not to reason.

    Between direct and reasoned delta counts twice, so it must between short and long, or a token there would cost twice
    as much of it. With g = clip(delta / sigma) of either, of the closed rationale

        R_ada = g_short - (g_long - g_short) - c len / L_max

    Args:
        score_GR, emb_GR: s and R_emb of the direct path, then of the rollouts; R = 1 + K.
        well_formed_GK: 1 or 0.
        length_GK: rationale length over the greatest length, 0 to 1.
        sigma: scale of delta, > 0.
        graded: whether the last of the "rollouts" is the greedy one, closed after its short budget.
    """
    delta_GK = score_GR[:, 1:] - score_GR[:, :1]
    gain_GK = (delta_GK / sigma).clamp(-1, 1)
    ada_GK = gain_GK - config.length_cost * length_GK
    reasoned_GK = config.fmt * well_formed_GK + config.emb * emb_GR[:, 1:] + config.ada * ada_GK
    last_G = reasoned_GK[:, -1] - config.ada * (gain_GK[:, 0] - gain_GK[:, -1])
    return Rewards(
        reasoned_GK=reasoned_GK[:, :-1] if graded else reasoned_GK,
        direct_G=config.fmt + config.emb * emb_GR[:, 0] - config.ada * gain_GK[:, 0],
        delta_G=delta_GK[:, 0],
        short_G=last_G if graded else None,
    )


def group_advantages(rewards_GK: Tensor, rule: Advantages = "centred", epsilon: float = 1e-4) -> Tensor:
    """R - mean within a group, in units of reward; 0 everywhere in a group of equal rewards.

    As in Dr. GRPO (Liu et al. 2025). Divided by the deviation, as GRPO does it, a group of right rationales that differ
    in nothing but a few tokens of length has advantages as large as one of right and wrong ones: their least cost
    becomes all that is learnt, and long chains lose steps that they need.

    Args:
        rule: "divided" is (R - mean) / (std + epsilon).
    """
    centred = rewards_GK - rewards_GK.mean(dim=1, keepdim=True)
    if rule == "centred":
        return centred
    return centred / (rewards_GK.std(dim=1, keepdim=True, correction=0) + epsilon)


def gate_loss(logits_GA: Tensor, rewards_GA: Tensor, entropy: float = 0.0) -> Tensor:
    """Minus the expected reward of the choice and of its entropy, up to a constant: exact, nothing sampled.

    The soft-max over the actions is p, whether to reason, times q, how long: of two actions q is 1.

    Without entropy, whatever is better on average comes first: the gate is at one end for all items before it has
    learnt to tell them apart, and no gradient, p (1 - p), leads back. With it the best logits are rewards / entropy, up
    to a constant: what is best stays the same, and the way back stays open.

    Args:
        logits_GA: of the actions, with gradient; see model/gate.py.
        rewards_GA: mean reward of each, constants.
        entropy: what one nat of it is worth, in units of reward.
    """
    gate_logit_G, rewards_GA = reason_logit(logits_GA), rewards_GA.detach()
    p_G = torch.sigmoid(gate_logit_G)
    log_q_GA = torch.log_softmax(of_reasoning(logits_GA), dim=-1)
    reasoned_G = (log_q_GA.exp() * of_reasoning(rewards_GA)).sum(dim=-1)
    entropy_G = torch.nn.functional.softplus(gate_logit_G) - p_G * gate_logit_G
    entropy_G = entropy_G - p_G * (log_q_GA.exp() * log_q_GA).sum(dim=-1)
    return -(p_G * (reasoned_G - rewards_GA[:, DIRECT]) + entropy * entropy_G).mean()


def policy_loss(
    log_probs_T: Tensor, old_log_probs_T: Tensor, advantages_T: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """PPO's clipped surrogate of each token (T,), to be minimised.

    Args:
        old_log_probs_T: under the weights that sampled the tokens.
        clip_low, clip_high: the ratio is held in [1 - clip_low, 1 + clip_high].
    """
    ratio = torch.exp(log_probs_T - old_log_probs_T.detach())
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages_T, clipped * advantages_T)


def k3_divergence(log_probs_T: Tensor, reference_T: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) of each token (T,): exp(d) - d - 1 with d = reference - policy; ≥ 0."""
    difference = reference_T.detach() - log_probs_T
    return torch.expm1(difference) - difference


def is_constant(rewards_GK: Tensor, tolerance: float = 1e-6) -> Tensor:
    """(G,) groups that teach their tokens nothing."""
    return (rewards_GK.amax(dim=1) - rewards_GK.amin(dim=1)) <= tolerance
