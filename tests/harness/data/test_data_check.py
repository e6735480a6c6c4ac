"""`mmeb-eval data check` on folders with the official counts, sound and spoilt in every known way."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from mmeb_tasks import EDITIONS
from PIL import Image

from mmeb_harness import Frames, Profile, Task
from mmeb_harness.data.check import CheckedTask, check_tasks
from mmeb_harness.data.folder import DataInfo, RevisionError, data_revision, describe, load_samples, source_key
from mmeb_harness.data.records import RecordWriter, write_manifest
from tests.forked import EVAL, Forks
from tests.tasks.golden_v3 import CASES, write_files

PAGE_FIXED = {task.name: task for task in EDITIONS["page-fixed"]}
V2_0_0 = {task.name: task for task in EDITIONS["v2.0.0"]}


def picture(suffix: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (9, 99, 199)).save(buffer, suffix)
    return buffer.getvalue()


def table(folder: Path, task: Task, rows: Sequence[dict[str, Any]], config: str | None = None) -> None:
    """The task's table (of three the one named `config`) in the official schema."""
    pattern = next(one for one in task.annotations if "-of-" not in one and (config is None or f"/{config}/" in one))
    path = folder / pattern
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def media(folder: Path, *relatives: str) -> None:
    for relative in relatives:
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture("JPEG" if path.suffix == ".jpg" else "PNG"))


def voc2007(folder: Path, num_rows: int = 1000) -> None:
    labels = [f"label {i}" for i in range(20)]
    row = {
        "qry_inst": "<|image_1|>\nIdentify the object shown in the image\n",
        "qry_text": "",
        "qry_img_path": "VOC2007/a.jpg",
        "tgt_inst": "",
        "tgt_text": labels,
        "tgt_img_path": [""] * 20,
    }
    table(folder, PAGE_FIXED["VOC2007"], [row] * num_rows)
    media(folder, "image-tasks/VOC2007/a.jpg")


def breakfast(folder: Path, saved: int = 12) -> None:
    rows = [{"video_id": f"v{i % 7}", "pos_text": "coffee"} for i in range(433)]
    table(folder, PAGE_FIXED["Breakfast"], rows)
    root = "video-tasks/frames/video_cls/Breakfast"
    media(folder, *(f"{root}/v{i}/frame_{j:04d}.jpg" for i in range(7) for j in range(saved)))


def vidoseek(folder: Path, task: Task, page_of_query_0: int) -> None:
    ids = range(5349)
    table(folder, task, [{"query-id": i, "query": f"q{i}"} for i in range(1142)], "queries")
    grades = [{"query-id": i, "corpus-id": i + page_of_query_0, "score": 3} for i in range(1142)]
    table(folder, task, grades, "qrels")
    table(folder, task, [{"corpus-id": i} for i in ids], "corpus")
    one = folder / "page.png"
    one.write_bytes(picture())
    pages = folder / "visdoc-tasks/ViDoSeek-page"
    pages.mkdir(parents=True)
    for i in ids:
        (pages / f"{i}.png").hardlink_to(one)


def momentseeker(folder: Path, task: Task, num_rows: int) -> None:
    def clip(name: str) -> list[dict[str, str]]:
        return [{"output_path": f"{name}.mp4"}]

    row = {"query": "q", "input_frames": "", "positive_frames": clip("p"), "negative_frames": clip("n") * 9}
    table(folder, task, [row] * num_rows)
    root = "video-tasks/frames/video_mret/MomentSeeker/video_frames"
    media(folder, *(f"{root}/{name}/{i}.jpg" for name in "pn" for i in range(8)))


def chartqa(folder: Path, num_queries: int, num_pages: int = 500) -> None:
    task = PAGE_FIXED["VisRAG_ChartQA"]
    ids = [f"{i}.png" for i in range(num_pages)]
    stored = {"bytes": picture(), "path": None}
    table(folder, task, [{"query-id": str(i), "query": "q"} for i in range(num_queries)], "queries")
    table(folder, task, [{"query-id": str(i), "corpus-id": ids[0], "score": 1} for i in range(num_queries)], "qrels")
    table(folder, task, [{"corpus-id": one, "image": stored} for one in ids], "corpus")


def check(folder: Path, task: Task, quick: bool = False, frames: int = 8) -> CheckedTask:
    info = describe(folder)
    return next(iter(check_tasks([task], info, Frames(frames), quick=quick, workers=2)))


def record(folder: Path, task: Task) -> None:
    """As if `data get` had fetched what lies in the folder."""
    writer = RecordWriter(folder, source_key(task.name, task.sources[0]))
    for path in sorted(folder.rglob("*.*")):
        if path.suffix in (".jpg", ".png", ".parquet") and "manifest" not in path.parts:
            writer.add_file(path)
    writer.finish(task.source, "c" * 40, ["sha256:1"])
    write_manifest(folder)


