"""All stages from one command, small: real data, a real judge, a real student, the harness at the end; then again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmemb_r1_model.data.recipe import PUBLISHED
from mmemb_r1_model.disk.config import build_config, named_config, override, read_yaml
from mmemb_r1_model.disk.errors import HarnessError, OptionError
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.pipeline import Pipeline, PipelineConfig, read_pipeline
from mmemb_r1_model.rationales.config import check_config
from tests.event_files import curves
from tests.mmemb_r1.calls import call, without_a_process
from tests.mmemb_r1.data.test_training_sets import MMEB_ROWS, mmeb_root

SMALL = [
    "synthetic=[{module: mmeb_tasks.miniworld, folder: train, split: train, seed: 1, queries: 12}, "
    "{module: mmeb_tasks.miniworld, folder: judge, split: train, seed: 2, queries: 12}, "
    "{module: mmeb_tasks.miniworld, folder: valid, split: valid, seed: 1, queries: 6}]",
    "start.size.vocabulary=640",
    "start.size.layers=2",
    "start.max_new_tokens=8",
    "judge.tiny.size.vocabulary=640",
    "judge.tiny.size.layers=2",
    "judge.lessons[0].training={batch_size: 8, loop: {steps: 3}}",
    "judge.lessons[1].training={batch_size: 8, loop: {steps: 3}}",
    "train.plan.batch_size=4",
    "train.loop.steps=3",
    "adapt.plan.batch_size=4",
    "adapt.groups=2",
    "adapt.rollouts=6",
    "adapt.negatives=3",
    "adapt.loop.steps=2",
    "evaluate.options=[--tasks, miniworld-text]",
]


@pytest.mark.slow
def test_the_whole_pipeline_and_what_a_second_call_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmemb_r1_model.pipeline._command", without_a_process)
    words = ["--config", "miniworld", "--output", str(tmp_path)]
    words += [word for setting in SMALL for word in ("--set", setting)]
    first = call("pipeline", *words, "--track", "tensorboard")
    for stage in ("rationales", "select", "train", "adapt", "evaluate"):
        assert f"{stage}:" in first
    judged = list(read_rows(tmp_path / "selected" / "selected.jsonl"))
    # Five tasks of 12 queries; two of them have candidates that workers wrote about.
    assert len(judged) == 5 * 12 + 2 * 12
    for row in judged:
        shares = [one["chance"] for one in row["judged"]]
        assert sum(shares) == pytest.approx(0 if row["direct_only"] else 1)
        assert all(one["confidence"] - row["without"] == pytest.approx(one["delta"]) for one in row["judged"])
    quality = json.loads((tmp_path / "selected" / "quality.json").read_text())
    assert {name: group["sides"] for name, group in quality.items() if "," not in name} == {
        "all": len(judged),
        "easy": quality["easy"]["sides"],
        "hard": 5 * 12 - quality["easy"]["sides"],
        "positive": 2 * 12,
    }
    assert 0.55 < quality["all"]["rules"]["random"]["right"] < 0.85
    for mode in ("never", "always", "adaptive"):
        run = json.loads((tmp_path / "evaluation" / mode / "run.json").read_text())
        assert run["model_settings"]["reasoning"] == mode
        task = json.loads((tmp_path / "evaluation" / mode / "tasks" / "miniworld-text.json").read_text())
        assert task["num_queries"] == 6
        if mode != "adaptive":
            assert task["queries"]["reasoned"] == (6 if mode == "always" else 0)
    for stage in ("judge/lessons-1", "judge", "joint", "adaptive"):
        rows = list(read_rows(tmp_path / stage / "log.jsonl"))
        drawn = curves(tmp_path / stage)["grad_norm"]
        assert drawn == [(row["step"], pytest.approx(row["grad_norm"])) for row in rows]
    assert "tasks/miniworld-text/hit@1" in curves(tmp_path / "evaluation" / "always")
    weights = (tmp_path / "adaptive" / "final" / "model.safetensors").read_bytes()
    second = call("pipeline", *words)
    assert "train:" not in second
    assert (tmp_path / "adaptive" / "final" / "model.safetensors").read_bytes() == weights

    # Another rule needs no judge again, only what comes after it.
    size = (tmp_path / "selected" / "judged.jsonl").stat().st_size
    call("select", *words, "--set", "select.rule.rule=longest")
    assert (tmp_path / "selected" / "judged.jsonl").stat().st_size == size
    for row in read_rows(tmp_path / "selected" / "selected.jsonl"):
        lengths = [len(one["text"]) for one in row["judged"]]
        assert lengths[[one["chance"] for one in row["judged"]].index(1.0)] == max(lengths)

    with pytest.raises(HarnessError, match="with negatives 2, now 1; remove judged"):
        call("select", *words, "--set", "select.negatives=1")

    shutil.rmtree(tmp_path / "joint")
    row: dict[str, object] = {"pair": "none", "side": "query", "without": 0, "judged": [], "direct_only": True}
    for dataset, message in (
        ("another", r"has 1 sides, .*summary\.json counts 84; write the file again: mmemb-r1 select"),
        ("another", "no rationales of 'miniworld-text'; it is of another"),
        ("miniworld-text", "rationales of 'miniworld-text', but none for 12 of its pairs.* of another split"),
    ):
        (tmp_path / "selected" / "selected.jsonl").write_text(json.dumps({**row, "dataset": dataset}) + "\n")
        with pytest.raises(HarnessError, match=message):
            call("train", *words)
        (tmp_path / "selected" / "summary.json").unlink(missing_ok=True)


FULL = ("mmemb_r1_2b", "mmemb_r1_4b")
YOURS = ["data_root=.", "rationales.workers[2].model=judge", "rationales.workers[2].base_url=http://localhost:1/v1"]


@pytest.mark.parametrize("name", [path.stem for path in named_config("miniworld").parent.glob("*.yaml")])
def test_every_configuration_that_comes_along_can_be_read(name: str) -> None:
    values = override(read_yaml(named_config(name)), YOURS if name in FULL else [])
    config = read_pipeline(values)
    assert config.data
    check_config(config.rationales)
    assert name in call("configs")


@pytest.mark.parametrize("name", FULL)
def test_a_full_run_takes_the_published_mix_and_says_what_it_lacks(name: str, tmp_path: Path) -> None:
    values = read_yaml(named_config(name))
    assert read_pipeline(override(values, YOURS)).data == PUBLISHED
    with pytest.raises(OptionError) as error:
        read_pipeline(values)
    for key in ("data_root", "rationales.workers[2].model", "rationales.workers[2].base_url"):
        assert f"--set {key}=…" in str(error.value)
    with pytest.raises(OptionError, match=r"no workers\[3\]"):
        override(values, ["rationales.workers[3].model=x"])


@pytest.mark.parametrize("name", FULL)
def test_a_full_run_rolls_out_what_no_contrastive_term_sees(name: str) -> None:
    config = read_pipeline(override(read_yaml(named_config(name)), YOURS))
    adapt, prompts = config.adapt, config.adapt.prompts
    assert prompts is not None
    assert max(config.train.plan.pairs_to, adapt.plan.pairs_to) <= prompts.pairs_from
    assert config.calibrate is not None
    assert prompts.pairs_to <= config.calibrate.pairs_from
    weights = sum(own.weight for own in config.data)
    for own in config.data:
        rows = 8_000 if own.weight <= 1 else 118_000  # the fewest, by mmemb_r1_model/data/README.md
        drawn = adapt.loop.steps * adapt.groups * own.weight / weights
        assert drawn <= rows * (prompts.pairs_to - prompts.pairs_from), own
        assert config.calibrate.prompts * own.weight / weights <= rows * (1 - config.calibrate.pairs_from), own


def full_run(root: Path, output: Path, student: Path, *assignments: str) -> Pipeline:
    """The 2B run on a root with one set in the published layout."""
    small = ["data=[{kind: mmeb-train, path: MMEB-train, subset: OK-VQA}]", f"student.checkpoint={student}"]
    values = override(read_yaml(named_config(FULL[0])), [*YOURS, *small, f"data_root={root}", *assignments])
    return Pipeline(read_pipeline(values), output, lambda _: None)


def test_a_full_run_finds_its_folders_or_names_the_setting(
    tmp_path: Path, random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, output, student = tmp_path / "root", tmp_path / "run", random_checkpoint
    with pytest.raises(OptionError, match="data_root: there is no folder"):
        full_run(root, output, student).run()
    mmeb_root(root, "OK-VQA", MMEB_ROWS)
    with pytest.raises(OptionError, match=r"evaluate\.data: there is no folder .*; fetch it: mmeb-eval data get"):
        full_run(root, output, student).run()
    (root / "MMEB-V2").mkdir()
    with pytest.raises(OptionError, match=r"student\.checkpoint: .*does not exist\. A new one: mmemb-r1 add-tokens"):
        full_run(root, output, tmp_path / "nowhere").run()
    with pytest.raises(OptionError, match=r"worker 'instruct' may write 512 tokens, the student at most \d+: it would"):
        full_run(root, output, student).run()
    run = full_run(root, output, student)
    (pairs,) = run.sets(run.config.data, "data")
    assert len(pairs.pairs) == 2
    monkeypatch.delenv("MMEMB_R1_API_KEY", raising=False)
    with pytest.raises(OptionError, match="MMEMB_R1_API_KEY"):
        full_run(root, output, student).run(["data", "rationales"])
    with pytest.raises(OptionError, match="synthetic data are made in OUTPUT/data; leave data_root out"):
        full_run(root, output, student, "synthetic=[{module: m, folder: f}]")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.loop.stepps=3", "no setting in train.loop named 'stepps'. Did you mean 'steps'?"),
        ("train.loop.steps=many", "train.loop.steps must be int, not 'many'"),
        ("select.rule.rule=best", "select.rule.rule must be one of argmax, sampled, random, longest, not 'best'"),
        ("train.loop.betas=[0.9]", "train.loop.betas must have 2 values"),
        ("data=[]", None),
        ("data=[]; train.loop.tensorboard=false", None),
        ("train.loop.tensorboard=true", "add --track tensorboard to the command"),
        ("train=3", "train must be a mapping"),
        ("train.loop", "has no value"),
        ("adapt.sides=query", "adapt.sides must be a list"),
    ],
)
def test_settings_that_dont_fit_are_named(assignment: str, message: str | None) -> None:
    values = read_yaml(named_config("miniworld"))
    if message is None:
        assert read_pipeline(override(values, assignment.split("; "))).data == ()
        return
    with pytest.raises(HarnessError, match=message.replace("[", r"\[").replace("?", r"\?")):
        read_pipeline(override(values, [assignment]))


def test_numbers_as_yaml_writes_them() -> None:
    values = override(read_yaml(named_config("miniworld")), ["train.loop.learning_rate=1e-4", "train.loop.clip=1"])
    config = build_config(PipelineConfig, values)
    assert (config.train.loop.learning_rate, config.train.loop.clip) == (1e-4, 1.0)


def test_a_configuration_that_is_none() -> None:
    with pytest.raises(HarnessError, match=r"no configuration named 'miniwrld'\. Did you mean 'miniworld'"):
        named_config("miniwrld")
    with pytest.raises(OptionError, match="can't read configuration"):
        read_yaml(Path("nowhere.yaml"))
