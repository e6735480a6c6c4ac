"""What is known of checkpoints: rows of baselines/README.md, defaults of adapters, and which model runs which type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CHECKPOINT_FILES, CheckpointFolder, find_checkpoint

#: `model_type` of a checkpoint's config.json → the registered models that run it.
MODELS_OF_TYPE: dict[str, tuple[str, ...]] = {
    "qwen2_vl": ("vlm2vec", "gme", "lamra", "ops_mm", "rzen_embed", "ume_r1"),
    "qwen2_5_vl": ("lamra", "jina_v4"),
    "qwen3_5": ("wemm_embedding",),
    "nvomniembed": ("omni_embed_nemotron",),
    "qwen3_vl": ("qwen3_vl_embedding", "mmemb_r1"),
    "colpali": ("colpali",),
    "colqwen2": ("colqwen2",),
    "clip": ("clip",),
    "siglip": ("siglip",),
    "siglip2": ("siglip",),
}


@dataclass(frozen=True)
class Card:
    """One published checkpoint of a model family.

    Attributes:
        hub_id: repository on the Hugging Face hub; what `path` defaults to is the family's first card.
        revision: the commit that is fetched; `None`: none is known, the hub's newest is taken.
        parameters: of the whole checkpoint; `None`: not known.
        dimensions: of a vector, or of one of its vectors for late interaction.
        model: the registered name that runs it.
        prompt: of a query with an image, in short; the exact string is the adapter's.
        pooling: which state becomes the vector.
        resolution: bounds of a picture.
        frames: how a video is shown.
        license: as stated by its publisher.
        source: where prompt, pooling and sizes were seen.
        matryoshka: smallest number of leading dimensions it was trained for; `None`: not trained for that.
        published: its name in mmeb_harness/published/scores.csv; "" if it has no row there.
        unsure: what was not seen in its own code.
    """

    hub_id: str
    revision: str | None
    parameters: int | None
    dimensions: int
    model: str
    prompt: str
    pooling: str
    resolution: str
    frames: str
    license: str
    source: str
    matryoshka: int | None = None
    published: str = ""
    unsure: str = ""


def find_pinned(
    cards: Sequence[Card], path: str | None, revision: str | None, files: Sequence[str] = CHECKPOINT_FILES
) -> CheckpointFolder:
    """The checkpoint at `path`, by default the first card's; in the revision asked for, else in that of its card.

    Args:
        files: glob patterns of what is downloaded.

    Raises:
        ModelError: it isn't there.
    """
    name = path or cards[0].hub_id
    known = next((card.revision for card in cards if card.hub_id == name), None)
    return find_checkpoint(name, revision or known, files)


def read_config(checkpoint: CheckpointFolder, model: str) -> dict[str, Any]:
    """The checkpoint's config.json, if the registered model `model` runs its architecture.

    Raises:
        ModelError: it doesn't, and which ones do; or there is no config.json.
    """
    config = checkpoint.json("config.json")
    model_type = str(config.get("model_type"))
    fitting = MODELS_OF_TYPE.get(model_type, ())
    if model not in fitting:
        runs = [known for known, models in MODELS_OF_TYPE.items() if model in models]
        way_out = f"use --model {' or '.join(fitting)}" if fitting else "no registered model runs that"
        raise ModelError(
            f"checkpoint {checkpoint.name} is of type {model_type!r}; {model} runs {', '.join(runs)}; {way_out}"
        )
    return config
