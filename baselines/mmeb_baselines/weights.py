"""Weights into memory, whole or not at all; and what would fit when memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mmeb_harness import ModelError, one_line
from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.adapter.uploads import Uploads

if TYPE_CHECKING:
    import torch

_GB = 1e9


def load_weights(model_class: Any, found: CheckpointFolder, device: str, dtype: str) -> Any:
    """A transformers model of `model_class` on `device`, ready for inference.

    Raises:
        ModelError: weights are missing or don't fit the configuration, or the memory doesn't suffice.
    """
    model, missing = read_weights(model_class, found, device, dtype)
    if missing:
        raise ModelError(
            f"checkpoint {found.path} lacks {len(missing)} weights of its architecture, among them {missing[0]}; "
            "get it again, or convert it to the layout of this version of transformers"
        )
    return model


def read_weights(
    model_class: Any, found: CheckpointFolder, device: str, dtype: str, attention: str = "auto"
) -> tuple[Any, list[str]]:
    """The same, and the names of weights that no file had: transformers goes on with random numbers in their place.

    Raises:
        ModelError: weights don't fit the configuration, or the memory doesn't suffice.
    """
    import torch

    options: dict[str, Any] = {} if attention == "auto" else {"attn_implementation": attention}
    try:
        with _quiet():
            model, report = model_class.from_pretrained(
                found.path, dtype=getattr(torch, dtype), local_files_only=True, output_loading_info=True, **options
            )
        model = model.to(device)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{found.name} doesn't fit on {device}: {memory_advice(found.parameters, dtype, device)}"
            ) from error
        raise ModelError(f"can't load {found.path}: {one_line(error)}") from error
    return model.eval(), sorted(report["missing_keys"])


def placed(inputs: Mapping[str, NDArray[Any]], model: Any) -> dict[str, torch.Tensor]:
    """Inputs on the model's device; pixels in its dtype."""
    import torch

    return Uploads(torch, str(model.device), str(model.dtype).removeprefix("torch.")).start(inputs).ready()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was the memory of the accelerator, or of the CPU, which torch reports as a plain RuntimeError."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def memory_advice(parameters: int | None, dtype: str, device: str) -> str:
    """What the weights alone need, where their number is known, and what would need less."""
    if parameters is None:
        return "--dtype bfloat16 needs half of it" if dtype == "float32" else _elsewhere(device)
    half = f"{2 * parameters / _GB:.1f} GB"
    if dtype == "float32":
        return f"its weights need {4 * parameters / _GB:.1f} GB as float32; --dtype bfloat16 needs {half}"
    return f"its weights need {half} as {dtype}; {_elsewhere(device)}"


def _elsewhere(device: str) -> str:
    return "use a smaller checkpoint" + ("" if device == "cpu" else " or --device cpu")


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
