"""Every baseline's forward pass on a GPU that isn't there: nothing is left on the host, and shapes are known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmeb_harness import Item
from mmeb_harness.adapter.uploads import Uploads
from mmeb_harness.core.registry import ModelSpec
from mmemb_r1_model.rehearsal.accelerator import Accelerator
from tests.baselines.plain_qwen import noise
from tests.baselines.tiny_checkpoints import MAKERS, save_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "ume_r1"])  # its engine is MMEmb-R1's
def test_a_baseline_runs_where_its_weights_are(name: str, tmp_path: Path) -> None:
    embedder = ModelSpec(name, {"path": str(save_checkpoint(name, tmp_path / name)), "device": "cpu"}).load()
    items = [Item("t", text="a cat"), Item("p", images=(noise(tmp_path / "p.png", (64, 64), 0),))]
    prepared = [embedder.prepare([item, item], "query") for item in items]  # type: ignore[attr-defined]
    model = embedder.model  # type: ignore[attr-defined]
    accelerator = Accelerator()
    with accelerator.there():
        model.to(accelerator.device)
        embedder._uploads = Uploads(torch, str(accelerator.device), "float32")  # type: ignore[attr-defined]
        for batches in prepared:
            assert len(embedder.encode_prepared(batches).vectors) == 2  # type: ignore[attr-defined]
    assert accelerator.waits
