"""A run starts over whatever state its folder is in; somebody else's is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmeb_harness import ResultError
from mmeb_harness.results.folder import RunFolder, clear, started_over
from tests.harness.made_runs import benchmark_tasks, task_result, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run", [task_result(task) for task in benchmark_tasks()[:2]])
    return tmp_path / "run"


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: None,
        lambda path: path.write_text(path.read_text()[:100]),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("null"),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99})),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "tasks": 3})),
        lambda path: path.write_bytes(b"\xff\xfe"),
        a_folder,
        a_link_to_nowhere,
    ],
)
def test_a_run_starts_over_whatever_its_file_says(damage: Callable[[Path], object], run: Path) -> None:
    damage(run / "run.json")
    (run / "tasks" / ".DS_Store").touch()
    clear(RunFolder(run), ["a chunk"])
    assert {path.name for path in run.iterdir()} == {".fresh"}
    assert started_over(RunFolder(run)).chunks == ("a chunk",)


def test_somebody_elses_folder_is_left_alone(run: Path) -> None:
    """Its run.json says something else, is missing, or is broken beside files that no run writes."""
    whole = (run / "run.json").read_text()
    (run / "run.json").write_text('{"name": "my build"}')
    with pytest.raises(ResultError, match="is not a run's folder"):
        clear(RunFolder(run), ["a chunk"])
    (run / "run.json").unlink()
    with pytest.raises(ResultError, match="is not a run's folder"):
        clear(RunFolder(run), ["a chunk"])
    (run / "run.json").write_text(whole[:50])
    (run / "tasks" / "notes.txt").write_text("mine")
    with pytest.raises(ResultError, match="is not a run's folder"):
        clear(RunFolder(run), ["a chunk"])
    assert len(list((run / "tasks").iterdir())) == 3


def test_what_lies_in_a_folder_in_its_place_is_not_deleted(run: Path) -> None:
    a_folder(run / "run.json")
    (run / "run.json" / "mine").write_text("")
    with pytest.raises(ResultError, match=r"can't delete .*run\.json: .*; move it away, or choose another --output"):
        clear(RunFolder(run), ["a chunk"])
    assert (run / "run.json" / "mine").is_file()


def test_a_linked_part_is_unlinked_and_not_emptied(run: Path, tmp_path: Path) -> None:
    (run / "tasks").rename(tmp_path / "elsewhere")
    (run / "tasks").symlink_to(tmp_path / "elsewhere")
    clear(RunFolder(run), ["a chunk"])
    assert not (run / "tasks").exists()
    assert len(list((tmp_path / "elsewhere").iterdir())) == 2


@pytest.mark.parametrize("text", ["{", '"today"', "1e3", "null", "true", "[1]"])
def test_what_counts_no_more_is_remembered(text: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).fresh_file.write_text(text)
    with pytest.raises(ResultError, match=r"\.fresh .*run again with --fresh"):
        started_over(RunFolder(tmp_path))


def test_a_slash_in_a_tasks_name_is_a_folder_of_its_files(tmp_path: Path) -> None:
    """Two names that differ in case alone, spaces and parentheses: no file is another's."""
    wanted = ("text/BRIGHT/biology", "text/R2MED/Biology", "text/MultiConIR/Legal Document", "TUTSound(hard)")
    tasks = [task for task in benchmark_tasks("v3") if task.name in wanted]
    files = RunFolder(tmp_path / "run")
    write_run(files.root, [task_result(task) for task in tasks], edition="v3")
    assert files.task_names() == {*wanted}
    assert (files.root / "tasks" / "text" / "MultiConIR" / "Legal Document.json").is_file()
    (files.root / "run.json").write_text("broken")
    clear(files, [])
    assert files.task_names() == set()
