"""The submission file: the official form, from whole and real runs only; and back again."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mmeb_harness import OptionError, ResultError
from mmeb_harness.cli.scores import submit
from mmeb_harness.core.registry import BENCHMARK, load_model, load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.official import import_scores
from mmeb_harness.results.scores import scores_of_run
from mmeb_harness.results.submission import Metadata, validate_submission, write_submission
from mmeb_harness.run.plan import RunSettings
from tests.harness.made_runs import benchmark_tasks, task_result, whole_run, write_run
from tests.toy import evaluated

TASKS = benchmark_tasks()
REGISTERED = load_tasks()
METADATA = Metadata("m", "Qwen3-VL", "2B parameters", 2048, 8192, "2026-01-31", "Self-Reported", "https://example.org")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole run and its submission file."""
    folder = tmp_path_factory.mktemp("written")
    whole_run(folder / "run")
    assert write_submission(folder / "run", METADATA, folder / "m.json", TASKS) == []
    return folder


def test_the_official_form(written: Path) -> None:
    stored = json.loads((written / "m.json").read_text())
    assert list(stored) == ["metadata", "metrics"]
    assert list(stored["metadata"]) == [
        *("model_name", "model_backbone", "model_size", "embedding_dimension", "max_length_tokens"),
        *("model_release_date", "data_source", "url", "report_generated_date"),
    ]
    written_at = datetime.fromisoformat(stored["metadata"]["report_generated_date"])
    assert written_at.utcoffset() is not None
    assert abs((datetime.now(UTC) - written_at).total_seconds()) < 600
    assert [(name, len(tasks)) for name, tasks in stored["metrics"].items()] == [
        *(("image", 36), ("video", 18), ("visdoc", 24))
    ]
    result = task_result(REGISTERED["K700"].task)
    entry = stored["metrics"]["video"]["K700"]
    assert list(entry) == [*METRIC_NAMES, "num_pred", "num_data"]
    assert entry == {**result.metrics, "num_pred": 1000, "num_data": 1000}


@pytest.mark.parametrize(
    ("edition", "keys"),
    [
        ("page-fixed", {"ViDoSeek-page-fixed", "MMLongBench-page-fixed"}),
        ("v2.0.0", {"ViDoSeek-page", "MMLongBench-page"}),
    ],
)
def test_keys_and_counts_of_each_edition(edition: str, keys: set[str], tmp_path: Path) -> None:
    whole_run(tmp_path / "run", edition)
    write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", benchmark_tasks(edition))
    metrics = json.loads((tmp_path / "m.json").read_text())["metrics"]
    assert {key for key in metrics["visdoc"] if "-page" in key} == keys
    assert metrics["video"]["MomentSeeker"]["num_data"] == {"page-fixed": 1602, "v2.0.0": 1800}[edition]


@pytest.mark.parametrize("edition", ["page-fixed", "v2.0.0"])
def test_submitted_and_imported_again(edition: str, tmp_path: Path) -> None:
    whole_run(tmp_path / "run", edition)
    write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", benchmark_tasks(edition))
    own, back = scores_of_run(tmp_path / "run"), import_scores(tmp_path / "m.json", REGISTERED.values())
    reasons = "a submission with the key ViDoSeek-page is of the unfixed pages; MomentSeeker has 1800 queries"
    notes = () if edition == "page-fixed" else (f"edition v2.0.0: {reasons}",)
    assert (back.name, back.edition, back.notes) == ("m", edition, notes)
    assert list(back.tasks) == list(own.tasks)
    for task, score in own.tasks.items():
        assert (back.tasks[task].metrics, back.tasks[task].num_queries) == (score.metrics, score.num_queries)


