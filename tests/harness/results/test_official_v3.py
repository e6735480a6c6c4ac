"""MMEB-V3's official files, read back: names in all their layouts, what they are of, what can't be told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mmeb_harness import ResultError
from mmeb_harness.core.benchmark import V3, V3_EDITIONS
from mmeb_harness.core.registry import BENCHMARK, load_tasks
from mmeb_harness.ranking.metrics import METRIC_NAMES, metric_names
from mmeb_harness.results.official import import_scores
from mmeb_harness.results.official_files import read_rankings
from mmeb_harness.results.official_names import submission_key
from mmeb_harness.results.scores import Scores
from tests.tasks.golden import read_golden

V2_TASKS = load_tasks()
V3_TASKS = {name: row for name, row in load_tasks(V3).items() if row.collection == BENCHMARK}
ADDED = [name for name in V3_TASKS if name not in V2_TASKS]
PAGE = "ViDoSeek-page"


def read(path: Path, **options: Any) -> Scores:
    return import_scores(path, V2_TASKS.values(), V3_TASKS.values(), **options)


def entry(value: float = 0.5, count: int = 1000, edition: str = V3) -> dict[str, float]:
    return {**dict.fromkeys(metric_names(edition), value), "num_pred": count, "num_data": count}


def entries(names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Each task's values its own; as many queries as declared."""
    tasks = {name: V3_TASKS[name].task for name in names}
    return {
        name: entry(number / 1000, task.num_queries or 50) for number, (name, task) in enumerate(tasks.items(), start=1)
    }


def write_files(folder: Path, files: Mapping[str, Mapping[str, float]]) -> Path:
    for name, values in files.items():
        path = folder / f"{name}_score.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return folder


def write_submission(path: Path, metrics: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({"metadata": {"model_name": "m"}, "metrics": metrics}))
    return path


def values_of(scores: Scores) -> dict[str, float]:
    return {name: score.metrics["hit@1"] for name, score in scores.tasks.items()}


def modality(name: str) -> str:
    return V3_TASKS[name].task.modality


def last(name: str) -> str:
    return name.rpartition("/")[2]


