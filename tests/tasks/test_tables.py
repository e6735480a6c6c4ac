"""The tables against the benchmark's own numbers, the generated README, and bad input to the readers."""

from __future__ import annotations

import dataclasses
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS, TASKS, editions, readme, video, visdoc
from mmeb_tasks.hub import place_frames, place_images
from mmeb_tasks.mini.instructions import INSTRUCTIONS
from mmeb_tasks.readers.media import sample_frames
from mmeb_tasks.readers.video import MOMENTSEEKER_INSTRUCTIONS, lettered, option_text
from mmeb_tasks.readers.visdoc import PAGE_INSTRUCTION, QUERY_INSTRUCTION, page_content
from PIL import ExifTags, Image

from mmeb_harness import DataError, Frames, frame_names
from mmeb_harness.core import benchmark
from mmeb_harness.results import official_names
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
    tables = [pattern for pattern in task.annotations if pattern.endswith(".parquet")]
    assert all(pattern.startswith(f"annotations/{official['hf_repo']}/") for pattern in tables)
    assert all(f"/{official['hf_split']}" in pattern for pattern in tables)
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
    assert [frames.index(path) for path in sample_frames(frames[:3], 8, "spread")] == [0, 0, 0, 0, 1, 1, 1, 2]
    assert sample_frames((), 8, "spread") == ()
    assert frame_names(["f10.jpg", "F9.jpg", "f2.PNG"]) == ["f2.PNG", "F9.jpg", "f10.jpg"]


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
        "is missing, and its table holds no bytes for it",
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
        "in the corpus table can't be opened: it is no whole JPEG, PNG",
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
    assert re.search(
        rf"(Get it|Look closer): mmeb-eval data (get|check) --data .* --edition page-fixed --tasks {name}$", text
    )
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


def without_images(column: str, rows: set[int]) -> Callable[[pa.Table], pa.Table]:
    """Blanks a column's paths in some rows."""

    def change(table: pa.Table) -> pa.Table:
        values = table.column(column).to_pylist()
        blanked: list[Any] = [
            value if row not in rows else [""] * len(value) if isinstance(value, list) else ""
            for row, value in enumerate(values)
        ]
        return table.set_column(table.schema.get_field_index(column), column, pa.array(blanked))

    return change


def test_a_query_row_without_its_image_is_its_words_and_counted(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["OK-VQA"], tmp_path)
    before = BY_NAME["OK-VQA"].load(tmp_path, Frames())
    rewrite(tmp_path, "OK-VQA", without_images("qry_img_path", {1}))
    samples = BY_NAME["OK-VQA"].load(tmp_path, Frames())
    assert samples.notes["rows without media"] == 1
    assert [bool(query.images) for query in samples.queries] == [row != 1 for row in range(len(samples.queries))]
    assert [query.text for query in samples.queries] == [query.text for query in before.queries]
    rewrite(tmp_path, "OK-VQA", without_images("qry_img_path", set(range(len(samples.queries)))))
    with pytest.raises(DataError, match="OK-VQA: no row has a qry_img_path"):
        BY_NAME["OK-VQA"].load(tmp_path, Frames())


def test_a_candidate_without_its_image_is_counted(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["WebQA"], tmp_path)
    rewrite(tmp_path, "WebQA", without_images("tgt_img_path", {0}))
    samples = BY_NAME["WebQA"].load(tmp_path, Frames())
    assert samples.notes["rows without media"] == 1  # one candidate of that id, however often it is listed
    assert [candidate.id for candidate in samples.candidates if not candidate.images] == [""]


@pytest.mark.parametrize(
    ("frames", "shown", "short"),
    [
        (Frames(2), 2, 0),
        (Frames(64), None, 1),
        (Frames(64, short="spread"), 64, 1),
    ],
)
def test_a_run_chooses_its_frames(frames: Frames, shown: int | None, short: int, tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["HMDB51"], tmp_path)
    saved = {path.parent: 0 for path in tmp_path.rglob("*.jpg")}
    for path in tmp_path.rglob("*.*"):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            saved[path.parent] = saved.get(path.parent, 0) + 1
    samples = BY_NAME["HMDB51"].load(tmp_path, frames)
    for query in samples.queries:
        available = saved[query.frames[0].parent]
        expected = min(available, frames.video) if shown is None or available >= frames.video else shown
        assert len(query.frames) == expected
        repeated = {query.frames.count(frame) for frame in query.frames}
        assert max(repeated) - min(repeated) <= 1 or frames.short == "spread"
        assert (len(set(query.frames)) < len(query.frames)) == (available < frames.video and frames.short == "spread")
    fewer = sum(saved[query.frames[0].parent] < frames.video for query in samples.queries)
    assert samples.notes["short clips"] == fewer
    assert (fewer > 0) == bool(short)


def test_moment_retrieval_shows_clips_fewer_frames_than_videos(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["QVHighlight"], tmp_path)
    samples = BY_NAME["QVHighlight"].load(tmp_path, Frames(video=5, clip=2))
    assert {len(query.frames) for query in samples.queries} <= set(range(1, 6))
    assert max(len(query.frames) for query in samples.queries) > 2
    assert {len(candidate.frames) for candidate in samples.candidates} <= {1, 2}


