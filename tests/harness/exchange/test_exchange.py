"""Runs in other people's forms: what is written, what is refused, and what comes back.

`python -m tests.peers_read` has the forms read by mteb, the hub's client and Every Eval Ever themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from huggingface_hub import parse_eval_result_entries

from mmeb_harness import ResultError
from mmeb_harness.cli.scores import export, import_scores
from mmeb_harness.core.errors import HarnessError
from mmeb_harness.core.reading import parse_yaml
from mmeb_harness.core.registry import RegisteredTask, load_tasks
from mmeb_harness.exchange.every_eval_ever import Evaluator, export_every_eval_ever
from mmeb_harness.exchange.handed import hand_on
from mmeb_harness.exchange.mteb import MTEB_TASKS, import_mteb, mteb_folder
from mmeb_harness.results.files import EncodeStats
from mmeb_harness.results.scores import scores_of_run
from mmeb_harness.run.plan import RunSettings
from tests.harness.made_runs import benchmark_tasks, task_result, whole_run, write_run
from tests.toy import HashEmbedder, evaluated, info_of, toy_task, write_toy

REGISTERED = load_tasks()
STARTED = "2026-11-29T20:24:18+00:00"
QUERIES = EncodeStats(items=100, encoded=100, reasoned=44, reasoning_tokens=880)
MODEL = {"checkpoint": "org/m", "reasoning": "adaptive"}


def called(*arguments: object) -> tuple[str, str]:
    """What `export` prints; of a refusal its message."""
    done = CliRunner().invoke(export, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        assert isinstance(done.exception, HarnessError), done.exception
        return "", str(done.exception)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    whole_run(folder, model_settings=MODEL, started=STARTED, queries=QUERIES)
    return folder


@pytest.mark.parametrize("edition", ["page-fixed", "v2.0.0"])
def test_mteb_files_come_back_whole(edition: str, tmp_path: Path) -> None:
    whole_run(tmp_path / "run", edition, model_settings=MODEL, started=STARTED)
    printed, said = called(tmp_path / "run", "--mteb", tmp_path / "out")
    folder = tmp_path / "out" / "org__m" / "1"
    assert printed == f"78 tasks: {folder}\n"
    assert said == "66 tasks (ImageNet-1K …) aren't in mteb: it reads them, but has no board for them\n"
    names = {path.stem for path in folder.iterdir()}
    one_to_one = {name for name, subsets in MTEB_TASKS.values() if len(subsets) == 1}
    assert names == {
        *one_to_one,
        "model_meta",
        *(f"mmeb-v2-{task}" for task in REGISTERED if task in _benchmark() and not _is_in_mteb(task)),
    }
    own, back = scores_of_run(tmp_path / "run"), import_mteb(mteb_folder(tmp_path / "out"), REGISTERED.values())
    assert (back.name, back.edition, back.notes, back.tasks) == ("org/m", edition, (), own.tasks)
    stored = json.loads((folder / "Vidore2ESGReportsHLRetrieval.json").read_text())
    result = task_result(REGISTERED["ViDoRe_esg_reports_human_labeled_v2"].task)
    (scores,) = stored["scores"]["test"]
    assert scores["main_score"] == scores["ndcg_at_5"] == result.corrected_score
    assert (stored["mteb_version"], stored["date"], scores["hf_subset"]) == (None, 1795983858.0, "default")


def test_mteb_files_of_mmeb_v3(tmp_path: Path) -> None:
    """Names with a slash come back; the hub's entries name that benchmark's data set."""
    names = ("GQA", "text/BRIGHT/aops", "text/MultiConIR/Legal Document", "TUTSound(hard)")
    results = [task_result(task) for task in benchmark_tasks("v3") if task.name in names]
    write_run(tmp_path / "run", results, edition="v3")
    called(tmp_path / "run", "--mteb", tmp_path / "out", "--hub", tmp_path / "hub.yaml", "--model-name", "a/b")
    registered = {**load_tasks("v3"), **REGISTERED}
    back = import_mteb(mteb_folder(tmp_path / "out"), registered.values())
    assert (back.edition, back.notes) == ("v3", ())
    files = {path.stem for path in mteb_folder(tmp_path / "out")[0].parent.iterdir()}
    assert files == {
        "model_meta",
        "mmeb-v3-GQA",
        "mmeb-v3-text_BRIGHT_aops",
        "mmeb-v3-TUTSound(hard)",
        "mmeb-v3-text_MultiConIR_Legal_Document",
    }
    assert dict(back.tasks) == dict(scores_of_run(tmp_path / "run").tasks)
    entries = parse_eval_result_entries(parse_yaml((tmp_path / "hub.yaml").read_text()))
    assert {entry.dataset_id for entry in entries} == {"VLM2Vec/MMEB-V3"}


def _benchmark() -> set[str]:
    return {task.name for task in benchmark_tasks()}


def _is_in_mteb(task: str) -> bool:
    return task in MTEB_TASKS and len(MTEB_TASKS[task][1]) == 1


def test_variants_stand_beside_the_model_itself(run: Path, tmp_path: Path) -> None:
    called(run, "--mteb", tmp_path / "out", "--model-name", "a/b")
    whole_run(tmp_path / "never", model_settings={"reasoning": "never"})
    called(tmp_path / "never", "--mteb", tmp_path / "out", "--model-name", "a/b")
    meta = tmp_path / "out/a__b/1/experiments/reasoning_never/model_meta.json"
    assert json.loads(meta.read_text())["experiment_kwargs"] == {"reasoning": "never"}
    with pytest.raises(
        ResultError, match=r"several models, revisions or variants \(1, 1/experiments/reasoning_never\)"
    ):
        mteb_folder(tmp_path / "out" / "a__b")
    assert len(mteb_folder(meta.parent)) == 78
    done = CliRunner().invoke(import_scores, [str(meta.parent), "--output", str(tmp_path / "scores.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "scores.json").read_text())["name"] == "a/b"


def mteb_file(folder: Path, name: str, scores: dict[str, float], file: str = "") -> Path:
    """As mteb writes it, as far as it is read."""
    rows = [{"hf_subset": subset, "main_score": score, "languages": []} for subset, score in scores.items()]
    path = folder / f"{file or name}.json"
    path.write_text(json.dumps({"task_name": name, "mteb_version": "2.26.24", "scores": {"test": rows}}))
    return path


def test_files_of_mteb_itself(tmp_path: Path) -> None:
    (tmp_path / "model_meta.json").write_text(json.dumps({"name": "them/theirs", "revision": "x"}))
    languages = {"french": 0.5, "german": 0.25, "english": 0.75, "spanish": 0.1}
    mteb_file(tmp_path, "Vidore2EconomicsReportsRetrieval", languages)
    mteb_file(tmp_path, "SUN397", {"default": 0.9})
    scores = import_mteb(mteb_folder(tmp_path), REGISTERED.values())
    assert {task: score.metrics for task, score in scores.tasks.items()} == {
        "ViDoRe_economics_reports_v2_multilingual": {"ndcg_linear@5": 0.4}
    }
    assert scores.name == "them/theirs"
    assert scores.notes == (
        "kept out, no tasks of the benchmark: SUN397",
        "number of queries unstated: ViDoRe_economics_reports_v2_multilingual",
        "edition page-fixed assumed: mteb's files don't say",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda at: mteb_file(at, "Vidore2ESGReportsRetrieval", {"french": 1.0}), "no subset english, german, spanish"),
        (
            lambda at: mteb_file(at, "VidoreDocVQARetrieval", {"default": 1.5}),
            r"main_score is 1\.5, expected a fraction",
        ),
        (lambda at: mteb_file(at, "VidoreDocVQARetrieval", {"default": 1.0}, "copy"), "ViDoRe_docvqa is there twice"),
        (lambda at: mteb_file(at, "mmeb-v2-GQA", {"default": 0.5}), "hit@1 is missing, the task's main metric"),
        (lambda at: (at / "VidoreDocVQARetrieval.json").write_text("{"), "is not valid JSON .*; get the file again"),
        (lambda at: (at / "x.json").write_text("{}"), "is no result of mteb's"),
        (lambda at: (at / "model_meta.json").write_text("{}"), "names no model; give --name"),
        (
            lambda at: mteb_file(at, "SUN397", {"default": 1.0}, "VidoreDocVQARetrieval"),
            "none of its 1 results is of a",
        ),
    ],
)
def test_broken_files_of_mteb(change: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_meta.json").write_text(json.dumps({"name": "a/b"}))
    mteb_file(tmp_path, "VidoreDocVQARetrieval", {"default": 0.5})
    change(tmp_path)  # type: ignore[operator]
    with pytest.raises(ResultError, match=message):
        import_mteb(mteb_folder(tmp_path), REGISTERED.values())


def test_the_hubs_results(run: Path, tmp_path: Path) -> None:
    printed, said = called(run, "--hub", tmp_path / "mmeb-v2.yaml", "--url", "https://example.org")
    assert (printed, said) == (f"evaluation results: {tmp_path / 'mmeb-v2.yaml'}\n", "")
    entries = parse_eval_result_entries(parse_yaml((tmp_path / "mmeb-v2.yaml").read_text()))
    assert [entry.task_id for entry in entries][:4] == ["overall", "image", "video", "visdoc"]
    assert len(entries) == 1 + 3 + 12 + 78
    assert {(entry.dataset_id, entry.notes, entry.date, entry.source_url) for entry in entries} == {
        ("TIGER-Lab/MMEB-V2", "adaptive, 44 % reasoned", STARTED, "https://example.org")
    }
    by_task = {entry.task_id: entry.value for entry in entries}
    assert by_task["GQA"] == pytest.approx(100 * task_result(REGISTERED["GQA"].task).score, abs=1e-6)
    assert called(run, "--hub", tmp_path / "mmeb-v2.yaml")[1].endswith(
        "mmeb-v2.yaml is there already; delete it, or name another place"
    )
    assert "is no YAML file; name one" in called(run, "--hub", tmp_path)[1]


def test_the_hub_gets_no_mean_over_some_tasks(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [task_result(task) for task in benchmark_tasks() if task.name != "GQA"])
    _, said = called(tmp_path / "run", "--hub", tmp_path / "m.yaml", "--model-name", "a/b")
    lost = (
        "overall, image, I-QA: left out, 1 of the benchmark's tasks are missing (GQA); run them into the same folder\n"
    )
    assert said == lost
    written = parse_eval_result_entries(parse_yaml((tmp_path / "m.yaml").read_text()))
    assert not {"overall", "image", "I-QA", "GQA"} & {entry.task_id for entry in written}
    assert {entry.notes for entry in written} == {None}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, ["--mteb", "out"], "'made' is no name that others know a model by; give --model-name ORG/NAME"),
        ({}, ["--mteb", "out", "--model-name", "../b"], "is no name that others know"),
        ({"data_synthetic": True}, ["--hub", "out.yaml", "--model-name", "a/b"], "run again with --data FOLDER"),
        ({"data_synthetic": True}, ["--mteb", "out", "--model-name", "a/b"], "is of synthetic data"),
        ({"status": "running"}, ["--mteb", "out", "--model-name", "a/b"], "is not finished"),
        ({}, [], "nothing to write; give --trec FOLDER, --official FOLDER, --mteb FOLDER, --hub FILE or --eee FOLDER"),
        ({}, ["--eee", "out", "--model-name", "a/b"], "give --organization NAME"),
        ({}, ["--eee", "out.json", "--model-name", "a/b", "--organization", "x"], "name a folder"),
        ({}, ["--eee", "out", "--model-name", "a/b", "--organization", "x"], "is missing: single queries"),
        (
            {},
            ["--mteb", "file/below", "--model-name", "a/b"],
            r"can't write .*: Not a directory; .*choose another folder",
        ),
    ],
)
def test_refusals(
    changes: dict[str, object], options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    write_run(tmp_path / "run", [task_result(REGISTERED["GQA"].task)], **changes)
    with pytest.raises(AssertionError, match=message):  # shown as one line
        raise AssertionError(called("run", *options)[1])
    assert not Path("out").exists()


def test_limited_or_partial_scores_are_none(tmp_path: Path) -> None:
    write_run(tmp_path / "a", [task_result(REGISTERED["GQA"].task, limited=True)], limit=5)
    assert "run again without --limit" in called(tmp_path / "a", "--mteb", tmp_path / "out", "--model-name", "a/b")[1]
    write_run(tmp_path / "b", [task_result(REGISTERED["GQA"].task, num_queries=998)])
    assert "the task has 1000" in called(tmp_path / "b", "--mteb", tmp_path / "out", "--model-name", "a/b")[1]


def test_every_eval_ever_of_own_data(tmp_path: Path) -> None:
    """Own tasks, some queries of which reasoned: a record with intervals, a row a query; the same bytes again."""
    write_toy(tmp_path, "Zoo", 30)
    rows = {"Zoo": RegisteredTask(toy_task("Zoo"), "zoo")}
    evaluated(HashEmbedder(), [rows["Zoo"]], rows, info_of(tmp_path), RunSettings(tmp_path / "run"))
    handed = hand_on(tmp_path / "run", rows, "org/hash", synthetic=True)
    record, samples = export_every_eval_ever(handed, tmp_path / "out", Evaluator("me", "first_party"))
    assert record.parent == tmp_path / "out/data/zoo/org/hash"
    assert samples == record.with_name(f"{record.stem}_samples.jsonl")
    stored = json.loads(record.read_text())
    assert stored["detailed_evaluation_results"]["total_rows"] == 30
    (entry,) = stored["evaluation_results"]
    (result,) = handed.results
    assert entry["score_details"]["score"] == result.score
    between = entry["score_details"]["uncertainty"]["confidence_interval"]
    assert between["lower"] < result.score < between["upper"]
    assert entry["source_data"]["source_type"] == "other"
    assert entry["generation_config"]["generation_args"] == {"reasoning": True}
    tokens = result.queries.reasoning_tokens
    assert entry["score_details"]["details"]["queries.reasoning_tokens"] == str(tokens)
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert np.mean([line["evaluation"]["score"] for line in lines]) == pytest.approx(result.score)
    assert sum(int(line["performance"]["additional_details"]["reasoning_tokens"]) for line in lines) == tokens
    assert {line["metadata"]["path"] for line in lines} == {"direct", "reasoned"}
    again = export_every_eval_ever(handed, tmp_path / "again", Evaluator("me", "first_party"))
    assert [path.read_bytes() for path in again] == [record.read_bytes(), samples.read_bytes()]
    assert (
        "has none of the benchmark's tasks"
        in called(tmp_path / "run", "--hub", tmp_path / "x.yaml", "--model-name", "a/b")[1]
    )
