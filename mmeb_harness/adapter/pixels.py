"""Pictures as bytes, up to the device: a byte a pixel and channel instead of a number, and a still picture once.

What the numbers are is looked up, so that they equal those of a processor to the last bit, whatever divides there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Pixels:
    """Pictures, or patches of them, that become numbers on the device.

    Attributes:
        bytes: whole pictures (n, channels, height, width), or patches (n, channels, frames, area).
        levels: (channels, 256) the numbers that bytes stand for; on a device both are tensors.
        frames: that a patch has for the model, which reads (n, channels * frames * area); one frame fills all of them.
            `None`: whole pictures.
    """

    bytes: NDArray[np.uint8]
    levels: NDArray[np.float32]
    frames: int | None = None

    def __len__(self) -> int:
        return len(self.bytes)

    def __getitem__(self, rows: slice) -> Self:
        """Some of the pictures or patches, copied, so that the others can go."""
        return type(self)(self.bytes[rows].copy(), self.levels, self.frames)

    @classmethod
    def joined(cls, parts: Sequence[Pixels]) -> Self:
        """One behind the other; all of one kind."""
        return cls(np.concatenate([part.bytes for part in parts]), parts[0].levels, parts[0].frames)

    def moved(self, move: Callable[[NDArray[Any]], Any]) -> Self:
        """The same on the device to which `move` takes an array, as a tensor."""
        return type(self)(move(self.bytes), move(self.levels), self.frames)

    def numbers(self, torch: Any) -> Any:
        """What a model reads, of the levels' dtype, on the device where the pixels are."""
        levels: Any = self.levels
        number, channels, *inner = self.bytes.shape
        if self.frames is not None:
            inner[0] = self.frames
        numbers = torch.empty((number, channels, *inner), dtype=levels.dtype, device=levels.device)
        for channel in range(channels):
            own: Any = self.bytes[:, channel]
            numbers[:, channel] = levels[channel].index_select(0, own.flatten().int()).view(own.shape)
        return numbers if self.frames is None else numbers.flatten(1)


@dataclass(frozen=True)
class Patches:
    """Patches of a picture or a clip, in the order of their tokens, and their grid (time, height, width)."""

    pixels: Pixels
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class PatchShape:
    """How a Qwen-VL checkpoint's vision tower reads pictures.

    Attributes:
        patch: its side, in pixels.
        merge: patches of a visual token, a side.
        temporal: frames of a patch.
        levels: see `Pixels`.
    """

    patch: int
    merge: int
    temporal: int
    levels: NDArray[np.float32]

    @property
    def factor(self) -> int:
        """Side of one visual token, in pixels."""
        return self.patch * self.merge


def picture_patches(picture: Image.Image, shape: PatchShape) -> Patches:
    """Of one picture, RGB, whose sides are multiples of a visual token's."""
    return _cut(np.asarray(picture)[None], 1, shape)


def clip_patches(frames: Sequence[Image.Image], shape: PatchShape) -> Patches:
    """The same of a clip's frames, alike in size; the last one is repeated where its patches have room for more."""
    whole = [*frames, *[frames[-1]] * (-len(frames) % shape.temporal)]
    return _cut(np.stack([np.asarray(frame) for frame in whole]), shape.temporal, shape)


def _cut(frames: NDArray[np.uint8], temporal: int, shape: PatchShape) -> Patches:
    """Frames (t, height, width, 3) to patches, the patches of one visual token next to each other."""
    count, height, width, channels = frames.shape
    patch, merge = shape.patch, shape.merge
    time, rows, columns = count // temporal, height // patch, width // patch
    split = frames.reshape(time, temporal, rows // merge, merge, patch, columns // merge, merge, patch, channels)
    ordered = split.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    flat = ordered.reshape(time * rows * columns, channels, temporal, patch * patch)
    return Patches(Pixels(np.ascontiguousarray(flat), shape.levels, shape.temporal), (time, rows, columns))
