"""`dataset.yaml`: what a folder of own data may say of itself. Without one, every field has its default."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmeb_harness import DataError, MetricName, build_config, read_yaml

FILE = "dataset.yaml"
#: Of a task's name, which names its result files.
_NOT_IN_NAMES = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True)
class Settings:
    """A data set's own settings.

    Attributes:
        name: of the task; default: the folder's.
        instruction: of queries that have none of their own.
        candidate_instruction: the same of candidates.
        metric: the main one; default: hit@1 of pictures, ndcg_linear@5 of everything else. All are reported.
        split: which file of the folder `qrels` counts; default: "test", or the only one.
        pages: what a page of a document is to a model: its picture, the text that the PDF holds, or both.
        dpi: pixels an inch of a page's picture.
    """

    name: str = ""
    instruction: str = ""
    candidate_instruction: str = ""
    metric: MetricName | None = None
    split: str = ""
    pages: Literal["image", "text", "both"] = "image"
    dpi: int = 150


def read_settings(folder: Path) -> Settings:
    """The folder's settings.

    Raises:
        OptionError: not readable, or a value of the wrong type.
        UnknownNameError: a key that is no field.
        DataError: a name that can't name files, or a resolution that nobody can mean.
    """
    path = folder / FILE
    settings = build_config(Settings, read_yaml(path), str(path)) if path.exists() else Settings()
    if settings.name and _NOT_IN_NAMES.search(settings.name):
        raise DataError(f"{path}: name {settings.name!r} must consist of letters, digits and . _ + -")
    if not 20 <= settings.dpi <= 1200:
        raise DataError(f"{path}: {settings.dpi} dpi; choose 20 to 1200")
    return settings


def name_of_folder(folder: Path) -> str:
    """A folder's name as a task's: what can't stand in one becomes an underscore."""
    return _NOT_IN_NAMES.sub("_", folder.name).strip("_") or "data"
