"""An input as tokens: chat template, visual tokens, timestamps, positions. No torch, no harness.

    <|im_start|>system
    INSTRUCTION<|im_end|>
    <|im_start|>user
    MEDIA TEXT
    REQUEST<|im_end|>
    <|im_start|>assistant

Text from data is tokenised with no special token in reach: "<emb>" in a caption stays five characters.
Positions are computed here, per prompt, and handed to the model: they never depend on its state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mmeb_harness.adapter.pixels import Patches
from mmeb_harness.adapter.texts import Speller
from mmemb_r1_model.model.settings import EMB, END_THINK, THINK, Settings
from mmemb_r1_model.model.vision import TEMPORAL_PATCH

IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
END_OF_TEXT = "<|endoftext|>"
REQUIRED_TOKENS = (THINK, END_THINK, EMB, IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END, TURN_START, TURN_END)

TEXT, IMAGE, VIDEO = 0, 1, 2  # token types, as transformers' mm_token_type_ids


class PromptTokenizer:
    """Tokenises plain text and names special tokens; built from a checkpoint's tokenizer.json."""

    def __init__(self, tokenizer_json: str) -> None:
        self._whole = Tokenizer.from_str(tokenizer_json)
        self.speller = Speller(tokenizer_json, Tokenizer.from_str)
        #: All special and added tokens and their ids.
        self.added_tokens = self.speller.added_tokens
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def from_folder(cls, folder: Path) -> PromptTokenizer:
        """Read tokenizer.json of a checkpoint folder."""
        return cls((folder / "tokenizer.json").read_text(encoding="utf-8"))

    @property
    def size(self) -> int:
        """Number of tokens; the model's table may have unused rows behind them."""
        size: int = self._whole.get_vocab_size()
        return size

    def id_of(self, token: str) -> int:
        """Id of a special token. `KeyError` if there is none."""
        return self.added_tokens[token]

    def unwritable(self, ends: Iterable[int], num_rows: int) -> list[int]:
        """What no answer may contain: added tokens but those that end it; a sampled visual one crashes the next pass.

        Args:
            num_rows: of the model's table; rows without a token are unwritable, too.
        """
        return sorted({*self.added_tokens.values(), *range(self.size, num_rows)} - set(ends))

    def plain(self, text: str) -> list[int]:
        """Ids of a text; short ones, which repeat, are remembered."""
        if not text:
            return []
        if text in self._cache:
            return self._cache[text]
        ids = self.speller.plain(text)
        if len(text) < 256 and len(self._cache) < 100_000:
            self._cache[text] = ids
        return ids

    def spelled(self, text: str) -> str | None:
        """The first special or added token whose letters a text has."""
        return self.speller.spelled(text)

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, added tokens spelled out."""
        text: str = self._whole.decode(ids, skip_special_tokens=False)
        return text


@dataclass(frozen=True)
class Prompt:
    """One input, ready to be batched.

    Attributes:
        ids: (length,) token ids, up to where the model answers.
        types: (length,) 0 text, 1 image, 2 video.
        positions: (3, length) M-RoPE positions.
        next_position: of the first answered token, in all three dimensions.
        patches: of its pictures, in the order of their tokens, or of its clip.
    """

    ids: NDArray[np.int64]
    types: NDArray[np.int64]
    positions: NDArray[np.int64]
    next_position: int
    patches: tuple[Patches, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def continuation(ids: Sequence[int]) -> Prompt:
    """Plain tokens, to stand behind something."""
    return Prompt(np.array(ids, dtype=np.int64), *_plain_places(len(ids)), next_position=len(ids))


@lru_cache(maxsize=256)
def _plain_places(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Types (n,) and positions (3, n) of plain tokens; shared, so nobody may write into them."""
    shared = np.full(n, TEXT, dtype=np.int64), np.tile(np.arange(n), (3, 1))
    for array in shared:
        array.flags.writeable = False
    return shared


def extended(prompt: Prompt, ids: Sequence[int]) -> Prompt:
    """A prompt with plain tokens behind it."""
    more = continuation(ids)
    return Prompt(
        ids=np.concatenate([prompt.ids, more.ids]),
        types=np.concatenate([prompt.types, more.types]),
        positions=np.concatenate([prompt.positions, more.positions + prompt.next_position], axis=1),
        next_position=prompt.next_position + more.next_position,
        patches=prompt.patches,
    )


def system_turn(settings: Settings, instruction: str) -> str:
    """The words of the first turn."""
    return instruction or settings.default_instruction


def words_behind(settings: Settings, text: str) -> str:
    """The words of the second turn behind an item's own."""
    return f"\n{settings.request}" if text else settings.request


class PromptBuilder:
    """Lays out text, pictures and special tokens, with their positions; `merge`: patches of a visual token's side."""

    def __init__(self, tokenizer: PromptTokenizer, merge: int) -> None:
        self._tokenizer, self._merge = tokenizer, merge
        self._ids: list[int] = []
        self._types: list[int] = []
        #: In time, height and width.
        self._positions: tuple[list[int], list[int], list[int]] = ([], [], [])
        self._next = 0
        self._patches: list[Patches] = []

    def turn(self, opening: str) -> None:
        """Another turn, which begins with these words; what was laid out before is at its end."""
        if self._ids:
            self.special(TURN_END)
            self.text("\n")
        self.special(TURN_START)
        self.text(opening)

    def special(self, token: str) -> None:
        """A special token, by name."""
        self._words([self._tokenizer.id_of(token)])

    def text(self, text: str) -> None:
        """Plain text, in which no special token is recognised."""
        self._words(self._tokenizer.plain(text))

    def picture(self, patches: Patches) -> None:
        """A picture, as one run of visual tokens."""
        self._patches.append(patches)
        self._visual(patches, IMAGE)

    def clip(self, patches: Patches, frames_per_second: float) -> None:
        """A clip: one run of visual tokens a temporal patch, each after its time."""
        self._patches.append(patches)
        for step in range(patches.grid[0]):
            middle = (step * TEMPORAL_PATCH + (TEMPORAL_PATCH - 1) / 2) / frames_per_second
            self.text(f"<{middle:.1f} seconds>")
            self._visual(patches, VIDEO)

    def _visual(self, patches: Patches, kind: int) -> None:
        """The visual tokens of one temporal patch."""
        _, height, width = patches.grid
        self.special(VISION_START)
        rows, columns = height // self._merge, width // self._merge
        pad = self._tokenizer.id_of(IMAGE_PAD if kind == IMAGE else VIDEO_PAD)
        self._ids += [pad] * (rows * columns)
        self._types += [kind] * (rows * columns)
        row, column = np.divmod(np.arange(rows * columns), columns)
        for positions, here in zip(self._positions, (np.zeros_like(row), row, column), strict=True):
            positions += (self._next + here).tolist()
        self._next += max(rows, columns)
        self.special(VISION_END)

    def _words(self, ids: list[int]) -> None:
        self._ids += ids
        self._types += [TEXT] * len(ids)
        for positions in self._positions:
            positions += range(self._next, self._next + len(ids))
        self._next += len(ids)

    def build(self) -> Prompt:
        """What was laid out, with its patches."""
        return Prompt(
            ids=np.array(self._ids, dtype=np.int64),
            types=np.array(self._types, dtype=np.int64),
            positions=np.array(self._positions, dtype=np.int64),
            next_position=self._next,
            patches=tuple(self._patches),
        )
