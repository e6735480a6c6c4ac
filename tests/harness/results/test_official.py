"""Official files, read back: score files, rankings, submissions; what they say of their edition; what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mmeb_tasks.editions import NUM_QUERIES, V2_EDITIONS

from mmeb_harness import HarnessError, ResultError, UnknownNameError
from mmeb_harness.cli.scores import import_scores as import_command
from mmeb_harness.core.benchmark import PAGE_FIXED, V2_0_0, V3
from mmeb_harness.core.registry import BENCHMARK, load_tasks
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results import official_names
from mmeb_harness.results.official import import_scores
from mmeb_harness.results.official_files import read_rankings
from mmeb_harness.results.scores import Scores, load_scores
from tests.tasks.golden import read_golden

REGISTERED = load_tasks()
REGISTERED_V3 = load_tasks(V3)
GOLDEN = [case for case in read_golden("metrics_golden")["cases"] if "error" not in case]
DEFINED = [case for case in GOLDEN if not case["depends_on_PYTHONHASHSEED"]]
ODD = [case for case in GOLDEN if case["depends_on_PYTHONHASHSEED"]]


def test_editions_are_spelled_as_the_tasks_spell_them() -> None:
    assert (PAGE_FIXED, V2_0_0) == V2_EDITIONS
    for edition in V2_EDITIONS:
        assert official_names.MOMENT_SEEKER_QUERIES[edition] == NUM_QUERIES["MomentSeeker"][edition]
    assert {*official_names.PAGE_TASKS, official_names.MOMENT_SEEKER} <= REGISTERED.keys()


def entry(value: float = 0.5, num_data: int = 1000) -> dict[str, float]:
    return {**dict.fromkeys(METRIC_NAMES, value), "num_pred": num_data, "num_data": num_data}


def write_submission(path: Path, metrics: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps({"metadata": {"model_name": "m"}, "metrics": metrics}))
    return path


def write_scores(folder: Path, keys: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for key, values in keys.items():
        (folder / f"{key}_score.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return folder


def write_rankings(path: Path, cases: Sequence[Mapping[str, Any]]) -> Path:
    lines = [{key: case[key] for key in ("prediction", "label", "rel_scores")} for case in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def official_means(cases: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {name: sum(case["metrics"][name] for case in cases) / len(cases) for name in METRIC_NAMES}


#: In place of the declared numbers: the golden cases are fewer.
COUNTS = {name: len(DEFINED) for name in ("ViDoSeek-doc", "MMLongBench-doc", "GQA")}


def read(path: Path, counts: dict[str, int] | None = None, **options: Any) -> Scores:
    """`counts`: declared numbers of queries, in place of the benchmark's."""
    registered = [
        replace(one, task=replace(one.task, num_queries=(counts or {}).get(name, one.task.num_queries)))
        for name, one in REGISTERED.items()
    ]
    return import_scores(path, registered, REGISTERED_V3.values(), **options)


def test_rankings_of_all_golden_cases_give_the_official_metrics(tmp_path: Path) -> None:
    rankings = read_rankings(write_rankings(tmp_path / "a_pred.jsonl", DEFINED))
    assert (rankings.num_queries, rankings.undefined) == (len(DEFINED), 0)
    assert rankings.official == pytest.approx(official_means(DEFINED), abs=1e-12)
    kept = [{**case["metrics"], **case.get("ndcg_if_grades_stay_with_their_label", {})} for case in DEFINED]
    assert rankings.corrected == pytest.approx(
        {name: sum(one[name] for one in kept) / len(kept) for name in METRIC_NAMES}, abs=1e-12
    )
    assert abs(rankings.official["ndcg_linear@5"] - rankings.corrected["ndcg_linear@5"]) > 1e-4


def test_ids_of_text_and_of_numbers_are_the_same_id(tmp_path: Path) -> None:
    cases = [
        {"prediction": ["7", 8], "label": 7, "rel_scores": None},
        {"prediction": [8], "label": ["8"], "rel_scores": [2]},
    ]
    assert read_rankings(write_rankings(tmp_path / "a_pred.jsonl", cases)).official["hit@1"] == 1


