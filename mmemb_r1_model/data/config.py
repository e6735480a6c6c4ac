"""One entry of a training mix: which data set, and how much of it; and what a kind of data set is.

[project.entry-points."mmemb_r1.pairs"]
my-kind = "my_package:MY_KIND"      a `PairKind`; `{kind: my-kind, path: …}` then stands in configurations' `data`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmemb_r1_model.data.pairs import PairSet
from mmemb_r1_model.disk.errors import OptionError

#: Entry points of training sets by their kinds; what each names is a `PairKind`.
PAIRS_GROUP = "mmemb_r1.pairs"


@dataclass(frozen=True)
class TrainingSetConfig:
    """One entry of the mix. Paths are below the root that sets are opened with; absolute ones stay.

    Attributes:
        kind: an entry point's name.
        path: pairs: the file. Folder of the downloaded repository (layouts: README.md of this folder), or a suite's.
        name: in pairs and artefacts; "": the file's, or kind and subset. A suite's sets have their tasks' names.
        subset: mmeb-train: which, required. ume-*: a `dataset_name`; "": all, each a set of its own. llava-hound-*:
            another annotation file of the same folder. suite: a task or a group.
        split: mmeb-train: original or diverse_instruction. colpali, visrag: of the hub's. "": the recipe's.
        limit: the first rows of each set, as the recipe takes them; unusable ones count.
        weight: how often it is drawn, relative to the others; several sets share it in proportion to their pairs.
        frames: of a video, at most.
        media: folder of images or frames; "": the file's own, or where the set's repository, or its README, puts them.
    """

    kind: str
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


@dataclass(frozen=True)
class PairKind:
    """A kind of data set.

    Attributes:
        open: an entry, and the folder that its paths start from → its sets of pairs. Says by a DataError, in one line,
            what is missing or broken, and the way out.
        fields: of subset, split and media those that mean something to it; the others are refused.
    """

    open: Callable[[TrainingSetConfig, Path], Sequence[PairSet]]
    fields: tuple[str, ...] = ()
