"""The command line as a user meets it: output, exit codes, one line per error, nothing half-written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mmeb_harness.api.asked import default_output
from mmeb_harness.api.config import RunConfig
from mmeb_harness.cli.commands import cli
from mmeb_harness.cli.options import model_options
from mmeb_harness.data.folder import describe
from mmeb_harness.results.files import load_run_result, load_task_result
from tests.event_files import curves
from tests.forked import EVAL, ROOT, Forks


@pytest.fixture
def environment(cache: Path, tmp_path: Path) -> dict[str, str]:
    own = {"MMEB_CACHE": str(cache), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return own | {"PATH": "/usr/bin:/bin", "COLUMNS": "150"}


@pytest.fixture
def call(environment: dict[str, str], forks: Forks, tmp_path: Path):  # type: ignore[no-untyped-def]
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return forks.call([EVAL, *arguments], cwd=tmp_path, env=environment)

    return run


def one_line(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_answers_at_once(environment: dict[str, str]) -> None:
    """In less than half a second of an idle core, which is three times what numpy takes there: as a ratio, it holds on
    a busy or a slow one too.
    """

    def seconds_of(*command: str) -> float:
        before = os.times()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    rounds = [(seconds_of(EVAL, "--help"), seconds_of(sys.executable, "-c", "import numpy")) for _ in range(3)]
    ours, bare = zip(*rounds, strict=True)
    assert min(ours) < 3 * min(bare)


def test_without_a_command_the_help_is_shown(call) -> None:  # type: ignore[no-untyped-def]
    done = call()
    assert "Commands:" in done.stdout
    assert len(done.stdout.splitlines()) > 5


def test_a_run_from_start_to_table(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = call("run", "--model", "random", "--tasks", "VOC2007,ViDoSeek-doc", "--groups", "M-RET")
    assert done.returncode == 0, done.stderr
    for text in ("random on mini, synthetic", "I-CLS", "1 of 10", "M-RET", "visdoc", "not MMEB-V2 scores", "items/s"):
        assert text in done.stdout
    assert "incomplete: 73 of the benchmark's tasks were not run" in done.stdout
    assert "results: runs/mini-random" in done.stdout
    assert "[5/5]" in done.stdout  # plain lines, since this is no terminal
    run = load_run_result(tmp_path / "runs" / "mini-random" / "run.json")
    assert (run.status, run.data_synthetic, len(run.tasks)) == ("finished", True, 5)
    again = call(
        "run", "--model", "random", "--tasks", "VOC2007,ViDoSeek-doc", "--groups", "M-RET", "--track", "tensorboard"
    )  # fmt: skip
    assert "5 of 5 tasks finished before" in again.stdout
    assert load_run_result(tmp_path / "runs" / "mini-random" / "run.json").aggregates == run.aggregates
    (mean,) = (name for name in curves(tmp_path / "runs" / "mini-random") if name.startswith("means/"))
    assert mean == "means/M-RET"  # of the others only some tasks were run


@pytest.mark.slow
def test_a_random_model_scores_chance(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """No leak from data through ranking to score: 78 tasks, 1,888 queries."""
    assert call("run", "--model", "random").returncode == 0
    overall = load_run_result(tmp_path / "runs" / "mini-random" / "run.json").aggregates[0]
    assert overall.score == pytest.approx(overall.chance, abs=0.02)
    assert overall.complete


def test_a_configuration_file_and_options_that_win(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "run.yaml").write_text(
        "model: bag_of_features\nmodel_args: {dimensions: 64}\ntasks: [VOC2007]\nlimit: 4\noutput: out\n"
    )
    assert call("run", "--config", "run.yaml", "--limit", "3").returncode == 0
    run = load_run_result(tmp_path / "out" / "run.json")
    assert (run.model, run.limit, run.model_args) == ("bag_of_features", 3, {"dimensions": "64"})
    assert load_task_result(tmp_path / "out" / "tasks" / "VOC2007.json").limited


def test_shorter_and_smaller_vectors_from_a_file_and_from_options(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "run.yaml").write_text(
        "model: bag_of_features\ntasks: [VOC2007]\ndim: 32\nquantize: int8\nvectors: kept\n"
    )
    done = call("run", "--config", "run.yaml")
    assert done.returncode == 0, done.stderr
    assert "first 32 dimensions; int8 vectors" in done.stdout
    run = load_run_result(tmp_path / "runs/mini-bag_of_features-dim32-int8/run.json")
    assert (run.profile.dimensions, run.profile.quantization) == (32, "int8")
    chunks = set((tmp_path / "kept").rglob("chunk-*.arrow"))
    assert chunks
    assert chunks
    assert call("run", "--config", "run.yaml", "--quantize", "binary", "--dim", "16").returncode == 0
    other = load_run_result(tmp_path / "runs/mini-bag_of_features-dim16-binary/run.json")
    assert (other.profile.dimensions, other.profile.quantization) == (16, "binary")
    assert set((tmp_path / "kept").rglob("chunk-*.arrow")) == chunks  # nothing was encoded for it
    compared = call("compare", "runs/mini-bag_of_features-dim32-int8", "runs/mini-bag_of_features-dim16-binary")
    assert "profiles differ" in compared.stdout


def test_a_value_after_the_models_name(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", "--tasks", "VOC2007", "--limit", "2", "--model")
    assert call(*arguments, "random:8").returncode == 0
    (folder,) = (tmp_path / "runs").glob("mini-*")
    assert re.fullmatch("mini-random-8-[0-9a-f]{6}-limit2", folder.name)
    run = load_run_result(folder / "run.json")
    assert (run.model, run.model_dimensions, run.model_args) == ("random", 8, {"dimensions": "8"})
    assert call("check", "random:8").stdout.splitlines()[-1] == "random:8: all checks passed"


def test_the_default_folder_of_a_value_is_one_safe_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = describe(cache / "mini-v1-seed0")
    here = tmp_path / "above" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)

    def name(model: str, key: str = "path") -> str:
        output = default_output(RunConfig(model=model), {key: model.partition(":")[2]}, data)
        assert output.parent == Path("runs")
        return output.name

    assert re.fullmatch("mini-st-all-MiniLM-L6-v2-[0-9a-f]{6}", name("st:sentence-transformers/all-MiniLM-L6-v2"))
    assert name("st:here/model") != name("st:there/model")
    assert re.fullmatch("mini-gme-a_folder-[0-9a-f]{6}", name("gme:../../a folder/"))
    assert re.fullmatch("mini-gme-above-[0-9a-f]{6}", name("gme:.."))
    assert re.fullmatch("mini-gme-[0-9a-f]{6}", name(f"gme:{here.anchor}"))
    assert len(name("gme:" + "x" * 300)) < 100


def test_arguments_of_a_model_are_pairs_one_by_one_or_behind_commas() -> None:
    seen: list[dict[str, str]] = []

    @click.command()
    @model_options
    def command(model_args: dict[str, str], **_: object) -> None:
        seen.append(model_args)

    for words in (
        ["--model-arg", "path=a,b", "--model-arg", "max-size=2"],
        ["--model-args", "path=a,b,max-size=2"],
        ["--model-arg", "max_size=2,path=a,b", "--model-args", "path=a,b"],
    ):
        command(words, standalone_mode=False)
    assert seen == 3 * [{"path": "a,b", "max_size": "2"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--model", "mmemb-r1"], "no model named 'mmemb-r1'. Did you mean 'mmemb_r1'?"),
        (["run", "--model", "randm:8"], "no model named 'randm'. Did you mean 'random'?"),
        (["run", "--model", "random:8", "--model-arg", "dimensions=4"], "'dimensions' is given twice"),
        (["check", "mmemb_r1:./nowhere"], "checkpoint folder ./nowhere does not exist"),
        (["run", "--model", "random", "--tasks", "DocVAQ"], "no task named 'DocVAQ'. Did you mean 'DocVQA'?"),
        (["run", "--model", "random", "--groups", "VQA"], "no group named 'VQA'. Did you mean 'V-QA'?"),
        (["run", "--modality", "audio"], "no modality named 'audio'"),
        (["run", "--reasoning", "never,sometimes"], "no mode named 'sometimes'. Known: adaptive, always, never"),
        (["run", "--model", "random", "--reasoning", "always"], "model 'random' has no option --reasoning"),
        (["run", "--model", "random", "--frames", "0"], "--frames must be at least 1"),
        (["run", "--model", "random", "--edition", "v2"], "no edition named 'v2'. Did you mean 'v2.0.0'?"),
        (["run", "--model", "random", "--dim", "0"], "--dim must be at least 1, not 0"),
        (["run", "--model", "random", "--dim", "99999", "--tasks", "VOC2007"], "--dim 99999: the vectors of 'random'"),
        (["run", "--model", "random", "--quantize", "int4"], "'int4' is not one of 'int8', 'binary'"),
        (["run", "--model", "random", "--limit", "0"], "--limit must be at least 1"),
        (["run", "--model", "random", "--batch-tokens", "0"], "--batch-tokens must be at least 1"),
        (["run", "--model", "random", "--model-arg", "seed"], "'seed' is not KEY=VALUE"),
        (["run", "--model", "random", "--model-args", "seed=1,seed=2"], "'seed' is given twice, as '1' and as '2'"),
        (["check", "nowhere.py"], "there is no file"),
        (["run", "--model", "random", "--model-arg", "seed=x"], "--model-arg seed: 'x' is not an integer"),
        (["run", "--model", "random", "--data", "nowhere"], "data folder"),
        (["run", "--modle", "random"], "No such option '--modle'"),
        (["run", "--model", "random", "--track", "tensorboard", "--shard", "1/2"], "`mmeb-eval merge` takes it"),
        (["run", "--track", "mlflow"], "'mlflow' is not one of 'trackio', 'wandb', 'tensorboard'"),
        (["run", "--config", "none.yaml"], "can't read configuration none.yaml"),
        (["check", "mmemb_r1", "--model-arg", "path=./nowhere"], "checkpoint folder ./nowhere does not exist"),
        (["tasks", "--tasks", "OKVQA"], "no task named 'OKVQA'. Did you mean 'OK-VQA' or 'A-OKVQA'?"),
    ],
)
def test_wrong_options_are_one_line(call, arguments: list[str], message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert message in one_line(call(*arguments))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "can't read configuration"),
        ("- model", "must be a mapping"),
        ("modle: random", "no setting in bad.yaml named 'modle'. Did you mean 'model'?"),
        ("modle:", "no setting in bad.yaml named 'modle'. Did you mean 'model'?"),
        ("limit: many", "bad.yaml: limit must be int, not 'many'"),
        ("limit: true", "bad.yaml: limit must be int, not True"),
        ("limit: '5'", "bad.yaml: limit must be int, not '5'"),
        ("limit: 5.0", "bad.yaml: limit must be int, not 5.0"),
        ("fresh: 1", "bad.yaml: fresh must be bool, not 1"),
        ("limit: 0", "--limit must be at least 1, not 0"),
        ("dim: some", "bad.yaml: dim must be int, not 'some'"),
        ("quantize: int4", "bad.yaml: quantize must be one of none, int8, binary, not 'int4'"),
        ("vectors: 1", "bad.yaml: vectors must be str, not 1"),
        ("model_args: [a]", "bad.yaml: model_args must be a mapping, not ['a']"),
        ("data: 2026-01-31", "2026-01-31 does not exist"),
        (
            "data: !!timestamp 2026-01-31",
            "line 1 has the tag 'tag:yaml.org,2002:timestamp'; write the value without it",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line(call, text: str, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.yaml").write_text(text)
    assert message in one_line(call("run", "--config", "bad.yaml"))


def test_spoilt_data_is_one_line_and_nothing_is_scored(call, own_data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", "--model", "bag_of_features", "--data", "data", "--output", "out", "--tasks")
    shutil.rmtree(own_data / "video-tasks/frames/video_cls/HMDB51/clip_00003")
    message = one_line(call(*arguments, "OK-VQA,HMDB51"))
    assert "HMDB51: frame folder" in message
    assert "clip_00003 is missing" in message
    assert not (tmp_path / "out" / "tasks").exists()
    picture = sorted((own_data / "image-tasks" / "OK-VQA").glob("*.png"))[2]
    picture.write_bytes(picture.read_bytes()[:1000])
    assert f"{picture.name} can't be opened" in one_line(call(*arguments, "OK-VQA"))
    picture.unlink()
    assert f"{picture.name} is missing" in one_line(call(*arguments, "OK-VQA"))
    assert not (tmp_path / "out" / "tasks").exists()


def test_fewer_queries_than_the_manifest_declares(call, own_data: Path) -> None:  # type: ignore[no-untyped-def]
    manifest = json.loads((own_data / "manifest.json").read_text())
    manifest["num_queries"]["OK-VQA"] = 25
    (own_data / "manifest.json").write_text(json.dumps(manifest))
    done = call("run", "--model", "random", "--data", "data", "--tasks", "OK-VQA")
    assert "OK-VQA: expected 25 queries, found 24" in one_line(done)
    manifest["schema_version"] = 9
    (own_data / "manifest.json").write_text(json.dumps(manifest))
    done = call("run", "--model", "random", "--data", "data", "--tasks", "OK-VQA")
    assert (
        "has schema version 9, this release reads up to 1: upgrade mmeb-harness, or make the folder again"
        in one_line(done)
    )


def test_a_results_folder_that_cannot_be_written(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    assert "is a file; name a folder" in one_line(call("run", "--model", "random", "--output", "file"))
    assert "can't write" in one_line(call("run", "--model", "random", "--output", "file/run"))


def test_edition_profile_and_frames_stand_in_results_and_table(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", "--model", "bag_of_features", "--tasks", "HMDB51,OK-VQA")
    assert call(*arguments).returncode == 0
    first = load_run_result(tmp_path / "runs/mini-bag_of_features/run.json")
    assert (first.edition, first.profile.name, first.profile.frames.video) == ("page-fixed", "bag_of_features", 8)
    done = call(*arguments, "--frames", "3")
    assert done.returncode == 0, done.stderr
    assert "bag_of_features on mini, synthetic, edition page-fixed" in done.stdout
    assert "3 frames a video, 3 a clip, short ones as they are" in done.stdout
    run = load_run_result(tmp_path / "runs/mini-bag_of_features-frames3/run.json")
    assert run.profile.frames.video == 3
    for name in ("HMDB51", "OK-VQA"):
        result = load_task_result(tmp_path / f"runs/mini-bag_of_features-frames3/tasks/{name}.json")
        assert (result.edition, result.profile) == ("page-fixed", run.profile)
    done = call(*arguments, "--frames", "3", "--output", "runs/mini-bag_of_features")
    assert "2 earlier results of another model, setting or data revision: computed again" in done.stdout


@pytest.mark.slow
def test_a_run_is_put_together_from_several_invocations(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert call("run", "--model", "random", "--tasks", "VOC2007,K700").returncode == 0
    assert call("run", "--model", "random", "--tasks", "HMDB51").returncode == 0
    run = load_run_result(tmp_path / "runs/mini-random/run.json")
    assert run.tasks == ("VOC2007", "K700", "HMDB51")
    assert run.aggregates[0].tasks == 3
    assert run.queries.items == 72
    # With another setting the earlier ones no longer count, and that is said; by default it has a folder of its own.
    other = ("run", "--model", "random", "--tasks", "HMDB51", "--model-arg", "seed=1")
    assert call(*other).returncode == 0
    assert load_run_result(tmp_path / "runs/mini-random/run.json").tasks == run.tasks
    done = call(*other, "--output", "runs/mini-random")
    assert "2 earlier results of other settings or data left out of the run: VOC2007, K700" in done.stdout
    assert load_run_result(tmp_path / "runs/mini-random/run.json").tasks == ("HMDB51",)


def test_other_peoples_folders_are_left_alone(call, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    arguments = ("run", "--model", "random", "--tasks", "HMDB51", "--output", "out")
    (tmp_path / "out/tasks").mkdir(parents=True)
    (tmp_path / "out/tasks/mine.txt").write_text("mine")
    assert "is not a run's folder (no run.json of one), so --fresh deletes nothing there" in one_line(
        call(*arguments, "--fresh")
    )
    assert (tmp_path / "out/tasks/mine.txt").read_text() == "mine"
    assert call(*arguments).returncode == 0
    message = one_line(call("run", "--model", "bag_of_features", "--tasks", "HMDB51", "--output", "out"))
    assert "out holds a run of model 'random', not 'bag_of_features'; choose another --output" in message


def test_what_readers_define_is_counted_in_result_and_table(call, own_data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    frames = sorted((own_data / "video-tasks/frames/video_cls/HMDB51/clip_00003").iterdir())
    frames[0].unlink()
    arguments = ("run", "--model", "random", "--data", "data", "--tasks", "HMDB51", "--output", "out")
    done = call(*arguments, "--frames", str(len(frames)))
    assert done.returncode == 0, done.stderr
    assert "counted: 1 short clips." in done.stdout
    assert load_task_result(tmp_path / "out/tasks/HMDB51.json").notes == {"short clips": 1}


def test_another_edition_than_the_datas_is_one_line(call) -> None:  # type: ignore[no-untyped-def]
    message = one_line(call("run", "--model", "random", "--edition", "v2.0.0", "--tasks", "ViDoSeek-page"))
    assert (
        "holds the rows of edition page-fixed (VLM2Vec/ViDoSeek-page-fixed) only; run with --edition page-fixed"
        in message
    )


def test_tasks_and_models_are_listed(call) -> None:  # type: ignore[no-untyped-def]
    listed = call("tasks").stdout.splitlines()
    assert len(listed) == 1 + 78 + 7 + 9  # the header, the benchmark, the miniworld, mixed
    assert len(call("tasks", "--groups", "I-VG").stdout.splitlines()) == 5
    models = call("models").stdout
    assert all(name in models for name in ("mmemb_r1", "random", "bag_of_features"))
    assert "MMEmb-R1 on any Qwen3-VL checkpoint" in models


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["random"], ["bag_of_features"], ["mmemb_r1"], ["mmemb_r1", "--reasoning", "always"]]
)
def test_check_passes_for_every_built_in_model(arguments: list[str]) -> None:
    """In this process, which has imported torch."""
    done = CliRunner().invoke(cli, ["check", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == f"{arguments[0]}: all checks passed"


@pytest.mark.parametrize("command", ["run", "bench"])
def test_a_wrong_name_is_told_before_the_suite_is_made(
    command: str, environment: dict[str, str], forks: Forks, tmp_path: Path
) -> None:
    elsewhere = environment | {"MMEB_CACHE": str(tmp_path / "none")}
    done = forks.call([EVAL, command, "--model", "randm"], cwd=tmp_path, env=elsewhere)
    assert "Did you mean 'random'?" in one_line(done)
    assert not (tmp_path / "none").exists()


def test_nothing_that_is_read_is_written_over(tmp_path: Path) -> None:
    run = shutil.copytree(ROOT / "tests/golden/release_0_1/run", tmp_path / "run")
    task = next((run / "tasks").iterdir())
    official = tmp_path / "official" / "HMDB51_score.json"
    official.parent.mkdir()
    official.write_text("{}")
    for command in (
        ["compare", run, "--json", task],
        ["export", run, "--hub", run / "run.json"],
        ["import", official.parent, "--output", official],
        ["leaderboard", run, "--output", run / "run.json"],
        ["report", run, "--output", task],
        ["submit", run, "--output", run / ".." / "run" / "run.json"],
    ):
        target = Path(command[-1])
        before = target.read_bytes()
        done = CliRunner().invoke(cli, list(map(str, command)))
        assert f"{target} would overwrite" in str(done.exception), (command, done.output)
        assert target.read_bytes() == before
