"""A run is what its rankings say; whatever is doctored, lost or cut short is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from mmeb_harness import ResultError
from mmeb_harness.cli.scores import verify
from mmeb_harness.core.files import read_parquet, write_parquet
from mmeb_harness.core.registry import load_tasks
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.recomputed import summary
from mmeb_harness.results.verify import verify_run
from tests.harness.made_runs import mini_run
from tests.harness.run.test_evaluate import run_toy
from tests.toy import registered, toy_task, write_toy

NAMES = ("OK-VQA", "ViDoSeek-doc", "MSR-VTT", "Breakfast")
REGISTERED = load_tasks()


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "run"
    mini_run(cache, folder, NAMES)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def failures(run: Path) -> dict[str, str]:
    return {one.name: "; ".join(one.problems) for one in verify_run(run, REGISTERED) if not one.passed}


def test_a_run_as_it_was_written(finished: Path) -> None:
    outcomes = verify_run(finished, REGISTERED)
    in_order = [name for name in REGISTERED if name in NAMES]
    assert [one.name for one in outcomes] == [*in_order, "run.json"]
    assert all(one.passed for one in outcomes)
    assert max(one.difference for one in outcomes) < 1e-12


def test_every_kind_of_toy_task(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_toy(tmp_path / "data", "one", num_queries=9, num_candidates=150)  # deeper than what is stored
    write_toy(tmp_path / "data", "two", pooled=False)
    run_toy(tmp_path / "data", tmp_path / "run")
    outcomes = verify_run(tmp_path / "run", registered(toy_task("one"), toy_task("two")))
    assert [(outcome.name, outcome.problems) for outcome in outcomes] == [("one", []), ("two", []), ("run.json", [])]


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("score",), 0.9, "score is 0.9, recomputed"),
        (("corrected_score",), 0.9, "corrected_score is 0.9, recomputed"),
        (("random_ties_score",), 0.9, "random_ties_score is 0.9, recomputed"),
        (("chance",), 0.9, "chance is 0.9, recomputed"),
        (("metrics", "map@10"), 0.9, "metrics: map@10 is 0.9, recomputed"),
        (("num_queries",), 25, "num_queries is 25, recomputed 24"),
        (("num_candidates",), 3, "num_candidates is 3, recomputed"),
        (("tied_decisions",), 9999, "tied_decisions is 9999, recomputed"),
        (("queries", "reasoned"), 3, "queries: reasoned is 3, recomputed 0"),
        (("metric",), "hit@1", "is not of the run in"),
        (("metric",), "mrr@10", "metric must be one of hit@1, ndcg_linear@5, not 'mrr@10'"),
        (("data_revision",), "other", "is not of the run in"),
        (("fingerprint",), "f", "is not of the run in"),
        (("group",), "I-VG", "modality and group is ('visdoc', 'I-VG')"),
        (("edition",), "v2.0.0", "is not of the run in"),
        (("schema_version",), 99, "has schema version 99"),
    ],
)
def test_a_doctored_task_file(run: Path, keys: tuple[str, ...], value: object, message: str) -> None:
    def change(stored: Any) -> None:
        for key in keys[:-1]:
            stored = stored[key]
        stored[keys[-1]] = value

    edit_json(RunFolder(run).task_file("ViDoSeek-doc"), change)
    found = failures(run)
    assert message in found["ViDoSeek-doc"]
    assert found.keys() <= {"ViDoSeek-doc", "run.json"}


def test_a_score_doctored_everywhere_in_the_json(run: Path) -> None:
    """Even if a task's file and run.json agree, the rankings contradict."""

    def change(stored: Any) -> None:
        stored["score"] = stored["corrected_score"] = stored["metrics"]["hit@1"] = 1.0

    edit_json(RunFolder(run).task_file("OK-VQA"), change)
    assert set(failures(run)) == {"OK-VQA", "run.json"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("overall", {"score": 0.9}, "overall: score is 0.9, recomputed"),
        ("I-QA", {"chance": 0.9}, "I-QA: chance is 0.9, recomputed"),
        ("image", {"missing": []}, "image: missing is (), recomputed ('ImageNet-1K'"),
        ("V-CLS", {"tasks": 5}, "V-CLS: tasks is 5, recomputed 1"),
        ("I-CLS", {"score": 0.5}, "I-CLS: score is 0.5, recomputed None"),
        ("I-VG", {"name": "I-XX"}, "names of aggregates is"),
    ],
)
def test_a_doctored_aggregate(run: Path, name: str, change: dict[str, object], message: str) -> None:
    edit_json(
        run / "run.json", lambda stored: next(one for one in stored["aggregates"] if one["name"] == name).update(change)
    )
    found = failures(run)
    assert set(found) == {"run.json"}
    assert message in found["run.json"]


def test_doctored_sums_of_the_run(run: Path) -> None:
    edit_json(run / "run.json", lambda stored: stored["queries"].update(reasoned=5))
    assert failures(run) == {"run.json": "queries: reasoned is 5, recomputed 0"}


