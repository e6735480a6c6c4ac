"""Candidates of models that differ in settings of queries alone are encoded once; what is stored already counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mmeb_tasks.own import RETRIEVAL

import mmeb_harness as mmeb
from mmeb_harness.run.plan import fingerprint_of


class Moody:
    """Its queries depend on a mood that candidates don't know.

    Attributes:
        encoded: how many items it was given, by role.
    """

    def __init__(self, mood: str, shares: bool = True) -> None:
        self.info = mmeb.ModelInfo(
            "moody", "1", 3, {"mood": mood, "size": 3}, query_settings=("mood",) if shares else ()
        )
        self.encoded = {"query": 0, "candidate": 0}

    def encode(self, items: Sequence[mmeb.Item], role: mmeb.Role) -> mmeb.EncodeResult:
        self.encoded[role] += len(items)
        turn = 0.5 * len(str(self.info.settings["mood"])) if role == "query" else 0.0
        angles = np.array([len(item.text) + 3 * len(item.media) for item in items]) + turn
        vectors = np.stack([np.cos(angles), np.sin(angles), np.zeros(len(items))], 1)
        return mmeb.EncodeResult(vectors.astype(np.float32))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    RETRIEVAL.write_example(tmp_path / "mine")


def run(model: Moody, output: str, vectors: str = "vectors", fresh: bool = False) -> mmeb.Run:
    return mmeb.evaluate(model, data="mine", output=output, vectors=vectors, fresh=fresh, progress=False)


def test_candidates_are_encoded_once_for_all_moods(tmp_path: Path) -> None:
    moods = [Moody(mood) for mood in ("calm", "cross", "gay")]
    runs = [run(mood, str(mood.info.settings["mood"])) for mood in moods]
    count = runs[0].result.candidates.encoded
    assert [mood.encoded for mood in moods] == [{"query": 4, "candidate": n} for n in (count, 0, 0)]
    assert [one.result.candidates.reused for one in runs] == [0, count, count]
    assert [one.result.queries.reused for one in runs] == [0, 0, 0]
    folders = {path.name for path in (tmp_path / "vectors").iterdir() if not path.name.startswith(".")}
    shared = fingerprint_of(moods[0].info.of_candidates)
    assert folders == {shared, *(fingerprint_of(mood.info) for mood in moods)}
    assert shared == fingerprint_of(moods[1].info.of_candidates)
    assert fingerprint_of(Moody("calm", shares=False).info) == fingerprint_of(moods[0].info)
    # The same numbers as of one who shares nothing.
    for mood, one in zip(moods, runs, strict=True):
        name = str(mood.info.settings["mood"])
        assert run(Moody(name, shares=False), f"{name} alone", "others").scores == one.scores
    # Started over, a run encodes all of its own again, and another one then goes on with it.
    again = Moody("cross")
    run(again, "cross", fresh=True)
    assert again.encoded == {"query": 4, "candidate": count}


def test_candidates_that_an_earlier_release_stored_count() -> None:
    """It kept them beside the queries, in the folder of the whole model."""
    old, new, other = Moody("calm", shares=False), Moody("calm"), Moody("cross")
    run(old, "old")
    run(new, "new")
    run(other, "other")
    assert new.encoded == {"query": 0, "candidate": 0}
    assert other.encoded["candidate"] == old.encoded["candidate"]
