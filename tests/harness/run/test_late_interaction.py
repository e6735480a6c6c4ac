"""A model of several vectors an item, from end to end on mini tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, ModelError, Role
from mmeb_harness.core.files import read_parquet
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.results.files import RunResult, load_task_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.run.plan import RunSettings
from tests.toy import WordsEmbedder, evaluated

#: A pool of texts, pictures for texts, all pages, clips.
TASKS = ("OK-VQA", "VisualNews_t2i", "ViDoSeek-doc", "HMDB51")


def run_mini(embedder: WordsEmbedder, suite: Path, output: Path) -> RunResult:
    known = load_tasks()
    tasks = [known[name] for name in TASKS]
    settings = RunSettings(output, edition="page-fixed")
    return evaluated(embedder, tasks, known, describe(suite), settings)


class FailsOnce(WordsEmbedder):
    """Out of memory in its sixth batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self.batches += 1
        if self.batches == 6:
            raise ModelError("out of memory")
        return super().encode(items, role)


def test_resumed_after_an_error_it_scores_what_an_undisturbed_run_scores(suite: Path, tmp_path: Path) -> None:
    undisturbed, broken, resumed = WordsEmbedder(), FailsOnce(), WordsEmbedder()
    whole = run_mini(undisturbed, suite, tmp_path / "whole" / "run")
    with pytest.raises(ModelError, match="out of memory"):
        run_mini(broken, suite, tmp_path / "broken" / "run")
    run = run_mini(resumed, suite, tmp_path / "broken" / "run")
    assert broken.keys
    assert resumed.keys
    assert broken.keys + resumed.keys == undisturbed.keys  # each item once, in all
    assert run.aggregates == whole.aggregates
    for name in TASKS:
        paths = [RunFolder(tmp_path / kind / "run").queries_file(name) for kind in ("whole", "broken")]
        one, other = (read_parquet(path, ["query_id", "top_ids", "top_scores"]) for path in paths)
        assert one.equals(other)


@pytest.mark.parametrize("name", TASKS)
def test_scores_equal_an_independent_computation(name: str, suite: Path, tmp_path: Path) -> None:
    embedder = WordsEmbedder()
    run_mini(embedder, suite, tmp_path / "run")
    task = load_tasks()[name].task
    samples = task.load(suite, embedder.info.profile.frames)
    vectors = {item.id: embedder.vectors(item).astype(np.float64) for item in samples.candidates}
    rows = read_parquet(RunFolder(tmp_path / "run").queries_file(name)).to_pylist()
    assert load_task_result(tmp_path / "run" / "tasks" / f"{name}.json").num_queries == len(rows)
    for query, row in zip(samples.queries, rows, strict=True):
        tokens = embedder.vectors(query).astype(np.float64)
        pool = samples.pools[query.id] if samples.pools is not None else tuple(vectors)
        scores = {item_id: (tokens @ vectors[item_id].T).max(axis=1).sum() for item_id in pool}
        top_scores = row["top_scores"]
        best = sorted((scores[item_id] for item_id in pool), reverse=True)[: len(top_scores)]
        assert top_scores == pytest.approx(best, abs=1e-9)
        assert [scores[item_id] for item_id in row["top_ids"]] == pytest.approx(top_scores, abs=1e-9)
