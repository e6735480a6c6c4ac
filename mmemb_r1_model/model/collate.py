"""Prompts to one padded batch: as arrays, which cross process borders cheaply, and from them as tensors.

Legend of shapes: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.model.prompt import IMAGE, VIDEO, Prompt
from mmemb_r1_model.model.vision import Patches

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Integers: TypeAlias = NDArray[np.int64]
#: Pixel values and grids, by transformers' names.
Pixels: TypeAlias = dict[str, NDArray[np.float32] | Integers]

#: Kind of a row's visual tokens, and transformers' names of its pixels and of their grids.
_KINDS = ((IMAGE, "pixel_values", "image_grid_thw"), (VIDEO, "pixel_values_videos", "video_grid_thw"))


@dataclass(frozen=True)
class Batch:
    """Prompts as tensors, padded on the left.

    Attributes:
        pixels: pixel values and grids, by transformers' names.
        arrays: what it was made of: lengths and grids can be read there without asking a device.
    """

    ids_BL: Tensor
    mask_BL: Tensor
    types_BL: Tensor
    positions_3BL: Tensor
    next_position_B: Tensor
    pixels: dict[str, Tensor]
    arrays: Collated

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch on a device, pixel values in the model's dtype; to a GPU from pinned memory, without waiting."""

        def moved(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
            if device.type == "cuda" and tensor.device.type == "cpu":
                tensor = tensor.to(dtype).pin_memory()  # in the model's dtype first: half as many bytes to send
            return tensor.to(device, dtype, non_blocking=True)

        return Batch(
            moved(self.ids_BL),
            moved(self.mask_BL),
            moved(self.types_BL),
            moved(self.positions_3BL),
            moved(self.next_position_B),
            {name: moved(one, dtype if name.startswith("pixel") else None) for name, one in self.pixels.items()},
            self.arrays,
        )


@dataclass(frozen=True)
class Collated:
    """The same as arrays, with no torch in it. `to` makes tensors of it."""

    ids_BL: Integers
    mask_BL: Integers
    types_BL: Integers
    positions_3BL: Integers
    next_position_B: Integers
    pixels: Pixels

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = self.mask_BL.sum(axis=1).tolist()
        return lengths

    @property
    def grids(self) -> list[list[int]]:
        """(time, height, width) in patches of every picture and clip."""
        return [grid for name, grids in self.pixels.items() if name.endswith("grid_thw") for grid in grids.tolist()]

    def tensors(self) -> Batch:
        """As tensors over the same memory."""
        import torch

        return Batch(
            torch.from_numpy(self.ids_BL),
            torch.from_numpy(self.mask_BL),
            torch.from_numpy(self.types_BL),
            torch.from_numpy(self.positions_3BL),
            torch.from_numpy(self.next_position_B),
            {name: torch.from_numpy(one) for name, one in self.pixels.items()},
            self,
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """As tensors on a device, pixel values in the model's dtype."""
        return self.tensors().to(device, dtype)


@dataclass(frozen=True)
class Uploaded:
    """A batch on its way to a GPU, copied beside what is computed there.

    Attributes:
        arrived: event after the last copy.
    """

    batch: Batch
    arrived: torch.cuda.Event

    @classmethod
    def of(cls, batch: Collated, device: torch.device, dtype: torch.dtype) -> Uploaded:
        """Start the copy; may be called from any thread."""
        import torch

        with torch.cuda.stream(torch.cuda.Stream(device)):  # type: ignore[no-untyped-call]
            moved = batch.to(device, dtype)
            return cls(moved, torch.cuda.current_stream(device).record_event())

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch, for use on the current stream, which waits for it; it is on `device`, in `dtype`, already."""
        import torch

        stream = torch.cuda.current_stream(device)
        stream.wait_event(self.arrived)
        batch = self.batch
        own = (batch.ids_BL, batch.mask_BL, batch.types_BL, batch.positions_3BL, batch.next_position_B)
        for tensor in (*own, *batch.pixels.values()):
            tensor.record_stream(stream)  # its memory isn't given to another copy while it is read here
        return batch


def collate(prompts: Sequence[Prompt], pad_id: int) -> Collated:
    """Pad on the left: every row answers at the same place."""
    rows, length = len(prompts), max(len(prompt) for prompt in prompts)
    ids = np.full((rows, length), pad_id, dtype=np.int64)
    mask = np.zeros((rows, length), dtype=np.int64)
    types = np.zeros((rows, length), dtype=np.int64)
    positions = np.zeros((3, rows, length), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt)
        ids[row, start:], mask[row, start:], types[row, start:] = prompt.ids, 1, prompt.types
        positions[:, row, start:] = prompt.positions
    next_positions = np.array([prompt.next_position for prompt in prompts], dtype=np.int64)
    return Collated(ids, mask, types, positions, next_positions, pixels_of(prompts))


def prompts_of(batch: Collated, rows: Sequence[int], drop: int = 0) -> list[Prompt]:
    """Some rows' prompts again, without their last `drop` tokens; copies, so that the batch can go."""
    patches = _patches_of(batch, rows)
    return [_prompt_of(batch, row, drop, patches.get(row)) for row in rows]


def _prompt_of(batch: Collated, row: int, drop: int, patches: Patches | None) -> Prompt:
    width = batch.ids_BL.shape[1]
    kept = slice(width - int(batch.mask_BL[row].sum()), width - drop)
    return Prompt(
        ids=batch.ids_BL[row, kept].copy(),
        types=batch.types_BL[row, kept].copy(),
        positions=batch.positions_3BL[:, row, kept].copy(),
        next_position=int(batch.next_position_B[row]) - drop,
        patches=patches,
    )


def _patches_of(batch: Collated, wanted: Sequence[int]) -> dict[int, Patches]:
    """Row → its patches, which `pixels_of` has put one after another."""
    found: dict[int, Patches] = {}
    for kind, values, grids in _KINDS:
        if values not in batch.pixels:
            continue
        place = 0
        rows = np.flatnonzero((batch.types_BL == kind).any(axis=1)).tolist()
        for row, (time, height, width) in zip(rows, batch.pixels[grids].tolist(), strict=True):
            start, place = place, place + time * height * width
            if row in wanted:
                pixels = np.array(batch.pixels[values][start:place], dtype=np.float32)
                found[row] = Patches(pixels, (time, height, width))
    return found


def pixels_of(pieces: Sequence[Prompt]) -> Pixels:
    """Pixel values and grids by transformers' names, in the order in which their tokens stand in the batch."""
    found: Pixels = {}
    for kind, values, grid in _KINDS:
        patches = [piece.patches for piece in pieces if piece.patches is not None and kind in piece.types]
        if patches:
            found[values] = np.concatenate([one.pixels for one in patches])
            found[grid] = np.array([one.grid for one in patches], dtype=np.int64)
    return found