@pytest.mark.slow
def test_a_real_run_of_real_data_would_do(cache: Path, tmp_path: Path) -> None:
    """The mini suite, passed off as real in a copy of its description, with tasks that declare its counts."""
    info = dataclasses.replace(describe(cache / "mini-v1-seed0"), synthetic=False, name="MMEB-V2", revision="unpinned")
    registered = {
        name: dataclasses.replace(
            one,
            task=dataclasses.replace(one.task, num_queries=info.num_queries[name], num_candidates=None, recognise=None),
        )
        for name, one in REGISTERED.items()
        if one.collection == BENCHMARK
    }
    settings = RunSettings(tmp_path / "run", edition="page-fixed")
    model = load_model("random", {}, {})
    evaluated(model, list(registered.values()), registered, info, settings)
    tasks = [one.task for one in registered.values()]
    warnings = write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", tasks)
    assert [line.split(":")[0] for line in warnings] == ["the data's revision is unpinned"]
    back, own = import_scores(tmp_path / "m.json", registered.values()), scores_of_run(tmp_path / "run")
    assert {name: one.metrics for name, one in back.tasks.items()} == {
        name: one.metrics for name, one in own.tasks.items()
    }
    assert (back.edition, back.notes) == ("page-fixed", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "running"}, "is not finished"),
        ({"data_synthetic": True}, "run is of synthetic data; only scores of the real MMEB-V2 can be submitted"),
    ],
)
def test_runs_that_cannot_be_submitted(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    whole_run(tmp_path / "run", **changes)
    with pytest.raises(ResultError, match=message):
        write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", TASKS)
    assert not (tmp_path / "m.json").exists()


def test_a_limited_run_cannot_be_submitted(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [task_result(task, limited=True) for task in TASKS], limit=5)
    with pytest.raises(ResultError, match="run is limited to 5 queries a task; run again without --limit"):
        write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", TASKS)


def test_an_incomplete_run_names_what_is_missing(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [task_result(task) for task in TASKS if task.name not in ("GQA", "VATEX")])
    with pytest.raises(ResultError, match="run is incomplete, 2 of 78 tasks are missing: GQA, VATEX; run them"):
        write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", TASKS)


def test_another_number_of_queries_than_declared(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [task_result(task, num_queries=998) for task in TASKS])
    with pytest.raises(ResultError, match="ImageNet-1K: num_pred is 998, the task has 1000 queries"):
        write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", TASKS)


def test_tasks_of_another_edition(tmp_path: Path) -> None:
    whole_run(tmp_path / "run")
    with pytest.raises(ResultError, match=r"run is of edition page-fixed, the tasks are of v2\.0\.0"):
        write_submission(tmp_path / "run", METADATA, tmp_path / "m.json", benchmark_tasks("v2.0.0"))


def drop(*path: str) -> Callable[[dict[str, Any]], object]:
    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        del values[path[-1]]

    return change


def put(value: object, *path: str) -> Callable[[dict[str, Any]], object]:
    def change(values: dict[str, Any]) -> None:
        for key in path[:-1]:
            values = values[key]
        values[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (drop("metadata", "url"), ResultError, "metadata: missing: url"),
        (drop("metrics", "video"), ResultError, "metrics: missing: video"),
        (drop("metrics", "video", "K700"), ResultError, "video: missing: K700"),
        (drop("metrics", "image", "GQA", "f1@5"), ResultError, "GQA: missing: f1@5"),
        (put({}, "metrics", "video", "Kinetics-700"), ResultError, "video: unknown: Kinetics-700"),
        (put("FILE_N/A", "metrics", "image", "GQA"), ResultError, "GQA is 'FILE_N/A', expected hit@1"),
        (put(80.1, "metrics", "image", "GQA", "hit@1"), ResultError, r"GQA: hit@1 is 80\.1, expected a fraction"),
        (put("0.5", "metrics", "image", "GQA", "hit@1"), ResultError, r"GQA: hit@1 is '0\.5', expected a fraction"),
        (put(float("nan"), "metrics", "image", "GQA", "mrr@1"), ResultError, "GQA: mrr@1 is nan"),
        (put(1001, "metrics", "image", "GQA", "num_data"), ResultError, "num_data is 1001, the task has 1000"),
        (put("", "metadata", "url"), OptionError, "--url must be given"),
        (
            put("2048", "metadata", "embedding_dimension"),
            OptionError,
            "embedding_dimension is '2048', expected a whole",
        ),
        (put(0, "metadata", "max_length_tokens"), OptionError, "--max-length-tokens must be given"),
        (put("Me", "metadata", "data_source"), OptionError, "data_source is 'Me', not Self-Reported or TIGER-Lab"),
        (put("May 2026", "metadata", "model_release_date"), OptionError, "model_release_date 'May 2026' is not a date"),
    ],
)
def test_what_is_no_submission(
    written: Path, change: Callable[[dict[str, Any]], object], error: type[Exception], message: str
) -> None:
    stored = json.loads((written / "m.json").read_text())
    validate_submission(stored, TASKS)
    spoilt = copy.deepcopy(stored)
    change(spoilt)
    with pytest.raises(error, match=message):
        validate_submission(spoilt, TASKS)


def test_keys_out_of_the_official_order(written: Path) -> None:
    stored = json.loads((written / "m.json").read_text())
    entry = stored["metrics"]["image"]["GQA"]
    stored["metrics"]["image"]["GQA"] = dict(reversed(entry.items()))
    with pytest.raises(ResultError, match="GQA: keys are out of order"):
        validate_submission(stored, TASKS)


OPTIONS = (
    *("--model-backbone", "b", "--model-size", "2B", "--embedding-dimension", "8", "--max-length-tokens", "99"),
    *("--model-release-date", "2026-01-31", "--url", "https://example.org"),
)


def test_the_command(tmp_path: Path) -> None:
    whole_run(tmp_path / "run", data_revision="unpinned")
    output = tmp_path / "m.json"
    done = CliRunner().invoke(submit, [str(tmp_path / "run"), "--output", str(output), *OPTIONS])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("warning: the data's revision is unpinned")
    assert done.stdout == f"78 tasks, edition page-fixed: {output}\n"
    metadata = json.loads(output.read_text())["metadata"]
    assert (metadata["model_name"], metadata["data_source"]) == ("made", "Self-Reported")
    refused = CliRunner().invoke(
        submit, [str(tmp_path / "run"), "--output", str(output), *OPTIONS, "--data-source", "x"]
    )
    assert refused.exit_code == 2
