"""Training data by configuration: which sets, how many of their rows, and how often they are drawn.

`PUBLISHED` is the mix that VLM2Vec-V2.0 was trained on, which UME-R1, TTE, Embed-RL and PLUME took over.
Source: TIGER-AI-Lab/VLM2Vec 1e402c4, experiments/public/train/train_alltasks.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from mmemb_r1_model.data.config import PAIRS_GROUP, PairKind, TrainingSetConfig
from mmemb_r1_model.data.pairs import PairSet
from mmemb_r1_model.disk.errors import OptionError, UnknownNameError, call_plugin, progress_of

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


def open_sets(configs: Sequence[TrainingSetConfig], root: Path, is_first: bool = True) -> list[tuple[PairSet, float]]:
    """All sets of a mix, each with its weight.

    Args:
        is_first: this process tells how far it is.

    Raises:
        OptionError: two sets of one name, or a field that a kind of set doesn't have.
        UnknownNameError: no such kind, subset or split.
        DataError: files that are missing or broken; how to get them is said.
    """
    opened: list[tuple[PairSet, float]] = []
    for config in configs:
        with progress_of(f"opening training data, {config.kind} {config.path}", shown=is_first):
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


def open_set(config: TrainingSetConfig, root: Path) -> Sequence[PairSet]:
    """The sets of one entry: several for a suite, and for UME without `subset`.

    Raises:
        HarnessError: as `open_sets`.
    """
    points = entry_points(group=PAIRS_GROUP)
    if config.kind not in points.names:
        raise UnknownNameError("kind of training set", config.kind, points.names)
    who = f"training set {config.kind}"
    kind = call_plugin(who, points[config.kind].load)
    if not isinstance(kind, PairKind):
        raise OptionError(f"{who}: its entry point names {kind!r}, which is no PairKind")
    for name in ("subset", "split", "media"):
        if getattr(config, name) and name not in kind.fields:
            raise OptionError(f"{who} has no {name}; leave out {getattr(config, name)!r}")
    return call_plugin(who, partial(kind.open, config, root))
