"""Results come back as they were written; foreign and newer files are refused; means are over what they say."""

import dataclasses
import json
from pathlib import Path

import pytest

from mmeb_harness import Frames, Profile, ResultError
from mmeb_harness.results.files import (
    EncodeStats,
    TaskResult,
    aggregate,
    load_task_result,
    model_fingerprint,
    save_run_result,
    save_task_result,
    task_fingerprint,
)
from tests.harness.made_runs import plain_rows, run_result


def result(name: str, score: float, group: str = "I-CLS", modality: str = "image") -> TaskResult:
    return TaskResult(
        name=name,
        modality=modality,  # type: ignore[arg-type]
        group=group,
        metric="hit@1",
        score=score,
        corrected_score=score,
        random_ties_score=score,
        metrics={"hit@1": score},
        chance=0.1,
        num_queries=4,
        num_candidates=8,
        tied_decisions=0,
        limited=False,
        queries=EncodeStats(4, 4, 1.0, 2, 10, 1),
        candidates=EncodeStats(8, 6, 0.5),
        data_revision="r",
        fingerprint="f",
        edition="page-fixed",
        profile=Profile("p", pooling="mean", frames=Frames(64)),
        versions={"numpy": "2"},
        notes={"short clips": 1},
    )


def test_round_trip(tmp_path: Path) -> None:
    save_task_result(tmp_path / "a.json", result("a", 0.5))
    assert load_task_result(tmp_path / "a.json") == result("a", 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "is not a task's result of this harness; choose another --output"),
        ('{"hit@1": 0.5}', "is not a task's result of this harness"),
        ('{"schema_version": true}', "is not a task's result of this harness"),
        ('{"schema_version": 99}', r"has schema version 99, this release reads up to 2: upgrade"),
        (
            '{"schema_version": 2, "score": 1}',
            "is not a task's result of schema version 2 .it lacks 'name'.; run the same command again: that task is",
        ),
        ('{"schema_version": 1}', "was written by an older release"),
    ],
)
def test_foreign_newer_and_broken_files_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ResultError, match=message):
        load_task_result(tmp_path / "a.json")


def test_a_file_from_before_a_profile_had_dimensions_is_read(tmp_path: Path) -> None:
    save_task_result(tmp_path / "a.json", result("a", 0.5))
    stored = json.loads((tmp_path / "a.json").read_text())
    del stored["profile"]["dimensions"], stored["profile"]["quantization"], stored["checksum"]
    (tmp_path / "a.json").write_text(json.dumps(stored))
    assert load_task_result(tmp_path / "a.json") == result("a", 0.5)


def test_a_file_from_before_reuse_was_counted_is_read(tmp_path: Path) -> None:
    save_task_result(tmp_path / "a.json", result("a", 0.5))
    stored = json.loads((tmp_path / "a.json").read_text())
    del stored["queries"]["reused"], stored["candidates"]["reused"], stored["checksum"]
    (tmp_path / "a.json").write_text(json.dumps(stored))
    assert load_task_result(tmp_path / "a.json") == result("a", 0.5)


def test_what_was_computed_before_a_profile_had_dimensions_still_counts() -> None:
    """The fingerprints that release gave to this model and task."""
    profile = Profile("p", pooling="mean", frames=Frames(64))
    assert model_fingerprint("m", "1", 8, {"a": 1}, profile) == "8036723d8553ace1fa6889e1"
    about = {"data": "MMEB-V2", "synthetic": False, "data_revision": "r", "model": "f", "limit": None}
    assert task_fingerprint("t", "e", "hit@1", profile=profile, **about) == "c8d9bc8f2bdfeb208b145630"
    for change in ({"dimensions": 4}, {"quantization": "int8"}):
        other = dataclasses.replace(profile, **change)
        assert model_fingerprint("m", "1", 8, {"a": 1}, other) == "8036723d8553ace1fa6889e1"
        assert task_fingerprint("t", "e", "hit@1", profile=other, **about) != "c8d9bc8f2bdfeb208b145630"