LAYOUTS = {
    "as the official code writes": lambda name: name,
    "the same in folders by modality": lambda name: f"{modality(name)}/{name}",
    "as the official report reads": lambda name: f"{modality(name)}/{last(name)}",
    "the last parts alone": last,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_score_files_of_all_that_was_added_in_every_layout(layout: str, tmp_path: Path) -> None:
    whole = entries(ADDED)
    scores = read(write_files(tmp_path / "m", {LAYOUTS[layout](name): values for name, values in whole.items()}))
    assert values_of(scores) == {name: values["hit@1"] for name, values in whole.items()}
    assert len(scores.tasks) == 112
    assert scores.edition == V3
    assert scores.tasks["text/BRIGHT/aops"].metrics.keys() == {*metric_names(V3)}
    (note,) = scores.notes
    assert re.fullmatch("edition v3: it has .+; assumed, since no task is there that differs from v3-unfixed", note)


def test_a_familys_own_folder(tmp_path: Path) -> None:
    write_files(
        tmp_path / "text", entries(["text/BRIGHT/biology", "text/R2MED/Biology"]) and {"BRIGHT/biology": entry(0.25)}
    )
    assert values_of(read(tmp_path / "text")) == {"text/BRIGHT/biology": 0.25}
    assert values_of(read(tmp_path / "text" / "BRIGHT" / "biology_score.json")) == {"text/BRIGHT/biology": 0.25}


@pytest.mark.parametrize("together", [False, True])
def test_a_submission_of_all_tasks_in_either_nesting(together: bool, tmp_path: Path) -> None:
    whole = entries(V3_TASKS)
    metrics: dict[str, dict[str, Any]] = {}
    for name, values in whole.items():
        of_agent = together and modality(name) in ("tool", "gui", "memory")
        metrics.setdefault("agent" if of_agent else modality(name), {})[submission_key(name, V3)] = values
    assert len(metrics) == (6 if together else 8)
    scores = read(write_submission(tmp_path / "m.json", metrics))
    assert values_of(scores) == {name: values["hit@1"] for name, values in whole.items()}
    assert scores.edition == V3
    assert [note for note in scores.notes if "the official report names any pages so" in note]
    assert read(tmp_path / "m.json", edition="v3-unfixed").edition == "v3-unfixed"
    with pytest.raises(ResultError, match=r"is of MMEB-V3 \(it has MCMR\), page-fixed is not; leave out --edition"):
        read(tmp_path / "m.json", edition="page-fixed")


def test_marks_are_missing_tasks_and_not_zeros(tmp_path: Path) -> None:
    metrics = {"image": {"GQA": entry(), "MCMR": "FILE_N/A"}, "audio": {"AVE": "DIR_N/A"}, "text": "DIR_N/A"}
    scores = read(write_submission(tmp_path / "m.json", metrics))
    assert (scores.edition, list(scores.tasks)) == (V3, ["GQA"])
    assert "missing: MCMR (FILE_N/A), AVE (DIR_N/A), text (DIR_N/A)" in scores.notes


@pytest.mark.parametrize(
    ("names", "left"),
    [
        (["text/BRIGHT/biology", "text/BRIGHT/pony", "text/R2MED/PMC-Clinical"], "text/BRIGHT/biology"),
        (["text/R2MED/Biology", "text/BRIGHT/pony", "text/R2MED/PMC-Clinical"], "text/R2MED/Biology"),
        (["text/BRIGHT/biology", "text/R2MED/Biology", "text/BRIGHT/pony"], None),
        (["text/BRIGHT/biology", "text/BRIGHT/pony"], None),
    ],
)
def test_a_name_that_a_file_system_without_case_may_have_overwritten(
    names: list[str], left: str | None, tmp_path: Path
) -> None:
    scores = read(write_files(tmp_path / "m", {f"text/{last(name)}": entry() for name in names}))
    assert set(names) - scores.tasks.keys() == ({left} if left else set())
    assert bool([note for note in scores.notes if note.startswith(f"left out: {left} without text/")]) == bool(left)
    apart = read(write_files(tmp_path / "apart", {name: entry() for name in names}))
    assert apart.tasks.keys() == set(names)


def write_rankings(path: Path, *lines: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"rel_scores": None, **line}) + "\n" for line in lines))
    return path


def test_rankings_of_mmeb_v3(tmp_path: Path) -> None:
    """With prediction_scores one mrr over the whole ranking, and no recall without labels; else as in MMEB-V2."""
    ranked = [f"d{number}" for number in range(20)]
    lines = [
        {"prediction": ranked, "prediction_scores": [0.5] * 20, "label": ["d15"]},
        {"prediction": ranked, "prediction_scores": [0.5] * 20, "label": []},
        {"prediction": ranked, "prediction_scores": [0.5] * 20, "label": None},
    ]
    official = read_rankings(write_rankings(tmp_path / "a_pred.jsonl", *lines)).official
    assert tuple(official) == metric_names(V3)
    assert (official["mrr"], official["recall@10"]) == (1 / 16 / 3, 0.0)
    old = read_rankings(write_rankings(tmp_path / "b_pred.jsonl", {"prediction": ranked, "label": ["d15"]})).official
    assert tuple(old) == METRIC_NAMES
    mixed = write_rankings(tmp_path / "c_pred.jsonl", lines[0], {"prediction": ranked, "label": ["d15"]})
    with pytest.raises(ResultError, match=r"c_pred\.jsonl:2: prediction_scores stand in some lines only"):
        read_rankings(mixed)
    write_rankings(tmp_path / "m" / "text" / "BRIGHT" / "aops_pred.jsonl", *lines)
    assert read(tmp_path / "m").tasks["text/BRIGHT/aops"].num_queries == 3


