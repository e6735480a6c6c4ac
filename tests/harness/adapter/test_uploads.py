"""Arrays become tensors of a model's device and dtype."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from mmeb_harness.adapter.uploads import Upload, Uploads

ARRAYS = {
    "ids": np.arange(12, dtype=np.int64).reshape(3, 4),
    "pixels": np.linspace(-2, 2, 3000, dtype=np.float32).reshape(30, 100),
    "mask": np.array([True, False]),
    "none": np.empty((0, 3), dtype=np.float32),
}

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_nothing_is_copied_on_the_cpu() -> None:
    tensors = Uploads(torch, "cpu", "float32").start(ARRAYS).ready()
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert torch.equal(tensors[name], torch.tensor(array))
        assert tensors[name].numel() == 0 or tensors[name].data_ptr() == array.ctypes.data


def test_numbers_with_a_point_get_the_models_dtype() -> None:
    tensors = Uploads(torch, "cpu", "bfloat16").start(ARRAYS).ready()
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        **{"ids": torch.int64, "mask": torch.bool},
        **dict.fromkeys(("pixels", "none"), torch.bfloat16),
    }
    assert torch.equal(tensors["pixels"], torch.tensor(ARRAYS["pixels"]).bfloat16())


def test_arrays_in_any_order_and_read_only_ones(recwarn: pytest.WarningsRecorder) -> None:
    arrays = {"turned": ARRAYS["ids"].T, "wide": np.broadcast_to(np.arange(3), (2, 3)), "one": np.array(1.5)}
    tensors = Uploads(torch, "cpu", "float32").start(arrays).ready()
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].numpy(), array)
    assert not recwarn.list


@on_cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_copies_to_a_gpu_overlap_and_are_waited_for(dtype: str) -> None:
    """Many uploads from another thread, each used once while later ones arrive: their memory isn't given away early."""
    uploads = Uploads(torch, "cuda", dtype)
    weights = torch.randn(2048, 2048, device="cuda")
    expected = [np.full((2048, 512), place, dtype=np.float32) for place in range(24)]
    arrived: list[Upload] = []
    thread = threading.Thread(target=lambda: arrived.extend(uploads.start({"x": one}) for one in expected))
    thread.start()
    sums = []
    for place in range(len(expected)):
        while len(arrived) <= place:
            pass
        tensor = arrived[place].ready()["x"]
        arrived[place] = Upload({}, torch)
        for _ in range(4):
            weights @ weights
        sums.append(tensor.double().mean())
        del tensor
    thread.join()
    assert torch.stack(sums).tolist() == list(range(len(expected)))
