"""Every adapter through `mmeb-eval run`, a task of each modality, on a tiny random checkpoint: at chance, and whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmeb_harness.cli.commands import cli
from tests.baselines.tiny_checkpoints import MAKERS, save_checkpoint

#: Of those with the fewest pictures: an adapter sees each of them as 256 tokens or more.
TASKS = ("HatefulMemes", "Breakfast", "ViDoRe_arxivqa")


@pytest.mark.slow
@pytest.mark.parametrize("model", MAKERS)
def test_it_runs_image_video_and_page_tasks(
    model: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMEB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    checkpoint = save_checkpoint(model, tmp_path / "checkpoint")
    command = ["run", "--model", model, "--model-arg", f"path={checkpoint}", "--device", "cpu"]
    command += ["--model-arg", "max_new_tokens=4"] if model == "ume_r1" else []
    command += ["--tasks", ",".join(TASKS), "--limit", "2", "--frames", "2", "--output", "out"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    for task in TASKS:
        found = json.loads((tmp_path / "out" / "tasks" / f"{task}.json").read_text())
        assert found["num_queries"] == 2
        assert 0 <= found["score"] <= 1
