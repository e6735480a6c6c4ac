"""A folder of vectors says whose they are; a broken description is written anew, and costs no vector."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmeb_harness import ModelInfo, Trace
from mmeb_harness.core.embedder import Encoded
from mmeb_harness.core.sealed import files_set_aside
from mmeb_harness.store.chunk_files import chunk_files
from mmeb_harness.store.description import Description, description_problem, read_description
from mmeb_harness.store.upkeep import model_folders, prune
from mmeb_harness.store.vectors import VectorStore

MODEL = ModelInfo("m", "r1", 3, settings={"dtype": "float32"})
WHOLE = Description(2, "m", "r1", 3, "dot")
KEYS = ["a", "b"]


def rows(count: int) -> Encoded:
    vectors = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    return Encoded(
        vectors, (Trace("reasoned", 0.5, "because é", 3, True, 1.0),) * count, np.ones(count), np.ones(count)
    )


def make(folder: Path) -> Path:
    store = VectorStore(folder, model=MODEL)
    store.add(KEYS, rows(2))
    store.flush()
    return folder


def without_checksum(**values: object) -> Callable[[Path], None]:
    """As release 0.1 wrote it, but for some values."""

    def change(path: Path) -> None:
        there = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
        path.write_text(json.dumps(there | values))

    return change


def mended(folder: Path, problem: str) -> None:
    """A run finds everything, says what was wrong, and the folder is described again."""
    notes: list[str] = []
    store = VectorStore(folder, model=MODEL, note=notes.append)
    store.settle(KEYS)
    assert store.get(KEYS).vectors.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert read_description(folder) == WHOLE
    assert re.fullmatch(rf"{folder}/model\.json is broken \(.*{problem}.*\): set aside in .*; .* no vector .*", *notes)
    assert [path.name for path in files_set_aside(folder)] == ["model.json"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), ""),
        (lambda path: path.write_bytes(b""), "Expecting value"),
        (lambda path: path.write_bytes(b"\xff" + path.read_bytes()), "utf-8"),
        (lambda path: path.write_text("[" * 100_000), ""),
        (lambda path: path.write_text("null"), "it says nothing of a model"),
        (lambda path: path.write_text(path.read_text().replace('"r1"', '"r3"')), "checksum"),
        (lambda path: path.write_text(path.read_text().replace(": 2,", ": 3,")), "checksum"),
        (without_checksum(store_version=3), "values that no release wrote"),
        (without_checksum(store_version="2"), "values that no release wrote"),
        (without_checksum(store_version=True), "values that no release wrote"),
        (without_checksum(store_version=10**400), "401 digits"),
        (without_checksum(similarity="dou"), "values that no release wrote"),
        (without_checksum(similarity=["dot"]), "values that no release wrote"),
        (without_checksum(model=None), "values that no release wrote"),
        (without_checksum(dimensions="3"), "values that no release wrote"),
    ],
)
def test_a_broken_description_costs_nothing(damage: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "v" / "f")
    damage(folder / "model.json")
    assert read_description(folder) == Description(2)
    assert description_problem(folder)
    mended(folder, problem)


def test_pruning_what_is_broken_keeps_the_vectors_of_a_broken_description(tmp_path: Path) -> None:
    folder = make(tmp_path / "v" / "f")
    (folder / "model.json").write_text("{")
    list(prune(model_folders(tmp_path / "v"), unused_days=None, broken=True, dry_run=False))
    assert not (folder / "model.json").exists()
    assert len(chunk_files(folder)) == 1
    assert VectorStore(folder, model=MODEL).get(KEYS).vectors.shape == (2, 3)  # type: ignore[union-attr]
    assert read_description(folder) == WHOLE


@given(st.data())
def test_no_damage_to_any_file_changes_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = make(tmp_path_factory.mktemp("v") / "f")
    path = data.draw(st.sampled_from([folder / "model.json", *chunk_files(folder)]))
    whole = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        whole[place : place + data.draw(st.integers(1, 64))] = data.draw(st.binary(max_size=64))
    path.write_bytes(whole)
    list(prune(model_folders(folder.parent), unused_days=None, broken=data.draw(st.booleans()), dry_run=False))
    store = VectorStore(folder, model=MODEL)
    store.settle(KEYS)
    missing = [key for key in KEYS if key not in store]
    assert path.name != "model.json" or not missing
    store.add(missing, rows(len(KEYS)) if missing == KEYS else rows(0))
    found = store.get(KEYS)
    assert found.vectors.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert found.traces == rows(2).traces
    assert read_description(folder) == WHOLE
