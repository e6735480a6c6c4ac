"""The gate: what may be done about an item, by the logits of a few tokens where the answer begins.

    <think>     a long rationale, up to the greatest length
    <emb>       none: the direct path
    </think>    a short rationale, closed after `Short.tokens`; only of a graded gate

Whatever is decided, what is written begins with <think>: a budget only closes it. Tokens of logits are in this order.

Legend of shapes: B prompts, A actions (2, of a graded gate 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Short

LONG, DIRECT, SHORT = range(3)


def gate_words(short: Short | None) -> tuple[str, ...]:
    """The tokens of the actions."""
    return (THINK, EMB) if short is None else (THINK, EMB, END_THINK)


def action_logits(logits_BA: Tensor, short: Short | None) -> Tensor:
    """Logits (B, A) of the actions, from those of their tokens."""
    if short is None:
        return logits_BA
    return logits_BA + torch.tensor([0.0, 0.0, short.bias], device=logits_BA.device)


def of_reasoning(numbers_BA: Tensor) -> Tensor:
    """Those (B, A - 1) of the actions that write a rationale: long, short."""
    # Not by a list of places, which a GPU would wait for.
    return torch.cat([numbers_BA[:, :DIRECT], numbers_BA[:, DIRECT + 1 :]], dim=1)


def reason_logit(logits_BA: Tensor) -> Tensor:
    """Logit (B,) of p(reason): of both kinds of rationale together."""
    return torch.logsumexp(of_reasoning(logits_BA), dim=-1) - logits_BA[:, DIRECT]


def prefers_short(logits_BA: Tensor) -> Tensor:
    """(B,) whether, if there is a rationale, a short one is at least as likely as a long one; of three actions."""
    return logits_BA[:, SHORT] >= logits_BA[:, LONG]
