"""The 18 video tasks, as rows. Names, groups, counts and instructions: the benchmark's own (see README.md here)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmeb_harness import Archive, Frames, Samples, Table, Task
from mmeb_tasks.editions import NUM_QUERIES, REPOS, V3_EDITIONS, media_of, other_editions, recognise
from mmeb_tasks.hub import MEDIA_REPO, place_frames
from mmeb_tasks.readers.builder import read_named

if TYPE_CHECKING:
    from mmeb_tasks.readers.video import VideoReader

FRAMES = "video-tasks/frames"

QA_PROMPT = (
    "Given a video and a question, select the most accurate answer from the provided candidates. "
    "Return only the exact text of your chosen answer. Question: "
)
WATCH_VIDEO = "Understand the content of the provided video."
WATCH_CLIP = "Understand the content of the provided video clip."
FIND_CLIP = "Find the clip that corresponds to the described scene in the given video:"

#: Loaded one by one and concatenated, in this order; 200 rows each.
MVBENCH_SUBSETS = (
    "episodic_reasoning",
    "action_sequence",
    "action_prediction",
    "action_antonym",
    "fine_grained_action",
    "unexpected_action",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "moving_direction",
    "action_localization",
    "scene_transition",
    "action_count",
    "moving_count",
    "moving_attribute",
    "state_change",
    "fine_grained_pose",
    "character_order",
    "egocentric_navigation",
    "counterfactual_inference",
)


class VideoRow(NamedTuple):
    """One video task. `num_candidates`: of the corpus, or per query; `None` where it varies."""

    name: str
    group: str
    reader: VideoReader
    repo: str
    config: str | None
    split: str
    num_queries: int
    num_candidates: int | None
    frame_root: str
    instruction: str
    target_instruction: str = ""
    labels: str | None = None
    max_rows: int | None = None


# fmt: off
ROWS = (
    VideoRow("K700", "V-CLS", "video_classification", "VLM2Vec/Kinetics-700", None, "test", 1000, 700, "video_cls/K700", "Recognize the category of the video content.", labels="K700.txt"),
    VideoRow("SmthSmthV2", "V-CLS", "ssv2", "VLM2Vec/SmthSmthV2", None, "test", 1000, 174, "video_cls/SSv2", "What actions or object interactions are being performed by the person in the video?", max_rows=1000),
    VideoRow("HMDB51", "V-CLS", "video_classification", "VLM2Vec/HMDB51", None, "test", 1000, 51, "video_cls/HMDB51", "What actions or objects interactions are the person in the video doing?", labels="HMDB51.txt"),
    VideoRow("UCF101", "V-CLS", "video_classification", "VLM2Vec/UCF101", None, "test", 1000, 101, "video_cls/UCF101", "What activities or sports are being performed by the person in the video?", labels="UCF101.txt"),
    VideoRow("Breakfast", "V-CLS", "video_classification", "VLM2Vec/Breakfast", None, "test", 433, 10, "video_cls/Breakfast", "Recognize the breakfast type that the person is cooking in the video. ", labels="Breakfast.txt"),
    VideoRow("MVBench", "V-QA", "mvbench", "VLM2Vec/MVBench", None, "train", 4000, None, "video_qa/MVBench", QA_PROMPT),
    VideoRow("Video-MME", "V-QA", "videomme", "VLM2Vec/Video-MME", None, "test", 2700, 4, "video_qa/Video-MME", QA_PROMPT),
    VideoRow("NExTQA", "V-QA", "nextqa", "VLM2Vec/NExTQA", "MC", "test", 8564, 5, "video_qa/NExTQA", QA_PROMPT),
    VideoRow("EgoSchema", "V-QA", "egoschema", "VLM2Vec/EgoSchema", "Subset", "test", 500, 5, "video_qa/EgoSchema", QA_PROMPT),
    VideoRow("ActivityNetQA", "V-QA", "activitynetqa", "VLM2Vec/ActivityNetQA", None, "test", 1000, 2, "video_qa/ActivityNetQA", QA_PROMPT),
    VideoRow("DiDeMo", "V-RET", "didemo", "VLM2Vec/DiDeMo", None, "test", 1004, 1004, "video_ret/DiDeMo", "Find a video that includes the following described scenes:", WATCH_VIDEO),
    VideoRow("MSR-VTT", "V-RET", "msrvtt", "VLM2Vec/MSR-VTT", "test_1k", "test", 1000, 1000, "video_ret/MSR-VTT", "Find a video that contains the following visual content:", WATCH_VIDEO),
    VideoRow("MSVD", "V-RET", "msvd", "VLM2Vec/MSVD", None, "test", 670, 670, "video_ret/MSVD", "Find the video snippet that corresponds to the given summary:", WATCH_VIDEO),
    VideoRow("VATEX", "V-RET", "vatex", "VLM2Vec/VATEX", None, "test", 4478, 4478, "video_ret/VATEX", "Select a video that fits the description provided:", WATCH_VIDEO),
    VideoRow("YouCook2", "V-RET", "youcook2", "lmms-lab/YouCook2", None, "val", 3179, 3179, "video_ret/YouCook2", "Find a video that demonstrates the following action while making a recipe:", WATCH_VIDEO),
    VideoRow("QVHighlight", "M-RET", "moment_retrieval", "VLM2Vec/QVHighlight", None, "test", 1083, 10, "video_mret/QVHighlight", FIND_CLIP, WATCH_VIDEO),
    VideoRow("Charades-STA", "M-RET", "moment_retrieval", "VLM2Vec/Charades-STA", None, "test", 727, 10, "video_mret/Charades_STA", FIND_CLIP, WATCH_VIDEO),
    VideoRow("MomentSeeker", "M-RET", "momentseeker", "VLM2Vec/MomentSeeker", None, "test", 1602, 10, "video_mret/MomentSeeker", "", WATCH_CLIP),
)
# fmt: on


def tables_of(row: VideoRow) -> tuple[Table, ...]:
    """One table, or MVBench's twenty."""
    configs: tuple[str | None, ...] = MVBENCH_SUBSETS if row.reader == "mvbench" else (row.config,)
    return tuple(Table(row.repo, config, row.split) for config in configs)


