"""What a user is told of weights that can't be loaded, or don't fit. The libraries that load them aren't imported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from mmeb_harness.core.errors import ModelError, is_out_of_memory, one_line

_GB = 1e9


@contextlib.contextmanager
def loading_weights(
    name: str, path: Path, parameters: int | None, device: str, dtype: str, library: str = ""
) -> Iterator[None]:
    """Errors of a library that loads weights, in one line that names the checkpoint.

    Args:
        name: of the checkpoint, as the user gave it.
        parameters: how many numbers its weights are; `None`: not known.
        library: who loads it, where the user should know.

    Raises:
        ModelError: the weights can't be loaded, or the memory doesn't suffice; then also what would need less.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ModelError(f"{name} doesn't fit on {device}: {_memory_advice(parameters, dtype, device)}") from error
        raise ModelError(f"{library} can't load {path}: {one_line(error)}".lstrip()) from error


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
