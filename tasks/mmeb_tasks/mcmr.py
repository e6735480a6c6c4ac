"""MCMR, the one task of multi-condition retrieval in MMEB-V3: products that fit several conditions at once."""

from __future__ import annotations

from pathlib import Path

from mmeb_harness import Frames, Samples, Task
from mmeb_tasks.bundle import bundle_task

FOLDER = "image-tasks/MCMR"
INSTRUCTION = "Find an image-text pair that matches the given query"


def _read(data: Path, frames: Frames) -> Samples:
    """The reader is imported when the task is read."""
    from mmeb_tasks.readers.products import read_product_task

    return read_product_task(FOLDER, INSTRUCTION, data)


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
            annotations=(f"{FOLDER}/query.jsonl", f"{FOLDER}/candidates.jsonl"),
            media=("image",),
        ),
    )
