"""MMEB-V3's files in another layout than the one that is read: refusals say where they are, archives may have any."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from mmeb_tasks import EDITIONS
from mmeb_tasks.hub import place_screens

from mmeb_harness import DataError, Frames
from mmeb_harness.data.check import check_tasks
from mmeb_harness.data.folder import describe
from tests.tasks.golden_v3 import CASES, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
TEXT, MEMORY = "text/MultiConIR/Legal Document", "memory/KnowMeBench"


@pytest.mark.parametrize(
    ("name", "moved", "to"),
    [
        (TEXT, "text-tasks", "text_tasks"),
        (TEXT, "text-tasks", "text_tasks/text-tasks"),
        (TEXT, "text-tasks/MultiConIR_v2", "MultiConIR_v2"),
        (TEXT, "text-tasks/MultiConIR_v2", "text-tasks/text-tasks/MultiConIR_v2"),
        ("toolde/customized/gta", "tool-tasks/ToolDe-Queries", "tool_tasks/ToolDe-Queries"),
        ("GAE-GUIAct_q2t", "gui-tasks/GAE-GUIAct", "gui_tasks/GAE-GUIAct"),
        (MEMORY, "memory-tasks/Episodic/KnowMeBench", "memory-tasks/KnowMeBench"),
        ("MCMR", "image-tasks/MCMR", "multi-condition-tasks/MCMR"),
        ("ESC-50", "audio-tasks/esc50", "ESC50"),
        ("NSynth", "audio-tasks/nsynth-1k", "audio_tasks/nsynth_1k"),
    ],
)
def test_folders_that_lie_elsewhere_are_found(name: str, moved: str, to: str, tmp_path: Path) -> None:
    write_files(CASES[name], tmp_path)
    aside = tmp_path / "aside"
    (tmp_path / moved).rename(aside)
    (tmp_path / to).parent.mkdir(parents=True, exist_ok=True)
    aside.rename(tmp_path / to)
    says, get = refusal(name, tmp_path), f"--data {tmp_path} --edition v3 --tasks {shlex.quote(name)}"
    assert f"; what belongs in {tmp_path / moved} lies in {tmp_path / to}: move it there. Get it: " in says
    assert says.endswith(f"mmeb-eval data get {get}")
    (tmp_path / moved).parent.mkdir(exist_ok=True)
    (tmp_path / to).rename(tmp_path / moved)
    assert BY_NAME[name].load(tmp_path, Frames()).queries


def test_check_says_it_too(tmp_path: Path) -> None:
    write_files(CASES[TEXT], tmp_path)
    (tmp_path / "text-tasks").rename(tmp_path / "text_tasks")
    (outcome,) = check_tasks([BY_NAME[TEXT]], describe(tmp_path), Frames(), quick=True, workers=1)
    (problem,) = outcome.problems
    assert problem.endswith(
        f"is missing; what belongs in {tmp_path}/text-tasks lies in {tmp_path}/text_tasks: move it there"
    )
    assert outcome.mend == f"mmeb-eval data get --data {tmp_path} --edition v3 --tasks '{TEXT}'"


def refusal(name: str, data: Path) -> str:
    with pytest.raises(DataError) as refused:
        BY_NAME[name].load(data, Frames())
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_folder_in_the_folder_that_was_given_is_told(tmp_path: Path) -> None:
    for name in (TEXT, MEMORY):
        write_files(CASES[name], tmp_path / "MMEB V3")
    says = f"; {tmp_path}/MMEB V3/text-tasks is there: --data '{tmp_path}/MMEB V3' reads it. Get it: "
    assert says in refusal(TEXT, tmp_path)


def test_a_part_of_the_data_folder_and_one_of_the_additions_alone_are_told(tmp_path: Path) -> None:
    write_files(CASES[TEXT], tmp_path)
    assert f"; that is a part of a data folder: --data {tmp_path} reads it. Get it: " in refusal(
        TEXT, tmp_path / "text-tasks"
    )
    alone = f"; {tmp_path} has what MMEB-V3 adds alone (text-tasks): --edition v3 with --modality reads it. Get it: "
    assert alone in refusal("HMDB51", tmp_path)


def test_archives_that_nobody_unpacked_are_told(tmp_path: Path) -> None:
    (tmp_path / "text_tasks").mkdir()
    (tmp_path / "text_tasks/text_tasks.tar.part-000").touch()
    assert f"; {tmp_path}/text_tasks holds archives as the hub has them, to be unpacked. Get it: " in refusal(
        TEXT, tmp_path
    )
    assert "holds archives" not in refusal("toolde/web/apibank", tmp_path)


@pytest.mark.parametrize("there", ["image-query/HMDB51", "video-tasks/data", "visdoc-tasks/data"])
def test_tables_of_the_official_tree_are_not_read_and_said_to_be_there(there: str, tmp_path: Path) -> None:
    (tmp_path / there).mkdir(parents=True)
    found = f"the official MMEB-V3 tree, which are not read here ({there.removesuffix('/HMDB51')}). Get it: "
    assert found in refusal("HMDB51", tmp_path)


def test_a_file_that_lacks_beside_others_is_just_missing(tmp_path: Path) -> None:
    write_files(CASES[TEXT], tmp_path)
    (tmp_path / "text-tasks/MultiConIR_v2/Legal Document/qrels.jsonl").unlink()
    assert "qrels.jsonl is missing. Get it: " in refusal(TEXT, tmp_path)


@pytest.mark.parametrize(
    ("named", "member", "place"),
    [
        ("guiact/a.png", "guiact/a.png", "guiact/a.png"),
        ("guiact/a.png", "GUIAct/guiact/a.png", "guiact/a.png"),
        ("guiact/a.png", "GUIAct/a.png", "guiact/a.png"),
        ("guiact/a.png", "a.png", "guiact/a.png"),
        ("a.png", "guiact/a.png", "a.png"),
        ("a.png", "a.png", "a.png"),
        ("guiact/1/a.png", "data/guiact/1/a.png", "guiact/1/a.png"),
        ("guiact/1/a.png", "screens/1/a.png", "guiact/1/a.png"),
        ("guiact/1/a.png", "guiact/2/a.png", None),
        ("guiact/a.png", "guiact/b.png", None),
    ],
)
def test_screenshots_are_placed_whichever_way_they_are_packed(named: str, member: str, place: str | None) -> None:
    target = None if place is None else f"gui-tasks/GUIAct/{place}"
    assert place_screens("gui-tasks/GUIAct", {named, "guiact/other.png"})(member) == target


def test_a_screenshot_that_might_be_two_is_placed_by_its_own_path_only() -> None:
    place = place_screens("gui-tasks/GUIAct", {"web/a.png", "phone/a.png"})
    assert [place(member) for member in ("a.png", "x/web/a.png")] == [None, "gui-tasks/GUIAct/web/a.png"]
