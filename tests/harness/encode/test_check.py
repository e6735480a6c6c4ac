"""`check` passes good embedders and catches the promises that broken ones break."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mmeb_baselines.bag_of_features import BagOfFeaturesEmbedder

from mmeb_harness import EncodeResult, Item, ModelInfo, Role, TokenVectors
from mmeb_harness.core.registry import load_model
from mmeb_harness.encode.check import CheckOutcome, check_embedder
from tests.toy import WordsEmbedder


def test_a_model_of_several_vectors_an_item_passes(tmp_path: Path) -> None:
    outcomes = list(check_embedder(WordsEmbedder(), tmp_path))
    assert len(outcomes) == 25
    assert not failures(outcomes)
    assert "vectors of width 16" in outcomes[0].detail


class Deaf(BagOfFeaturesEmbedder):
    """Takes sounds, and hears nothing."""

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return super().encode([dataclasses.replace(item, sound=None) for item in items], role)


class Reader(BagOfFeaturesEmbedder):
    """Takes texts alone, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, media=())

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        assert not any(item.kinds for item in items)
        return super().encode(items, role)


def test_a_model_is_tried_with_what_it_takes(tmp_path: Path) -> None:
    outcomes = list(check_embedder(Reader(), tmp_path))
    assert not failures(outcomes)
    assert outcomes[0] == CheckOutcome("not tried", True, "image and video: not in its info.media")
    tried = [outcome.name for outcome in outcomes if outcome.name.endswith((" as query", " as candidate"))]
    assert tried == ["text as query", "text as candidate"]


def test_a_deaf_model_is_caught(tmp_path: Path) -> None:
    assert failures(list(check_embedder(Deaf(), tmp_path))) == {"different inputs"}


class FlawedWords(WordsEmbedder):
    """Right but for one flaw."""

    def __init__(self, flaw: str) -> None:
        super().__init__()
        self._flaw = flaw

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        vectors = [self.vectors(item) for item in items]
        if self._flaw == "padding":  # every item as long as the longest of its batch
            longest = max(map(len, vectors))
            vectors = [np.pad(tokens, ((0, longest - len(tokens)), (0, 0)), "edge") for tokens in vectors]
        if self._flaw == "position" and len(items) == 1:
            vectors[0][-1] = np.roll(vectors[0][-1], 1)  # one of its vectors
        if self._flaw == "blind":
            vectors = [tokens[:1] * 0 + np.float16(0.25) for tokens in vectors]
        return EncodeResult(TokenVectors.of_items(vectors))


@pytest.mark.parametrize(
    ("flaw", "caught"),
    [("padding", "batch of one"), ("position", "batch of one"), ("blind", "different inputs")],
)
def test_each_flaw_of_several_vectors_is_caught(flaw: str, caught: str, tmp_path: Path) -> None:
    assert caught in failures(list(check_embedder(FlawedWords(flaw), tmp_path)))


def failures(outcomes: Sequence[CheckOutcome]) -> set[str]:
    return {outcome.name for outcome in outcomes if not outcome.passed}


@pytest.mark.parametrize("name", ["random", "bag_of_features"])
def test_the_floors_pass(name: str, tmp_path: Path) -> None:
    outcomes = list(check_embedder(load_model(name, {}, {}), tmp_path))
    assert len(outcomes) == 27
    assert {"sound as query", "sound as candidate"} < {outcome.name for outcome in outcomes}
    assert not failures(outcomes)


class Flawed:
    """Right but for one flaw."""

    def __init__(self, flaw: str) -> None:
        self.info = ModelInfo("flawed", "1", 32)
        self._flaw, self._right, self._calls = flaw, load_model("random", {"dimensions": "32"}, {}), 0

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self._calls += 1
        vectors = np.array(self._right.encode(items, role).vectors)
        if self._flaw == "position":
            vectors = np.roll(vectors, 1, axis=1) if len(items) == 1 else vectors
        if self._flaw == "padding" and len(items) > 11:
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
