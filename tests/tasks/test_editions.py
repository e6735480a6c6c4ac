"""What MMEB-V3 changes for the 78 tasks of MMEB-V2."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mmeb_tasks import EDITIONS

from mmeb_harness import DataError, Frames, Samples
from tests.tasks.golden import GOLDEN_TASKS, write_case

OFFICIAL = Frames()
V2_EDITIONS, V3_EDITIONS = ("page-fixed", "v2.0.0"), ("v3", "v3-unfixed")


def load(name: str, edition: str, folder: Path, frames: Frames = OFFICIAL) -> Samples:
    return next(task for task in EDITIONS[edition] if task.name == name).load(folder, frames)


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
