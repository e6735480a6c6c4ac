"""Keys and values of rows that are being continued: blocks of equal slots, a slot for each row, a length for each slot.

A slot's columns lie together, as attention reads them. Pages that a row's columns are scattered over would take no
more of them than a row has, but without a kernel made for it each step would first have to gather them: all keys and
values read and written once more, in every step, where a GPU does little else than read them.

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
    def token_bytes(self) -> int:
        """Of a token, over all layers."""
        return self.layers * 2 * self.heads * self.head_dim * self.dtype.itemsize


@lru_cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """What a model's `forward` calls its cache: renamed in transformers 5.2x; both spellings are in use."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """Transformers' cache for steps of one token, over the first rows and columns of the slots."""

    def __init__(
        self, shape: KeyValueShape, slots: int, columns: int, earlier: SlotCache | None = None, rows: int = 0
    ) -> None:
        """Lay out the slots.

        Args:
            earlier: fewer slots of the same size, whose first `rows` move here, a layer at a time; useless afterwards.
        """
        super().__init__(layers=[])
        self.slots, self.columns = slots, columns
        self.stores: list[Tensor] = []  # (2, S, H, L, D) of each layer
        for layer in range(shape.layers):
            # Zeros, not whatever lay there: a masked NaN is still a NaN after the soft-max.
            size = 2, slots, shape.heads, columns, shape.head_dim
            store = torch.zeros(size, dtype=shape.dtype, device=shape.device)
            if earlier is not None:
                store[:, :rows] = earlier.stores[layer][:, :rows]
                earlier.stores[layer] = store
            self.stores.append(store)
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
        for states, store in zip((key_states, value_states), self.stores[layer_idx], strict=True):
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
        for layer, store in zip(past.layers, self.stores, strict=True):
            # What is copied behind a row's length is never seen, and overwritten by its tokens.
            taken = (starts_R[:, None] + columns_W).clamp_(max=layer.keys.shape[2] - 1)
            for states, slot_states in ((layer.keys, store[0]), (layer.values, store[1])):
                slot_states[slots_R[:, None], :, columns_W] = states[rows_R[:, None], :, taken]

    def taken(self, slot: int, length: int) -> list[Tensor]:
        """A slot's first columns: of each layer a view (2, H, length, D)."""
        return [store[:, slot, :, :length] for store in self.stores]

    def put(self, slot: int, states: Sequence[Tensor]) -> None:
        """Copy what was taken of another slot, of whatever cache, or is on the host."""
        for store, own in zip(self.stores, states, strict=True):
            store[:, slot, :, : own.shape[2]] = own

    @property
    def bytes(self) -> int:
        """Bytes of all slots."""
        return sum(store.nbytes for store in self.stores)


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
