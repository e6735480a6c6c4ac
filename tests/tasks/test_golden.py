"""Every task against what the official code makes of small tables: ids, order, pools, grades, strings, scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmeb_baselines.official_text import official_text
from mmeb_tasks import TASKS

from mmeb_harness import DataError, Frames, Item, Samples, Task
from mmeb_harness.ranking.metrics import query_metrics
from mmeb_harness.ranking.task import mean_metrics, score_queries
from tests.tasks.golden import ERROR_CASES, GOLDEN_TASKS, toy_vector, write_case

#: How an official string is written.
Written = Callable[[Item], str]
BY_NAME = {task.name: task for task in TASKS}


def media_of(item: Item, folder: Path) -> list[str] | None:
    return [path.relative_to(folder).as_posix() for path in item.media] or None


def in_golden_order(case: dict[str, Any], ids: list[str]) -> list[str]:
    """Moment retrieval candidates: ours are sorted by name, the official ones stand in directory order."""
    return sorted(ids) if case["parser"] == "moment_retrieval" else ids


@pytest.mark.parametrize("name", list(GOLDEN_TASKS))
def test_golden(name: str, tmp_path: Path) -> None:
    case = GOLDEN_TASKS[name]
    write_case(case, tmp_path)
    samples = BY_NAME[name].load(tmp_path, Frames())
    compare_candidates(case, samples, tmp_path)
    compare_queries(case, samples, tmp_path)
    compare_scores(BY_NAME[name], case, samples, tmp_path)


def compare_candidates(case: dict[str, Any], samples: Samples, folder: Path, written: Written = official_text) -> None:
    ids = [candidate.id for candidate in samples.candidates]
    golden = {str(candidate["id"]): candidate for candidate in case["candidates"]}
    if case["parser"] == "moment_retrieval":
        assert sorted(ids) == sorted(golden)
    else:
        assert ids == list(golden)
    for candidate in samples.candidates:
        assert written(candidate) == golden[candidate.id]["text"]
        assert media_of(candidate, folder) == golden[candidate.id]["media"]


def compare_queries(case: dict[str, Any], samples: Samples, folder: Path, written: Written = official_text) -> None:
    assert len(samples.queries) == len(case["queries"])
    for query, golden in zip(samples.queries, case["queries"], strict=True):
        assert query.id == str(golden.get("id", query.id))
        assert written(query) == golden["text"]
        assert media_of(query, folder) == golden["media"]
        label = list(dict.fromkeys(str(one) for one in golden["label"]))  # a positive named twice counts once
        assert list(samples.gains[query.id]) == label
        assert list(samples.gains[query.id].values()) == (golden["rel_scores"] or [1.0] * len(label))
        if case["eval_type"] == "local":
            assert samples.pools is not None
            own = [str(one) for one in golden["cand_ids"]]
            assert in_golden_order(case, list(samples.pools[query.id])) == in_golden_order(case, own)
        else:
            assert samples.pools is None


def compare_scores(
    task: Task,
    case: dict[str, Any],
    samples: Samples,
    folder: Path,
    written: Written = official_text,
) -> None:
    queries = np.stack([toy_vector(written(item), media_of(item, folder)) for item in samples.queries])
    candidates = np.stack([toy_vector(written(item), media_of(item, folder)) for item in samples.candidates])
    scored = score_queries(task, samples, queries, candidates)  # type: ignore[arg-type]
    means = mean_metrics(scored)
    # Of unequal grades on text ids there is no official nDCG: it depends on PYTHONHASHSEED.
    compared = [metric for metric in means if metric in case["scores"]]
    assert [metric for metric in means if metric not in compared and not metric.startswith("ndcg_")] == []
    assert {metric: means[metric] for metric in compared} == pytest.approx(
        {metric: case["scores"][metric] for metric in compared}, abs=1e-12
    )
    if case["eval_type"] == "global" and (kept := case["scores"].get("ndcg_linear@5_grades_kept")) is not None:
        on_their_labels = [query_metrics(query.top_ids, samples.gains[query.query_id]) for query in scored]
        assert np.mean([metrics["ndcg_linear@5"] for metrics in on_their_labels]) == pytest.approx(kept, abs=1e-12)
        if task.metric == "ndcg_linear@5":
            assert np.mean([query.corrected for query in scored]) == pytest.approx(kept, abs=1e-12)
    top10 = [[str(one) for one in ranked] for ranked in case["top10"]]
    if case["parser"] != "moment_retrieval":  # equal clips tie, and ties fall by the candidates' order
        assert [list(query.top_ids[:10]) for query in scored] == top10


#: Where our defined behaviour differs from the official failure; the reasons stand at the readers.
SHORT_CLIPS = "video retrieval with fewer than 8 frames"


@pytest.mark.parametrize("case", ERROR_CASES, ids=lambda case: f"{case['task']}-{case['name'][:40]}")
def test_what_fails_officially_is_refused_with_the_tasks_name(case: dict[str, Any], tmp_path: Path) -> None:
    write_case(case, tmp_path)
    task = BY_NAME[case["task"]]
    if case["name"] == SHORT_CLIPS:
        assert task.load(tmp_path, Frames()).notes["short clips"] == 1
        return
    # Among them the video without a positive folder: officially it silently keeps the previous row's answer.
    with pytest.raises(
        DataError,
        match=rf"^{case['task']}: .*mmeb-eval data (get|check) --data .* --edition page-fixed --tasks {case['task']}$",
    ):
        task.load(tmp_path, Frames())
