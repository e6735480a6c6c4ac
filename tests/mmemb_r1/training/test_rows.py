"""One row that learns costs one row, and is the whole table's: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmemb_r1_model.training.rows import as_the_table_has_it, learn_row

WORDS, WIDTH, TOKEN = 50, 8, 7


class TwoTables(nn.Module):
    """What `learn_row` needs of a model of transformers."""

    def __init__(self, tied: bool, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding: Any = nn.Embedding(WORDS, WIDTH, dtype=dtype)
        self.head: Any = nn.Linear(WIDTH, WORDS, bias=False, dtype=dtype)
        if tied:
            self.head.weight = self.embedding.weight

    def get_input_embeddings(self) -> Any:
        return self.embedding

    def get_output_embeddings(self) -> Any:
        return self.head

    def set_input_embeddings(self, module: nn.Module) -> None:
        self.embedding = module

    def set_output_embeddings(self, module: nn.Module) -> None:
        self.head = module

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.embedding(ids)))
        return logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_a_row_is_the_whole_tables(tied: bool, dtype: torch.dtype, tolerance: float) -> None:
    ids = torch.tensor([[1, TOKEN, 3], [TOKEN, 4, TOKEN]])
    weights = torch.randn(2, 3, WORDS, generator=torch.Generator().manual_seed(1))
    whole, one = TwoTables(tied, dtype), TwoTables(tied, dtype).requires_grad_(False)
    learn_row(one, TOKEN)
    rows = [parameter for parameter in one.parameters() if parameter.requires_grad]
    assert [(row.shape, row.dtype) for row in rows] == [((WIDTH,), torch.float32)] * (1 if tied else 2)
    moved = torch.linspace(-0.5, 0.5, WIDTH)
    with torch.no_grad():
        for table in whole.parameters():
            table[TOKEN] += moved.to(dtype)
        for row, table in zip(rows, whole.parameters(), strict=True):
            row.copy_(table[TOKEN])
    values = [model(ids).float() for model in (whole, one)]
    for value in values:
        (value * weights).sum().backward()
    torch.testing.assert_close(values[1], values[0], rtol=tolerance, atol=tolerance)
    for row, table in zip(rows, whole.parameters(), strict=True):
        assert row.grad is not None
        assert table.grad is not None
        torch.testing.assert_close(row.grad, table.grad[TOKEN].float(), rtol=tolerance, atol=tolerance)
    assert [parameter.grad for parameter in one.parameters() if not parameter.requires_grad] == [None] * (2 - tied)
    with as_the_table_has_it(one):
        assert torch.equal(one(ids), TwoTables(tied, dtype)(ids))
    assert torch.equal(one(ids).float(), values[1])
