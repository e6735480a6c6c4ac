"""Weights into memory, whole or not at all, and what a user is told where they can't be loaded, or don't fit.

The libraries that load them are handed in: the harness doesn't import them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mmeb_harness.adapter.checkpoints import CheckpointFolder
from mmeb_harness.core.errors import ModelError, is_out_of_memory, one_line

_GB = 1e9


def load_pretrained(
    transformers: ModuleType,
    architecture: str,
    checkpoint: CheckpointFolder,
    device: str,
    dtype: str,
    attention: str = "auto",
    *,
    head: bool = False,
    **options: Any,
) -> Any:
    """A model on `device`, ready for inference; every weight must be in the files.

    Args:
        transformers: the module.
        architecture: its class there, e.g. "AutoModel" for the bare model, without a language head.
        head: a language head is used: it must be there, too.
        options: for `from_pretrained`.

    Raises:
        ModelError: weights are missing (transformers would go on with random numbers in their place) or don't fit the
            configuration, or the memory doesn't suffice.
    """
    if attention != "auto":
        options["attn_implementation"] = attention
    logging = transformers.utils.logging
    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    with loading_weights(checkpoint, device, dtype):
        logging.set_verbosity_error()  # no report on weights, which is read here
        try:
            model, report = getattr(transformers, architecture).from_pretrained(
                checkpoint.path, dtype=dtype, local_files_only=True, output_loading_info=True, **options
            )
        finally:
            logging.set_verbosity(verbosity)
        model = model.to(device)
    if missing := sorted(name for name in report["missing_keys"] if head or name != "lm_head.weight"):
        raise ModelError(
            f"checkpoint {checkpoint.path} lacks weights, {len(missing)} in all: {', '.join(missing[:3])} …; get it "
            "again, or convert it to the layout of this version of transformers"
        )
    return model.eval()


@contextlib.contextmanager
def loading_weights(checkpoint: CheckpointFolder, device: str, dtype: str, library: str = "") -> Iterator[None]:
    """Errors of a library that loads weights, in one line that names the checkpoint.

    Args:
        library: who loads it, where the user should know.

    Raises:
        ModelError: the weights can't be loaded, or the memory doesn't suffice; then also what would need less.
    """
    parameters = checkpoint.parameters
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"{checkpoint.name} doesn't fit on {device}: {_memory_advice(parameters, dtype, device)}"
            ) from error
        raise ModelError(f"{library} can't load {checkpoint.path}: {one_line(error)}".lstrip()) from error


def _memory_advice(parameters: int | None, dtype: str, device: str) -> str:
    """What the weights alone need, where their number is known, and what would need less."""
    if parameters is None:
        return "--dtype bfloat16 needs half of it" if dtype == "float32" else _elsewhere(device)
    half = f"{2 * parameters / _GB:.1f} GB"
    if dtype == "float32":
        return f"its weights need {4 * parameters / _GB:.1f} GB as float32; --dtype bfloat16 needs {half}"
    return f"its weights need {half} as {dtype}; {_elsewhere(device)}"


def _elsewhere(device: str) -> str:
    return "use a smaller checkpoint" + ("" if device == "cpu" else " or --device cpu")
