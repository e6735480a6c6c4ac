"""An item as a family's prompt: texts and slots for pictures and sounds, then tokens, patches and spectra. Without the
model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_baselines.qwen.ears import Ears
from mmeb_baselines.qwen.sizes import Resize, SizeError
from mmeb_harness import DataError, Item, ModelError, Role, Sound
from mmeb_harness.adapter.pictures import open_picture, picture_size
from mmeb_harness.adapter.pixels import Patches, PatchShape, clip_patches, picture_patches
from mmeb_harness.adapter.texts import Pieces, Speller, Template, check_length, cut_at

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_SYSTEM = "You are a helpful assistant."
END_OF_TEXT = "<|endoftext|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
TEXT, IMAGE, VIDEO, AUDIO = 0, 1, 2, 3  # token types, as transformers' mm_token_type_ids
_CHARACTERS_PER_TOKEN = 3


@dataclass(frozen=True)
class Blank:
    """A white square, `side` pixels wide, for families that show one where an item has no picture."""

    side: int


@dataclass(frozen=True)
class Slot:
    """A picture, or the frames of a video, where it stands in a prompt.

    Attributes:
        paths: one picture (or a blank one), or frames in order; an odd last frame is repeated.
        video: video tokens, two frames a patch; else one picture.
        steps: sizes to bring it to, one after the other; all frames follow the first one's.
        white: transparent pixels become white, instead of whatever lies under them.
    """

    paths: tuple[Path | Blank, ...]
    video: bool
    steps: tuple[Resize, ...]
    white: bool = False


@dataclass(frozen=True)
class SoundSlot:
    """A sound, where it stands in a prompt."""

    sound: Sound


Parts: TypeAlias = list[Pieces | Slot | SoundSlot]
#: How a family writes an item: texts, templates with their special tokens, and slots.
Recipe: TypeAlias = Callable[[Item, Role], Parts]


@dataclass(frozen=True)
class Prompt:
    """One item, ready: n token ids and types, and what its visual and audio tokens show, in order.

    Attributes:
        sounds: log-mel spectra (mels, frames).
        left_out: of the item, see `Trace`.
    """

    ids: list[int]
    types: list[int]
    images: list[Patches]
    videos: list[Patches]
    sounds: list[NDArray[np.float32]] = field(default_factory=list)
    left_out: str = ""


@dataclass(frozen=True)
class Reader:
    """Turns parts into tokens and patches for one checkpoint.

    Attributes:
        tokenizer: of transformers.
        speller: the same, where data spell no token. (In most families' own code they do.)
        shape: how its vision tower reads pictures.
        positions: tokens that the model can tell apart, at most.
        max_length: tokens that are kept, but of an item of several pictures; what is cut is the end.
        max_text_tokens: the same of items without media, if these have a limit of their own.
        pads: tokens that stand for a piece of a picture, and of a video.
        ears: what sounds become; `None` for a family that takes none.
    """

    tokenizer: Any
    speller: Speller
    shape: PatchShape
    positions: int
    max_length: int | None = None
    max_text_tokens: int | None = None
    pads: tuple[str, str] = (IMAGE_PAD, VIDEO_PAD)
    ears: Ears | None = None

    def prompt(self, item: Item, parts: Parts) -> Prompt:
        """Tokens and patches.

        Raises:
            DataError: a picture or a sound that can't be used, or a prompt whose pictures don't fit in.
        """
        return self.cut(item, self.laid_out(parts))

    def laid_out(self, parts: Parts) -> Prompt:
        """The same, however long.

        Raises:
            DataError: a picture that can't be used.
        """
        prompt = Prompt([], [], [], [])
        for part in parts:
            if isinstance(part, SoundSlot):
                self._hear(prompt, part)
            elif not isinstance(part, Slot):
                ids = self.speller.ids(part)
                prompt.ids.extend(ids)
                prompt.types.extend([TEXT] * len(ids))
            else:
                self._show(prompt, part)
        if not prompt.ids:  # a blank text without a template: a vector is still owed
            prompt.ids.append(self.tokenizer.pad_token_id)
            prompt.types.append(TEXT)
        return prompt

    def cost(self, parts: Parts) -> int:
        """Estimated tokens, from lengths and headers alone."""
        return sum(map(self._cost, parts))

    def _cost(self, part: Pieces | Slot | SoundSlot) -> int:
        if isinstance(part, Slot):
            return self._tokens(part)
        return self._ears.cost(part.sound) if isinstance(part, SoundSlot) else _text_tokens(part)

    @property
    def _ears(self) -> Ears:
        if self.ears is None:
            raise ModelError("this family takes no sounds")
        return self.ears

    def _hear(self, prompt: Prompt, slot: SoundSlot) -> None:
        spectrum = self._ears.spectrum(slot.sound)
        count = self._ears.num_tokens(spectrum.shape[1])
        prompt.ids.extend([self.tokenizer.convert_tokens_to_ids(self._ears.pad)] * count)
        prompt.types.extend([AUDIO] * count)
        prompt.sounds.append(spectrum)

    def _show(self, prompt: Prompt, slot: Slot) -> None:
        patches = self._patches(slot)
        count = int(np.prod(patches.grid)) // self.shape.merge**2
        image, video = self.pads
        pad, kind, shown = (video, VIDEO, prompt.videos) if slot.video else (image, IMAGE, prompt.images)
        prompt.ids.extend([self.tokenizer.convert_tokens_to_ids(pad)] * count)
        prompt.types.extend([kind] * count)
        shown.append(patches)

    def _patches(self, slot: Slot) -> Patches:
        pictures = [_open(path, slot.white) for path in slot.paths]
        for height, width in _sizes(slot, pictures[0].height, pictures[0].width):
            pictures = [picture.resize((width, height)) for picture in pictures]  # Pillow's default: bicubic
        return clip_patches(pictures, self.shape) if slot.video else picture_patches(pictures[0], self.shape)

    def _tokens(self, slot: Slot) -> int:
        width, height = _size(slot.paths[0])
        for size in _sizes(slot, height, width):
            height, width = size
        side = self.shape.factor
        pairs = -(-len(slot.paths) // self.shape.temporal) if slot.video else 1
        return pairs * (height // side) * (width // side)

    def limit_of(self, item: Item) -> int | None:
        """Tokens that are kept of an item's prompt; `None`: all."""
        if len(item.images) > 1:  # families' own limits are for one; MMEB-V3's code cuts nothing that has media
            return None
        return self.max_text_tokens if self.max_text_tokens is not None and not item.media else self.max_length

    def cut(self, item: Item, prompt: Prompt) -> Prompt:
        """A prompt without what is too long.

        Raises:
            DataError: its pictures don't fit in.
        """
        limit = self.limit_of(item)
        if limit is None:
            check_length(item.id, len(prompt.ids), self.positions)
        if limit is None or len(prompt.ids) <= limit:
            return prompt
        if any(prompt.types[limit:]):
            raise DataError(
                f"item {item.id!r} has {len(prompt.ids)} tokens, and its pictures don't fit into the {limit} that the "
                "model reads; show fewer frames (--frames), or less of a sound (--audio-seconds)"
            )
        ids, types = prompt.ids[:limit], prompt.types[:limit]
        return dataclasses.replace(prompt, ids=ids, types=types, left_out=cut_at(limit))


def _text_tokens(text: Pieces) -> int:
    return (len(text) if isinstance(text, str) else sum(map(len, text))) // _CHARACTERS_PER_TOKEN + 2


def chat(system: str, user: Parts, closing: str = "") -> Parts:
    """Qwen's template: a system turn, a user's turn, the opening of the answer, and what is put there."""
    return [
        (Template("<|im_start|>system\n"), system, Template("<|im_end|>\n<|im_start|>user\n")),
        *user,
        Template(f"<|im_end|>\n<|im_start|>assistant\n{closing}"),
    ]


def pictures(item: Item, steps: Sequence[Resize], *, white: bool = False) -> list[Slot]:
    """A slot for each of the item's images or frames."""
    return [Slot((path,), False, tuple(steps), white) for path in item.pictures]


def video(item: Item, steps: Sequence[Resize]) -> Slot:
    """One slot for all frames."""
    return Slot(item.frames, True, tuple(steps))


def heard(item: Item) -> list[SoundSlot]:
    """A slot for the item's sound, if it has one."""
    return [] if item.sound is None else [SoundSlot(item.sound)]


def between_vision_tokens(slots: Sequence[Slot]) -> Parts:
    """Each slot in its own pair of vision tokens."""
    return [part for slot in slots for part in (Template(VISION_START), slot, Template(VISION_END))]


def _sizes(slot: Slot, height: int, width: int) -> list[tuple[int, int]]:
    sizes = []
    try:
        for step in slot.steps:
            height, width = step(height, width)
            sizes.append((height, width))
    except SizeError as error:
        raise DataError(f"image {slot.paths[0]} can't be used: {error}") from error
    return sizes


def _size(path: Path | Blank) -> tuple[int, int]:
    return (path.side, path.side) if isinstance(path, Blank) else picture_size(path)


def _open(path: Path | Blank, white: bool) -> Image.Image:
    from PIL import Image

    if isinstance(path, Blank):
        return Image.new("RGB", (path.side, path.side), (255, 255, 255))
    return open_picture(path, on_white=white)