def test_nan_never_reaches_a_file(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"score is nan, expected a finite number"):
        save_task_result(tmp_path / "a.json", result("a", float("nan")))
    assert not list(tmp_path.iterdir())


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    """A plugin's task may count in other types than ours."""
    odd = dataclasses.replace(result("a", 0.5), notes={"short clips": [1, 2]})  # type: ignore[dict-item]
    with pytest.raises(ResultError, match=r"is not written, .*notes\.short clips must be int, not \[1, 2\]"):
        save_task_result(tmp_path / "a.json", odd)
    run = run_result([], model_settings={"layers": [1, 2]})
    with pytest.raises(
        ResultError, match=r"is not written, .*model_settings\.layers must be str or int .*not \[1, 2\]"
    ):
        save_run_result(tmp_path / "run.json", run)
    assert not list(tmp_path.iterdir())


def test_a_changed_file_is_refused_unless_asked_for_as_it_stands(tmp_path: Path) -> None:
    saved = save_task_result(tmp_path / "a.json", result("a", 0.5))
    stored = json.loads((tmp_path / "a.json").read_text())
    assert stored["checksum"] == saved.checksum != ""
    (tmp_path / "a.json").write_text(json.dumps(stored, sort_keys=True))  # the same values, written otherwise
    assert load_task_result(tmp_path / "a.json") == saved
    (tmp_path / "a.json").write_text(json.dumps({**stored, "score": 0.75}))
    with pytest.raises(ResultError, match=r"was changed since .*; run the same command again: that task is computed"):
        load_task_result(tmp_path / "a.json")
    assert load_task_result(tmp_path / "a.json", as_it_stands=True).score == 0.75


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 2.5}, r"score is 2\.5, expected a fraction"),
        ({"chance": -0.1}, r"chance is -0\.1, expected a fraction"),
        ({"metrics": {"hit@1": 1.1}}, r"metrics\.hit@1 is 1\.1, expected a fraction"),
        ({"num_candidates": -1}, "num_candidates is -1, expected a number from 0 on"),
        ({"tied_decisions": 2**60}, "tied_decisions is 1152921504606846976, expected a number"),
        ({"queries": EncodeStats(seconds=-1.0)}, r"queries\.seconds is -1\.0, expected a number"),
        ({"notes": {"short clips": -1}}, r"notes\.short clips is -1, expected a number"),
    ],
)
def test_numbers_that_none_can_be(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    save_task_result(tmp_path / "a.json", dataclasses.replace(result("a", 0.5), **changes))  # type: ignore[arg-type]
    with pytest.raises(ResultError, match=message):
        load_task_result(tmp_path / "a.json")


def test_stats_add_up() -> None:
    total = EncodeStats(4, 3, 1.0, 2, 10, 1, 2, 4) + EncodeStats(6, 5, 3.0, 1, 2, 0, 1)
    assert dataclasses.astuple(total) == (10, 8, 4.0, 3, 12, 1, 3, 4)
    assert (total.reasoning_rate, total.items_per_second, total.tokens_per_reasoned) == (0.3, 2.0, 4.0)


def test_means_are_over_tasks_not_over_groups_and_name_what_is_missing() -> None:
    benchmark = plain_rows(
        ("a", "image", "I-CLS"), ("b", "image", "I-CLS"), ("c", "image", "I-QA"), ("d", "video", "V-QA")
    )
    results = [result("a", 0.0), result("b", 0.5), result("c", 1.0, "I-QA")]
    means = {one.name: one for one in aggregate(results, benchmark)}
    assert means["I-CLS"].score == 0.25
    assert means["image"].score == 0.5
    assert means["image"].complete
    assert not means["overall"].complete
    assert means["overall"].missing == ("d",)
    assert means["overall"].score == 0.5
    assert means["video"].score is None


def test_the_json_keys_are_the_field_names(tmp_path: Path) -> None:
    save_task_result(tmp_path / "a.json", result("a", 0.5))
    stored = json.loads((tmp_path / "a.json").read_text())
    assert list(stored) == [field.name for field in dataclasses.fields(TaskResult)]