def test_rankings_of_all_golden_cases_give_mmeb_v3s_metrics(tmp_path: Path) -> None:
    of_v2 = {case["id"]: case for case in read_golden("metrics_golden")["cases"]}
    of_v3 = [case for case in read_golden("metrics_golden_v3")["cases"] if "error" not in case]
    lines, expected = [], []
    for case in of_v3:
        ranking = {key: of_v2[case["id"]][key] for key in ("prediction", "label", "rel_scores")}
        lines.append({**ranking, "prediction_scores": [0.0] * len(ranking["prediction"])})
        expected.append({**of_v2[case["id"]]["metrics"], **case})
    rankings = read_rankings(write_rankings(tmp_path / "a_pred.jsonl", *lines))
    assert rankings.num_queries == 98
    for name in metric_names(V3):
        if not (rankings.undefined and name.startswith("ndcg")):
            assert rankings.official[name] == pytest.approx(sum(case[name] for case in expected) / 98, abs=1e-12), name


@pytest.mark.parametrize(("page", "edition"), [("3", V3), ("4", "v3-unfixed")])
def test_a_known_row_among_the_rankings_tells_the_pages(page: str, edition: str, tmp_path: Path) -> None:
    write_files(tmp_path / "m", {"MCMR": entry()})
    row = {"prediction": ["3", "4"], "prediction_scores": [0.5, 0.4], "label": [page]}
    write_rankings(tmp_path / "m" / f"{PAGE}_pred.jsonl", *[row] * 1142)
    scores = read(tmp_path / "m")
    assert (scores.edition, set(scores.tasks)) == (edition, {"MCMR", PAGE})
    (other,) = set(V3_EDITIONS) - {edition}
    with pytest.raises(ResultError, match=rf"is of edition {edition} \(the first query .* page {page}\), not {other}"):
        read(tmp_path / "m", edition=other)


def test_pages_that_score_files_do_not_tell_are_asked_for(tmp_path: Path) -> None:
    write_files(tmp_path / "m", {"MCMR": entry(), PAGE: entry(count=1142)})
    with pytest.raises(ResultError, match=r"on which pages ViDoSeek-page is\); give --edition: v3 or v3-unfixed"):
        read(tmp_path / "m")
    for edition in V3_EDITIONS:
        assert read(tmp_path / "m", edition=edition).edition == edition
    plain = write_submission(tmp_path / "m.json", {"visdoc": {PAGE: entry(count=1142)}})
    assert read(plain).edition == "v3-unfixed"


def test_results_of_two_evaluations(tmp_path: Path) -> None:
    """The tasks of MMEB-V2 are shown in another way there; without what tells, they may be either's."""
    write_files(tmp_path / "m", {"GQA": entry(edition=""), "text/BRIGHT/aops": entry()})
    with pytest.raises(ResultError, match=r"of two evaluations: GQA with mrr@1, .*; text/BRIGHT/aops with one mrr\."):
        read(tmp_path / "m")
    taken = read(tmp_path / "m", edition=V3)
    assert set(taken.tasks) == {"GQA", "text/BRIGHT/aops"}
    assert [note for note in taken.notes if note.startswith("of two evaluations: GQA with mrr@1")]
    alone = write_files(tmp_path / "alone", {"GQA": entry()})
    assert read(alone).edition == V3
    old = write_files(tmp_path / "old", {"GQA": entry(edition="")})
    assert read(old).edition == "page-fixed"
    with pytest.raises(ResultError, match=r"is of MMEB-V2 \(GQA has mrr@1, as its code writes\), v3 is not"):
        read(old, edition=V3)
    bare = write_files(tmp_path / "bare", {"GQA": {"hit@1": 0.5}})
    assert (read(bare).edition, read(bare, edition=V3).edition) == ("page-fixed", V3)


def test_pages_of_two_editions(tmp_path: Path) -> None:
    for task, page in ((PAGE, "3"), ("MMLongBench-page", "5")):
        row = {"prediction": ["3"], "prediction_scores": [0.5], "label": [page]}
        write_rankings(tmp_path / "m" / f"{task}_pred.jsonl", row)
    with pytest.raises(ResultError, match=r"is of two editions \(the first query .* page 5; .* page 3\); keep one"):
        read(tmp_path / "m")
