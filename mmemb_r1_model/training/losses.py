"""Losses, as pure functions over tensors. Legend: N queries, M candidates, D dimensions, T tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

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
class Embeddings:
    """All vectors of a batch of N pairs. A side without a rationale has its direct vector as the reasoned one too.

    Attributes:
        extra_ED: further candidates, which are only ever negatives; on the direct path.
    """

    query_direct_ND: Tensor
    query_reasoned_ND: Tensor
    positive_direct_ND: Tensor
    positive_reasoned_ND: Tensor
    extra_ED: Tensor


@dataclass(frozen=True)
class JointWeights:
    """lambda_r, lambda_d, lambda_g and lambda_x of the joint loss. The paper names the terms but no weights."""

    reasoned: float = 1.0
    direct: float = 1.0
    generation: float = 1.0
    cross: float = 1.0

    def loss(self, terms: Mapping[str, Term]) -> Term:
        """The weighted sum of the terms of these names."""
        return (
            self.direct * terms["direct"]
            + self.reasoned * terms["reasoned"]
            + self.cross * terms["cross"]
            + self.generation * terms["generation"]
        )


def contrastive_terms(
    vectors: Embeddings, temperature: float, same_NM: Tensor, has_rationale_N: Tensor
) -> dict[str, Tensor]:
    """L_ctr(z^r), L_ctr(z^d) and L_cross.

    L_cross = InfoNCE(z_q^r, z_t^d) + InfoNCE(z_q^d, z_t^r), halved: it puts both paths in one space.
    Where no side of a batch has a rationale, all terms but the direct one would repeat it, and are 0.

    Args:
        same_NM: M = N + E; as in `info_nce`.
        has_rationale_N: whether either side of the pair has one.
    """
    extra = vectors.extra_ED

    def loss(queries: Tensor, positives: Tensor) -> Tensor:
        return info_nce(queries, torch.cat([positives, extra]), temperature, same_NM)

    direct = loss(vectors.query_direct_ND, vectors.positive_direct_ND)
    if not bool(has_rationale_N.any()):
        nothing = torch.zeros_like(direct)
        return {"direct": direct, "reasoned": nothing, "cross": nothing}
    reasoned = loss(vectors.query_reasoned_ND, vectors.positive_reasoned_ND)
    crossed = loss(vectors.query_reasoned_ND, vectors.positive_direct_ND) + loss(
        vectors.query_direct_ND, vectors.positive_reasoned_ND
    )
    return {"direct": direct, "reasoned": reasoned, "cross": crossed / 2}


#: Tokens whose logits exist at one time; 1,024 of a vocabulary of 152,000 are 0.6 GB in float32.
_CHUNK = 1024


def token_log_probs(hidden_TD: Tensor, head: torch.nn.Module, targets_T: Tensor, banned_V: Tensor | None) -> Tensor:
    """Log-probability (T,) of each target, in float32; the logits of few tokens at a time are in memory.

    Args:
        head: hidden states → logits over the vocabulary.
        banned_V: true for tokens that can't be written: left out of the soft-max, as they are when sampling.
    """
    if len(targets_T) <= _CHUNK:
        return _log_probs(hidden_TD, head, targets_T, banned_V)
    parts = []
    for start in range(0, len(targets_T), _CHUNK):
        here = slice(start, start + _CHUNK)
        parts.append(
            checkpoint(_log_probs, hidden_TD[here], head, targets_T[here], banned_V, use_reentrant=False)
            if torch.is_grad_enabled()
            else _log_probs(hidden_TD[here], head, targets_T[here], banned_V)
        )
    return torch.cat(parts)


def _log_probs(hidden_TD: Tensor, head: torch.nn.Module, targets_T: Tensor, banned_V: Tensor | None) -> Tensor:
    logits = head(hidden_TD).float()
    if banned_V is not None:
        logits = logits.masked_fill(banned_V, -torch.inf)
    return -functional.cross_entropy(logits, targets_T, reduction="none")
