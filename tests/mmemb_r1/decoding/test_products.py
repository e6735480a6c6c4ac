from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmemb_r1_model.decoding.products import LEAST_ROWS, linear


@pytest.mark.parametrize("shape", [(LEAST_ROWS, 24), (5, 30, 24), (2, 3, 50, 24), (0, 24), (1, 24)])
@pytest.mark.parametrize("biased", [True, False])
def test_products_and_their_gradients_are_torchs(shape: tuple[int, ...], biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (
        torch.randn(size, generator=generator, requires_grad=True) for size in (shape, (40, 24), (40,))
    )
    learnt = (rows, weight, bias) if biased else (rows, weight)
    with torch.inference_mode():
        torch.testing.assert_close(linear(*learnt), functional.linear(*learnt))
    ours, torchs = linear(*learnt), functional.linear(*learnt)
    torch.testing.assert_close(ours, torchs)
    wanted = torch.randn(ours.shape, generator=generator)
    gradients = [torch.autograd.grad(product, learnt, wanted) for product in (ours, torchs)]
    for own, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-4)


def test_only_what_learns_has_a_gradient() -> None:
    rows, weight = torch.randn(LEAST_ROWS, 24), torch.randn(40, 24, requires_grad=True)
    linear(rows, weight).sum().backward()
    assert weight.grad is not None
    assert rows.grad is None
    rows.requires_grad_(True)
    linear(rows, weight.detach()).sum().backward()
    assert rows.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_and_autocast_are_torchs_own(dtype: torch.dtype) -> None:
    rows, weight = torch.randn(LEAST_ROWS, 24, dtype=dtype), torch.randn(40, 24, dtype=dtype)
    assert torch.equal(linear(rows, weight), functional.linear(rows, weight))
    with torch.autocast("cpu", torch.bfloat16):
        product = linear(rows.float(), weight.float())
    assert product.dtype == torch.bfloat16
