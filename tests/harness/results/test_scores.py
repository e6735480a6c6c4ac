"""Scores of any origin as one value: read, kept, averaged by one rule, and kept apart where they must be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mmeb_harness import ResultError, UnknownNameError
from mmeb_harness.core.registry import benchmark_rows, load_tasks
from mmeb_harness.results.files import Aggregate, load_run_result
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.published import find_published, load_published
from mmeb_harness.results.scores import (
    Scores,
    TaskScore,
    check_comparable,
    load_scores,
    main_score,
    mean_scores,
    means_over,
    save_scores,
    scores_of_run,
)
from tests.harness.made_runs import PROFILE, benchmark_tasks, plain_rows, task_result, whole_run, write_run

REGISTERED = load_tasks()
PLAIN = Scores("a", "page-fixed", "imported", "somewhere", {"OK-VQA": TaskScore({"hit@1": 0.5}, 1000)})


def means(scores: Scores) -> tuple[Aggregate, ...]:
    return means_over(scores, benchmark_rows(REGISTERED.values()))


def test_scores_of_a_run_and_its_means(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    scores = scores_of_run(tmp_path / "run")
    assert (scores.name, scores.edition, scores.origin, scores.profile) == ("run", "page-fixed", "run", PROFILE)
    assert (scores.synthetic, scores.limited, scores.data_revision) == (False, False, "MMEB-V2 hub-2026")
    assert scores.tasks["MomentSeeker"].num_queries == 1602
    of_scores = [(mean.name, mean.score, mean.tasks, mean.missing) for mean in means(scores)]
    assert of_scores == [(mean.name, mean.score, mean.tasks, mean.missing) for mean in run.aggregates]


def test_means_of_some_tasks_are_incomplete_by_the_runs_own_rule(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [task_result(task) for task in benchmark_tasks()[::3]])
    for mean, stored in zip(means(scores_of_run(tmp_path / "run")), run.aggregates, strict=True):
        assert (mean.name, mean.score, mean.missing) == (stored.name, stored.score, stored.missing)


def test_a_modality_is_the_mean_over_its_tasks_not_its_groups() -> None:
    rows = plain_rows(("a", "image", "I-CLS"), ("b", "image", "I-CLS"), ("c", "image", "I-QA"), ("d", "video", "V-QA"))
    scores = {task: {"hit@1": score} for task, score in (("a", 0.0), ("b", 0.5), ("c", 1.0))}
    found = {mean.name: mean for mean in mean_scores(scores, rows)}
    assert (found["I-CLS"].score, found["image"].score, found["video"].score) == (0.25, 0.5, None)
    assert found["overall"].missing == ("d",)


def test_means_as_published_where_there_are_no_tasks() -> None:
    scores = dataclasses.replace(PLAIN, tasks={}, means={"overall": 0.7, "I-CLS": 0.6})
    found = {mean.name: mean for mean in means(scores)}
    assert (found["overall"].score, found["overall"].tasks, found["overall"].complete) == (0.7, 78, True)
    assert (found["video"].score, found["video"].complete) == (None, False)


def test_the_main_score() -> None:
    assert main_score(PLAIN, "OK-VQA", "hit@1") == 0.5
    assert main_score(PLAIN, "DocVQA", "hit@1") is None
    other = dataclasses.replace(PLAIN, tasks={"OK-VQA": TaskScore({"mrr@10": 0.5})})
    with pytest.raises(ResultError, match=r"a: OK-VQA has no hit@1, by which it is ranked \(somewhere\)"):
        main_score(other, "OK-VQA", "hit@1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "running"}, r"is not finished \(status 'running'\); the same command goes on"),
        ({"edition": "v2.0.0"}, r"OK-VQA\.json is not of the run in .*run the same command again"),
        ({"limit": 3}, r"OK-VQA\.json is not of the run"),
    ],
)
def test_what_is_no_finished_run(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    write_run(tmp_path / "run", [task_result(REGISTERED["OK-VQA"].task)], **changes)
    with pytest.raises(ResultError, match=message):
        scores_of_run(tmp_path / "run")


def test_a_folder_without_a_run_and_a_run_without_a_task(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"is not a run's folder \(no run.json\)"):
        scores_of_run(tmp_path)
    write_run(tmp_path / "run", [task_result(REGISTERED["OK-VQA"].task)])
    RunFolder(tmp_path / "run").task_file("OK-VQA").unlink()
    with pytest.raises(ResultError, match=r"can't read .*OK-VQA\.json"):
        scores_of_run(tmp_path / "run")


def test_round_trip(tmp_path: Path) -> None:
    whole_run(tmp_path / "run")
    for scores in (PLAIN, scores_of_run(tmp_path / "run"), load_published()[-20]):
        save_scores(tmp_path / "scores.json", scores)
        assert load_scores(tmp_path / "scores.json") == scores


def test_a_score_that_was_edited_is_not_believed(tmp_path: Path) -> None:
    save_scores(tmp_path / "s.json", PLAIN)
    there = json.loads((tmp_path / "s.json").read_text())
    (tmp_path / "s.json").write_text(json.dumps({**there, "name": "better"}))
    with pytest.raises(ResultError, match=r"s\.json was changed since .*; write it anew with `mmeb-eval import`"):
        load_scores(tmp_path / "s.json")


def test_a_file_from_before_a_profile_had_dimensions_is_read(tmp_path: Path) -> None:
    scores = dataclasses.replace(PLAIN, profile=PROFILE)
    stored = {name: value for name, value in dataclasses.asdict(scores).items() if name != "checksum"}
    del stored["profile"]["dimensions"], stored["profile"]["quantization"]
    (tmp_path / "scores.json").write_text(json.dumps(stored))
    assert load_scores(tmp_path / "scores.json") == scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 9}, "has schema version 9, this release reads up to 1: upgrade"),
        ({"schema_version": None}, "is not a scores file of this harness"),
        (
            {"origin": "hearsay"},
            r"scores file of schema version 1 \(origin must be one of run, imported, published, not 'hearsay'\)",
        ),
        ({"profile": {"name": "p"}}, r"is not a scores file of schema version 1 \(it lacks 'profile\.instruction'\)"),
        (
            {"more": 1},
            r"is not a scores file of schema version 1 \(no setting in it named 'more'\. Did you mean 'source'",
        ),
        (
            {"tasks": {"OK-VQA": 0.5}},
            r"\(tasks\.OK-VQA must be a mapping, not 0\.5\); write it anew with `mmeb-eval import`",
        ),
        (
            {"tasks": {"OK-VQA": {"metrics": [], "num_queries": 1, "corrected": None}}},
            r"tasks\.OK-VQA\.metrics must be a mapping, not \[\]",
        ),
        (
            {"tasks": {"OK-VQA": {"metrics": {"hit@1": "0.5"}, "num_queries": 1, "corrected": None}}},
            r"tasks\.OK-VQA\.metrics\.hit@1 must be float, not '0\.5'",
        ),
        ({"tasks": {"OK-VQA": {"metrics": {}, "num_queries": 1}}}, r"it lacks 'tasks\.OK-VQA\.corrected'"),
        (
            {"tasks": {"OK-VQA": {"metrics": {"hit@1": 1.5}, "num_queries": 1, "corrected": None}}},
            r"scores\.json: OK-VQA: hit@1 is 1\.5, expected a fraction in \[0, 1\]",
        ),
        ({"means": {"overall": float("nan")}}, r"means\.overall is nan, expected a finite number"),
    ],
)
def test_what_is_no_scores_file(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    values = {name: value for name, value in dataclasses.asdict(PLAIN).items() if name != "checksum"}
    (tmp_path / "scores.json").write_text(json.dumps({**values, **changes}))
    with pytest.raises(ResultError, match=message):
        load_scores(tmp_path / "scores.json")


def test_a_run_file_is_no_scores_file(tmp_path: Path) -> None:
    whole_run(tmp_path / "run")
    with pytest.raises(ResultError, match=r"name a run's folder, or a file that `mmeb-eval import` wrote"):
        load_scores(tmp_path / "run" / "run.json")
    assert load_run_result(tmp_path / "run" / "run.json").status == "finished"


OTHER = dataclasses.replace(PLAIN, name="b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edition": "v2.0.0"}, r"a is of page-fixed, b is of v2\.0\.0; .*go on with --allow-editions"),
        ({"edition": ""}, "b is of none"),
        ({"synthetic": True}, "b: scores of made-up data never stand beside MMEB-V2 scores"),
        ({"limited": True}, "b: scores of the first queries only .* run again without --limit"),
    ],
)
def test_what_never_stands_in_one_table(changes: dict[str, object], message: str) -> None:
    other = dataclasses.replace(OTHER, **changes)  # type: ignore[arg-type]
    with pytest.raises(ResultError, match=message):
        check_comparable([PLAIN, other], allow_editions=False)
    check_comparable([other], allow_editions=False)
    if "edition" in changes:
        check_comparable([PLAIN, other], allow_editions=True)
    else:
        with pytest.raises(ResultError, match=message):
            check_comparable([PLAIN, other], allow_editions=True)


def test_incomplete_scores_may_stand_in_a_table() -> None:
    check_comparable([PLAIN, dataclasses.replace(OTHER, tasks={})], allow_editions=False)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("m,page-fixed,OK-VQA,hit@1,1.2,readme,s", r"scores\.csv:2: OK-VQA is 1\.2, expected a fraction"),
        ("m,page-fixed,OK-VQA,hit@1,nan,readme,s", "OK-VQA is nan"),
        ("m,page-fixed,OK-VQA,hit@1,high,readme,s", "value 'high' is not a number"),
        ("m,page-fixed,OK-VQA,hit@1,0.2,gossip,s", "kind 'gossip' is none of v2.0.0"),
        ("m,v4,OK-VQA,hit@1,0.2,readme,s", "edition 'v4' is none of page-fixed"),
        ("m,page-fixed,OK-VQA,hits,0.2,readme,s", "no metric is named 'hits'"),
    ],
)
def test_a_published_row_that_cannot_be_used(row: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(f"model,edition,task,metric,value,kind,source\n{row}\n")
    with pytest.raises(ResultError, match=message):
        load_published(tmp_path / "scores.csv")


def test_published_files_and_names_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"can't read published scores .*--published-file"):
        load_published(tmp_path / "none.csv")
    (tmp_path / "scores.csv").write_text("model,score\nm,1\n")
    with pytest.raises(ResultError, match="expected columns model, edition, task"):
        load_published(tmp_path / "scores.csv")
    with pytest.raises(UnknownNameError, match="Did you mean 'Embed-RL-2B'"):
        find_published(load_published(), "Embed-RL2B")


def test_sets_of_one_model_are_told_apart_by_their_kind() -> None:
    of_v2 = [one for one in load_published() if one.edition == "page-fixed"]
    names = {one.name for one in of_v2 if one.name.startswith("Qwen3-VL-Embedding-8B")}
    assert names == {"Qwen3-VL-Embedding-8B", "Qwen3-VL-Embedding-8B@reproduction", "Qwen3-VL-Embedding-8B@readme"}


def test_benchmark_rows_are_the_same_in_every_edition() -> None:
    of_v2 = [benchmark_rows(load_tasks(edition).values()) for edition in ("page-fixed", "v2.0.0")]
    assert [row[:-1] for row in of_v2[0]] == [row[:-1] for row in of_v2[1]]
