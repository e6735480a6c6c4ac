"""What editions and a run's own choice change for the 78 tasks of MMEB-V2."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS
from PIL import ExifTags, Image, ImageOps

from mmeb_harness import DataError, Frames, PageFiles, Profile, Samples
from mmeb_harness.results.files import task_fingerprint
from mmeb_harness.show.tables import profile_line
from tests.tasks.golden import GOLDEN_TASKS, write_case

OFFICIAL = Frames()
#: Fingerprint of a result of a profile of defaults.
BEFORE_PAGES_WERE_A_CHOICE = "7c3a5e88d88cf7459738888f"
V2_EDITIONS, V3_EDITIONS = ("page-fixed", "v2.0.0"), ("v3", "v3-unfixed")


def load(name: str, edition: str, folder: Path, frames: Frames = OFFICIAL) -> Samples:
    return next(task for task in EDITIONS[edition] if task.name == name).load(folder, frames)


def test_a_model_of_text_alone_takes_none_of_the_78() -> None:
    needed = {edition: {task.name: task.media for task in tasks[:78]} for edition, tasks in EDITIONS.items()}
    assert all(not media for edition in V2_EDITIONS for media in needed[edition].values())  # there it is refused
    for edition in V3_EDITIONS:
        media = needed[edition]
        assert all(media.values())
        assert (media["OK-VQA"], media["VisRAG_PlotQA"], media["K700"]) == (("image",), ("image",), ("video",))
        assert media["MomentSeeker"] == ("image", "video")


@pytest.mark.parametrize("edition", [*V2_EDITIONS, *V3_EDITIONS])
def test_every_positive_folder_is_an_answer(edition: str, tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["QVHighlight"], tmp_path)
    root = tmp_path / "video-tasks/frames/video_mret/QVHighlight/A3compass"
    (root / "positive_2").mkdir()
    (root / "positive_2" / "frame_1.jpg").write_bytes((root / "negative_1/frame_0001.jpg").read_bytes())
    samples = load("QVHighlight", edition, tmp_path)
    query = next(query for query in samples.queries if "A3compass" in str(query.frames[0]))
    answers = [Path(answer).name for answer in samples.gains[query.id]]
    assert answers == (["positive_10", "positive_10_b", "positive_2"] if edition in V3_EDITIONS else ["positive_2"])


def test_frames_of_short_videos_and_clips_are_repeated_evenly(tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS["QVHighlight"], tmp_path)
    root = tmp_path / "video-tasks/frames/video_mret/QVHighlight"
    as_they_are = load("QVHighlight", "v3", tmp_path)
    spread = load("QVHighlight", "v3", tmp_path, Frames(short="spread"))
    saved = sorted(root.glob("A3compass/negative_0/frame_*"), key=lambda path: int(path.stem.split("_")[1]))
    assert len(saved) == 3
    shown = {
        item.id: [saved.index(frame) for frame in item.frames] for item in spread.candidates if saved[0] in item.frames
    }
    assert list(shown.values()) == [[0, 0, 0, 0, 1, 1, 1, 2]]
    assert [item.frames for item in as_they_are.candidates if saved[0] in item.frames] == [tuple(saved)]
    assert {len(item.frames) for item in (*spread.queries, *spread.candidates)} == {8}
    assert spread.notes["short clips"] == as_they_are.notes["short clips"] > 0


@pytest.mark.parametrize("name", ["OK-VQA", "MSCOCO_t2i", "CIRR"])
def test_a_table_without_instructions_has_empty_ones(name: str, tmp_path: Path) -> None:
    write_case(GOLDEN_TASKS[name], tmp_path)
    whole = load(name, "v3", tmp_path)
    path = next((tmp_path / "annotations").rglob("*.parquet"))
    pq.write_table(pq.read_table(path).drop(["qry_inst", "tgt_inst"]), path)
    with pytest.raises(DataError, match="lack the column 'qry_inst'"):
        load(name, "page-fixed", tmp_path)
    lacking = load(name, "v3", tmp_path)
    assert {item.instruction for item in (*lacking.queries, *lacking.candidates)} == {""}
    assert [query.text for query in lacking.queries] == [query.text for query in whole.queries]
    assert lacking.notes["columns of instructions that the table lacks"] == (1 if name == "OK-VQA" else 2)


def officially_written(stored: bytes, name: str, folder: Path) -> bytes:
    """What a model is shown officially: the table's picture, upright, saved under the page's name and opened again."""
    with Image.open(io.BytesIO(stored)) as picture:
        upright = ImageOps.exif_transpose(picture)
    upright.save(folder / name)
    with Image.open(folder / name) as page:
        return page.convert("RGB").tobytes()


def noisy(size: tuple[int, int], kind: str, orientation: int = 1) -> bytes:
    """A page of fine detail, which JPEG changes."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    quality = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    Image.fromarray(pixels).save(buffer, kind, exif=exif, **quality)
    return buffer.getvalue()


