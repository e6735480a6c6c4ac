"""`model.json` of a folder of vectors says whose they are. A broken one costs nothing: the next run writes it anew."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from mmeb_harness.core.embedder import ModelInfo
from mmeb_harness.core.environment import __version__
from mmeb_harness.core.errors import ResultError, one_line
from mmeb_harness.core.files import fingerprint, read_json, write_json
from mmeb_harness.core.items import Similarity
from mmeb_harness.core.sealed import listed
from mmeb_harness.store.chunk_files import chunk_files, has_checksum

#: 1: chunks of parquet or Arrow, media named by path and time, no `model.json`. 2: all Arrow, media named by their
#: bytes.
STORE_VERSION = 2
DESCRIPTION = "model.json"
#: Of all other values; release 0.1 wrote none.
_CHECKSUM = "checksum"


@dataclass(frozen=True)
class Description:
    """Whose vectors a folder holds.

    Attributes:
        version: of the store; 1 is that of folders without `model.json`.
        name, revision: of the model; "" where the folder doesn't say.
        dimensions: `None` where the folder doesn't say.
    """

    version: int
    name: str = ""
    revision: str = ""
    dimensions: int | None = None
    similarity: Similarity | None = None


def read_description(folder: Path) -> Description | None:
    """What a folder says of itself, or its files where its `model.json` is broken; `None` if it holds no vectors.

    Raises:
        ResultError: the folder can't be read.
    """
    if not (folder / DESCRIPTION).is_file():
        # A file that was deleted: chunks of version 1 have no checksums.
        version = STORE_VERSION if any(map(has_checksum, chunk_files(folder))) else 1
        return Description(version) if listed(folder, "chunk-") else None
    try:
        return _parsed(folder / DESCRIPTION)
    except ResultError:
        return Description(STORE_VERSION)  # version 1 had no such file, and later ones can be told by their checksum


def description_problem(folder: Path) -> str | None:
    """What is wrong with the `model.json` of a folder that has vectors."""
    if not (folder / DESCRIPTION).is_file():
        return "it is missing" if listed(folder, "chunk-") else None
    try:
        _parsed(folder / DESCRIPTION)
    except ResultError as error:
        return str(error)
    return None


def _parsed(path: Path) -> Description:
    """Raises ResultError, which says what is wrong but not with which file."""
    try:
        values = read_json(path)
    except ResultError as error:
        raise ResultError(one_line(error.__cause__ or error, 100)) from error
    if not isinstance(values, dict):
        raise ResultError("it says nothing of a model")
    checksum = values.pop(_CHECKSUM, None)
    if checksum not in (None, fingerprint(values)):
        raise ResultError("it is not what was written (checksum)")
    version, similarity, width = (values.get(name) for name in ("store_version", "similarity", "dimensions"))
    if checksum is not None and type(version) is int and version != STORE_VERSION:
        return Description(version)
    name, revision = values.get("model"), values.get("revision")
    if (
        type(version) is not int
        or version != STORE_VERSION
        or similarity not in get_args(Similarity)
        or not (isinstance(name, str) and isinstance(revision, str))
        or not (width is None or type(width) is int)
    ):
        raise ResultError("values that no release wrote")
    return Description(version, name, revision, width, similarity)


def check_description(folder: Path, similarity: Similarity) -> None:
    """Refuse a folder of another store version, or of vectors that are compared in another way.

    Raises:
        ResultError: says what to do about it.
    """
    described = read_description(folder)
    if described is None:
        return
    if described.version != STORE_VERSION:
        kind = "older" if described.version < STORE_VERSION else "newer"
        prune = f"mmeb-eval cache prune --model {folder.name} --vectors {folder.parent}"
        way_out = prune if kind == "older" else "upgrade mmeb-harness"
        raise ResultError(
            f"{folder} holds vectors of store version {described.version}, this release reads and writes "
            f"{STORE_VERSION}: {way_out}, choose another --vectors, or use the {kind} release that wrote them"
        )
    if described.similarity not in (similarity, None):  # a fingerprint that an adapter's author forgot to change
        raise ResultError(
            f"{folder} holds vectors of similarity {described.similarity!r}, the model declares {similarity!r}; delete "
            "the folder, or give the model another revision"
        )


def write_description(folder: Path, similarity: Similarity, model: ModelInfo | None) -> None:
    """Say whose vectors these are. `None`: a store of nobody in particular.

    Raises:
        ResultError: if it can't be written.
    """
    values: dict[str, Any] = {"store_version": STORE_VERSION, "similarity": similarity}
    values |= {"model": "", "revision": "", "dimensions": None}
    if model is not None:
        values |= {"model": model.name, "revision": model.revision, "dimensions": model.dimensions}
        values |= {"settings": dict(model.settings), "profile": dataclasses.asdict(model.profile)}
    values |= {"created": datetime.now(UTC).isoformat(timespec="seconds"), "harness": __version__}
    write_json(folder / DESCRIPTION, values | {_CHECKSUM: fingerprint(values)})
