"""What a Qwen-VL model of transformers can't do without: operations and memory traffic, read off its weights.

The least, as `Work` of the harness wants it: no padding, half of the square in causal attention, the weights once a
pass. Norms, activations, rotary positions and soft-max are left out: below one per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmemb_r1_model.decoding.patches import PatchProjection


@dataclass(frozen=True)
class Passes:
    """Floating-point operations, and bytes moved."""

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Costs:
    """A model by its numbers; matrices by their entries.

    Attributes:
        text_matrices: of all layers of the language model.
        last_matrices: those of them behind the last attention; only where a prompt is answered are they needed.
        vocabulary_matrix: of the language head.
        vision_matrices: every patch goes through them.
        merger_matrices: every visual token goes through them.
        merged: patches of a visual token.
        weight_bytes: of an entry.
        kv_bytes: of a token's keys and values.
    """

    text_matrices: int
    last_matrices: int
    vocabulary_matrix: int
    layers: int
    attention_width: int
    vision_matrices: int
    merger_matrices: int
    merged: int
    vision_layers: int
    vision_width: int
    weight_bytes: int
    kv_bytes: int

    @classmethod
    def of(cls, model: Any) -> Costs:
        """Of a Qwen2-VL or Qwen3-VL with its language head."""
        text, vision = model.config.get_text_config(), model.config.vision_config
        visual, layers = model.model.visual, model.model.language_model.layers
        head_dim = layers[0].self_attn.head_dim
        mergers = [module for name, module in visual.named_children() if "merger" in name]
        merger_matrices = sum(map(_matrices, mergers))
        return cls(
            text_matrices=_matrices(layers),
            last_matrices=_matrices(layers[-1].mlp),
            vocabulary_matrix=model.lm_head.weight.numel(),
            layers=len(layers),
            attention_width=text.num_attention_heads * head_dim,
            vision_matrices=_matrices(visual) - merger_matrices,
            merger_matrices=merger_matrices,
            merged=vision.spatial_merge_size**2,
            vision_layers=len(visual.blocks),
            vision_width=visual.blocks[0].attn.qkv.in_features,
            weight_bytes=model.dtype.itemsize,
            kv_bytes=len(layers) * 2 * text.num_key_value_heads * head_dim * model.dtype.itemsize,
        )

    def prefill(self, lengths: Sequence[int], grids: Iterable[Sequence[int]]) -> Passes:
        """Of one pass over prompts, without the language head.

        Args:
            lengths: of the prompts, in tokens.
            grids: (time, height, width) in patches of each picture or clip; a patch sees those of its own time.
        """
        tokens, looks = sum(lengths), sum(length * (length + 1) / 2 for length in lengths)
        pieces = [(time, height * width) for time, height, width in grids]
        patches = sum(time * area for time, area in pieces)
        seen = sum(time * area**2 for time, area in pieces)
        vision = 2.0 * (self.vision_matrices + self.merger_matrices / self.merged) * patches
        vision += 4.0 * self.vision_layers * self.vision_width * seen
        read = self.text_matrices + (self.vision_matrices + self.merger_matrices if pieces else 0)
        spared = 2.0 * self.last_matrices * (tokens - len(lengths))
        return Passes(self._text(tokens, looks) - spared + vision, float(read * self.weight_bytes))

    def decode(self, steps: int, tokens: int, columns: int) -> Passes:
        """Of steps in which rows are fed one token each, the language head's choice of the next one included.

        Args:
            tokens: of all rows and steps.
            columns: keys and values that these tokens looked at, in tokens.
        """
        read = steps * (self.text_matrices + self.vocabulary_matrix) * self.weight_bytes + columns * self.kv_bytes
        return Passes(self._text(tokens, columns) + 2.0 * self.vocabulary_matrix * tokens, float(read))

    def _text(self, tokens: float, looks: float) -> float:
        return 2.0 * self.text_matrices * tokens + 4.0 * self.layers * self.attention_width * looks


def _matrices(module: nn.Module) -> int:
    """Entries of all matrices that are multiplied with; positions and other tables are only looked up."""
    kinds = (nn.Linear, nn.Conv3d, PatchProjection)
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))
