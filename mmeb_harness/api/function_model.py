"""A plain function from items to vectors, as a model."""

from __future__ import annotations

import inspect
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import EncodeResult, ModelInfo
from mmeb_harness.core.errors import ModelError
from mmeb_harness.core.items import Item, Role, Vectors
from mmeb_harness.core.plugins import plugin_code

#: Takes items, and their role if it has a second parameter; returns a row an item: an array, a tensor or lists.
EmbedFunction: TypeAlias = Callable[..., Any]


class FunctionModel:
    """A function's vectors, made unit length.

    Nobody can tell whether a function is still the one of an earlier call, so that each has a revision of its own and
    none of its vectors is ever used again. What it is told to embed first is made up, to learn how wide its rows are.

    Raises:
        ModelError: it raises an error on that item, or returns no row of numbers.
    """

    def __init__(self, function: EmbedFunction) -> None:
        self._function = function
        self._takes_role = _takes_role(function)
        self._name = getattr(function, "__name__", type(function).__name__).strip("<>")
        with tempfile.TemporaryDirectory(prefix="mmeb-probe-") as folder:
            width = self._rows([_probe(Path(folder))], "candidate").shape[1]
        self.info = ModelInfo(self._name, uuid.uuid4().hex, width)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        rows = self._rows(items, role)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        vectors: Vectors = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return EncodeResult(vectors)

    def _rows(self, items: Sequence[Item], role: Role) -> NDArray[np.float64]:
        """What the function returns for items, (n, d)."""
        with plugin_code(f"function {self._name!r} can't embed {len(items)} items"):
            returned = self._function(items, role) if self._takes_role else self._function(items)
            if hasattr(returned, "detach"):  # a tensor of torch, perhaps on an accelerator
                returned = returned.detach().cpu().float()
            rows = np.asarray(returned, dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(items):
            raise ModelError(
                f"function {self._name!r} returned an array of shape {rows.shape} for {len(items)} items; return a row "
                "an item"
            )
        return rows


def _takes_role(function: EmbedFunction) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C: it has no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [each for each in parameters if each.kind in positional and each.default is inspect.Parameter.empty]
    return len(required) > 1


def _probe(folder: Path) -> Item:
    from PIL import Image

    Image.new("RGB", (64, 64), (128, 128, 128)).save(folder / "probe.png")
    return Item("probe", "a grey picture", (folder / "probe.png",))
