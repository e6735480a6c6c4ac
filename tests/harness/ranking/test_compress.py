"""Shorter and smaller vectors equal those made by hand, and are made of what is stored."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import OptionError, Profile, Quantization
from mmeb_harness.core.files import read_parquet
from mmeb_harness.ranking.compress import compress, int8, shorten
from mmeb_harness.ranking.corpus import rank_corpus
from mmeb_harness.results.files import RunResult, load_run_result, load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.scores import read_run
from mmeb_harness.run.plan import RunSettings
from mmeb_harness.show.tables import profile_line
from tests.toy import HashEmbedder, WordsEmbedder, evaluated, info_of, press_ctrl_c_twice, registered, toy_task


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_shorter_ones_have_unit_length_again() -> None:
    vectors = np.array([[0.6, 0.8, 0.0], [0.36, 0.48, 0.8], [0.0, 0.0, 1.0]], dtype=np.float32)
    assert shorten(vectors, 2) == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0, 0]]), abs=1e-7)


def test_int8_is_256_steps_a_dimension() -> None:
    vectors = unit(50, 8)
    vectors[:, 3] = 0.5  # a dimension that says nothing
    low, width = vectors.min(axis=0), np.ptp(vectors, axis=0)
    steps = np.floor((vectors - low) / np.where(width > 0, width, 1) * 255)
    expected = low + (steps + 0.5) / 255 * width
    assert int8(vectors) == pytest.approx(expected, abs=1e-6)
    assert np.abs(int8(vectors) - vectors).max() <= width.max() / 255


def test_int8_scores_are_faiss_own() -> None:
    import faiss

    queries, candidates = unit(5, 16), unit(40, 16, seed=1)
    index = faiss.IndexScalarQuantizer(16, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(candidates)
    index.add(candidates)
    scores, positions = index.search(queries, 10)
    ranked = rank_corpus(queries, int8(candidates), [np.array([0])] * 5, depth=10, cut=1)
    assert np.stack([one.scores for one in ranked]) == pytest.approx(scores, abs=1e-5)
    assert [one.positions.tolist() for one in ranked] == positions.tolist()


@pytest.mark.parametrize("dimensions", [16, 100, 1536])
def test_binary_ranks_by_hamming_distance_and_ties_exactly(dimensions: int) -> None:
    queries, candidates = unit(4, dimensions), unit(300, dimensions, seed=1)
    profile = Profile(quantization="binary")
    few, many = compress(queries, candidates, profile)
    assert isinstance(few, np.ndarray)
    assert isinstance(many, np.ndarray)
    distances = ((queries > 0)[:, None] != (candidates > 0)[None]).sum(axis=2)  # (q, c)
    for query, ranked in enumerate(rank_corpus(few, many, [np.array([0])] * 4, depth=300, cut=5)):
        assert ranked.positions.tolist() == np.argsort(distances[query], kind="stable").tolist()
        by_distance = 1 - 2 * np.sort(distances[query]) / dimensions
        assert ranked.scores == pytest.approx(by_distance, abs=1e-6)  # cosines of the signs
        tied = np.diff(np.sort(distances[query])[:6]) == 0
        assert ranked.tied_decisions == tied.sum()


def test_dimensions_come_before_quantisation() -> None:
    queries, candidates = unit(3, 16), unit(20, 16, seed=1)
    _, found = compress(queries, candidates, Profile(dimensions=4, quantization="int8"))
    assert np.array_equal(found, int8(shorten(candidates, 4)))


def run_toy(
    data: Path,
    output: Path,
    embedder: HashEmbedder | WordsEmbedder | None = None,
    dimensions: int | None = None,
    quantization: Quantization = "none",
    fresh: bool = False,
    vectors: Path | None = None,
) -> RunResult:
    known = registered(toy_task("one"), toy_task("two"))
    settings = RunSettings(output, dimensions=dimensions, quantization=quantization, fresh=fresh, vectors=vectors)
    return evaluated(embedder or HashEmbedder(), [*known.values()], known, info_of(data), settings)


def test_another_run_beside_the_first_encodes_nothing(data: Path, tmp_path: Path) -> None:
    whole = run_toy(data, tmp_path / "runs" / "whole")
    embedder = HashEmbedder()
    short = run_toy(data, tmp_path / "runs" / "short", embedder, dimensions=4, quantization="binary")
    assert embedder.texts == []
    assert short.model_fingerprint == whole.model_fingerprint
    assert (short.profile.dimensions, short.profile.quantization) == (4, "binary")
    assert "first 4 dimensions; binary vectors" in profile_line(short.profile)
    assert "dimensions" not in profile_line(whole.profile)
    _, results = read_run(tmp_path / "runs" / "short")  # what makes a run whole: fingerprints too
    assert all(result.profile == short.profile for result in results)
    assert sum(result.tied_decisions for result in results) > 0
    elsewhere = HashEmbedder()
    run_toy(data, tmp_path / "other" / "run", elsewhere, vectors=tmp_path / "runs" / ".vectors")
    assert elsewhere.texts == []
    run_toy(data, tmp_path / "other" / "run2", elsewhere)
    assert len(elsewhere.texts) == 36


def test_a_runs_scores_are_those_of_the_shorter_vectors(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run", dimensions=5)
    embedder = HashEmbedder()
    for name in ("one", "two"):
        rows = read_parquet(RunFolder(tmp_path / "run").queries_file(name)).to_pylist()
        for i, row in enumerate(rows):
            query = embedder.vector(f"{name} question {i}")[:5].astype(np.float64)
            cosines = {}
            for text in row["top_ids"]:
                candidate = embedder.vector(text)[:5].astype(np.float64)
                cosines[text] = query @ candidate / np.linalg.norm(query) / np.linalg.norm(candidate)
            assert list(cosines.values()) == pytest.approx(row["top_scores"], abs=1e-6)
            assert row["top_scores"] == sorted(row["top_scores"], reverse=True)


def test_another_setting_in_the_same_folder_is_computed_again(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "run")
    before = load_task_result(tmp_path / "run" / "tasks" / "one.json")
    embedder = HashEmbedder()
    run_toy(data, tmp_path / "run", embedder, quantization="int8")
    after = load_task_result(tmp_path / "run" / "tasks" / "one.json")
    assert embedder.texts == []
    assert (before.profile.quantization, after.profile.quantization) == ("none", "int8")
    assert before.fingerprint != after.fingerprint


def test_all_dimensions_are_no_setting(data: Path, tmp_path: Path) -> None:
    assert run_toy(data, tmp_path / "run", dimensions=16).profile == HashEmbedder().info.profile


@pytest.mark.parametrize("dimensions", [0, 17])
def test_dimensions_that_the_model_lacks(dimensions: int, data: Path, tmp_path: Path) -> None:
    message = f"--dim {dimensions}: the vectors of 'hash' have 16 dimensions; choose 1 to 16"
    run_toy(data, tmp_path / "run")
    with pytest.raises(OptionError, match=message):
        run_toy(data, tmp_path / "run", dimensions=dimensions, fresh=True)
    assert load_run_result(tmp_path / "run" / "run.json").status == "finished"  # nothing was deleted for it


@pytest.mark.parametrize("change", [{"dimensions": 4}, {"quantization": "int8"}])
def test_several_vectors_an_item_are_not_compressed(change: dict[str, object], data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'words' gives several \(late interaction\)"):
        run_toy(data, tmp_path / "run", WordsEmbedder(), **change)  # type: ignore[arg-type]


def test_a_fresh_start_goes_on_without_earlier_vectors_and_leaves_them_to_others(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "one")
    stored = set((tmp_path / ".vectors").rglob("chunk-*"))

    class Interrupted(HashEmbedder):
        def encode(self, items, role):  # type: ignore[no-untyped-def]
            if role == "query":  # the smaller part, which comes last
                press_ctrl_c_twice()
            return super().encode(items, role)

    interrupted, resumed, other = Interrupted(), HashEmbedder(), HashEmbedder()
    with pytest.raises(KeyboardInterrupt):
        run_toy(data, tmp_path / "one", interrupted, fresh=True)
    run_toy(data, tmp_path / "one", resumed)
    assert len(interrupted.texts) == 24
    assert len(resumed.texts) == 12  # the rest, though all are stored from before
    assert stored < set((tmp_path / ".vectors").rglob("chunk-*"))
    run_toy(data, tmp_path / "two", other)
    assert other.texts == []


def test_a_folder_of_vectors_inside_the_run_is_left_alone(data: Path, tmp_path: Path) -> None:
    """From an earlier release."""
    old = tmp_path / "run" / "vectors" / "0123" / "chunk-000000.parquet"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    run_toy(data, tmp_path / "run")
    run_toy(data, tmp_path / "run", fresh=True)
    assert old.read_bytes() == b"old"


def test_a_folder_for_vectors_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    embedder = HashEmbedder()
    with pytest.raises(Exception, match=r"can't write .*--vectors says where vectors are kept"):
        run_toy(data, tmp_path / "run", embedder, vectors=tmp_path / "file")
    assert embedder.texts == []


def test_a_profile_differs_by_what_was_made_of_the_vectors() -> None:
    assert len({Profile(), Profile(dimensions=4), dataclasses.replace(Profile(), quantization="int8")}) == 3
