"""Keys and values of rows that are being continued: one block of memory, a slot for each row, a length for each slot.

Legend of shapes: S slots, H heads of keys and values, L columns of a slot, D head dimension, B rows of a step, W its
columns.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, Cache, DynamicCache

from mmemb_r1_model.decoding.place import on_gpu

#: Under this name transformers finds `grouped_attention`.
ATTENTION = "mmemb_r1_slots"


@dataclass(frozen=True)
class KeyValueShape:
    """What a token's keys and values are."""

    layers: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, text_model: Any) -> KeyValueShape:
        """Of a text model of transformers, where its weights are."""
        weight = text_model.embed_tokens.weight
        heads, head_dim = text_model.config.num_key_value_heads, text_model.layers[0].self_attn.head_dim
        return cls(len(text_model.layers), heads, head_dim, weight.dtype, weight.device)

    @property
    def token_numbers(self) -> int:
        """Numbers of a token, over all layers."""
        return self.layers * 2 * self.heads * self.head_dim


@lru_cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a model's `forward` calls its cache: renamed in transformers 5.2x; both spellings are in use."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Transformers' cache for steps of one token, over the first rows and columns of the slots."""

    def __init__(self, shape: KeyValueShape, slots: int, columns: int, memory: Tensor | None = None) -> None:
        """Lay out the slots.

        Args:
            memory: (n,) to lay them out in, of an earlier cache; too little or `None`: new memory.
        """
        super().__init__(layers=[])
        self.slots, self.columns = slots, columns
        numbers = slots * columns * shape.token_numbers
        if memory is None or memory.numel() < numbers:
            # Zeros, not whatever lay there: a masked NaN is still a NaN after the soft-max.
            memory = torch.zeros(numbers, dtype=shape.dtype, device=shape.device)
        self.memory = memory
        store = memory[:numbers].view(shape.layers, 2, slots, shape.heads, columns, shape.head_dim)
        self._store = store  # (layers, 2, S, H, L, D)
        self._slots_S = torch.arange(slots, device=shape.device)
        self._columns_L = torch.arange(columns, device=shape.device)
        self._dtype = shape.dtype
        self._lengths_B = self._slots_S[:0]
        self._width = 0

    def begin(self, lengths_B: Tensor, width: int) -> Tensor:
        """Begin a step of the first B slots, which see `width` columns at most.

        Args:
            lengths_B: columns that each of them holds; the new token comes behind them.

        Returns:
            What is added to the attention's scores (B, 1, 1, W): 0 where a row may look, its new token included.
        """
        self._lengths_B, self._width = lengths_B, width
        unseen = self._columns_L[:width] > lengths_B[:, None]
        mask = torch.zeros(unseen.shape, dtype=self._dtype, device=unseen.device)
        return mask.masked_fill_(unseen, -torch.inf)[:, None, None]

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Write the new token's (B, H, 1, D) at each row's length.

        Returns:
            Views (B, H, W, D) of the keys and of the values.
        """
        rows = len(key_states)
        taken = []
        for states, store in ((key_states, self._store[layer_idx, 0]), (value_states, self._store[layer_idx, 1])):
            store[self._slots_S[:rows], :, self._lengths_B] = states[:, :, 0]
            taken.append(store[:rows, :, : self._width])
        return taken[0], taken[1]

    def admit(
        self,
        past: DynamicCache,
        rows: Sequence[int],
        starts: Sequence[int],
        lengths: Sequence[int],
        slots: Sequence[int],
    ) -> None:
        """Copy rows of a prefill into slots, from column `starts` on, `lengths` of them."""
        device = self._slots_S.device
        columns_W = self._columns_L[: max(lengths)]
        rows_R, starts_R, slots_R = (torch.tensor(numbers, device=device) for numbers in (rows, starts, slots))
        for layer, store in zip(past.layers, self._store, strict=True):
            # What is copied behind a row's length is never seen, and overwritten by its tokens.
            taken = (starts_R[:, None] + columns_W).clamp_(max=layer.keys.shape[2] - 1)
            for states, slot_states in ((layer.keys, store[0]), (layer.values, store[1])):
                slot_states[slots_R[:, None], :, columns_W] = states[rows_R[:, None], :, taken]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one slot to another."""
        self._store[:, :, target, :, :length] = self._store[:, :, source, :, :length]


def grouped_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one token a row, in transformers' interface: (B, heads, 1, D) to (B, 1, heads, D).

    The heads that share keys and values stand in for a query of as many tokens, so that nothing is repeated in memory.
    """
    rows, heads, _one, width = query.shape
    shared = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    seen = torch.nn.functional.scaled_dot_product_attention(shared, key, value, attn_mask=attention_mask, scale=scaling)
    return seen.reshape(rows, 1, heads, width), None


AttentionInterface.register(ATTENTION, grouped_attention)


@contextlib.contextmanager
def slot_attention(text_model: Any) -> Iterator[None]:
    """Let a text model use `grouped_attention`; the prefill keeps what the user chose."""
    configs = {
        id(config): config for config in (text_model.config, *(layer.self_attn.config for layer in text_model.layers))
    }
    chosen = {key: config._attn_implementation for key, config in configs.items()}
    with contextlib.ExitStack() as stack:
        if on_gpu(text_model.device):
            # cuDNN's kernel is planned anew for every shape; the flash kernels take no mask.
            stack.enter_context(sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH], set_priority=True))
        for config in configs.values():
            config._attn_implementation = ATTENTION
        try:
            yield
        finally:
            for key, config in configs.items():
                config._attn_implementation = chosen[key]
