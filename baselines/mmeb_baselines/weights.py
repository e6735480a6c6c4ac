"""Weights into memory, whole or not at all, and a model's inputs to where it is."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mmeb_harness import ModelError
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.uploads import Uploads
from mmeb_harness.adapter.weights import loading_weights

if TYPE_CHECKING:
    import torch


def load_weights(
    architecture: str,
    checkpoint: CheckpointFolder,
    device: str,
    dtype: str,
    attention: str = "auto",
    *,
    head: bool = False,
) -> Any:
    """A model on `device`, ready for inference; every weight must be in the files.

    Args:
        architecture: its class in transformers, e.g. "AutoModel" for the bare model, without a language head.
        head: a language head is used: it must be there, too.

    Raises:
        ModelError: weights are missing (transformers would go on with random numbers in their place) or don't fit the
            configuration, or the memory doesn't suffice.
    """
    import torch
    import transformers

    options: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    with loading_weights(checkpoint.name, checkpoint.path, checkpoint.parameters, device, dtype):
        with _quiet():
            model, report = getattr(transformers, architecture).from_pretrained(
                checkpoint.path, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True, **options
            )
        model = model.to(device)
    if missing := sorted(name for name in report["missing_keys"] if head or name != "lm_head.weight"):
        raise ModelError(
            f"checkpoint {checkpoint.path} lacks weights, {len(missing)} in all: {', '.join(missing[:3])} …; get it "
            "again, or convert it to the layout of this version of transformers"
        )
    return model.eval()


#: The bare model, without a language head.
load_backbone = partial(load_weights, "AutoModel")


def placed(inputs: Mapping[str, NDArray[Any]], model: Any) -> dict[str, torch.Tensor]:
    """Inputs on the model's device; pixels in its dtype."""
    import torch

    return Uploads(torch, str(model.device), str(model.dtype).removeprefix("torch.")).copy(inputs)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' report on weights, which is checked here."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
