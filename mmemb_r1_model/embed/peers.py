"""Other ways of writing this model's rationales, for `mmeb-eval bench --beside`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmeb_harness import Embedder, EncodeResult, Item, OptionError, Peer, Role, read_batch_size
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder

#: Items given to `generate_batch` at once, whose cache then holds them side by side.
AT_ONCE = 64
#: Items read here at once, while the server writes for several such batches.
BATCH = 16


def open_generate_batch(embedder: Embedder, value: str | None) -> Peer:
    """transformers' continuous batching, then a pass for the vectors; texts alone.

    Raises:
        OptionError: another model.
    """
    model = _model_of(embedder, "generate_batch")
    size = read_batch_size("generate_batch", value, AT_ONCE)

    return Peer({"batch_size": size}, model.encode_continuously, at_once=size)


def open_vllm(embedder: Embedder, value: str | None) -> Peer:
    """The same checkpoint with rationales that a vLLM server writes.

    Raises:
        OptionError: another model, or no address.
    """
    model = _model_of(embedder, "vllm")
    if value is None:
        raise OptionError("--beside vllm=http://HOST:PORT/v1: the address of a server with this checkpoint is missing")
    served = model.with_server(value)
    served.warm_up()

    def encode(items: Sequence[Item], role: Role) -> EncodeResult:
        parts = (items[start : start + BATCH] for start in range(0, len(items), BATCH))
        results = list(served.encode_stream(served.prepare(part, role) for part in parts))
        traces = tuple(trace for result in results for trace in result.traces or ())
        return EncodeResult(np.concatenate([result.vectors for result in results]), traces)

    return Peer({"batch_size": BATCH}, encode)


def _model_of(embedder: Embedder, name: str) -> MMEmbR1Embedder:
    if not isinstance(embedder, MMEmbR1Embedder):
        raise OptionError(f"--beside {name} writes rationales of mmemb_r1, not of {embedder.info.name!r}")
    return embedder
