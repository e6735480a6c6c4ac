"""Losses, as pure functions over tensors. Legend: N queries, M candidates, D dimensions, T tokens, V vocabulary."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from mmemb_r1_model.disk.config import Least0Float

Term = TypeVar("Term", float, Tensor)


def info_nce(queries_ND: Tensor, candidates_MD: Tensor, temperature: float, same_NM: Tensor) -> Tensor:
    """Symmetric InfoNCE; candidate i belongs to query i, candidates from N on are only ever negatives.

    Args:
        queries_ND, candidates_MD: unit vectors, M ≥ N.
        same_NM: true where a candidate is as right for a query as its own: no negative. The diagonal is ignored.

    Returns:
        Mean of the query → candidate and the candidate → query loss. Equal vectors give log M and log N.
    """
    n = len(queries_ND)
    own = torch.arange(n, device=queries_ND.device)
    excluded = same_NM.clone()
    excluded[own, own] = False
    scores = (queries_ND.float() @ candidates_MD.float().T / temperature).masked_fill(excluded, -torch.inf)
    forward = functional.cross_entropy(scores, own)
    backward = functional.cross_entropy(scores[:, :n].T, own)
    return (forward + backward) / 2


@dataclass(frozen=True)
class JointWeights:
    """lambda_r, lambda_d, lambda_g and lambda_x of the joint loss. The paper names the terms but no weights."""

    reasoned: Least0Float = 1.0
    direct: Least0Float = 1.0
    generation: Least0Float = 1.0
    cross: Least0Float = 1.0

    def loss(self, terms: Mapping[str, Term]) -> Term:
        """The weighted sum of the terms of these names."""
        return (
            self.direct * terms["direct"]
            + self.reasoned * terms["reasoned"]
            + self.cross * terms["cross"]
            + self.generation * terms["generation"]
        )


def contrastive_terms(
    direct: tuple[Tensor, Tensor],
    reasoned: tuple[Tensor, Tensor],
    extra_ED: Tensor,
    temperature: float,
    same_NM: Tensor,
    has_rationale_N: Tensor,
) -> dict[str, Tensor]:
    """L_ctr(z^r), L_ctr(z^d) and L_cross.

    L_cross = InfoNCE(z_q^r, z_t^d) + InfoNCE(z_q^d, z_t^r), halved: it puts both paths in one space.
    Where no side of a batch has a rationale, all terms but the direct one would repeat it, and are 0.

    Args:
        direct, reasoned: vectors (N, D) of the queries and of their positives. A side without a rationale has its
            direct vector as the reasoned one too.
        extra_ED: further candidates, which are only ever negatives; on the direct path.
        same_NM: M = N + E; as in `info_nce`.
        has_rationale_N: whether either side of the pair has one.
    """

    def loss(queries: Tensor, positives: Tensor) -> Tensor:
        return info_nce(queries, torch.cat([positives, extra_ED]), temperature, same_NM)

    of_direct = loss(*direct)
    if not bool(has_rationale_N.any()):
        nothing = torch.zeros_like(of_direct)
        return {"direct": of_direct, "reasoned": nothing, "cross": nothing}
    of_reasoned = loss(*reasoned)
    crossed = loss(reasoned[0], direct[1]) + loss(direct[0], reasoned[1])
    return {"direct": of_direct, "reasoned": of_reasoned, "cross": crossed / 2}


#: Tokens whose logits exist at one time; 1,024 of a vocabulary of 152,000 are 0.6 GB in float32.
_CHUNK = 1024


def token_log_probs(hidden_TD: Tensor, head: torch.nn.Module, targets_T: Tensor, banned_V: Tensor) -> Tensor:
    """Log-probability (T,) of each target, in float32; the logits of few tokens at a time are in memory.

    Args:
        head: hidden states → logits over the vocabulary.
        banned_V: true for tokens that can't be written: left out of the soft-max, as they are when sampling.
    """
    saves = len(targets_T) > _CHUNK and torch.is_grad_enabled()
    run = functools.partial(checkpoint, _log_probs, use_reentrant=False) if saves else _log_probs
    pieces = zip(torch.split(hidden_TD, _CHUNK), torch.split(targets_T, _CHUNK), strict=True)
    return torch.cat([run(hidden, head, targets, banned_V) for hidden, targets in pieces])


def _log_probs(hidden_TD: Tensor, head: torch.nn.Module, targets_T: Tensor, banned_V: Tensor) -> Tensor:
    logits = head(hidden_TD).float().masked_fill(banned_V, -torch.inf)
    return -functional.cross_entropy(logits, targets_T, reduction="none")