@pytest.mark.parametrize("edition", ["page-fixed", "v3"])
def test_visrag_pages_are_written_as_officially_where_that_is_asked_for(edition: str, tmp_path: Path) -> None:
    """Scores of both differ: they are apart in the result's fingerprint, and share no vector."""
    pages = {
        "plain.jpg": noisy((40, 24), "JPEG"),
        "turned.jpeg": noisy((40, 24), "JPEG", orientation=6),
        "drawn.jpg": noisy((33, 17), "PNG"),
        "lossless.png": noisy((33, 17), "PNG"),
    }
    tables = {
        "corpus": {"corpus-id": list(pages), "image": [{"bytes": page, "path": None} for page in pages.values()]},
        "queries": {"query-id": ["q"], "query": ["?"]},
        "qrels": {"query-id": ["q"], "corpus-id": ["plain.jpg"], "score": [1]},
    }
    for config, columns in tables.items():
        folder = tmp_path / "data/annotations/openbmb/VisRAG-Ret-Test-ChartQA" / config
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / "train.parquet")
    shown = {}
    for choice in ("stored", "official", "stored", "official"):
        frames = Frames(pages=choice)  # type: ignore[arg-type]
        samples = load("VisRAG_ChartQA", edition, tmp_path / "data", frames)
        shown[choice] = {item.id: item.images[0] for item in samples.candidates}
    for name, stored in pages.items():
        with Image.open(shown["official"][name]) as page:
            assert page.convert("RGB").tobytes() == officially_written(stored, name, tmp_path)
    changed = [name for name in pages if shown["stored"][name].read_bytes() != shown["official"][name].read_bytes()]
    assert changed == ["plain.jpg", "turned.jpeg", "drawn.jpg"]
    assert shown["stored"]["plain.jpg"].read_bytes() == pages["plain.jpg"]
    newer = shown["stored"]["plain.jpg"]
    newer.write_bytes(pages["drawn.jpg"])
    os.utime(newer, (time.time() + 1, time.time() + 1))
    again = load("VisRAG_ChartQA", edition, tmp_path / "data", Frames(pages="official"))
    with Image.open(next(item.images[0] for item in again.candidates if item.id == "plain.jpg")) as page:
        assert page.size == (33, 17)


def test_official_pages_are_another_result_and_stored_ones_the_same_as_ever() -> None:
    def mark(pages: PageFiles) -> str:
        profile = Profile(frames=Frames(pages=pages))
        named = {"data": "MMEB-V2", "synthetic": False, "data_revision": "1", "model": "m", "limit": None}
        return task_fingerprint("VisRAG_ChartQA", "page-fixed", "ndcg_linear@5", profile=profile, **named)  # type: ignore[arg-type]

    assert mark("stored") == BEFORE_PAGES_WERE_A_CHOICE
    assert mark("official") != mark("stored")
    assert "pages official" in profile_line(Profile(frames=Frames(pages="official")))
    assert "pages" not in profile_line(Profile())
