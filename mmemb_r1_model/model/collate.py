"""Prompts to one padded batch: as arrays, which cross process borders cheaply, and from them as tensors.

Legend of shapes: B rows, L tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.adapter.pixels import Patches, Pixels
from mmeb_harness.adapter.uploads import Upload, Uploads
from mmemb_r1_model.model.prompt import IMAGE, VIDEO, Prompt

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Integers: TypeAlias = NDArray[np.int64]
#: `Pixels` and grids (pictures, 3), by transformers' names.
Pictures: TypeAlias = dict[str, Any]

_NO_GRIDS: Integers = np.zeros((0, 3), dtype=np.int64)
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

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Tokens and pixels by transformers' names."""
        return {"input_ids": self.ids_BL, "mm_token_type_ids": self.types_BL, **self.pixels}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], arrays: Collated) -> Batch:
        """From tensors by the arrays' names."""
        own: dict[str, Any] = dict(tensors)
        pixels = {name: own.pop(name) for name in arrays.pixels}
        return cls(**own, pixels=pixels, arrays=arrays)


@dataclass(frozen=True)
class Collated:
    """The same as arrays, with no torch in it. `to` makes tensors of it."""

    ids_BL: Integers
    mask_BL: Integers
    types_BL: Integers
    positions_3BL: Integers
    next_position_B: Integers
    pixels: Pictures

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        lengths: list[int] = self.mask_BL.sum(axis=1).tolist()
        return lengths

    @property
    def positions(self) -> int:
        """Rows times columns, padding included."""
        return self.ids_BL.size

    @property
    def grids(self) -> list[list[int]]:
        """(time, height, width) in patches of every picture and clip."""
        return [grid for name, grids in self.pixels.items() if name.endswith("grid_thw") for grid in grids.tolist()]

    @property
    def named(self) -> dict[str, NDArray[Any] | Pixels]:
        """All arrays by name."""
        return {name: array for name, array in vars(self).items() if name != "pixels"} | self.pixels

    def tensors(self) -> Batch:
        """As tensors of the host, over the same memory but for pixels."""
        import torch

        return self.to(torch.device("cpu"), torch.float32)

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """As tensors on a device, pixels as numbers of the model's dtype."""
        import torch

        uploads = Uploads(torch, str(device), str(dtype).removeprefix("torch."))
        return Batch.of(uploads.copy(self.named), self)


@dataclass(frozen=True)
class Uploaded:
    """A batch on its way to a device, copied beside what is computed there."""

    arrays: Collated
    upload: Upload

    @property
    def positions(self) -> int:
        """Rows times columns, padding included."""
        return self.arrays.positions

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch, for use on the current stream, which waits for it; it is on `device`, in `dtype`, already."""
        return Batch.of(self.upload.ready(), self.arrays)


def collate(prompts: Sequence[Prompt], pad_id: int) -> Collated:
    """Pad on the left: every row answers at the same place."""
    return lay_out([[prompt] for prompt in prompts], pad_id)[0]


def lay_out(rows: Sequence[Sequence[Prompt]], pad_id: int) -> tuple[Collated, Integers]:
    """Prompts, padded on the left to one width, and behind each its row's other pieces.

    The positions of these count from 0; in the batch each goes on from its prompt's end.

    Returns:
        The batch, and which piece of its row a token belongs to (B, L): 0 the prompt, 1 … the others, -1 padding.
    """
    width = max(len(pieces[0]) for pieces in rows)
    length = width + max(sum(map(len, pieces[1:])) for pieces in rows)
    ids = np.full((len(rows), length), pad_id, dtype=np.int64)
    types = np.zeros_like(ids)
    positions = np.zeros((3, *ids.shape), dtype=np.int64)
    part = np.full_like(ids, -1)
    flat = [piece for pieces in rows for piece in pieces]
    lengths = [len(piece) for piece in flat]
    # A row's tokens have no gap, so what is taken, row by row, is all pieces' tokens, one after another.
    starts = np.array([[width - len(pieces[0])] for pieces in rows])
    ends = starts + [[sum(map(len, pieces))] for pieces in rows]
    taken = (starts <= np.arange(length)) & (np.arange(length) < ends)
    offsets = [pieces[0].next_position if number else 0 for pieces in rows for number in range(len(pieces))]
    ids[taken] = np.concatenate([piece.ids for piece in flat])
    types[taken] = np.concatenate([piece.types for piece in flat])
    positions[:, taken] = np.concatenate([piece.positions for piece in flat], axis=1) + np.repeat(offsets, lengths)
    part[taken] = np.repeat([number for pieces in rows for number in range(len(pieces))], lengths)
    next_positions = np.array([pieces[0].next_position for pieces in rows], dtype=np.int64)
    pixels = pixels_of(flat)
    return Collated(ids, (part >= 0).astype(np.int64), types, positions, next_positions, pixels), part


def prompts_of(batch: Collated, rows: Sequence[int], drop: int = 0) -> list[Prompt]:
    """Some rows' prompts again, without their last `drop` tokens; copies, so that the batch can go."""
    patches, width, prompts = _patches_of(batch, rows), batch.ids_BL.shape[1], []
    for row in rows:
        kept = slice(width - int(batch.mask_BL[row].sum()), width - drop)
        prompt = Prompt(
            ids=batch.ids_BL[row, kept].copy(),
            types=batch.types_BL[row, kept].copy(),
            positions=batch.positions_3BL[:, row, kept].copy(),
            next_position=int(batch.next_position_B[row]) - drop,
            patches=patches.get(row, ()),
        )
        prompts.append(prompt)
    return prompts


def _patches_of(batch: Collated, wanted: Sequence[int]) -> dict[int, tuple[Patches, ...]]:
    """Row → its patches, which `pixels_of` has put one after another."""
    patches_of_row: dict[int, tuple[Patches, ...]] = {}
    for kind, values, grids in _KINDS:
        place = 0
        for row, (time, height, width) in zip(_rows_of(batch, kind), batch.pixels.get(grids, _NO_GRIDS), strict=True):
            start, place = place, place + int(time * height * width)
            if row in wanted:
                patches = Patches(batch.pixels[values][start:place], (int(time), int(height), int(width)))
                patches_of_row[row] = (*patches_of_row.get(row, ()), patches)
    return patches_of_row


def _rows_of(batch: Collated, kind: int) -> list[int]:
    """The row of every picture, or of every clip: a row has several pictures, but one clip."""
    is_kind = batch.types_BL == kind
    # Between two pictures there are always other tokens.
    begun = (is_kind & ~np.pad(is_kind, ((0, 0), (1, 0)))[:, :-1]).sum(axis=1)
    return [row for row, runs in enumerate(begun.tolist()) for _ in range(runs if kind == IMAGE else min(runs, 1))]


def pixels_of(pieces: Sequence[Prompt]) -> Pictures:
    """Pixel values and grids by transformers' names, in the order in which their tokens stand in the batch."""
    arrays: Pictures = {}
    for kind, values, grid in _KINDS:
        patches = [patches for piece in pieces if piece.patches and kind in piece.types for patches in piece.patches]
        if patches:
            arrays[values] = Pixels.joined([each.pixels for each in patches])
            arrays[grid] = np.array([each.grid for each in patches], dtype=np.int64)
    return arrays
