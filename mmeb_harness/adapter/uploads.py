"""Arrays on their way to a device, while it computes something else.

    uploads = Uploads(torch, device, dtype)
    upload = uploads.start(arrays)               in any thread, ahead of time
    tensors = upload.ready()                     in the thread that computes with them

torch is handed in: the harness doesn't import it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.adapter.pixels import Pixels

#: By name; pixels become numbers on the device.
Arrays: TypeAlias = Mapping[str, NDArray[Any] | Pixels]

#: With pinned memory and streams, or with what stands in for it when no GPU is there.
_GPUS = ("cuda", "fakegpu")


@dataclass(frozen=True)
class Upload:
    """Tensors by name, on a device or on their way to it.

    Attributes:
        sent: pictures wait as bytes, a quarter of their numbers or half.
        event: of CUDA, after which they are there; `None`: they are.
    """

    sent: Mapping[str, Any | Pixels]
    torch: Any
    event: Any = None

    def ready(self) -> dict[str, Any]:
        """The tensors, for what the calling thread's current stream computes next. Waits on the device alone."""
        if self.event is not None:
            for tensor in self._tensors():
                stream = self.torch.cuda.current_stream(tensor.device)
                stream.wait_event(self.event)
                # Else its memory would be free for the next upload once nobody has the tensor, though this stream
                # may not have come to it yet.
                tensor.record_stream(stream)
        return {name: self._ready(sent) for name, sent in self.sent.items()}

    def _tensors(self) -> Iterator[Any]:
        for sent in self.sent.values():
            yield from (sent.bytes, sent.levels) if isinstance(sent, Pixels) else (sent,)

    def _ready(self, sent: Any | Pixels) -> Any:
        return sent.numbers(self.torch) if isinstance(sent, Pixels) else sent


class Uploads:
    """Copies to one device. On CUDA from pinned memory and in a stream of their own; on the CPU nothing is copied."""

    def __init__(self, torch: Any, device: str, dtype: str) -> None:
        """Touch no device yet.

        Args:
            torch: the module.
            device: by torch's name, e.g. "cuda:0".
            dtype: by torch's name; what floating-point arrays become, whatever they were.
        """
        self._torch, self._device, self._dtype = torch, torch.device(device), getattr(torch, dtype)
        self._on_gpu = self._device.type in _GPUS

    def start(self, arrays: Arrays) -> Upload:
        """Start the copies; the arrays aren't needed any more when this returns.

        On the CPU tensors share memory with the arrays, unless their numbers have to become others.
        """
        if not self._on_gpu:
            return Upload(self._sent(arrays), self._torch)
        with self._torch.cuda.stream(self._stream):
            return Upload(self._sent(arrays), self._torch, self._stream.record_event())

    def copy(self, arrays: Arrays) -> dict[str, Any]:
        """The tensors at once, for what the calling thread's current stream computes next; otherwise as `start`."""
        return Upload(self._sent(arrays), self._torch).ready()

    def _sent(self, arrays: Arrays) -> dict[str, Any | Pixels]:
        return {
            name: array.moved(self._moved) if isinstance(array, Pixels) else self._moved(array)
            for name, array in arrays.items()
        }

    def _moved(self, array: NDArray[Any]) -> Any:
        return self._tensor(array).to(self._device, non_blocking=True)

    @functools.cached_property
    def _stream(self) -> Any:
        return self._torch.cuda.Stream(self._device)

    def _tensor(self, array: NDArray[Any]) -> Any:
        """Of the dtype that is wanted; for a GPU in memory from which the device reads by itself.

        torch keeps such memory for later uploads, and reuses none before what was copied from it has arrived.
        """
        tensor = self._torch.from_numpy(np.require(array, requirements=["C", "W"]))  # a copy only if need be
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        if not self._on_gpu:
            return tensor.to(dtype)
        return self._torch.empty(tensor.shape, dtype=dtype, pin_memory=True).copy_(tensor)
