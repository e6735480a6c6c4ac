"""Qwen3-VL by its numbers: parameters, floating-point operations, bytes. Exact where it can be; no torch.

Parameter counts equal those of transformers' model, operations those that torch counts (tests). Norms, activations,
rotary positions and soft-max are left out of the operations: below one per cent of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmemb_r1_model.disk.errors import DataError, OptionError

#: Pixels of a patch over its two frames and three colours, for a side of one pixel.
_CHANNELS = 3 * 2
#: Patches of a visual token.
MERGED = 4


@dataclass(frozen=True)
class Shape:
    """A Qwen3-VL.

    Attributes:
        tied: one matrix is both the first and the last.
        positions: learned ones of the vision tower.
        deepstack: how many of its layers are also fed to the language model's first layers.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vision_hidden: int
    vision_layers: int
    vision_intermediate: int
    tied: bool = True
    vocabulary: int = 151_936
    patch: int = 16
    positions: int = 2_304
    deepstack: int = 3

    @property
    def attention_width(self) -> int:
        """Of all heads together."""
        return self.heads * self.head_dim

    @property
    def linear_sizes(self) -> dict[str, tuple[int, int]]:
        """(in, out) of the matrices of one layer of the language model."""
        key = self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, self.attention_width),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (self.attention_width, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def text_matrices(self) -> int:
        """Entries of all those matrices, over all layers."""
        return self.layers * sum(inner * outer for inner, outer in self.linear_sizes.values())

    @property
    def vocabulary_matrix(self) -> int:
        """Entries of the first matrix, and of the last."""
        return self.vocabulary * self.hidden

    @property
    def text_parameters(self) -> int:
        """Of the language model, its first and last matrix included."""
        norms = self.layers * 2 * (self.hidden + self.head_dim) + self.hidden
        return self.text_matrices + norms + (1 if self.tied else 2) * self.vocabulary_matrix

    @property
    def vision_matrices(self) -> int:
        """Entries of the matrices that every patch goes through."""
        d = self.vision_hidden
        return self.vision_layers * (4 * d * d + 2 * d * self.vision_intermediate) + self._patch_matrix

    @property
    def merger_matrices(self) -> int:
        """Entries of the matrices that every visual token goes through: the merger's and those of its deep copies."""
        wide = MERGED * self.vision_hidden
        return (1 + self.deepstack) * (wide * wide + wide * self.hidden)

    @property
    def vision_parameters(self) -> int:
        """Of the vision tower with its mergers."""
        d, wide = self.vision_hidden, MERGED * self.vision_hidden
        biases = self.vision_layers * (9 * d + self.vision_intermediate) + d  # four norms' vectors among them
        mergers = (1 + self.deepstack) * (wide + self.hidden) + 2 * d + self.deepstack * 2 * wide
        return self.vision_matrices + self.merger_matrices + biases + mergers + self.positions * d

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.text_parameters + self.vision_parameters

    @property
    def _patch_matrix(self) -> int:
        return _CHANNELS * self.patch**2 * self.vision_hidden

    @property
    def kv_bytes(self) -> int:
        """Of a token in the cache, in bfloat16."""
        return self.layers * 2 * self.kv_heads * self.head_dim * 2

    def adapter_parameters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Of LoRA on these matrices of every layer, and of one row of the first matrix, the new token's."""
        own = sum(rank * (inner + outer) for name, (inner, outer) in self.linear_sizes.items() if name in targets)
        return self.layers * own + (self.hidden if rank else 0)

    def linear_flops(self, tokens: float) -> float:
        """Of the language model's matrices, forward, without the last one."""
        return 2.0 * self.text_matrices * tokens

    def attention_flops(self, looks: float) -> float:
        """Of the language model's attention, forward. `looks`: pairs of a token and one that it may see."""
        return 4.0 * self.layers * self.attention_width * looks

    def head_flops(self, tokens: float) -> float:
        """Of the last matrix, forward."""
        return 2.0 * self.vocabulary_matrix * tokens

    def vision_flops(self, pictures: float, patches_each: float) -> float:
        """Of the vision tower, forward; every patch sees all of its picture (of a video: of its two frames)."""
        patches = pictures * patches_each
        attention = 4.0 * self.vision_layers * self.vision_hidden * patches * patches_each
        return 2.0 * (self.vision_matrices + self.merger_matrices / MERGED) * patches + attention


# The published config.json of each, as pytorch/torchtitan, torchtitan/experiments/qwen3_vl/__init__.py (0375bb67) has
# 2B and 8B; 4B and 32B as copies of their config.json in public code have them. All have head_dim 128.
SHAPES: dict[str, Shape] = {
    "2b": Shape(2048, 28, 16, 8, 128, 6144, 1024, 24, 4096),
    "4b": Shape(2560, 36, 32, 8, 128, 9728, 1024, 24, 4096),
    "8b": Shape(4096, 36, 32, 8, 128, 12288, 1152, 27, 4304, tied=False),
    "32b": Shape(5120, 64, 64, 8, 128, 25600, 1152, 27, 4304, tied=False),
}


def shape_of(checkpoint: str, setting: str) -> Shape:
    """Of a checkpoint folder by its config.json; of any other name by the size in it.

    Args:
        setting: where the name stands, for messages.

    Raises:
        OptionError: no folder, and no size of a Qwen3-VL in the name.
        DataError: a folder whose config.json isn't a Qwen3-VL's.
    """
    path = Path(checkpoint).expanduser() / "config.json"
    if path.is_file():
        try:
            return _read_shape(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, ValueError) as error:
            raise DataError(f"{setting}: {path} isn't the config.json of a Qwen3-VL ({error!r})") from error
    if size := next(
        (size for size in SHAPES if re.search(rf"(?<![0-9a-z]){size}(?![0-9a-z])", checkpoint.lower())), ""
    ):
        return SHAPES[size]
    raise OptionError(f"{setting}: {checkpoint!r} is no folder, and names none of the sizes {', '.join(SHAPES)}")


def _read_shape(config: dict[str, Any]) -> Shape:
    text, vision = config["text_config"], config["vision_config"]
    return Shape(
        hidden=text["hidden_size"],
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        intermediate=text["intermediate_size"],
        vision_hidden=vision["hidden_size"],
        vision_layers=vision["depth"],
        vision_intermediate=vision["intermediate_size"],
        tied=config.get("tie_word_embeddings", False),
        vocabulary=text["vocab_size"],
        patch=vision["patch_size"],
        positions=vision["num_position_embeddings"],
        deepstack=len(vision["deepstack_visual_indexes"]),
    )