def edit_table(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    table = read_parquet(path)
    rows = table.to_pylist()
    change(rows)
    write_parquet(path, pa.Table.from_pylist(rows, table.schema))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "num_queries is 24, recomputed 23"),
        (lambda rows: rows[1].update(query_id=rows[0]["query_id"]), "number of distinct query_id is 23"),
        (lambda rows: rows[0].update(score=0.123), "score is 0.123, recomputed"),
        (lambda rows: rows[0].update(corrected_score=0.123), "corrected_score is 0.123, recomputed"),
        (lambda rows: rows[0].update(random_ties_score=0.123), "random_ties_score is"),
        (lambda rows: rows[0].update(chance=0.123), "chance is"),
        (lambda rows: rows[0].update(first_relevant_rank=99), "first_relevant_rank is 99, recomputed"),
        (lambda rows: rows[0].update(top_ids=rows[0]["top_ids"][::-1]), "recomputed"),
        (lambda rows: rows[0].update(top_scores=rows[0]["top_scores"][::-1]), "its scores don't decrease"),
        (lambda rows: rows[0].update(top_ids=rows[0]["top_ids"][:5]), "number of places is 5"),
        (lambda rows: rows[0].update(relevant_gains=rows[0]["relevant_gains"] * 2), "number of gains is"),
        (lambda rows: rows[0].update(tied_decisions=4), "tied_decisions is 4, recomputed"),
        (lambda rows: rows[0].update(score=None), "has rows without score; run again with --fresh"),
        (lambda rows: rows[0].update(top_ids=[None, *rows[0]["top_ids"][1:]]), "has rows without top_ids"),
        (lambda rows: rows[0].update(score=float("nan")), "score is nan, recomputed"),
        (lambda rows: rows.clear(), "num_queries is 24, recomputed 0"),
    ],
)
def test_a_doctored_table(run: Path, change: Callable[[list[dict[str, Any]]], object], message: str) -> None:
    edit_table(RunFolder(run).queries_file("ViDoSeek-doc"), change)
    found = failures(run)
    assert set(found) == {"ViDoSeek-doc"}
    assert message in found["ViDoSeek-doc"]


def test_a_candidate_that_is_gone(run: Path) -> None:
    edit_table(RunFolder(run).candidates_file("MSR-VTT"), lambda rows: rows.pop())
    assert "num_candidates is" in failures(run)["MSR-VTT"]


def test_a_column_that_is_gone_or_of_another_type(run: Path) -> None:
    path = RunFolder(run).queries_file("MSR-VTT")
    table = read_parquet(path)
    words = pa.array(["x"] * table.num_rows)
    write_parquet(path, table.set_column(table.column_names.index("score"), "score", words).drop_columns(["top_ids"]))
    assert "lacks score (double), top_ids (list of string); run again with --fresh" in failures(run)["MSR-VTT"]


@pytest.mark.parametrize("which", ["queries_file", "candidates_file", "task_file"])
def test_files_that_are_missing_or_broken(run: Path, which: str) -> None:
    missing, broken = (getattr(RunFolder(run), which)(name) for name in ("OK-VQA", "MSR-VTT"))
    missing.unlink()
    broken.write_bytes(broken.read_bytes()[:100])
    found = failures(run)
    assert {"OK-VQA", "MSR-VTT"} <= set(found)
    assert "is missing" in found["OK-VQA"] or "can't read" in found["OK-VQA"]
    assert "Breakfast" not in found


def test_what_is_no_finished_run(run: Path) -> None:
    edit_json(run / "run.json", lambda stored: stored.update(status="running"))
    with pytest.raises(ResultError, match="is not finished"):
        verify_run(run, REGISTERED)


def test_the_command(run: Path) -> None:
    done = CliRunner().invoke(verify, [str(run)])
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == ["ok"] * 5 + [f"{run}:"]
    assert "largest difference" in done.output
    edit_json(RunFolder(run).task_file("OK-VQA"), lambda stored: stored.update(score=0.9))
    done = CliRunner().invoke(verify, [str(run)])
    assert done.exit_code == 1
    assert "FAIL  OK-VQA" in done.output
    assert done.output.splitlines()[-1] == f"{run}: 2 of 5 parts failed"


def test_many_problems_are_cut_short() -> None:
    assert summary(["a", "b"]) == "a; b"
    assert summary(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def edit_queries(run: Path, task: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = RunFolder(run).queries_file(task)
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def test_ids_that_are_no_candidates(run: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0]["top_ids"][0] = "nonsense"
        rows[1]["relevant_ids"] = ["nonsense"]

    edit_queries(run, "ViDoSeek-doc", change)
    found = failures(run)["ViDoSeek-doc"]
    assert "'nonsense' is ranked and is no candidate" in found
    assert "answers that are no option is 0, recomputed 1" in found


def test_one_page_at_every_place(run: Path) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["top_ids"] = row["relevant_ids"][:1] * len(row["top_ids"])

    edit_queries(run, "ViDoSeek-doc", change)
    assert "a candidate is ranked twice" in failures(run)["ViDoSeek-doc"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "better"), ("data_synthetic", False), ("limit", 3), ("model_settings", {}), ("data", "MMEB-V2")],
)
def test_a_run_file_that_was_changed_by_hand(run: Path, key: str, value: object) -> None:
    """Not against forgery: against results of another model, setting or data that end up beside each other."""
    edit_json(RunFolder(run).run_file, lambda stored: stored.__setitem__(key, value))
    if key in ("model", "model_settings"):
        with pytest.raises(ResultError, match="were changed by hand"):
            failures(run)
        return
    found = failures(run)
    assert all("is not of the run in" in found[name] for name in NAMES)