@pytest.mark.parametrize("name", ["ViDoSeek-page", "MMLongBench-page", "MomentSeeker"])
def test_editions_read_their_own_repositories_only(name: str, tmp_path: Path) -> None:
    case = GOLDEN_TASKS[name]
    write_case(case, tmp_path)
    old = next(task for task in EDITIONS["v2.0.0"] if task.name == name)
    assert old.source != BY_NAME[name].source
    with pytest.raises(
        DataError, match=r"holds the rows of edition page-fixed \(.*\) only; run with --edition page-fixed"
    ):
        old.load(tmp_path, Frames())
    (tmp_path / "annotations" / BY_NAME[name].source).rename(tmp_path / "annotations" / old.source)
    assert old.load(tmp_path, Frames()).queries
    with pytest.raises(DataError, match=r"holds the rows of edition v2\.0\.0"):
        BY_NAME[name].load(tmp_path, Frames())


def test_editions_are_the_same_78_tasks() -> None:
    assert [task.name for task in EDITIONS["v2.0.0"]] == [task.name for task in TASKS]
    differing = {
        new.name for new, old in zip(TASKS, EDITIONS["v2.0.0"], strict=True) if new.annotations != old.annotations
    }
    assert differing == {"ViDoSeek-page", "MMLongBench-page", "MomentSeeker"}
    assert {task.edition for task in TASKS} == {"page-fixed"}


@pytest.mark.parametrize(
    ("root", "member", "expected"),
    [
        (
            "video_ret/MSR-VTT",
            "data/ziyan/video_retrieval/MSR-VTT/frames/video1/f.jpg",
            "video_ret/MSR-VTT/video1/f.jpg",
        ),
        ("video_ret/MSR-VTT", "data/ziyan/video_retrieval/MSVD/frames/video1/f.jpg", None),
        ("video_qa/EgoSchema", "video_qa/video_qa/egoschema/a/0001.jpg", "video_qa/EgoSchema/a/0001.jpg"),
        ("video_mret/Charades_STA", "video_mret/Charades-STA/v/query/1.jpg", "video_mret/Charades_STA/v/query/1.jpg"),
        ("video_cls/K700", "./K700/x.jpg", "video_cls/K700/x.jpg"),
        ("video_cls/K700", "K700", None),
    ],
)
def test_members_of_archives_are_placed_by_what_they_are(root: str, member: str, expected: str | None) -> None:
    assert place_frames(f"frames/{root}", Path())(member) == (None if expected is None else f"frames/{expected}")


@pytest.mark.parametrize("prefix", ["", "./", "MMEB/", "image-tasks/MMEB/"])
def test_images_are_placed_by_the_paths_that_the_table_names(prefix: str, tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["OK-VQA"], tmp_path)
    place = place_images(next(iter(BY_NAME["OK-VQA"].sources)), tmp_path)  # type: ignore[arg-type]
    assert place(f"{prefix}OK-VQA/val images/kettle_0.jpg") == "image-tasks/OK-VQA/val images/kettle_0.jpg"
    assert place(f"{prefix}OK-VQA/val images/unknown.jpg") is None


def test_a_page_with_an_exif_orientation_is_turned_upright() -> None:
    picture, plain, turned = Image.new("RGB", (40, 20)), io.BytesIO(), io.BytesIO()
    picture.save(plain, "JPEG")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.save(turned, "JPEG", exif=exif)
    assert page_content("p", plain.getvalue()) == plain.getvalue()
    with Image.open(io.BytesIO(page_content("p", turned.getvalue()))) as upright:
        assert (upright.size, upright.format) == ((20, 40), "PNG")


def test_editions_are_spelled_alike_here_and_in_official_files() -> None:
    assert (editions.PAGE_FIXED, editions.V2_0_0) == (benchmark.PAGE_FIXED, benchmark.V2_0_0)
    assert editions.V3_EDITIONS == benchmark.V3_EDITIONS
    assert set(editions.REPOS) == {*official_names.PAGE_TASKS, official_names.MOMENT_SEEKER}
    counts = editions.NUM_QUERIES[official_names.MOMENT_SEEKER]
    assert {counts[edition] for edition in (editions.PAGE_FIXED, editions.V3, editions.V3_UNFIXED)} == {1602}
    assert counts[editions.V2_0_0] == official_names.MOMENT_SEEKER_QUERIES[benchmark.V2_0_0]


def test_momentseeker_shows_every_saved_frame(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["MomentSeeker"], tmp_path)
    all_frames = BY_NAME["MomentSeeker"].load(tmp_path, Frames())
    fewer = BY_NAME["MomentSeeker"].load(tmp_path, Frames(1, 1))
    assert [item.frames for item in fewer.candidates] == [item.frames for item in all_frames.candidates]
    assert fewer.notes["clips shown with more frames than asked"] > 0
