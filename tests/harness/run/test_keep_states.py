"""`run --keep-states`: what a gate reads of each query, kept beside its row; also in shards, and once more."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, OptionError, Role, Trace
from mmeb_harness.core.files import read_parquet
from mmeb_harness.encode.returned import own_result
from mmeb_harness.results.files import load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.evaluate import encode_share, evaluate, this_process
from mmeb_harness.run.plan import RunSettings, make_plan
from mmeb_harness.spread.shards import StoredModel, encoder_of_shard, load_shards, settings_of
from mmeb_harness.spread.shares import Share, StoredOnly
from tests.toy import HashEmbedder, QuietReporter, evaluated, info_of, registered, toy_task, write_toy

KNOWN = registered(toy_task("one"), toy_task("two"))


class Gated(HashEmbedder):
    """Gives the lengths of a text and its words, of queries and candidates alike."""

    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, state_dimensions=2, query_settings=("reasoning",))

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        result = super().encode(items, role)
        pairs = zip(result.traces or (), items, strict=True)
        return EncodeResult(
            result.vectors, tuple(dataclasses.replace(trace, state=state(item.text)) for trace, item in pairs)
        )


def state(text: str) -> np.ndarray[Any, Any]:
    return np.array([len(text), 1 / len(text)], dtype=np.float32)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in KNOWN:
        write_toy(tmp_path, name)
    return tmp_path


def run(data: Path, *, keep_states: bool, output: str = "run", reporter: QuietReporter | None = None) -> list[str]:
    """What was encoded."""
    embedder = Gated()
    settings = RunSettings(data / output, keep_states=keep_states)
    evaluated(embedder, list(KNOWN.values()), KNOWN, info_of(data), settings, reporter)
    return embedder.texts


def kept(data: Path, output: str = "run") -> dict[str, np.ndarray[Any, Any] | None]:
    tables = {name: read_parquet(RunFolder(data / output).queries_file(name)) for name in KNOWN}
    assert not any(
        "state" in read_parquet(RunFolder(data / output).candidates_file(name)).column_names for name in KNOWN
    )
    return {
        name: np.stack(table.column("state").to_pylist()) if "state" in table.column_names else None
        for name, table in tables.items()
    }


def expected() -> dict[str, np.ndarray[Any, Any]]:
    texts = {name: [f"{name} question {number}" for number in range(6)] for name in KNOWN}
    return {name: np.stack([state(text) for text in own]).astype(np.float16) for name, own in texts.items()}


def same(found: dict[str, np.ndarray[Any, Any] | None]) -> bool:
    return all(found[name] is not None and (found[name] == states).all() for name, states in expected().items())


def test_states_stand_beside_the_rows_and_move_no_score(data: Path) -> None:
    run(data, keep_states=False, output="without")
    run(data, keep_states=True)
    assert same(kept(data))
    assert kept(data, "without") == {"one": None, "two": None}
    for name in KNOWN:
        plain, own = (load_task_result(RunFolder(data / folder).task_file(name)) for folder in ("without", "run"))
        assert (own.score, own.fingerprint) == (plain.score, plain.fingerprint)


def test_only_what_lacks_states_is_encoded_again(data: Path) -> None:
    assert len(run(data, keep_states=False)) == 36
    reporter = QuietReporter()
    assert sorted(run(data, keep_states=True, reporter=reporter)) == sorted(
        f"{name} question {number}" for name in KNOWN for number in range(6)
    )
    assert "2 earlier results of another model, setting or data revision, or without states: computed again" in (
        reporter.notes
    )
    assert same(kept(data))
    assert run(data, keep_states=True) == []
    assert run(data, keep_states=False) == []
    assert same(kept(data))
    # Killed before its tasks were written: the states are stored with the vectors.
    shutil.rmtree(data / "run")
    assert run(data, keep_states=True) == []
    assert same(kept(data))
    # Vectors with states serve who wants none.
    assert run(data, keep_states=False, output="other") == []
    assert kept(data, "other") == {"one": None, "two": None}


def test_shards_keep_them(data: Path) -> None:
    settings = RunSettings(data / "run", keep_states=True)
    for number in range(2):
        embedder = Gated()
        plan = make_plan(list(KNOWN.values()), KNOWN, info_of(data), embedder.info, settings)
        encoder = encoder_of_shard(Share(number, 2), this_process(embedder, print), print)
        encode_share([plan], embedder, encoder, QuietReporter())
    first = load_shards(data / "run")[0]
    model = StoredModel(first.model)
    plan = make_plan(list(KNOWN.values()), KNOWN, info_of(data), first.model, settings_of(first, data / "run", None))
    evaluate([plan], model, lambda _: nullcontext(StoredOnly("")), QuietReporter())
    assert same(kept(data))


def test_a_model_that_gives_none_is_refused_before_anything_is_read(data: Path) -> None:
    with pytest.raises(OptionError, match=r"--keep-states: 'hash' gives no state that a gate reads"):
        evaluated(
            HashEmbedder(), list(KNOWN.values()), KNOWN, info_of(data), RunSettings(data / "run", keep_states=True)
        )


@pytest.mark.parametrize(
    ("dimensions", "given", "told"),
    [
        (2, None, "whose `state` is None, though its `info` declares 2 dimensions"),
        (None, np.zeros(2, np.float32), "though its `info` declares None dimensions"),
        (2, np.zeros(3, np.float32), r"of shape \(3,\), not \(2,\) floats"),
        (2, np.zeros(2, np.int64), r"not \(2,\) floats"),
        (2, [0.0, 1.0], r"a list, not \(2,\) floats"),
        (2, np.array([0, np.nan]), "NaN, infinity or more than float16 does"),
        (2, np.array([0, 1e5]), "NaN, infinity or more than float16 does"),
    ],
)
def test_a_state_that_cannot_be_is_refused(dimensions: int | None, given: Any, told: str) -> None:
    info = ModelInfo("odd", "1", 1, state_dimensions=dimensions)
    result = EncodeResult(np.ones((1, 1), np.float32), (Trace(state=given),))
    with pytest.raises(ModelError, match=told):
        own_result(info, result, [("key", Item("q0", text="?"))], "query")
    assert own_result(info, result, [("key", Item("c0", text="?"))], "candidate").traces == (Trace(),)


def test_a_model_without_traces_gives_no_states() -> None:
    result = EncodeResult(np.ones((1, 1), np.float32))
    with pytest.raises(ModelError, match="whose `state` is None"):
        own_result(ModelInfo("odd", "1", 1, state_dimensions=2), result, [("key", Item("q0", text="?"))], "query")


def test_a_state_is_the_harnesss_own() -> None:
    buffer = np.array([1.0, 2.0], np.float16)
    result = EncodeResult(np.ones((1, 1), np.float32), (Trace(state=buffer),))
    owned = own_result(ModelInfo("odd", "1", 1, state_dimensions=2), result, [("key", Item("q0", text="?"))], "query")
    buffer[:] = 0
    assert owned.traces is not None
    assert owned.traces[0].state is not None
    assert owned.traces[0].state.tolist() == [1, 2]
