"""Losses, as pure functions over tensors. Legend: N queries, M candidates, D dimensions, L tokens, V vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


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
    scores = (queries_ND @ candidates_MD.T / temperature).masked_fill(excluded, -torch.inf)
    forward = functional.cross_entropy(scores, own)
    backward = functional.cross_entropy(scores[:, :n].T, own)
    return (forward + backward) / 2


def next_token_loss(logits_NLV: Tensor, targets_NL: Tensor) -> Tensor:
    """Mean cross-entropy of the targets; -100 marks places without one."""
    return functional.cross_entropy(logits_NLV.flatten(0, 1).float(), targets_NL.flatten(), ignore_index=-100)
