"""A GPU that isn't there: what goes wrong on a real one goes wrong, and where the host waits is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional

from mmeb_harness.adapter.uploads import Uploads
from mmemb_r1_model.rehearsal.accelerator import Accelerator
from mmemb_r1_model.rehearsal.memory import Ledger


def waits(accelerator: Accelerator) -> list[str]:
    return [place.wait for place in accelerator.waits]


def test_what_lies_on_the_host_cant_be_added_to_what_lies_on_the_device() -> None:
    accelerator = Accelerator()
    with accelerator.there(), pytest.raises(RuntimeError, match="two devices"):
        torch.zeros(3, device=accelerator.device) + torch.ones(3)


def test_a_shape_that_depends_on_what_was_computed_is_refused_and_one_that_the_host_knows_costs_a_wait() -> None:
    accelerator = Accelerator()
    with accelerator.there():
        computed = torch.empty(4, device=accelerator.device) > 0
        with pytest.raises(RuntimeError, match="depends on what was computed"):
            computed.nonzero()
        sent = torch.tensor([True, False, True, True]).to(accelerator.device)
        accelerator.waits.clear()
        assert torch.empty(4, 2, device=accelerator.device)[sent].shape == (3, 2)
    assert waits(accelerator) == ["shape"]
    assert accelerator.waits[0].where.endswith("test_accelerator:" + accelerator.waits[0].where.partition(":")[2])


def test_reads_and_uploads_are_seen_where_they_are_and_pinned_memory_waits_for_nothing() -> None:
    accelerator = Accelerator()
    with accelerator.there():
        known = torch.tensor([3, 4], device=accelerator.device)
        assert waits(accelerator) == ["upload"]
        assert ((known + 1).tolist(), int(known.sum())) == ([4, 5], 7)
        assert torch.empty(2, device=accelerator.device).cpu().numpy().shape == (2,)
        assert waits(accelerator) == ["upload", "read", "read", "read"]
        accelerator.waits.clear()
        upload = Uploads(torch, str(accelerator.device), "bfloat16").start({"pixels": np.zeros((2, 3), np.float32)})
        assert upload.ready()["pixels"].dtype == torch.bfloat16
        assert upload.event is not None
    assert not accelerator.waits


def test_nothing_waits_while_a_graph_is_recorded() -> None:
    accelerator = Accelerator()
    with accelerator.there(), torch.cuda.graph(torch.cuda.CUDAGraph()), pytest.raises(RuntimeError, match="recorded"):
        torch.empty(1, device=accelerator.device).item()


def dtypes(device: str) -> list[torch.dtype]:
    """Of what autocast makes of operations on single and half precision."""
    single = torch.empty(4, 4, device=device)
    half, weight = single.bfloat16(), torch.empty(4, 4, device=device)
    shape, targets = (1, 1, 1, 4, 4), torch.zeros(4, dtype=torch.int64, device=device)
    with torch.no_grad(), torch.autocast(device.partition(":")[0], torch.bfloat16):
        made = [
            functional.linear(single, weight), single @ half, torch.bmm(half.unsqueeze(0), single.unsqueeze(0)),
            torch.einsum("ab,cb->ac", single, half), functional.conv3d(single.view(shape), weight.view(shape)),
            functional.layer_norm(half, (4,)), functional.softmax(half, -1), functional.log_softmax(half, -1),
            functional.cross_entropy(half, targets), torch.logsumexp(half, -1), half.exp(), half.pow(2), half.rsqrt(),
            half.sum(), half.sum(-1), half.mean(-1), half.cumsum(0), functional.normalize(half),
            functional.softplus(half),
            torch.cat([single, half]), torch.stack([single, half]), half + single, half * half, functional.silu(half),
        ]  # fmt: skip
    return [tensor.dtype for tensor in made]


def test_autocast_makes_what_torchs_own_makes_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with monkeypatch.context() as patch, FakeTensorMode():
        patch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        real = dtypes("cuda:0")
    accelerator = Accelerator()
    with accelerator.there():
        assert dtypes(str(accelerator.device)) == real


def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, inputs: torch.Tensor) -> None:
    optimiser.zero_grad()
    model(inputs).square().mean().backward()
    optimiser.step()


def test_the_ledger_counts_what_torchs_tracker_counts_and_the_same_with_memory_and_without() -> None:
    device, peaks = torch.device("cpu"), []

    def run() -> None:
        model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(4)])
        optimiser, inputs = torch.optim.AdamW(model.parameters()), torch.ones(64, 256)
        for _ in range(2):
            step(model, optimiser, inputs)

    for without in (False, True):
        with FakeTensorMode() if without else torch.enable_grad(), Ledger(device) as ledger:
            run()
        peaks.append(ledger.peak().bytes)
    assert peaks[0] == peaks[1]
    tracker = MemTracker()
    with tracker:
        run_once(tracker)
    with Ledger(device) as ledger:
        run_once(None)
    tracked = tracker.get_tracker_snapshot("peak")[device]["Total"]
    assert ledger.peak().bytes == pytest.approx(tracked, abs=64 * 512)  # the ledger rounds each tensor up


def run_once(tracker: MemTracker | None) -> None:
    model = torch.nn.Sequential(*[torch.nn.Linear(256, 256) for _ in range(4)])
    if tracker is not None:
        tracker.track_external(model)
    model(torch.ones(64, 256)).square().mean().backward()


def test_afterwards_a_device_is_a_device_again() -> None:
    """Whatever torch remembers since then; a checkpoint's positions are made on one."""
    from torch.utils._device import _device_constructors

    _device_constructors.cache_clear()
    with Accelerator().there(), torch.device("meta"):
        torch.ones(1)
    with torch.device("meta"):
        assert torch.tensor([]).device.type == "meta"
