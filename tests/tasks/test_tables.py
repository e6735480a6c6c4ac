"""The tables against the benchmark's own numbers, the generated README, and bad input to the readers."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import TASKS, readme, video, visdoc
from mmeb_tasks.mini.instructions import INSTRUCTIONS
from mmeb_tasks.readers.media import natural_order, sample_frames
from mmeb_tasks.readers.video import MOMENTSEEKER_INSTRUCTIONS, lettered, option_text
from mmeb_tasks.readers.visdoc import PAGE_INSTRUCTION, QUERY_INSTRUCTION

from mmeb_harness import DataError, Frames
from tests.tasks.golden import GOLDEN_TASKS, read_golden, write_case

OFFICIAL: list[dict[str, Any]] = read_golden("tasks")
BY_NAME = {task.name: task for task in TASKS}


def test_names_and_order() -> None:
    assert [task.name for task in TASKS] == [one["name"] for one in OFFICIAL]
    assert Counter(task.modality for task in TASKS) == {"image": 36, "video": 18, "visdoc": 24}


@pytest.mark.parametrize("official", OFFICIAL, ids=lambda one: one["name"])
def test_every_row(official: dict[str, Any]) -> None:
    task = BY_NAME[official["name"]]
    assert task.group == official["meta_task"]
    assert task.modality == official["modality"]
    assert task.metric == official["main_metric"]
    assert task.num_queries == official["num_queries"]
    assert task.num_candidates == official["num_candidates"]
    assert task.in_distribution == official["in_distribution"]
    assert task.source == official["hf_repo"]
    assert all(pattern.startswith(f"annotations/{official['hf_repo']}/") for pattern in task.annotations)
    assert all(f"/{official['hf_split']}" in pattern for pattern in task.annotations)
    assert readme.reader_names()[task.name] == official["parser"]


@pytest.mark.parametrize("official", OFFICIAL, ids=lambda one: one["name"])
def test_instructions_are_the_benchmarks(official: dict[str, Any]) -> None:
    name, query, target = official["name"], official["query_instruction"], official["target_instruction"] or ""
    if official["modality"] == "image":
        assert INSTRUCTIONS[name] == (query, target)
    elif official["modality"] == "visdoc":
        assert (query, target) == (QUERY_INSTRUCTION, PAGE_INSTRUCTION)
    else:
        row = next(row for row in video.ROWS if row.name == name)
        assert row.target_instruction == target
        assert (row.instruction or MOMENTSEEKER_INSTRUCTIONS) == query


def test_grades_are_the_benchmarks() -> None:
    unequal = {row.name for row in visdoc.ROWS if len(row.grades) > 1}
    assert unequal == {"ViDoSeek-doc", "MMLongBench-doc", "ViDoRe_esg_reports_human_labeled_v2"}


def test_the_generated_readme_is_fresh() -> None:
    assert readme.README.read_text() == readme.render(), "run: python -m mmeb_tasks.readme"


def test_frames_are_sampled_as_officially() -> None:
    frames = tuple(Path(f"frame_{i}.jpg") for i in range(64))
    assert [path.stem for path in sample_frames(frames, 8)] == [f"frame_{i}" for i in (0, 9, 18, 27, 36, 45, 54, 63)]
    assert sample_frames(frames[:5], 8) == frames[:5]
    assert sorted(["f10.jpg", "F9.jpg", "f2.PNG"], key=natural_order) == ["f2.PNG", "F9.jpg", "f10.jpg"]


def test_option_texts() -> None:
    assert option_text("C. Berries.") == "Berries"
    assert option_text("A. 3. 14.") == "3. 14"
    assert option_text("B) five") == "e"  # no period-space: the last character is left, as officially
    assert lettered(["x", "y"]) == ["(A) x", "(B) y"]


def rewrite(folder: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = next((folder / "annotations").rglob(f"{table}*/*.parquet"))
    pq.write_table(change(pq.read_table(path)), path)


def first_media(folder: Path, name: str) -> Path:
    item = next(item for item in BY_NAME[name].load(folder, Frames()).queries if item.media)
    return item.media[0]


BAD_INPUT: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "annotation file missing": (
        "OK-VQA",
        lambda data: next((data / "annotations").rglob("*.parquet")).unlink(),
        r"annotations .*OK-VQA/test\.parquet are missing",
    ),
    "annotation file broken": (
        "OK-VQA",
        lambda data: next((data / "annotations").rglob("*.parquet")).write_bytes(b"PAR1"),
        r"annotations .*test\.parquet can't be read",
    ),
    "column missing": (
        "OK-VQA",
        lambda data: rewrite(data, "OK-VQA", lambda table: table.drop(["tgt_text"])),
        "lack the column 'tgt_text' \\(found: qry_inst",
    ),
    "no rows": ("OK-VQA", lambda data: rewrite(data, "OK-VQA", lambda table: table.slice(0, 0)), "have no rows"),
    "lists not parallel": (
        "OK-VQA",
        lambda data: rewrite(
            data,
            "OK-VQA",
            lambda table: table.set_column(5, "tgt_img_path", pa.array([[""]] * len(table))),
        ),
        "they must be parallel",
    ),
    "image missing": ("OK-VQA", lambda data: first_media(data, "OK-VQA").unlink(), "media file .* is missing"),
    "image path that leaves the folder": (
        "OK-VQA",
        lambda data: rewrite(
            data,
            "OK-VQA",
            lambda table: table.set_column(2, "qry_img_path", pa.array(["../../secret.png"] * len(table))),
        ),
        r"annotation path 'image-tasks/\.\./\.\./secret\.png' leaves the data folder",
    ),
    "frame folder missing": (
        "HMDB51",
        lambda data: __import__("shutil").rmtree(first_media(data, "HMDB51").parent),
        "frame folder .* is missing",
    ),
    "query id twice": (
        "ViDoRe_arxivqa",
        lambda data: rewrite(
            data,
            "queries",
            lambda table: table.set_column(0, "query-id", pa.array([table["query-id"][0].as_py()] * len(table))),
        ),
        "stands in the annotations twice",
    ),
    "page without an image": (
        "ViDoRe_arxivqa",
        lambda data: rewrite(
            data,
            "corpus",
            lambda table: table.set_column(
                1, "image", pa.array([{"bytes": None, "path": None}] * len(table), table.schema.field(1).type)
            ),
        ),
        "is missing, and the corpus table holds no image for it",
    ),
    "page image that is none": (
        "ViDoRe_arxivqa",
        lambda data: rewrite(
            data,
            "corpus",
            lambda table: table.set_column(
                1, "image", pa.array([{"bytes": b"x", "path": None}] * len(table), table.schema.field(1).type)
            ),
        ),
        "the corpus table's image can't be read",
    ),
}


@pytest.mark.parametrize("case", list(BAD_INPUT))
def test_bad_input_is_one_line_with_the_task_and_the_way_out(case: str, tmp_path: Path) -> None:
    name, spoil, message = BAD_INPUT[case]
    write_case(GOLDEN_TASKS[name], tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        BY_NAME[name].load(tmp_path, Frames())
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert re.search(rf"(Get it|Look closer): mmeb-eval data (get|check) --tasks {name}$", text)
    assert "\n" not in text


def test_pages_are_written_once_and_a_present_one_is_kept(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["ViDoRe_arxivqa"], tmp_path)
    task = BY_NAME["ViDoRe_arxivqa"]
    pages = [candidate.images[0] for candidate in task.load(tmp_path, Frames()).candidates]
    stamp = {path: path.stat().st_mtime_ns for path in pages}
    pages[0].unlink()
    task.load(tmp_path, Frames())
    assert pages[0].is_file()
    assert all(path.stat().st_mtime_ns == stamp[path] for path in pages[1:])
    assert not list(pages[0].parent.glob(".page-*"))


def test_shards_are_read_in_order(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["OK-VQA"], tmp_path)
    task = BY_NAME["OK-VQA"]
    whole = task.load(tmp_path, Frames())
    path = next((tmp_path / "annotations").rglob("*.parquet"))
    table = pq.read_table(path)
    path.unlink()
    for index, part in enumerate((table.slice(0, 2), table.slice(2))):
        pq.write_table(part, path.with_name(f"test-{index:05d}-of-00002.parquet"))
    assert dataclasses.asdict(task.load(tmp_path, Frames())) == dataclasses.asdict(whole)