def test_digits_in_a_text_id_are_hashed_as_text(tmp_path: Path) -> None:
    case = {"prediction": ["8", "7"], "label": ["8", "7"], "rel_scores": [2, 3]}
    assert read_rankings(write_rankings(tmp_path / "a_pred.jsonl", [case])).undefined == 1
    case["label"] = [8, 7]  # type: ignore[list-item]
    assert read_rankings(write_rankings(tmp_path / "a_pred.jsonl", [case])).undefined == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"_pred\.jsonl:2 is not valid JSON"),
        ("[]", r":2 is no ranking: expected prediction, label and rel_scores"),
        ('{"prediction": ["a"]}', ":2 is no ranking"),
        ('{"prediction": "a", "label": "a"}', "prediction is 'a', expected a list of ids"),
        ('{"prediction": [0.5], "label": "a"}', r"0\.5 is no id"),
        ('{"prediction": ["a"], "label": true}', "True is no id"),
        ('{"prediction": ["a"], "label": ["a"], "rel_scores": ["1"]}', "expected null or a number a label"),
        ('{"prediction": ["a"], "label": ["a"], "rel_scores": [NaN]}', "expected null or a number a label"),
        ('{"prediction": ["a"], "label": ["a", "b"], "rel_scores": [1]}', r"2 labels \(2 distinct\) with 1 rel_scores"),
        ('{"prediction": ["a"], "label": ["a", "a"], "rel_scores": [1, 2]}', r"2 labels \(1 distinct\) with 2"),
    ],
)
def test_lines_that_are_no_rankings(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a_pred.jsonl"
    path.write_text('{"prediction": ["a"], "label": "a", "rel_scores": null}\n' + line + "\n")
    with pytest.raises(ResultError, match=message):
        read_rankings(path)


def test_an_empty_file_holds_no_rankings(tmp_path: Path) -> None:
    (tmp_path / "a_pred.jsonl").write_text("\n")
    with pytest.raises(ResultError, match="is empty"):
        read_rankings(tmp_path / "a_pred.jsonl")


@pytest.mark.parametrize("flat", [True, False])
def test_a_folder_of_score_files_and_rankings(flat: bool, tmp_path: Path) -> None:
    visdoc, image = (tmp_path, tmp_path) if flat else (tmp_path / "visdoc", tmp_path / "image")
    write_rankings(visdoc / "ViDoSeek-doc_pred.jsonl", DEFINED)
    write_scores(visdoc, {"ViDoSeek-doc": {**official_means(DEFINED), "num_data": len(DEFINED)}})
    write_rankings(visdoc / "MMLongBench-doc_pred.jsonl", DEFINED)
    write_scores(image, {"GQA": entry(0.25, len(DEFINED))})
    scores = read(tmp_path, edition="page-fixed", counts=COUNTS)
    assert (scores.name, scores.edition, scores.origin) == (tmp_path.name, "page-fixed", "imported")
    assert list(scores.tasks) == ["GQA", "ViDoSeek-doc", "MMLongBench-doc"]
    assert scores.tasks["GQA"].metrics["hit@1"] == 0.25
    assert scores.tasks["GQA"].corrected is None
    for name in ("ViDoSeek-doc", "MMLongBench-doc"):
        task = scores.tasks[name]
        assert task.metrics == pytest.approx(official_means(DEFINED), abs=1e-9)
        assert task.corrected is not None
        assert abs(task.corrected - task.metrics["ndcg_linear@5"]) > 1e-4
        assert task.num_queries == len(DEFINED)
    assert scores.notes == ()


def test_scores_over_another_number_of_queries_are_none(tmp_path: Path) -> None:
    write_rankings(tmp_path / "ViDoSeek-doc_pred.jsonl", DEFINED)
    write_scores(tmp_path, {"GQA": entry(0.25), "OVEN": entry(0.5, 998)})
    scores = read(tmp_path, edition="page-fixed")
    assert list(scores.tasks) == ["GQA"]
    left_out = f"OVEN (998, not 1000), ViDoSeek-doc ({len(DEFINED)}, not 1142)"
    assert scores.notes == (f"left out, not over the declared number of queries: {left_out}",)


def test_a_score_file_that_its_rankings_contradict(tmp_path: Path) -> None:
    write_rankings(tmp_path / "GQA_pred.jsonl", DEFINED)
    means = {**official_means(DEFINED), "num_data": len(DEFINED)}
    write_scores(tmp_path, {"GQA": {**means, "map@5": means["map@5"] + 2e-6}})
    with pytest.raises(ResultError, match=r"^GQA: map@5 is 0\.\d+ in .*GQA_score\.json, but 0\.\d+ by the rankings"):
        read(tmp_path, edition="page-fixed", counts=COUNTS)
    write_scores(tmp_path, {"GQA": {**means, "num_data": 7}})
    with pytest.raises(ResultError, match=r"GQA_score\.json is over 7 queries, the rankings beside it over"):
        read(tmp_path, edition="page-fixed")
    write_scores(tmp_path, {"GQA": {**means, "map@5": means["map@5"] + 5e-7}})
    scores = read(tmp_path, edition="page-fixed", counts=COUNTS)
    assert scores.tasks["GQA"].metrics["map@5"] == means["map@5"] + 5e-7


def test_an_official_ndcg_that_cannot_be_had_again(tmp_path: Path) -> None:
    """With a score file its value stands; without one, grades stay on their labels, and the notes say so."""
    assert ODD
    write_rankings(tmp_path / "ViDoSeek-doc_pred.jsonl", ODD)
    counts = {"ViDoSeek-doc": len(ODD)}
    alone = read(tmp_path, edition="page-fixed", counts=counts)
    assert f"ViDoSeek-doc: official nDCG of {len(ODD)} queries depends on PYTHONHASHSEED" in alone.notes[-1]
    assert alone.tasks["ViDoSeek-doc"].metrics["ndcg_linear@5"] == alone.tasks["ViDoSeek-doc"].corrected
    write_scores(tmp_path, {"ViDoSeek-doc": {**official_means(ODD), "num_data": len(ODD)}})
    scores = read(tmp_path, edition="page-fixed", counts=counts)
    assert scores.tasks["ViDoSeek-doc"].metrics["ndcg_linear@5"] == official_means(ODD)["ndcg_linear@5"]
    assert scores.notes == ()


FIXED = {"ViDoSeek-page-fixed": entry(num_data=1142), "MMLongBench-page-fixed": entry(num_data=838)}
PLAIN = {"ViDoSeek-page": entry(num_data=1142), "MMLongBench-page": entry(num_data=838)}
SEEKER, OLD_SEEKER = {"MomentSeeker": entry(num_data=1602)}, {"MomentSeeker": entry(num_data=1800)}
SEEKER_1K8 = {"MomentSeeker_1k8": entry(num_data=1800)}


@pytest.mark.parametrize(
    ("video", "visdoc", "edition"),
    [
        (SEEKER, FIXED, "page-fixed"),
        ({}, FIXED, "page-fixed"),
        ({}, {"ViDoSeek-page-fixed": "FILE_N/A"}, "page-fixed"),
        (OLD_SEEKER, PLAIN, "v2.0.0"),
        (SEEKER_1K8, PLAIN, "v2.0.0"),
        (OLD_SEEKER, {}, "v2.0.0"),
        (SEEKER, PLAIN, "v2.0.1"),
        (SEEKER | SEEKER_1K8, PLAIN, "v2.0.1"),
    ],
)
def test_a_submission_tells_its_edition(video: Any, visdoc: Any, edition: str, tmp_path: Path) -> None:
    path = write_submission(tmp_path / "m.json", {"video": video, "visdoc": visdoc})
    assert read(path).edition == edition
    assert read(path, edition=edition).edition == edition
    for other in {"page-fixed", "v2.0.0", "v2.0.1"} - {edition}:
        with pytest.raises(ResultError, match=rf"is of edition {edition} \(.*\), not {other}; leave out --edition"):
            read(path, edition=other)


@pytest.mark.parametrize(
    ("form", "keys", "asked"),
    [
        ("submission", PLAIN, r"v2\.0\.0 or v2\.0\.1"),
        ("folder", PLAIN, r"page-fixed or v2\.0\.0 or v2\.0\.1"),
        ("folder", PLAIN | SEEKER, r"MomentSeeker has 1602 queries\); give --edition: page-fixed or v2\.0\.1"),
    ],
)
def test_an_edition_that_nothing_tells_is_asked_for(form: str, keys: Any, asked: str, tmp_path: Path) -> None:
    path = (
        write_submission(tmp_path / "m.json", {"visdoc": keys})
        if form == "submission"
        else write_scores(tmp_path / "m", keys)
    )
    with pytest.raises(ResultError, match=f"can't tell the edition of .*{asked}"):
        read(path)
    assert read(path, edition="v2.0.1").edition == "v2.0.1"


@pytest.mark.parametrize(
    ("keys", "edition"),
    [(PLAIN | OLD_SEEKER, "v2.0.0"), (PLAIN | SEEKER_1K8, "v2.0.0"), (FIXED | SEEKER, "page-fixed")],
)
def test_a_folder_that_tells_its_edition(keys: Any, edition: str, tmp_path: Path) -> None:
    scores = read(write_scores(tmp_path / "m", keys))
    assert scores.edition == edition
    assert set(scores.tasks) == {"MomentSeeker", "ViDoSeek-page", "MMLongBench-page"}
    with pytest.raises(ResultError, match=r"not v2\.0\.1"):
        read(tmp_path / "m", edition="v2.0.1")


@pytest.mark.parametrize(
    ("seeker", "page", "edition"),
    [
        (1602, 3, "page-fixed"),
        (1800, 3, "page-fixed"),
        (1602, 4, "v2.0.1"),
        (1800, 4, "v2.0.0"),
        (None, 3, "page-fixed"),
    ],
)
def test_a_known_row_among_the_rankings_tells_the_edition_of_a_folder(
    seeker: int | None, page: int, edition: str, tmp_path: Path
) -> None:
    write_scores(tmp_path / "m", {} if seeker is None else {"MomentSeeker": entry(num_data=seeker)})
    row = {"prediction": ["3", "4", "5"], "label": [page], "rel_scores": [3]}
    write_rankings(tmp_path / "m" / "ViDoSeek-page_pred.jsonl", [row] * 1142)
    assert read(tmp_path / "m").edition == edition
    with pytest.raises(ResultError, match=f"the first query of ViDoSeek-page is about page {page}"):
        read(tmp_path / "m", edition="v2.0.0" if edition != "v2.0.0" else "page-fixed")


@pytest.mark.parametrize(("beside", "edition"), [({}, "page-fixed"), (SEEKER_1K8, "v2.0.1")])
def test_a_complete_folder_is_of_what_the_official_code_wrote_with_its_tasks(
    beside: Any, edition: str, tmp_path: Path
) -> None:
    declared = {name: row.task.num_queries for name, row in REGISTERED.items() if row.collection == BENCHMARK}
    whole = {name: entry(num_data=count or 1000) for name, count in declared.items()}
    scores = read(write_scores(tmp_path / "m", whole | beside))
    assert (scores.edition, len(scores.tasks)) == (edition, 78)
    assert [note for note in scores.notes if "assumed, since all 78 tasks are there" in note]
    assert read(tmp_path / "m", edition="v2.0.1").edition == "v2.0.1"
    (tmp_path / "m" / "GQA_score.json").unlink()
    with pytest.raises(ResultError, match=r"give --edition: page-fixed or v2\.0\.1"):
        read(tmp_path / "m")


def test_tasks_that_are_the_same_in_every_edition_need_none(tmp_path: Path) -> None:
    path = write_scores(tmp_path / "m", {"GQA": entry()})
    assert read(path).edition == "page-fixed"
    assert read(path, edition="v2.0.0").edition == "v2.0.0"


def test_an_edition_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'page-fixed'"):
        read(write_scores(tmp_path / "m", PLAIN), edition="pages-fixed")


def test_old_rows_in_a_page_fixed_submission_are_noted(tmp_path: Path) -> None:
    """So are the leaderboard's rows of the official baselines."""
    scores = read(write_submission(tmp_path / "m.json", {"video": OLD_SEEKER, "visdoc": FIXED}))
    assert scores.notes == ("MomentSeeker is over the 1800 rows of v2.0.0, as in the leaderboard's own rows",)


def test_entries_that_are_no_tasks_are_kept_out_by_name(tmp_path: Path) -> None:
    english = [f"ViDoRe_{name}_v2" for name in ("biomedical_lectures", "economics_reports", "esg_reports")]
    metrics = {
        "video": {"Kinetics-700": entry(0.7), **SEEKER, **SEEKER_1K8},
        "visdoc": {**FIXED, **PLAIN, **dict.fromkeys(english, entry())},
    }
    scores = read(write_submission(tmp_path / "m.json", metrics))
    assert list(scores.tasks) == ["K700", "MomentSeeker", "ViDoSeek-page", "MMLongBench-page"]
    assert scores.tasks["K700"].metrics["hit@1"] == 0.7
    extra = ", ".join(["MomentSeeker_1k8", *PLAIN, *english])
    assert scores.notes == (f"kept out, no tasks of the benchmark: {extra}",)


def test_marks_of_what_is_missing(tmp_path: Path) -> None:
    image = {"GQA": "FILE_N/A", "OVEN": "JSON_ERROR", "CIRR": "READ_ERROR", "DocVQA": entry()}
    scores = read(write_submission(tmp_path / "m.json", {"image": image, "video": "DIR_N/A", "visdoc": FIXED}))
    assert list(scores.tasks) == ["DocVQA", "ViDoSeek-page", "MMLongBench-page"]
    assert scores.notes == ("missing: GQA (FILE_N/A), OVEN (JSON_ERROR), CIRR (READ_ERROR), video (DIR_N/A)",)


def without(name: str) -> dict[str, float]:
    return {key: value for key, value in entry().items() if key != name}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"image": {"GQA": entry(float("nan"))}}, r"m\.json: GQA: hit@1 is nan, expected a fraction in \[0, 1\]"),
        ({"image": {"GQA": entry(63.2)}}, r"m\.json: GQA: hit@1 is 63\.2, expected a fraction"),
        ({"image": {"GQA": {**entry(), "mrr@10": "0.5"}}}, r"GQA: mrr@10 is '0\.5', expected a fraction"),
        ({"image": {"GQA": {**entry(), "hit@1": True}}}, "GQA: hit@1 is True"),
        ({"image": {"GQA": without("hit@1")}}, "GQA: hit@1 is missing, the task's main metric"),
        ({"image": {"GQA": {**entry(), "num_data": "1000"}}}, "GQA: num_data is '1000', expected a number of queries"),
        ({"image": {"GQA": 0.5}}, r"GQA is 0\.5, expected its metrics"),
        ({"image": {"GQA": "N/A"}}, "GQA is 'N/A', expected its metrics"),
        ({"image": 3}, "metrics: 'image' is not one of image, video, visdoc, audio, text, .* with its tasks"),
        ({"images": {}}, "metrics: 'images' is not one of"),
        ({"image": {"K700": entry()}, "visdoc": FIXED}, "K700 stands under image, but is a video task"),
        (
            {"video": {"K700": entry(), "Kinetics-700": entry()}, "visdoc": FIXED},
            "K700 and Kinetics-700 both stand for K700",
        ),
        ({"image": {"GQA": entry()}, "video": {"GQA": entry()}}, "GQA is there twice, under image and video"),
        (
            {"visdoc": {"ViDoSeek-page-fixed": entry(), "MMLongBench-page": entry()}},
            "ViDoSeek-page-fixed and MMLongBench-page are of different editions",
        ),
    ],
)
def test_submissions_that_are_refused(metrics: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=message) as refused:
        read(write_submission(tmp_path / "m.json", metrics))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"m\.json is not valid JSON"), ("[]", "is no submission file"), ('{"metrics": 3}', "is no submission file")],
)
def test_files_that_are_no_submission(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ResultError, match=message):
        read(tmp_path / "m.json")