def _of_edition(row: VideoRow, edition: str) -> VideoRow:
    """The row with the repository and count of an edition."""
    return row._replace(
        repo=REPOS.get(row.name, {}).get(edition, row.repo),
        num_queries=NUM_QUERIES.get(row.name, {}).get(edition, row.num_queries),
    )


def _listed_folders(row: VideoRow) -> tuple[str, ...]:
    """Folders whose names are candidates and truth: what is missing there is other data, not the same with less."""
    return (f"{FRAMES}/{row.frame_root}/*/*",) if row.reader == "moment_retrieval" else ()


def _read(row: VideoRow, edition: str, data: Path, frames: Frames) -> Samples:
    """The reader is imported by the row that is read."""
    from mmeb_tasks.readers.video import VideoLayout, read_video_task

    layout = VideoLayout(
        reader=row.reader,
        tables=tables_of(row),
        frame_root=f"{FRAMES}/{row.frame_root}",
        instruction=row.instruction,
        target_instruction=row.target_instruction,
        labels=row.labels,
        max_rows=row.max_rows,
        all_positives=edition in V3_EDITIONS,
    )
    return read_video_task(layout, data, frames)


def _task(row: VideoRow, edition: str) -> Task:
    other = {known: tables_of(_of_edition(row, known))[0] for known in other_editions(row.name, edition)}
    row = _of_edition(row, edition)
    tables = tables_of(row)
    archive, root = rf"{row.frame_root.split('/')[0]}\.tar\.gz(-\d+)?", f"{FRAMES}/{row.frame_root}"
    return Task(
        name=row.name,
        modality="video",
        group=row.group,
        metric="hit@1",
        load=functools.partial(
            read_named, row.name, edition, functools.partial(_read, row, edition), tables[0].folder, other
        ),
        annotations=(*(pattern for table in tables for pattern in table.patterns), *_listed_folders(row)),
        num_queries=row.num_queries,
        num_candidates=row.num_candidates,
        source=row.repo,
        in_distribution="OOD",
        edition=edition,
        media=media_of(edition, *(("image",) if row.reader == "momentseeker" else ()), "video"),
        sources=(*tables, Archive(MEDIA_REPO, archive, functools.partial(place_frames, root), folder=root)),
        recognise=functools.partial(recognise, row.name, edition),
    )


def tasks(edition: str) -> tuple[Task, ...]:
    """The video tasks in one edition."""
    return tuple(_task(row, edition) for row in ROWS)
