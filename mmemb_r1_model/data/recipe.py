"""Training data by configuration: which sets, how many of their rows, and how often they are drawn.

`PUBLISHED` is the mix that VLM2Vec-V2.0 was trained on, which UME-R1, TTE, Embed-RL and PLUME took over.
Source: TIGER-AI-Lab/VLM2Vec 1e402c4, experiments/public/train/train_alltasks.yaml.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

from mmemb_r1_model.data.documents import DocumentSet, open_documents
from mmemb_r1_model.data.llava_hound import Use, open_llava_hound
from mmemb_r1_model.data.mmeb_train import MmebSplit, open_mmeb_train
from mmemb_r1_model.data.pairs import PairSet
from mmemb_r1_model.data.suite import open_suite
from mmemb_r1_model.data.ume import UmeSet, open_ume
from mmemb_r1_model.disk.errors import OptionError, UnknownNameError

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


#: Subset of MMEB-train → rows used at most, weight. Most have fewer rows (dataset card): VisDial 123 thousand, DocVQA
#: 39, CIRR 26, ChartQA 28, InfographicsVQA 24, SUN397 20, WebQA 17, A-OKVQA 17, NIGHTS 16, OK-VQA 9, HatefulMemes 8.5,
#: VOC2007 8.
IMAGE_MIX: dict[str, tuple[int, float]] = {
    "ImageNet_1K": (100_000, 1),
    "N24News": (50_000, 1),
    "HatefulMemes": (10_000, 0.5),
    "VOC2007": (10_000, 0.5),
    "SUN397": (20_000, 0.5),
    "OK-VQA": (10_000, 0.5),
    "A-OKVQA": (20_000, 0.5),
    "DocVQA": (40_000, 1),
    "InfographicsVQA": (25_000, 0.5),
    "ChartQA": (28_000, 0.5),
    "Visual7W": (70_000, 1),
    "VisDial": (130_000, 1),
    "CIRR": (30_000, 0.5),
    "VisualNews_t2i": (100_000, 1),
    "VisualNews_i2t": (100_000, 1),
    "MSCOCO_t2i": (100_000, 1),
    "MSCOCO_i2t": (120_000, 1),
    "NIGHTS": (20_000, 0.5),
    "WebQA": (20_000, 0.5),
    "MSCOCO": (100_000, 1),
}

_LLAVA_HOUND = "train_video_and_instruction"

#: Weights sum to 52: images 15, documents 22, videos 15.
PUBLISHED: tuple[TrainingSetConfig, ...] = (
    *(
        TrainingSetConfig("mmeb-train", "MMEB-train", subset=subset, limit=limit, weight=weight)
        for subset, (limit, weight) in IMAGE_MIX.items()
    ),
    TrainingSetConfig("colpali", "colpali_train_set", weight=10),
    TrainingSetConfig("visrag", "VisRAG-Ret-Train-In-domain-data", weight=12),
    TrainingSetConfig("llava-hound-caption", _LLAVA_HOUND, limit=300_000, weight=5),
    TrainingSetConfig("llava-hound-retrieval", _LLAVA_HOUND, limit=300_000, weight=5),
    # The yaml's `num_rows: 240_000` is read by nobody; the cut is made by the download script. Same rows here.
    TrainingSetConfig("llava-hound-qa", _LLAVA_HOUND, limit=240_000, weight=5),
)


def open_sets(configs: Sequence[TrainingSetConfig], root: Path) -> list[tuple[PairSet, float]]:
    """All sets of a mix, each with its weight.

    Raises:
        OptionError: two sets of one name, or a field that a kind of set doesn't have.
        UnknownNameError: no such subset or split.
        DataError: files that are missing or broken; how to get them is said.
    """
    opened: list[tuple[PairSet, float]] = []
    for config in configs:
        pair_sets = open_set(config, root)
        pairs = sum(map(len, pair_sets))
        opened += [
            (opened_set, config.weight * len(opened_set) / pairs if pairs else config.weight)
            for opened_set in pair_sets
        ]
    names = [opened_set.name for opened_set, _ in opened]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise OptionError(f"two training sets are called {twice!r}: give one another name, since artefacts go by it")
    return opened


def open_set(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    """The sets of one entry: several for a suite, and for UME without `subset`.

    Raises:
        HarnessError: as `open_sets`.
    """
    for given in ("subset", "split", "media"):
        if getattr(config, given) and given not in _FIELDS[config.kind]:
            raise OptionError(f"training set {config.kind} has no {given}; leave out {getattr(config, given)!r}")
    return _OPENERS[config.kind](config, root)


def _media(config: TrainingSetConfig, root: Path) -> Path | None:
    return root / config.media if config.media else None


def _open_mmeb_train(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    split = config.split or "original"
    if split not in get_args(MmebSplit):
        raise UnknownNameError("split of MMEB-train", split, get_args(MmebSplit))
    folder, media = root / config.path, _media(config, root)
    return [open_mmeb_train(folder, config.subset, cast(MmebSplit, split), config.limit, config.name, media)]


def _open_llava_hound(config: TrainingSetConfig, root: Path, use: Use) -> list[PairSet]:
    folder, media = root / config.path, _media(config, root)
    return [open_llava_hound(folder, use, config.limit, config.frames, config.name, config.subset, media)]


def _open_documents(config: TrainingSetConfig, root: Path, kind: DocumentSet) -> list[PairSet]:
    return [open_documents(root / config.path, kind, config.split or "train", config.limit, config.name)]


def _open_ume(config: TrainingSetConfig, root: Path, kind: UmeSet) -> list[PairSet]:
    path, media = root / config.path, _media(config, root)
    return [*open_ume(path, kind, config.subset, config.limit, config.frames, config.name, media)]


def _open_suite(config: TrainingSetConfig, root: Path) -> list[PairSet]:
    return open_suite(root / config.path, config.subset, config.limit)


_OPENERS: dict[Kind, Callable[[TrainingSetConfig, Path], list[PairSet]]] = {
    "mmeb-train": _open_mmeb_train,
    "llava-hound-caption": partial(_open_llava_hound, use="caption"),
    "llava-hound-retrieval": partial(_open_llava_hound, use="retrieval"),
    "llava-hound-qa": partial(_open_llava_hound, use="qa"),
    "colpali": partial(_open_documents, kind="colpali"),
    "visrag": partial(_open_documents, kind="visrag"),
    "ume-sft": partial(_open_ume, kind="sft"),
    "ume-rl": partial(_open_ume, kind="rl"),
    "suite": _open_suite,
}

#: Fields that mean something to a kind, of those that not every kind has.
_FIELDS: dict[Kind, tuple[str, ...]] = {
    "mmeb-train": ("subset", "split", "media"),
    "llava-hound-caption": ("subset", "media"),
    "llava-hound-retrieval": ("subset", "media"),
    "llava-hound-qa": ("subset", "media"),
    "colpali": ("split",),
    "visrag": ("split",),
    "ume-sft": ("subset", "media"),
    "ume-rl": ("subset", "media"),
    "suite": ("subset",),
}
