"""Batches prepared ahead by a thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmeb_harness import DataError, Item, Role
from mmeb_harness.encode.prepare import InlinePreparation
from tests.harness.preparing import Preparing, batches_of, texts_of
from tests.patience import wait_until


def test_a_thread_prepares_one_batch_ahead(tmp_path: Path) -> None:
    asked: list[str] = []

    class Noting(Preparing):
        def prepare(self, items: Sequence[Item], role: Role) -> Any:
            asked.append(items[0].text)
            return super().prepare(items, role)

    with InlinePreparation(Noting(tmp_path)) as preparation:
        run = preparation.run(batches_of("a", "b", "c"))
        started = time.perf_counter()
        prepared, seconds = next(run)
        assert prepared.texts == ["a"]
        assert 0 < seconds < time.perf_counter() - started
        wait_until(lambda: asked == ["a", "b"])
        time.sleep(0.05)
        assert asked == ["a", "b"]
        assert [prepared.texts for prepared, _ in run] == [["b"], ["c"]]
        assert texts_of(preparation, "d") == ["d"]
        with pytest.raises(DataError, match="x can't be opened"):
            texts_of(preparation, "e", "missing x", "f")