def test_official_counts_are_ready(tmp_path: Path) -> None:
    voc2007(tmp_path)
    outcome = check(tmp_path, PAGE_FIXED["VOC2007"])
    assert outcome.ready, outcome
    assert outcome.summary == "1,000 queries, 20 candidates, 1 images or frames"
    assert outcome.remarks == ("not fetched by `mmeb-eval data get`: no hashes to check",)
    record(tmp_path, PAGE_FIXED["VOC2007"])
    assert check(tmp_path, PAGE_FIXED["VOC2007"]).remarks == ()


def test_a_row_too_few(tmp_path: Path) -> None:
    voc2007(tmp_path, 998)
    outcome = check(tmp_path, PAGE_FIXED["VOC2007"])
    assert outcome.problems[0].startswith("expected 1000 queries, found 998")
    assert outcome.mend == f"mmeb-eval data get --update --data {tmp_path} --edition page-fixed --tasks VOC2007"


def damage_content(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (damage_content, "image-tasks/VOC2007/a.jpg isn't what was fetched (hash)"),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "image-tasks/VOC2007/a.jpg can't be opened ("),
        (lambda path: path.write_bytes(path.read_bytes()[:300]), "bytes, "),
        (Path.unlink, "media file"),
        (Path.unlink, "image-tasks/VOC2007/a.jpg is gone"),
    ],
)
def test_damaged_media(spoil: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
    voc2007(tmp_path)
    record(tmp_path, PAGE_FIXED["VOC2007"])
    spoil(tmp_path / "image-tasks/VOC2007/a.jpg")
    outcome = check(tmp_path, PAGE_FIXED["VOC2007"])
    assert any(problem in one for one in outcome.problems), outcome.problems
    assert outcome.mend.startswith(f"mmeb-eval data get --redo --data {tmp_path} ")


def test_what_comes_damaged_is_not_fetched_again(tmp_path: Path) -> None:
    voc2007(tmp_path)
    path = tmp_path / "image-tasks/VOC2007/a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    record(tmp_path, PAGE_FIXED["VOC2007"])
    outcome = check(tmp_path, PAGE_FIXED["VOC2007"])
    assert outcome.problems[0].startswith("image-tasks/VOC2007/a.jpg can't be opened (")
    assert outcome.mend.startswith(f"mmeb-eval data get --update --data {tmp_path} ")


@pytest.mark.parametrize("quick", [False, True])
def test_sounds_are_opened_as_pictures_are(quick: bool, tmp_path: Path) -> None:
    task = next(task for task in EDITIONS["v3"] if task.name == "TUTSound")
    write_files(CASES["TUTSound"], tmp_path)
    whole = check(tmp_path, task, quick)
    assert whole.ready
    assert whole.summary == "6 queries, 59 candidates, 2 sounds"
    path = tmp_path / "audio-tasks/tutsound/TUT-sound-events-2017-development/audio/street/a1.wav"
    soundfile.write(path.with_suffix(".flac"), *soundfile.read(path))
    path.write_bytes(path.with_suffix(".flac").read_bytes()[:5000])
    outcome = check(tmp_path, task, quick)
    assert outcome.ready is quick
    assert quick or "street/a1.wav can't be opened (" in outcome.problems[0]


def test_a_sound_that_nobody_hears_is_a_problem(tmp_path: Path) -> None:
    task = next(task for task in EDITIONS["v3"] if task.name == "Clotho")
    write_files(CASES["Clotho"], tmp_path)
    soundfile.write(tmp_path / "audio-tasks/clotho/evaluation/c.wav", [0.0] * 399, 16_000)
    assert "evaluation/c.wav is shorter than 25 ms, of which models hear nothing" in check(tmp_path, task).problems[0]


def test_quick_compares_sizes_only(tmp_path: Path) -> None:
    voc2007(tmp_path)
    record(tmp_path, PAGE_FIXED["VOC2007"])
    damage_content(tmp_path / "image-tasks/VOC2007/a.jpg")
    assert check(tmp_path, PAGE_FIXED["VOC2007"], quick=True).ready


def test_many_missing_files_are_counted(tmp_path: Path) -> None:
    breakfast(tmp_path)
    for index in range(1, 7):
        shutil.rmtree(tmp_path / f"video-tasks/frames/video_cls/Breakfast/v{index}")
    outcome = check(tmp_path, PAGE_FIXED["Breakfast"])
    first = f"frame folder {tmp_path}/video-tasks/frames/video_cls/Breakfast/v1 is missing"
    assert outcome.problems == (f"{first} (and 5 more files or frame folders)",)


def test_fewer_frames_than_asked_for_are_counted(tmp_path: Path) -> None:
    breakfast(tmp_path, saved=12)
    assert check(tmp_path, PAGE_FIXED["Breakfast"]).remarks[0].startswith("not fetched")
    outcome = check(tmp_path, PAGE_FIXED["Breakfast"], frames=64)
    assert outcome.ready
    assert outcome.remarks[0] == "433 short clips"
    assert "84 images or frames" in outcome.summary


@pytest.mark.slow
@pytest.mark.parametrize(("edition", "page"), [("page-fixed", 3), ("v2.0.0", 4)])
def test_page_sets_are_told_apart(edition: str, page: int, tmp_path: Path) -> None:
    """Unfixed labels point one page too far; the count is the same, the scores are not (0.22 and 0.80)."""
    right, other = EDITIONS[edition], {"page-fixed": 4, "v2.0.0": 3}[edition]
    task = next(task for task in right if task.name == "ViDoSeek-page")
    vidoseek(tmp_path / "right", task, page)
    assert check(tmp_path / "right", task, quick=True).ready
    vidoseek(tmp_path / "wrong", task, other)
    outcome = check(tmp_path / "wrong", task, quick=True)
    named = {"page-fixed": "v2.0.0", "v2.0.0": "page-fixed"}[edition]
    assert f"are of edition {named}, the run asks for {edition}" in outcome.problems[0]
    assert "--update" in outcome.mend


def test_momentseeker_with_duplicates(tmp_path: Path) -> None:
    momentseeker(tmp_path / "new", PAGE_FIXED["MomentSeeker"], 1602)
    assert check(tmp_path / "new", PAGE_FIXED["MomentSeeker"]).ready
    momentseeker(tmp_path / "old", PAGE_FIXED["MomentSeeker"], 1800)
    assert "are of edition v2.0.0" in check(tmp_path / "old", PAGE_FIXED["MomentSeeker"]).problems[0]
    momentseeker(tmp_path / "v2", V2_0_0["MomentSeeker"], 1800)
    assert check(tmp_path / "v2", V2_0_0["MomentSeeker"]).ready


def test_older_revisions_of_visrag(tmp_path: Path) -> None:
    chartqa(tmp_path / "now", 63)
    assert check(tmp_path / "now", PAGE_FIXED["VisRAG_ChartQA"]).ready
    chartqa(tmp_path / "before", 1250)
    outcome = check(tmp_path / "before", PAGE_FIXED["VisRAG_ChartQA"])
    assert "expected 63 queries, found 1250" in outcome.problems[0]
    assert "another data revision of openbmb/VisRAG-Ret-Test-ChartQA?" in outcome.problems[0]
    assert "--update" in outcome.mend


def test_a_run_refuses_rows_of_another_edition(tmp_path: Path) -> None:
    momentseeker(tmp_path, PAGE_FIXED["MomentSeeker"], 1800)
    with pytest.raises(RevisionError, match=r"run with --edition v2\.0\.0, or fetch them again"):
        load_samples(PAGE_FIXED["MomentSeeker"], DataInfo(tmp_path), Profile())


def test_another_number_of_candidates_is_a_remark(tmp_path: Path) -> None:
    voc2007(tmp_path)
    path = tmp_path / PAGE_FIXED["VOC2007"].annotations[0]
    rows = pq.read_table(path).to_pylist()
    rows[0] |= {"tgt_text": ["label 0", ""], "tgt_img_path": ["", ""]}
    pq.write_table(pa.Table.from_pylist(rows), path)
    outcome = check(tmp_path, PAGE_FIXED["VOC2007"])
    assert outcome.ready
    assert outcome.remarks[:3] == (
        "1 blank candidates",
        "1 candidate lists shorter than declared",
        "2 to 20 candidates a query, published as 20",
    )


def test_a_corpus_that_lacks_pages_is_refused(tmp_path: Path) -> None:
    """Fewer pages make a task easier: the count is held against the benchmark's before anything is scored."""
    chartqa(tmp_path, 63, num_pages=20)
    assert "expected 500 candidates, found 20" in check(tmp_path, PAGE_FIXED["VisRAG_ChartQA"]).problems[0]
    with pytest.raises(RevisionError, match="expected 500 candidates, found 20"):
        load_samples(PAGE_FIXED["VisRAG_ChartQA"], DataInfo(tmp_path), Profile())


def test_a_clip_that_is_missing_is_other_data(tmp_path: Path) -> None:
    """Candidates of moment retrieval are folders: without some of them the same rows are an easier task."""
    folder = tmp_path / "video-tasks/frames/video_mret/QVHighlight/v"
    for name in ("query", "positive_1", "negative_1", "negative_2"):
        media(tmp_path, f"video-tasks/frames/video_mret/QVHighlight/v/{name}/1.jpg")
    task, info = PAGE_FIXED["QVHighlight"], DataInfo(tmp_path)
    before = data_revision(task, info)
    shutil.rmtree(folder / "negative_2")
    assert data_revision(task, info) != before


def test_the_command(tmp_path: Path, cache: Path, forks: Forks) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        return forks.call([EVAL, "data", "check", *arguments], cwd=tmp_path, env=environment)

    voc2007(tmp_path / "data")
    done = call("--tasks", "VOC2007,OK-VQA")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ready  VOC2007")
    assert lines[1].startswith("WRONG  OK-VQA")
    assert "mend: mmeb-eval data get --data data --edition page-fixed --tasks OK-VQA" in done.stdout
    assert lines[-1] == "1 of 2 tasks are ready"
    mini = call("--data", str(cache / "mini-v1-seed0"), "--groups", "V-CLS,VisRAG")
    assert mini.returncode == 0, mini.stdout
    assert mini.stdout.splitlines()[-1] == "11 of 11 tasks are ready"
    missing = call("--data", "nowhere")
    assert missing.returncode == 2
    assert "data folder nowhere does not exist" in missing.stderr
