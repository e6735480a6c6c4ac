"""One row of a large table that learns while the table doesn't, at the cost of one row.

To copy the table with another row, and to differentiate the copy, costs as much as to train all 152,000 rows. Here
the frozen table is looked up and multiplied with as ever, and the own row takes the place of what it says for one
token: the same values and gradients as the whole table's (tested).

Legend of shapes: D hidden size, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class TableRow(nn.Module):
    """A table, whose weights are frozen, with a row of its own for one token."""

    def __init__(self, table: nn.Embedding | nn.Linear, token: int, row_D: nn.Parameter) -> None:
        super().__init__()
        self.table, self.token, self.row = table, token, row_D
        self.learnt = True

    @property
    def weight(self) -> Tensor:
        """(V, D) the frozen table."""
        return self.table.weight


class EmbeddingRow(TableRow):
    """An embedding table with a row of its own for one token."""

    def forward(self, ids: Tensor) -> Tensor:
        """(..., D) of ids (...)."""
        vectors: Tensor = self.table(ids)
        if not self.learnt:
            return vectors
        return torch.where((ids == self.token)[..., None], self.row.to(vectors.dtype), vectors)


class HeadRow(TableRow):
    """A language head with a row of its own for one token."""

    def forward(self, states: Tensor) -> Tensor:
        """Logits (..., V) of states (..., D)."""
        logits: Tensor = self.table(states)
        if self.learnt:
            # In place, or all logits are there twice; the product's own gradient doesn't need them.
            logits[..., self.token] = functional.linear(states, self.row[None].to(states.dtype))[..., 0]
        return logits


def exact_logits(head: Any, states_BD: Tensor, tokens: Sequence[int]) -> Tensor:
    """A language head's logits (B, tokens) of a few tokens in float32, where bfloat16 computes the others."""
    with torch.autocast(states_BD.device.type, enabled=False):
        rows = [
            head.row if isinstance(head, HeadRow) and head.learnt and token == head.token else head.weight[token]
            for token in tokens
        ]
        return functional.linear(states_BD.float(), torch.stack([row.float() for row in rows]))


def learn_row(model: Any, token: int) -> None:
    """Let one token's row learn, in float32, in a model of transformers whose tables don't.

    Where the language head is the embedding table again, both have one row; else either has its own.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    row = _own(embedding, token)
    model.set_input_embeddings(EmbeddingRow(embedding, token, row))
    tied = head.weight is embedding.weight
    model.set_output_embeddings(HeadRow(head, token, row if tied else _own(head, token)))


def _own(table: nn.Module, token: int) -> nn.Parameter:
    return nn.Parameter(table.get_parameter("weight").detach()[token].float().clone())


@contextlib.contextmanager
def as_the_table_has_it(module: nn.Module) -> Iterator[None]:
    """For a while the tables' own rows count, not those that have learnt."""
    rows = [own for own in module.modules() if isinstance(own, TableRow)]
    before = [own.learnt for own in rows]
    for own in rows:
        own.learnt = False
    try:
        yield
    finally:
        for own, learnt in zip(rows, before, strict=True):
            own.learnt = learnt
