"""Weights and tokenizers of transformers' models, and their inputs to where they are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.texts import Speller
from mmeb_harness.adapter.uploads import Arrays, Uploads
from mmeb_harness.adapter.weights import HEAD, load_pretrained

if TYPE_CHECKING:
    import torch


def load_weights(architecture: str, checkpoint: CheckpointFolder, *place: str, unused: Sequence[str] = ()) -> Any:
    """As the harness's own; transformers is imported now.

    Args:
        place: device, dtype and attention.
        unused: see there.
    """
    import transformers

    return load_pretrained(transformers, architecture, checkpoint, *place, unused=unused)


#: The bare model, without a language head.
load_backbone = partial(load_weights, "AutoModel", unused=HEAD)


def speller_of(tokenizer: Any) -> Speller:
    """For the texts of data; of a tokenizer of transformers that runs on the library tokenizers."""
    backend = tokenizer.backend_tokenizer
    return Speller(backend.to_str(), type(backend).from_str)


def placed(inputs: Arrays, model: Any) -> dict[str, torch.Tensor]:
    """Inputs on the model's device; pixels in its dtype."""
    import torch

    return Uploads(torch, str(model.device), str(model.dtype).removeprefix("torch.")).copy(inputs)
