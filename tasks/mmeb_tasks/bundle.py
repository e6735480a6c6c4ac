"""The hub repository of MMEB-V3's 112 additions, and what their rows have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from mmeb_harness import Archive, Files, HubSource, Medium, MetricName, Modality, Task
from mmeb_tasks.hub import Place
from mmeb_tasks.readers.builder import Read, read_named

REPO = "VLM2Vec/MMEB-V3"
#: Pinned by two independent users of it (WeMM-Embedding and meta-encoder); the official code pins nothing.
REVISION = "4a5560b2b64384204b6fea8a82ea986eba51f5aa"


def bundle_archive(
    name: str,
    place_in: Callable[[Path], Place],
    *,
    by_tables: bool = False,
    folder: str = "",
    nested: str = "",
) -> Archive:
    """An archive of the repository, whole or in parts; see `Archive`.

    Args:
        name: regular expression of its base name, without what says how it is packed: its content tells that.
    """
    file = rf"{name}\.(tar|tar\.gz|tgz|zip)(\.part)?(-\d+)?"
    return Archive(REPO, file, place_in, by_tables=by_tables, folder=folder, nested=nested, revision=REVISION)


def bundle_files(folder: str, files: str, into: str) -> Files:
    """Files of the repository that are in no archive; see `Files`."""
    return Files(REPO, folder, files, into, REVISION)


def bundle_task(
    name: str,
    edition: str,
    *,
    modality: Modality,
    group: str,
    metric: MetricName,
    read: Read,
    annotations: tuple[str, ...],
    sources: tuple[HubSource, ...],
    media: tuple[Medium, ...] = (),
    listed: tuple[str, ...] = (),
    likely_queries: int | None = None,
    num_candidates: int | None = None,
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
        sources=sources,
        media=media,
        listed=listed,
        likely_queries=likely_queries,
        num_candidates=num_candidates,
    )
