"""Which registered model runs which architecture, for the message when a checkpoint is given to the wrong one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CheckpointFolder

#: `model_type` of config.json → registered models that take it.
MODELS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "qwen2_vl": ("vlm2vec", "gme", "lamra", "ops_mm", "rzen_embed", "ume_r1"),
    "qwen3_vl": ("qwen3_vl_embedding", "mmemb_r1"),
    "colpali": ("colpali",),
    "colqwen2": ("colqwen2",),
    "clip": ("clip",),
    "siglip": ("siglip",),
    "siglip2": ("siglip",),
}


def check_model_type(
    checkpoint: CheckpointFolder, config: Mapping[str, Any], model: str, accepted: Sequence[str]
) -> None:
    """Refuse a checkpoint of another architecture.

    Raises:
        ModelError: names the models that would fit.
    """
    found = str(config.get("model_type"))
    if found in accepted:
        return
    fitting = " or ".join(map(repr, MODELS_OF_TYPE.get(found, ()))) or "'st', if sentence-transformers loads it"
    raise ModelError(
        f"checkpoint {checkpoint.name} is of type {found!r}; model {model!r} needs {' or '.join(map(repr, accepted))}. "
        f"For this checkpoint: {fitting}"
    )
