"""Runs over people's own data: named rightly, each in a folder of its own, and never of pictures that were replaced."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mmeb_tasks.own import PICTURES, RETRIEVAL

from mmeb_harness.api.asked import default_output
from mmeb_harness.api.config import RunConfig
from mmeb_harness.cli.commands import cli
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.results.scores import read_run

#: What changed just now isn't remembered: it may change again unseen.
TICK = 0.1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Own data, in a folder in which commands are called."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    RETRIEVAL.write_example(tmp_path / "mine")
    time.sleep(TICK)
    return tmp_path / "mine"


def call(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), catch_exceptions=True)


def run(*words: str) -> str:
    done = call("run", "--model", "bag_of_features", *words)
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def test_it_is_called_what_its_folder_is(folder: Path) -> None:
    printed = run("--data", "mine", "--output", "out")
    assert "bag_of_features on mine" in printed
    assert "MMEB" not in printed
    result, tasks = read_run(Path("out"))
    assert (result.data, result.edition, result.data_synthetic) == ("mine", "", False)
    assert [task.name for task in tasks] == ["my-retrieval"]
    assert all(mean.complete for mean in result.aggregates)
    assert "78" not in call("verify", "out").output
    assert call("verify", "out", "--data", "mine").exit_code == 0
    done = call("report", "out", "--data", "mine", "--output", "page.html")
    assert done.exit_code == 0, done.output
    assert "Texts are not shown" not in done.output


def test_a_replaced_picture_and_a_touched_one(folder: Path) -> None:
    run("--data", "mine", "--output", "out")
    assert "1 of 1 task finished before" in run("--data", "mine", "--output", "out")
    os.utime(folder / "images" / "red-circle.png")
    time.sleep(TICK)
    assert "media unchanged: kept" in run("--data", "mine", "--output", "out")
    assert "1 of 1 task finished before" in run("--data", "mine", "--output", "out")
    before = read_run(Path("out"))[1][0]
    shutil.copy(folder / "images" / "blue-triangle.png", folder / "images" / "green-circle.png")
    done = call("verify", "out", "--data", "mine")
    assert done.exit_code == 1
    assert "are others than those of the run" in done.output
    assert "media changed: computed again" in run("--data", "mine", "--output", "out")
    after = read_run(Path("out"))[1][0]
    assert after.score != before.score
    assert after.fingerprint == before.fingerprint
    shutil.rmtree("out/../.vectors")  # nothing is remembered any more
    assert "media unchanged: kept" in run("--data", "mine", "--output", "out")
    shutil.copy(folder / "clips/moving/0.png", folder / "clips/moving/9.png")
    assert "media changed: computed again" in run("--data", "mine", "--output", "out")


def test_media_of_other_tasks_in_the_folder_count_as_well(folder: Path) -> None:
    """A task that isn't asked for stays part of the run only while its pictures are the same."""
    (folder / "more").mkdir()
    PICTURES.write_example(folder / "more")
    shutil.copytree(folder, folder.with_name("both") / "one", ignore=shutil.ignore_patterns("more"))
    shutil.move(folder / "more", folder.with_name("both") / "two")
    run("--data", "both", "--output", "out")
    os.utime(folder.with_name("both") / "one/images/red-circle.png")
    again = run("--data", "both", "--tasks", "my-pictures-t2i", "--output", "out")
    assert "leave the run" not in again
    shutil.copy("both/one/images/red-circle.png", "both/one/images/blue-circle.png")
    again = run("--data", "both", "--tasks", "my-pictures-t2i", "--output", "out")
    assert "1 earlier result of other settings or data left out of the run: my-retrieval" in again


def test_wrong_data_leaves_what_is_there(folder: Path) -> None:
    run("--data", "mine", "--output", "out")
    before = Path("out/tasks/my-retrieval.json").read_bytes()
    (folder / "images" / "red-circle.png").unlink()
    for fresh in ((), ("--fresh",)):
        done = call("run", "--model", "random", "--data", "mine", "--output", "out", *fresh)
        assert done.exit_code != 0
        assert Path("out/tasks/my-retrieval.json").read_bytes() == before
        assert "leave" not in done.output


def test_no_two_folders_and_no_two_spellings_share_results(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other" / "mine")
    outputs = {
        default_output(RunConfig(data="given", model="m"), {}, DataInfo(place, "mine"))
        for place in (folder, tmp_path / "other" / "mine")
    }
    assert len(outputs) == 2
    spelt = [f"{folder}", f"{folder}/", "mine", "./mine", "../" + tmp_path.name + "/mine"]
    named = {default_output(RunConfig(model=f"mmemb_r1:{path}"), {"path": path}, DataInfo(folder)) for path in spelt}
    assert len(named) == 1
    seeds = {default_output(RunConfig(model="m", seed=seed), {}, DataInfo(folder, "mini")) for seed in (0, 1)}
    assert len(seeds) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data", "nowhere"), "does not exist"),
        (("--data", "empty"), "holds no data that is known: neither MMEB-V2's"),
        (("--data", "mine", "--tasks", "my-retrievel"), "my-retrieval"),
    ],
)
def test_no_such_data(words: tuple[str, ...], says: str, folder: Path) -> None:
    Path("empty").mkdir()
    done = call("run", "--model", "random", *words)
    assert says in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_task_that_the_suite_lacks_needs_its_data(folder: Path) -> None:
    done = call("run", "--model", "random", "--tasks", "miniworld-text")
    assert "the mini suite, which is what runs without --data, has no miniworld-text; name the data" in str(
        done.exception
    )


def test_results_of_a_release_that_recorded_no_content_are_kept_and_said(folder: Path) -> None:
    run("--data", "mine", "--output", "out")
    path = Path("out/tasks/my-retrieval.json")
    values = json.loads(path.read_text())
    del values["content"], values["checksum"]
    path.write_text(json.dumps(values))
    assert "of a release that didn't record of which media they were" in run("--data", "mine", "--output", "out")
