"""Errors of other code."""

import pytest

from mmeb_harness import ModelError
from mmeb_harness.core.errors import is_out_of_memory


class OutOfMemoryError(RuntimeError):
    """Torch's, by its name."""


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes don't match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) is is_one
    wrapped = ModelError("the model failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped) is is_one
