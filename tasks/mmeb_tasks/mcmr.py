"""MCMR, the one task of multi-condition retrieval in MMEB-V3: products that fit several conditions at once."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from mmeb_harness import PICTURE_SUFFIXES, Frames, Samples, Task
from mmeb_tasks.bundle import bundle_archive, bundle_task
from mmeb_tasks.hub import by_name

FOLDER = "image-tasks/MCMR"
TABLES = ("query.jsonl", "candidates.jsonl")
INSTRUCTION = "Find an image-text pair that matches the given query"


def _read(data: Path, frames: Frames) -> Samples:
    """The reader is imported when the task is read."""
    from mmeb_tasks.readers.products import read_product_task

    return read_product_task(FOLDER, INSTRUCTION, data)


def _place(member: str) -> str | None:
    """Tables by their names, pictures into the one folder where the reader looks, packed with or without it."""
    path = PurePosixPath(member)
    if path.name in TABLES:
        return f"{FOLDER}/{path.name}"
    return f"{FOLDER}/images/{path.name}" if path.suffix.lower() in PICTURE_SUFFIXES else None


def tasks(edition: str) -> tuple[Task, ...]:
    """The one task, in an edition that has it."""
    return (
        bundle_task(
            "MCMR",
            edition,
            modality="image",
            group="I-MCR",
            metric="hit@1",
            read=_read,
            annotations=tuple(f"{FOLDER}/{name}" for name in TABLES),
            sources=(bundle_archive("MCMR", by_name(_place), nested=r"images\.tar(\.gz)?"),),
            media=("image",),
        ),
    )
