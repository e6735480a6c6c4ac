"""Linear layers on a CPU by oneDNN's products instead of the BLAS that torch is linked with.

That one is Intel's, which uses half of the registers of anybody else's processor. The numbers of a forward pass are the
same, but for the last bit here and there. Of few rows a product is over before oneDNN has found its kernel.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: A product of fewer rows stays where it is.
LEAST_ROWS = 48


@functools.cache
def has_products() -> bool:
    """Whether this build of torch has them."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # untyped in torch
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(rows: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """What `torch.nn.functional.linear` is: (…, I) to (…, O)."""
    if not _suits(rows, weight_OI):
        return functional.linear(rows, weight_OI, bias_O)
    if torch.is_grad_enabled() and (rows.requires_grad or weight_OI.requires_grad):
        learnt: Tensor = _Product.apply(rows, weight_OI, bias_O)  # type: ignore[no-untyped-call]  # untyped in torch
        return learnt
    return _product(rows, weight_OI, bias_O)


def linear_layer(self: nn.Linear, input: Tensor) -> Tensor:  # its name in torch
    """The forward pass of a linear layer by `linear`."""
    return linear(input, self.weight, self.bias)


def _suits(rows: Tensor, weight_OI: Tensor) -> bool:
    return (
        rows.dtype == weight_OI.dtype == torch.float32
        and rows.device.type == weight_OI.device.type == "cpu"
        and math.prod(rows.shape[:-1]) >= LEAST_ROWS
        and has_products()
        and not torch.is_autocast_enabled("cpu")
    )


def _product(rows: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight_OI, bias_O, "none", [], "")
    return product


class _Product(torch.autograd.Function):
    """The same with its gradients, which are products as well."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight_OI)
        return _product(rows, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight_OI = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        gradient_NO = gradient.flatten(0, -2)
        return (
            _product(gradient, weight_OI.t()) if of_rows else None,
            _product(gradient_NO.t(), rows.flatten(0, -2).t()) if of_weight else None,
            gradient_NO.sum(dim=0) if of_bias else None,
        )
