"""What tensors of a device hold over a step: every byte from its first tensor to its last, and what it is for.

Counted as CUDA's allocator hands it out, in pieces of 512 bytes. Not counted: see `RESERVE`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

#: What the allocator rounds up to.
_PIECE = 512


class Ledger(TorchDispatchMode):
    """Notes each storage that comes and goes on one device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        #: What has so many columns are logits.
        self.vocabulary = 0
        #: Heads and their size: (..., heads, L, size) are keys and values, where a cache is kept.
        self.kept_heads = (0, 0)
        self._events: list[tuple[int, int]] = []  # number of a storage, and bytes: of its end negative
        self._numbers: dict[int, int] = {}  # address of a storage that is there → its number
        self._kinds: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, Tensor) and made.device == self._device:
                self._note(made)
        return result

    def hold(self, kind: str, tensors: Iterable[Tensor]) -> None:
        """Say what tensors are for; those that it hasn't seen are there from now on."""
        for tensor in tensors:
            self._kinds[self._note(tensor)] = kind

    def mark(self) -> int:
        """This moment, for `peak` to begin at."""
        return len(self._events)

    def held(self) -> int:
        """Bytes that are held now."""
        return sum(size for _, size in self._events)

    def peak(self, since: int = 0, until: int | None = None) -> Peak:
        """The most that was held at one time between two marks, by kind."""
        held = most = sum(size for _, size in self._events[:since])
        when = since
        for moment, (_, size) in enumerate(self._events[since:until], since + 1):
            held += size
            if held > most:
                most, when = held, moment
        by_kind: dict[str, int] = {}
        for number, size in self._events[:when]:
            by_kind[self._kinds[number]] = by_kind.get(self._kinds[number], 0) + size
        return Peak({kind: size for kind, size in by_kind.items() if size})

    def _note(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        address = id(storage)
        if address not in self._numbers:
            number = self._numbers[address] = len(self._kinds)
            size = -(-storage.nbytes() // _PIECE) * _PIECE
            self._kinds.append(self._kind(tensor))
            self._events.append((number, size))
            weakref.finalize(storage, functools.partial(self._end, address, number, size)).atexit = False
        return self._numbers[address]

    def _kind(self, tensor: Tensor) -> str:
        if tensor.dim() > 3 and (tensor.shape[-3], tensor.shape[-1]) == self.kept_heads:
            return "kv"
        return "logits" if tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary else "activations"

    def _end(self, address: int, number: int, size: int) -> None:
        del self._numbers[address]
        self._events.append((number, -size))


@dataclass(frozen=True)
class Peak:
    """Bytes at one moment, by kind."""

    by_kind: Mapping[str, int]

    @property
    def bytes(self) -> int:
        """All of them together."""
        return sum(self.by_kind.values())
