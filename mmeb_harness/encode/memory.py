"""Vectors in memory, where a run keeps them in a store: for a measurement, a check, or on their way to a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.items import Role

Row: TypeAlias = tuple[Encoded, int]  # a batch, and one of its rows


class MemorySink:
    """Keeps what is encoded.

    Attributes:
        taken: content keys and what they became, in the order in which batches came.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[Sequence[str], Encoded]] = []
        self._rows: dict[str, Row] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def check_writable(self) -> None:
        """As `encode.Sink` says; it always is."""

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role = "query") -> None:
        """Take the vectors of a batch."""
        self.taken.append((list(keys), encoded))
        self._rows.update((key, (encoded, row)) for row, key in enumerate(keys))

    def flush(self) -> None:
        """As `encode.Sink` says; memory keeps what it has."""

    def refresh(self) -> None:
        """As `encode.Sink` says; nobody else adds."""

    def get(self, keys: Sequence[str]) -> Encoded:
        """The vectors of these keys, in that order."""
        return gathered([self._rows[key] for key in keys])


def gathered(rows: Sequence[Row]) -> Encoded:
    """Rows of several batches as one."""
    vectors = [encoded.vectors[row] for encoded, row in rows]
    one_each = isinstance(rows[0][0].vectors, np.ndarray)
    return Encoded(
        vectors=np.stack(vectors) if one_each else vectors,
        traces=tuple(encoded.traces[row] for encoded, row in rows),
        latency_seconds=np.array([encoded.latency_seconds[row] for encoded, row in rows]),
        share_seconds=np.array([encoded.share_seconds[row] for encoded, row in rows]),
    )
