"""What Tab offers, asked of click as a shell asks, and once as a shell does."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from mmeb_harness.cli.commands import cli
from mmemb_r1_model.cli import cli as training
from tests.forked import EVAL, Forks


def offered(words: str, command: click.Command = cli) -> list[str]:
    *before, begun = words.split(" ")
    asked = ShellComplete(command, {}, "command", "_COMMAND_COMPLETE")
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in asked.get_completions(before, begun)]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ru", ["run"]),
        ("run --model bag", ["bag_of_features"]),
        ("check mmemb", ["mmemb_r1"]),
        ("check ./my", ["<file>"]),
        ("bench --model JINA", ["jina_v4"]),
        ("run --tasks doc", ["DocVQA"]),
        ("run --tasks DocVQA,UCF", ["DocVQA,UCF101"]),
        ("tasks --groups V-", ["V-CLS", "V-QA", "V-RET"]),
        ("tasks --groups V-QA,v-", ["V-QA,V-CLS", "V-QA,V-RET"]),
        ("tasks --modality vi", ["video", "visdoc"]),
        ("run --edition v3 --modality t", ["text", "tool"]),
        ("run --edition v3 --tasks text/r2med/b", ["text/R2MED/Bioinformatics", "text/R2MED/Biology"]),
        ("run --edition v3 --tasks DocVQA,TUTSound(", ["DocVQA,TUTSound(hard)"]),
        ("run --edition v3-u", ["v3-unfixed"]),
        ("run --reasoning al", ["always"]),
        ("run --track w", ["wandb"]),
        ("run --data d", ["<dir>"]),
        ("compare --published vlm2vec-v1-qwen2vl-2b@v2.1", ["VLM2Vec-V1-Qwen2VL-2B@v2.1"]),
        ("compare runs/mini-on", ["runs/mini-one"]),
        ("report ", ["runs/mini-one", "runs/mini-other"]),
        ("verify ./ru", ["./runs/mini-one", "./runs/mini-other"]),
        ("submit nowhere/", ["<file>"]),
    ],
)
def test_names_and_runs(words: str, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("runs/mini-one", "runs/mini-other", "runs/.vectors", "data"):
        (tmp_path / folder).mkdir(parents=True)
    for run in ("one", "other"):
        (tmp_path / "runs" / f"mini-{run}" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert offered(words) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("train --config mini", ["mini", "miniworld"]),
        ("study run --config ab", ["ablations"]),
        ("estimate --config ./", ["<file>"]),
        ("pipeline --track t", ["trackio", "tensorboard"]),
    ],
)
def test_configurations(words: str, wanted: list[str]) -> None:
    assert offered(words, training) == wanted


def test_bash_gets_a_name_as_it_has_to_stand_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MMEB_EVAL_COMPLETE", "bash_complete")
    assert offered("run --edition v3 --tasks text/MultiConIR/L") == [r"text/MultiConIR/Legal\ Document"]
    assert offered("run --edition v3 --tasks TUTSound(") == [r"TUTSound\(hard\)"]


def test_a_shell_gets_them_and_nothing_besides(forks: Forks, tmp_path: Path) -> None:
    asked = {"_MMEB_EVAL_COMPLETE": "bash_complete", "COMP_WORDS": "mmeb-eval run --model cl", "COMP_CWORD": "3"}
    done = forks.call([EVAL], cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **asked})
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,clip\n", "")
