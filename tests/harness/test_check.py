"""`check` passes good embedders and catches the promises that broken ones break."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, ModelInfo, Role
from mmeb_harness.check import CheckOutcome, check_embedder
from mmeb_harness.registry import load_model


def failures(outcomes: Sequence[CheckOutcome]) -> set[str]:
    return {outcome.name for outcome in outcomes if not outcome.passed}


@pytest.mark.parametrize("name", ["random", "bag_of_features"])
def test_the_floors_pass(name: str, tmp_path: Path) -> None:
    outcomes = list(check_embedder(load_model(name, {}, {}), tmp_path))
    assert len(outcomes) == 13
    assert not failures(outcomes)


class Flawed:
    """Right but for one flaw."""

    def __init__(self, flaw: str) -> None:
        self.info = ModelInfo("flawed", "1", 32)
        self._flaw, self._right, self._calls = flaw, load_model("random", {"dimensions": "32"}, {}), 0

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self._calls += 1
        vectors = self._right.encode(items, role).vectors.copy()
        if self._flaw == "position":
            vectors = np.roll(vectors, 1, axis=1) if len(items) == 1 else vectors
        if self._flaw == "padding" and len(items) > 9:
            vectors[:, 0] += 1
        if self._flaw == "random":
            vectors += 0.1 * self._calls * np.eye(32, dtype=np.float32)[0]
        if self._flaw == "blind":
            vectors[:] = 1
        return EncodeResult(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("flaw", "caught"),
    [("position", "batch of one"), ("padding", "padding"), ("random", "same again"), ("blind", "different inputs")],
)
def test_each_flaw_is_caught(flaw: str, caught: str, tmp_path: Path) -> None:
    assert caught in failures(list(check_embedder(Flawed(flaw), tmp_path)))
