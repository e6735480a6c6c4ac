"""One entry of a training mix: which data set, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmemb_r1_model.disk.errors import OptionError

Kind = Literal[
    "mmeb-train",
    "llava-hound-caption",
    "llava-hound-retrieval",
    "llava-hound-qa",
    "colpali",
    "visrag",
    "ume-sft",
    "ume-rl",
    "suite",
]


@dataclass(frozen=True)
class TrainingSetConfig:
    """One entry of the mix. Paths are below the root that sets are opened with; absolute ones stay.

    Attributes:
        path: folder of the downloaded repository (layouts: README.md of this folder), or a suite's data folder.
        name: in pairs and artefacts; "": kind and subset. A suite's sets have their tasks' names.
        subset: mmeb-train: which, required. ume-*: a `dataset_name`; "": all, each a set of its own. llava-hound-*:
            another annotation file of the same folder. suite: a task or a group.
        split: mmeb-train: original or diverse_instruction. colpali, visrag: of the hub's. "": the recipe's.
        limit: the first rows of each set, as the recipe takes them; unusable ones count.
        weight: how often it is drawn, relative to the others; several sets share it in proportion to their pairs.
        frames: of a video, at most.
        media: folder of images or frames; "": where the set's repository, or its README, puts them.
    """

    kind: Kind
    path: str
    name: str = ""
    subset: str = ""
    split: str = ""
    limit: int | None = None
    weight: float = 1.0
    frames: int = 8
    media: str = ""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise OptionError(
                f"training set {self.kind}: limit must be at least 1, not {self.limit}; leave it out for all"
            )
        if self.frames < 1:
            raise OptionError(f"training set {self.kind}: frames must be at least 1, not {self.frames}")
        if not self.weight > 0:
            raise OptionError(
                f"training set {self.kind}: weight must be above 0, not {self.weight}; or leave the set out"
            )
