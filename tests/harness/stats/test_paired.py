"""Two runs query by query: differences, clusters, lists of queries, and what can't be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmeb_harness import Item, ResultError, Samples
from mmeb_harness.core.registry import benchmark_rows, load_tasks
from mmeb_harness.results.outcome import query_clusters
from mmeb_harness.stats.paired import Paired, compare_runs
from tests.harness.made_runs import benchmark_tasks, task_result, write_queries, write_run

TASKS = {task.name: task for task in benchmark_tasks() if task.group == "I-VG"}
FIRST = next(iter(TASKS))
ROWS = benchmark_rows(load_tasks().values())


def made(
    folder: Path, scores: Mapping[str, Sequence[float]], clusters: Mapping[str, Sequence[int]] | None = None
) -> Path:
    """A run of some tasks with these scores of queries."""
    results = [
        task_result(TASKS[name], num_queries=len(values), score=float(np.mean(values)))
        for name, values in scores.items()
    ]
    write_run(folder, results)
    for name, values in scores.items():
        write_queries(folder, name, values, (clusters or {}).get(name))
    return folder


def listed(scores: Mapping[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in scores.items()}


def compared(tmp_path: Path, first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> Paired:
    alone = {name: range(len(values)) for name, values in first.items()}
    return compare_runs(made(tmp_path / "a", first, alone), made(tmp_path / "b", second, alone), ROWS)


def test_rows_of_tasks_and_of_what_both_runs_have_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = {name: (rng.random(80) < 0.5).astype(float) for name in TASKS}
    second = {name: np.maximum(values, rng.random(80) < 0.3) for name, values in first.items()}
    found = compared(tmp_path, listed(first), listed(second))
    assert [row.name for row in found.tasks] == list(TASKS)
    (group,) = found.means
    assert group.name == "I-VG"
    assert group.tasks == len(TASKS)
    expected = np.mean([second[name].mean() - first[name].mean() for name in TASKS])
    assert group.difference.queries.value == pytest.approx(expected)
    assert group.difference.tasks.low < group.difference.queries.low < expected < group.difference.queries.high
    assert group.p < 1e-3
    assert group.wins == sum(int((second[name] > first[name]).sum()) for name in TASKS)
    assert group.losses == 0
    assert group.wins + group.ties == 80 * len(TASKS)
    assert found.clustered


def test_p_values_of_tasks_are_adjusted_for_their_number(tmp_path: Path) -> None:
    first = {name: [0.0] * 9 for name in TASKS}
    second = {name: [1.0] * 5 + [0.0] * 4 if name == FIRST else [0.0] * 9 for name in TASKS}
    found = {row.name: row.p for row in compared(tmp_path, first, second).tasks}
    assert found.pop(FIRST) == pytest.approx(len(TASKS) * 2 / 2**5)
    assert set(found.values()) == {1.0}


def test_queries_that_changed_sides(tmp_path: Path) -> None:
    found = compared(tmp_path, {FIRST: [0, 1, 1, 0, 0.5]}, {FIRST: [1, 0, 1, 0, 0.7]})
    assert found.single[FIRST].gained == ("q0",)
    assert found.single[FIRST].lost == ("q1",)
    assert (found.tasks[0].wins, found.tasks[0].losses, found.tasks[0].ties) == (2, 1, 2)


def test_clusters_decide_how_sure_a_difference_is(tmp_path: Path) -> None:
    first, second = {FIRST: [0.0] * 40}, {FIRST: [1.0] * 20 + [0.0] * 20}
    alone = compared(tmp_path, first, second).tasks[0]
    videos = {FIRST: np.repeat(range(8), 5).tolist()}
    together = compare_runs(made(tmp_path / "a", first, videos), made(tmp_path / "b", second, videos), ROWS).tasks[0]
    assert together.p == 2 / 2**4 > alone.p
    width = together.difference.queries.high - together.difference.queries.low
    assert width > 1.9 * (alone.difference.queries.high - alone.difference.queries.low)


def test_results_of_earlier_releases_have_no_clusters(tmp_path: Path) -> None:
    a, b = (made(tmp_path / name, {FIRST: [0, 1, 1]}) for name in "ab")
    assert not compare_runs(a, b, ROWS).clustered


def test_what_cant_be_compared(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {FIRST: [0, 1, 1]})
    other = next(name for name in TASKS if name != FIRST)
    with pytest.raises(ResultError, match="have no task in common"):
        compare_runs(a, made(tmp_path / "b", {other: [0, 1, 1]}), ROWS)
    with pytest.raises(ResultError, match=r"other queries \(q3\); run both on the same data revision"):
        compare_runs(a, made(tmp_path / "c", {FIRST: [0, 1, 1, 0]}), ROWS)
    write_queries(a, FIRST, [0, 1])
    with pytest.raises(ResultError, match="has 2 queries, its result is of 3"):
        compare_runs(a, a, ROWS)
    (a / "queries" / f"{FIRST}.parquet").unlink()
    with pytest.raises(ResultError, match="is missing: single queries can't be compared"):
        compare_runs(a, a, ROWS)


def test_queries_of_one_video_page_or_picture_are_a_cluster() -> None:
    video, page, picture = (Path("v_1.jpg"),), (Path("page.png"),), (Path("picture.png"),)
    queries = (
        Item("video, first question", text="a", frames=video),
        Item("video, second question", text="b", frames=video),
        Item("caption", text="c"),
        Item("another caption", text="d"),
        Item("of a page", text="e"),
        Item("label, first", images=picture),
        Item("text to text", text="f"),
        Item("text to text, too", text="g"),
    )
    candidates = (
        Item("image", images=(Path("image.png"),)),
        Item("page", images=page),
        Item("word", text="word"),
    )
    targets = ("word", "word", "image", "image", "page", "word", "word", "word")
    gains = {query.id: {target: 1.0} for query, target in zip(queries, targets, strict=True)}
    gains["of a page"] = {"image": 1.0, "page": 2.0}  # the most relevant one counts
    assert query_clusters(Samples(queries, candidates, gains)) == [0, 0, 1, 1, 2, 3, 4, 5]


def test_what_a_model_does_not_take_counts_nothing_in_means_of_mmeb_v3(tmp_path: Path) -> None:
    """Unsupported by the first run, by both, by none: 0.75 - 0, 0 - 0 and 0.25 - 0.5."""
    tasks = {task.name: task for task in benchmark_tasks("v3") if task.name in ("NSynth", "AVE", "text/BRIGHT/aops")}
    rows = [row for row in benchmark_rows(load_tasks("v3").values()) if row.task in tasks]
    folders = [tmp_path / "deaf", tmp_path / "blind"]
    scores = [{"text/BRIGHT/aops": [0.5, 0.5]}, {"text/BRIGHT/aops": [0.0, 0.5], "NSynth": [1.0, 1.0, 1.0, 0.0]}]
    for folder, of_run in zip(folders, scores, strict=True):
        results = [task_result(tasks[name], num_queries=len(of), score=np.mean(of)) for name, of in of_run.items()]
        lacks = {name: task.media for name, task in tasks.items() if name not in of_run}
        write_run(folder, results, edition="v3", unsupported=lacks)
        for name, of in of_run.items():
            write_queries(folder, name, of)
    found = compare_runs(*folders, rows)
    assert [row.name for row in found.tasks] == ["text/BRIGHT/aops"]
    means = {row.name: (row.difference.queries.value, row.tasks) for row in found.means}
    assert means["V3-All"] == (pytest.approx((0.75 + 0 - 0.25) / 3), 3)
    assert means["text"] == (-0.25, 1)
    assert "audio" not in means