def test_folders_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"no \*_score\.json or \*_pred\.jsonl in .* or its folders image, video"):
        read(tmp_path)
    with pytest.raises(ResultError, match=r"can't read .*nowhere"):
        read(tmp_path / "nowhere")
    write_scores(tmp_path / "image", {"GQA": "{"})
    with pytest.raises(ResultError, match=r"GQA_score\.json is not valid JSON"):
        read(tmp_path)
    write_scores(tmp_path / "image", {"GQA": entry()})
    write_scores(tmp_path, {"GQA": entry()})
    with pytest.raises(ResultError, match="GQA is there twice; keep one of its files"):
        read(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    path = write_submission(tmp_path / "m.json", {"image": {"GQA": entry()}, "visdoc": FIXED})
    output = tmp_path / "scores.json"
    done = CliRunner().invoke(import_command, [str(path), "--output", str(output), "--name", "mine"])
    assert done.exit_code == 0, done.output
    assert "[1] mine: edition page-fixed; data revision unstated; incomplete: 3 of 78 tasks" in done.stdout
    assert f"scores: {output}" in done.stdout
    assert load_scores(output) == read(path, name="mine")
    assert "not kept; --output FILE" in CliRunner().invoke(import_command, [str(path)]).stdout
    refused = CliRunner().invoke(import_command, [str(path), "--edition", "v2.0.0"])
    assert isinstance(refused.exception, HarnessError)
