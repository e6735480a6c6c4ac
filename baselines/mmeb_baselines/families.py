"""Which registered models run which architecture: a checkpoint of another one is refused with those that would fit."""

from __future__ import annotations

from typing import Any

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CheckpointFolder

#: `model_type` of a checkpoint's config.json → the registered models that run it.
MODELS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "qwen2_vl": ("vlm2vec", "gme", "lamra", "ops_mm", "rzen_embed", "ume_r1"),
    "qwen2_5_vl": ("lamra",),
    "qwen3_vl": ("qwen3_vl_embedding", "mmemb_r1"),
    "colpali": ("colpali",),
    "colqwen2": ("colqwen2",),
    "clip": ("clip",),
    "siglip": ("siglip",),
    "siglip2": ("siglip",),
}


def read_config(checkpoint: CheckpointFolder, model: str) -> dict[str, Any]:
    """The checkpoint's config.json, if the registered model `model` runs its architecture.

    Raises:
        ModelError: it doesn't, and which ones do; or there is no config.json.
    """
    config = checkpoint.json("config.json")
    model_type = str(config.get("model_type"))
    fitting = MODELS_OF_TYPE.get(model_type, ())
    if model not in fitting:
        way_out = f"use --model {' or '.join(fitting)}" if fitting else "no registered model runs that"
        raise ModelError(
            f"checkpoint {checkpoint.name} is of type {model_type!r}; {model} runs {', '.join(types_of(model))}; "
            f"{way_out}"
        )
    return config


def types_of(model: str) -> list[str]:
    """The architectures that a registered model runs."""
    return [model_type for model_type, models in MODELS_OF_TYPE.items() if model in models]
