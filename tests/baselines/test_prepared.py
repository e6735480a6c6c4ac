"""What `prepare` returns goes through a pickle, or through an upload, and encodes to the same vectors."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch

from mmeb_harness import BudgetedEmbedder, Item, TokenVectors, UploadingEmbedder
from mmeb_harness.core.registry import ModelSpec, model_names
from mmeb_harness.encode.check import probe_items
from mmeb_harness.encode.supervisor import WorkerPreparation
from tests.baselines.tiny_checkpoints import MAKERS, save_checkpoint

#: Models of which nothing is prepared here, one whose pictures its server prepares, and one that needs no checkpoint
#: made for it (`tests/baselines/ocr`).
PLAIN = {"random", "bag_of_features", "st", "openai", "ocr"}
#: Their prepared batches aren't numpy arrays yet, so they can't be uploaded ahead.
NOT_UPLOADING = {"mmemb_r1", "ume_r1"}


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    """Each model on a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    found = {name: ModelSpec(name, {"path": str(save_checkpoint(name, folder / name))}) for name in MAKERS}
    found["ume_r1"] = ModelSpec("ume_r1", {**found["ume_r1"].args, "max_new_tokens": "4"})
    return {**found, "mmemb_r1": ModelSpec("mmemb_r1", {"max_new_tokens": "4"})}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    return probe_items(tmp_path_factory.mktemp("items"))


def made(spec: ModelSpec) -> BudgetedEmbedder:
    embedder = spec.load()
    assert isinstance(embedder, BudgetedEmbedder)
    return embedder


def vectors(embedder: BudgetedEmbedder, prepared: Any) -> np.ndarray[Any, Any]:
    found = embedder.encode_prepared(prepared).vectors
    return found.flat if isinstance(found, TokenVectors) else found


def test_every_model_is_here() -> None:
    assert {*MAKERS, "mmemb_r1"} == set(model_names()) - PLAIN


@pytest.mark.parametrize("name", [*MAKERS, "mmemb_r1"])
def test_pickled_and_uploaded_batches_give_the_same_vectors(
    name: str, specs: dict[str, ModelSpec], items: list[Item]
) -> None:
    embedder = made(specs[name])
    prepared = embedder.prepare(items, "query")
    arrays: list[pickle.PickleBuffer] = []
    body = pickle.dumps(prepared, protocol=5, buffer_callback=arrays.append)
    expected = vectors(embedder, prepared)
    np.testing.assert_array_equal(vectors(embedder, pickle.loads(body, buffers=arrays)), expected)
    if name in NOT_UPLOADING:
        return
    assert len(body) < 4096  # all that is large lies in arrays
    assert isinstance(embedder, UploadingEmbedder)
    uploaded: list[Any] = []
    thread = threading.Thread(target=lambda: uploaded.append(embedder.upload(prepared)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(vectors(embedder, uploaded[0]), expected)


@pytest.mark.slow
def test_a_worker_prepares_the_same(specs: dict[str, ModelSpec], items: list[Item]) -> None:
    spec = specs["qwen3_vl_embedding"]
    embedder = made(spec)
    batches = [items[:4], items[4:6], items[6:]]
    with WorkerPreparation(spec, 1) as preparation:
        found = preparation.run(
            (batch, "candidate", sum(embedder.cost(one, "candidate") for one in batch)) for batch in batches
        )
        for batch, (prepared, _) in zip(batches, found, strict=True):
            expected = vectors(embedder, embedder.prepare(batch, "candidate"))
            np.testing.assert_array_equal(vectors(embedder, prepared), expected)


@pytest.mark.parametrize(
    ("name", "part"), [("gme", "base_model"), ("colqwen2", "vlm"), ("siglip", "text_model"), ("clip", "vision_model")]
)
def test_too_little_memory_is_the_harness_own_affair(
    name: str, part: str, specs: dict[str, ModelSpec], items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*inputs: object, **more: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 TiB")

    embedder: Any = made(specs[name])
    monkeypatch.setattr(getattr(embedder.model, part), "forward", fail)
    with pytest.raises(torch.OutOfMemoryError, match="2 TiB"):
        embedder.encode(items, "query")
