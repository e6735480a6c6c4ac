"""Several modes at once: each one's vectors, rationales and gates are those that it has alone, also by a server."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, OptionError
from mmeb_harness.core.embedder import in_modes, infos_of
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.model.settings import Short, read_settings, write_settings
from tests.mmemb_r1.loopback_chat import serve
from tests.mmemb_r1.tiny_vllm import TinyVllm

MODES = ("never", "always", "adaptive")


def encoded(embedder: MMEmbR1Embedder, items: list[Item]) -> list[EncodeResult]:
    """Over two batches, the results of each mode joined."""
    batches = [embedder.prepare(part, "query") for part in (items[:4], items[4:])]
    results = [(result, *result.others) for result in embedder.encode_stream(iter(batches))]
    return [
        EncodeResult(np.concatenate([own.vectors for own in of_mode]), sum((own.traces or () for own in of_mode), ()))  # type: ignore[misc]
        for of_mode in zip(*results, strict=True)
    ]


@pytest.fixture(scope="module")
def gates(random_checkpoint: Path, items: list[Item]) -> np.ndarray[Any, Any]:
    (never,) = encoded(load(str(random_checkpoint), reasoning="never"), items)
    return np.sort([trace.gate or 0.0 for trace in never.traces or ()])


@pytest.mark.parametrize("server", [False, True])
@pytest.mark.parametrize("graded", [False, True])
def test_each_is_what_it_is_alone(
    graded: bool, server: bool, random_checkpoint: Path, items: list[Item], gates: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(random_checkpoint, tmp_path / "checkpoint"))
    if graded:
        write_settings(folder, dataclasses.replace(read_settings(folder), short=Short(3, 50.0)))  # all are short
    vllm = TinyVllm(folder)
    with serve(vllm.chat) if server else nullcontext() as rationales:
        own = {"threshold": 0.999 if graded else float(gates[len(gates) // 2]), "rationales": rationales}
        alone = {mode: load(str(folder), reasoning=mode, **own) for mode in MODES}  # type: ignore[arg-type]
        expected = {mode: encoded(model, items)[0] for mode, model in alone.items()}
        asked = len(vllm.written)
        together = in_modes(alone["adaptive"], MODES)
        assert isinstance(together, MMEmbR1Embedder)
        found = encoded(together, items)
        assert [info.settings for info in infos_of(together)] == [alone[mode].info.settings for mode in MODES]
        assert together.engine is alone["adaptive"].engine
        reasoned = {
            mode: {row for row, trace in enumerate(result.traces or ()) if trace.path == "reasoned"}
            for mode, result in expected.items()
        }
        assert 0 < len(reasoned["adaptive"]) <= len(reasoned["always"]) == len(items)
        if server:  # what two modes want is asked for once, but for those whose limits differ
            assert len(vllm.written) - asked == len(items) + len(reasoned["adaptive"]) * graded
        for mode, result in zip(MODES, found, strict=True):
            assert np.abs(result.vectors - expected[mode].vectors).max() < 1e-5, mode  # type: ignore[operator]
            for mine, theirs in zip(result.traces or (), expected[mode].traces or (), strict=True):
                assert (mine.path, mine.rationale, mine.truncated) == (theirs.path, theirs.rationale, theirs.truncated)
                assert mine.gate == pytest.approx(theirs.gate, abs=1e-6)
        candidates = together.encode(items[:2], "candidate")
        assert candidates.others == ()


def test_what_cannot_be_had_at_once_says_so(random_checkpoint: Path) -> None:
    plain = load(str(random_checkpoint))
    with pytest.raises(OptionError, match="reasoning must be never, always, adaptive, not 'sometimes'"):
        plain.in_modes(["never", "sometimes"])
    with pytest.raises(OptionError, match="reasoning must be"):
        load(str(random_checkpoint), reasoning="sometimes")  # type: ignore[arg-type]
    vetoing = load(str(random_checkpoint), veto="-1.5")
    assert in_modes(vetoing, MODES) is vetoing
