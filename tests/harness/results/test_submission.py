"""The submission file: the official form, from whole and real runs only; and back again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmeb_harness import OptionError, ResultError
from mmeb_harness.cli.scores import export, submit
from mmeb_harness.core.registry import BENCHMARK, load_model, load_tasks
from mmeb_harness.data.folder import describe
from mmeb_harness.exchange.official import export_official
from mmeb_harness.ranking.metrics import METRIC_NAMES
from mmeb_harness.results.official import import_scores
from mmeb_harness.results.scores import Scores, scores_of_run
from mmeb_harness.results.submission import Metadata, check_metadata, write_submission
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
    own, back = scores_of_run(tmp_path / "run"), import_scores(tmp_path / "m.json", REGISTERED.values(), ())
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
    back, own = import_scores(tmp_path / "m.json", registered.values(), ()), scores_of_run(tmp_path / "run")
    assert {name: one.metrics for name, one in back.tasks.items()} == {
        name: one.metrics for name, one in own.tasks.items()
    }
    assert (back.edition, back.notes) == ("page-fixed", ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "running"}, "is not finished"),
        ({"data_synthetic": True}, "run is of synthetic data; only scores of real data can be handed on"),
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


def test_a_metric_that_lacks_or_is_no_fraction(tmp_path: Path) -> None:
    whole = dict.fromkeys(METRIC_NAMES, 0.5)
    cases: list[tuple[dict[str, float], str]] = [
        ({name: 0.5 for name in METRIC_NAMES if name != "f1@5"}, "GQA: missing: f1@5"),
        ({**whole, "hit@1": 80.1}, r"GQA\.json .*metrics\.hit@1 is 80\.1, expected a fraction"),
        ({**whole, "mrr@1": -0.5}, r"GQA\.json .*metrics\.mrr@1 is -0\.5, expected a fraction"),
    ]
    for number, (metrics, message) in enumerate(cases):
        spoilt = [task_result(task, **({"metrics": metrics} if task.name == "GQA" else {})) for task in TASKS]
        write_run(tmp_path / f"run{number}", spoilt)
        with pytest.raises(ResultError, match=message):
            write_submission(tmp_path / f"run{number}", METADATA, tmp_path / "m.json", TASKS)
    assert not (tmp_path / "m.json").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("url", "", "--url must be given"),
        ("url", " ", "--url must be given"),
        ("max_length_tokens", 0, "--max-length-tokens must be given"),
        ("embedding_dimension", -1, "embedding_dimension is -1, expected a whole number above 0"),
        ("model_release_date", "May 2026", "model_release_date 'May 2026' is not a date"),
    ],
)
def test_metadata_that_say_nothing(field: str, value: object, message: str) -> None:
    check_metadata(METADATA, "page-fixed")
    with pytest.raises(OptionError, match=message):
        check_metadata(dataclasses.replace(METADATA, **{field: value}), "page-fixed")  # type: ignore[arg-type]


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


METADATA_V3 = dataclasses.replace(METADATA, model_size="2.1", contact="m@example.org")
V3_TASKS = benchmark_tasks("v3")
SOUNDS = {task.name: ("audio",) for task in V3_TASKS if task.modality == "audio"}


@pytest.fixture(scope="module")
def of_v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MMEB-V3 of a model that takes no sound."""
    folder = tmp_path_factory.mktemp("of_v3") / "run"
    done = [task_result(task) for task in V3_TASKS if task.name not in SOUNDS]
    write_run(folder, done, edition="v3", unsupported=SOUNDS)
    return folder


def values(scores: Scores) -> dict[str, tuple[Mapping[str, float], int | None]]:
    return {name: (score.metrics, score.num_queries) for name, score in scores.tasks.items()}


def test_a_submission_of_mmeb_v3(of_v3: Path, tmp_path: Path) -> None:
    """Eight modalities, names by their last part, what the model can't take as a score that is missing."""
    warnings = write_submission(of_v3, METADATA_V3, tmp_path / "m.json", V3_TASKS)
    assert warnings[-1].startswith("FILE_N/A, since the model can't take them: NSynth, ")
    stored = json.loads((tmp_path / "m.json").read_text())
    assert list(stored["metadata"])[-3:] == ["url", "contact", "report_generated_date"]
    counts = {"image": 37, "video": 18, "visdoc": 24, "audio": 11, "text": 53, "tool": 35, "gui": 8, "memory": 4}
    assert {modality: len(tasks) for modality, tasks in stored["metrics"].items()} == counts
    assert list(counts) == list(stored["metrics"])
    assert list(stored["metrics"]["text"]["biology"])[-3:] == ["mrr", "num_pred", "num_data"]
    assert set(stored["metrics"]["audio"].values()) == {"FILE_N/A"}
    assert "ViDoSeek-page-fixed" in stored["metrics"]["visdoc"]
    back = import_scores(tmp_path / "m.json", REGISTERED.values(), load_tasks("v3").values())
    assert (back.edition, values(back)) == ("v3", values(scores_of_run(of_v3)))


def test_score_files_in_the_official_layout(of_v3: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(export, [str(of_v3), "--official", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"score files of 179 tasks: {tmp_path / 'out'}\n"
    assert done.stderr.startswith("score files don't say on which pages ViDoSeek-page and MMLongBench-page are")
    assert (tmp_path / "out" / "text" / "MultiConIR" / "Legal Document_score.json").is_file()
    back = import_scores(tmp_path / "out", REGISTERED.values(), load_tasks("v3").values(), edition="v3")
    assert values(back) == values(scores_of_run(of_v3))
    with pytest.raises(ResultError, match=r"ImageNet-1K_score\.json is there already; delete it"):
        export_official(of_v3, tmp_path / "out", load_tasks("v3"))


@pytest.mark.parametrize(
    ("changes", "edition", "message"),
    [
        ({"model_size": "2B"}, "v3", "model_size is '2B'; MMEB-V3's file takes digits only"),
        ({"contact": ""}, "v3-unfixed", "--contact must be given"),
        ({}, "page-fixed", "--contact 'm@example.org' is given, but MMEB-V2's file has no place for it"),
    ],
)
def test_metadata_of_each_benchmark(changes: dict[str, str], edition: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        check_metadata(dataclasses.replace(METADATA_V3, **changes), edition)
