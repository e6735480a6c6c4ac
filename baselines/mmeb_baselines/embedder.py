"""A checkpoint as an embedder: batches made on the CPU, weights that are loaded late, vectors out of the model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from mmeb_harness import EncodeResult, Item, ModelInfo, Role, TokenVectors, Trace, Vectors
from mmeb_harness.adapter.checkpoints import CheckpointFolder, resolve_place
from mmeb_harness.adapter.memory import peak_device_memory
from mmeb_harness.adapter.uploads import Upload, Uploads

#: What is left out where a model's code shows one picture of several, as `Trace.left_out` says it.
ONE_SHOWN = "items of which one of several pictures is shown"
Attention = Literal["auto", "sdpa", "flash_attention_2", "eager"]
#: Folder, device, dtype, attention → a model.
Loader = Callable[[CheckpointFolder, str, str, str], Any]


@dataclass(frozen=True)
class Place:
    """Where and how the weights run; device and dtype may be "auto"."""

    device: str
    dtype: str
    attention: Attention = "auto"


@dataclass(frozen=True)
class Batch:
    """Inputs of one kind, padded to one length.

    Attributes:
        rows: to which of the items that were asked for each input belongs.
        inputs: of the model: arrays and `Pixels`.
        left_out: of each row's item, see `Trace`; empty: nothing of any.
    """

    rows: list[int]
    inputs: dict[str, Any]
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class UploadedBatch:
    """The same, with its inputs on the model's device, or on their way to it."""

    rows: list[int]
    inputs: Upload
    left_out: Sequence[str] = ()


def left_out_of(batches: Iterable[Batch | UploadedBatch]) -> dict[int, str]:
    """Row → what of its item is left out, of those of which something is."""
    rows = (pair for batch in batches for pair in zip(batch.rows, batch.left_out, strict=False))
    return {row: left_out for row, left_out in rows if left_out}


class Form(Protocol):
    """What one family knows: how items become batches, and how a model's states become their vectors."""

    def cost(self, item: Item, role: Role) -> int:
        """Estimated tokens, from the text's length and the pictures' headers."""
        ...

    def batches(self, items: Sequence[Item], role: Role) -> list[Batch]:
        """Open, resize, tokenise and collate; on the CPU.

        Raises:
            DataError: a picture that can't be opened; it is named.
        """
        ...

    def vectors(self, model: Any, batches: Sequence[UploadedBatch]) -> Vectors | TokenVectors:
        """Vectors of all items of the batches, in order, of unit length."""
        ...


AnyForm = TypeVar("AnyForm", bound=Form)


class CheckpointEmbedder(Generic[AnyForm]):
    """Loads the weights when the first item comes: what is already done needs none."""

    def __init__(
        self, checkpoint: CheckpointFolder, place: Place, form: AnyForm, load: Loader, info: ModelInfo
    ) -> None:
        """Resolve the place.

        Args:
            info: to whose settings the checkpoint and the place are added.

        Raises:
            OptionError: a device or dtype that is none.
        """
        import torch

        device, dtype = resolve_place(torch, place.device, place.dtype)
        self.form, self._device = form, device
        self._uploads = Uploads(torch, device, dtype)
        self._load = functools.partial(load, checkpoint, device, dtype, place.attention)
        where = {"checkpoint": checkpoint.label, "device": device.split(":")[0], "dtype": dtype}
        self.info = dataclasses.replace(info, settings={**where, **info.settings})

    @functools.cached_property
    def model(self) -> Any:
        """The model with its weights, which the first use loads.

        Raises:
            ModelError: the weights can't be loaded.
        """
        return self._load()

    def warm_up(self) -> None:
        """Load the weights, and run one text: the first batch on a device pays for its set-up."""
        self.encode([Item("warm-up", text="warm-up")], "query")

    def peak_device_memory(self) -> int | None:
        import torch

        return peak_device_memory(torch, self._device)

    def cost(self, item: Item, role: Role) -> int:
        return self.form.cost(item, role)

    def prepare(self, items: Sequence[Item], role: Role) -> list[Batch]:
        return self.form.batches(items, role)

    def upload(self, prepared: Sequence[Batch | UploadedBatch]) -> list[UploadedBatch]:
        """The inputs, on their way to the model; those that are there already stay as they are."""
        return [
            batch
            if isinstance(batch, UploadedBatch)
            else UploadedBatch(batch.rows, self._uploads.start(batch.inputs), batch.left_out)
            for batch in prepared
        ]

    def encode_prepared(self, prepared: Sequence[Batch | UploadedBatch]) -> EncodeResult:
        vectors, left_out = self.form.vectors(self.model, self.upload(prepared)), left_out_of(prepared)
        traces = tuple(Trace(left_out=left_out.get(row, "")) for row in range(len(vectors)))
        return EncodeResult(vectors, traces if left_out else None)

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self.encode_prepared(self.prepare(items, role))
