"""The hub repository of MMEB-V3's 112 additions, and what their rows have in common."""

from __future__ import annotations

import functools

from mmeb_harness import Medium, MetricName, Modality, Task
from mmeb_tasks.readers.builder import Read, read_named

REPO = "VLM2Vec/MMEB-V3"
#: Pinned by two independent users of it (WeMM-Embedding and meta-encoder); the official code pins nothing.
REVISION = "4a5560b2b64384204b6fea8a82ea986eba51f5aa"


def bundle_task(
    name: str,
    edition: str,
    *,
    modality: Modality,
    group: str,
    metric: MetricName,
    read: Read,
    annotations: tuple[str, ...],
    media: tuple[Medium, ...] = (),
    listed: tuple[str, ...] = (),
) -> Task:
    """A task whose files come out of the repository's archives, in the official tree."""
    folder = annotations[0].rpartition("/")[0].removesuffix("/**")
    return Task(
        name=name,
        modality=modality,
        group=group,
        metric=metric,
        load=functools.partial(read_named, name, edition, read, folder, {}),
        annotations=annotations,
        source=REPO,
        edition=edition,
        media=media,
        listed=listed,
    )
