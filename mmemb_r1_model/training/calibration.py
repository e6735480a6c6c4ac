"""The end of stage 2: how often reasoning pays where the gate says so, on prompts that no training has seen.

The finished checkpoint is asked as an evaluation asks it: its own vectors of queries on both paths and of candidates.
Reasoning pays where it brings the right candidate to the first place, which is what most tasks score (hit@1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmeb_harness.stats.resampling import Floats
from mmemb_r1_model.data.pairs import Item, Pair
from mmemb_r1_model.disk.config import Least1, Share
from mmemb_r1_model.disk.errors import OptionError, progress_of
from mmemb_r1_model.disk.files import write_json
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder, load
from mmemb_r1_model.model.settings import Mode, read_settings, write_settings
from mmemb_r1_model.training.bank import make_bank
from mmemb_r1_model.training.batches import WeightedSet, labels_of, pairs_between
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.platt import FEWEST, Fit, judged

NAME = "calibration.json"


@dataclass(frozen=True)
class CalibrateConfig:
    """On which prompts a gate is calibrated, and how.

    Attributes:
        pairs_from: the last pairs of each data set from here on, a share of them, 0 to 1; no plan may reach them.
        prompts: at most, from the data sets by their weights. A thousand tell the share that reasons to 2 or 3 points
            and cost less than 2 % of the rollouts of a full run.
        negatives: of each data set, at most; MMEB-V2's image tasks have 1,000 candidates.
        price: expected gain, as a share of 1, that a rationale has to be worth; 0: no rationale is too much.
        batch_size: prompts that are read at once.
    """

    pairs_from: Share
    prompts: Least1 = 1024
    negatives: Least1 = 1000
    price: Share = 0.1
    batch_size: Least1 = 16


def check_held_out(config: CalibrateConfig, reached: Mapping[str, float], way_out: str) -> None:
    """Refuse prompts that a training may have seen.

    Args:
        reached: the name of each plan's `pairs_to`, and its value.

    Raises:
        OptionError: names the plan.
    """
    for name, pairs_to in reached.items():
        if pairs_to > config.pairs_from:
            raise OptionError(
                f"calibrate.pairs_from {config.pairs_from} is below {name} {pairs_to}: the gate would be calibrated on "
                f"prompts that were trained on; {way_out}"
            )


def reached_by(described: Mapping[str, Any], stage: Literal["train", "adapt"]) -> dict[str, float]:
    """Name and value of each `pairs_to` of a training.

    Args:
        described: its settings, those of the stage under its name. Where they don't say, it took all pairs.
    """
    plans = {name: described[stage].get(name) for name in ("plan", "prompts")}
    return {f"{stage}.{name}.pairs_to": plan.get("pairs_to", 1.0) for name, plan in plans.items() if plan is not None}


def is_calibrated(final: Path) -> bool:
    """Whether a checkpoint folder has a calibration."""
    return read_settings(final).calibration is not None


def calibrate_gate(
    sets: Sequence[WeightedSet], config: CalibrateConfig, final: Path, dtype: str, world: World
) -> Fit | None:
    """Fit the gate of the checkpoint in `final` and write it into its settings; calibration.json, beside it, says more.

    Every process calls it and reads its part; the first writes.

    Args:
        dtype: in which the checkpoint will run.

    Returns:
        `None`, and the gate stays raw: there are fewer than `FEWEST` prompts.
    """
    chosen = held_out(sets, config)
    pairs = [pair for own in chosen for pair in own]
    if len(pairs) < FEWEST:
        return None
    # Of one model both paths, and the raw gate: as candidates queries never reason. Of a graded gate the rationales are
    # as long as it says, which adaptive ones are; at this threshold all are written.
    mode: Mode = "always" if read_settings(final).short is None else "adaptive"
    embedder = load(str(final), reasoning=mode, gate="raw", threshold=0.0, device=world.device.type, dtype=dtype)
    reader = _Reader(embedder, config.batch_size, world)
    queries = [pair.query for pair in pairs]
    reasoned_ND, _ = reader.read(queries, "query", "prompts with a rationale")
    direct_ND, gates_N = reader.read(queries, "candidate", "prompts without")
    right_ND, _ = reader.read([pair.positive for pair in pairs], "candidate", "what is right for them")
    banks = {
        weighted.pairs.name: make_bank(weighted.pairs, "query", config.negatives, reader.negatives, seed=0)
        for weighted, own in zip(sets, chosen, strict=True)
        if own
    }
    never_N, always_N = np.empty(len(pairs)), np.empty(len(pairs))
    for row, pair in enumerate(pairs):
        bank = banks[pair.dataset]
        kept_MD = bank.vectors_MD[~bank.excluded([labels_of(pair)], "query")[0]]
        never_N[row] = _is_first(direct_ND[row], right_ND[row], kept_MD)
        always_N[row] = _is_first(reasoned_ND[row], right_ND[row], kept_MD)
    settings = read_settings(final)
    fit = judged(gates_N, never_N, always_N, config.price, settings.threshold)
    if world.is_first:
        write_json(final.parent / NAME, dataclasses.asdict(fit))
        write_settings(final, dataclasses.replace(settings, calibration=fit.calibration))
    world.wait()
    return fit


def held_out(sets: Sequence[WeightedSet], config: CalibrateConfig) -> list[list[Pair]]:
    """Pairs of each data set: as many of all as its weight says, of those that are held out."""
    total = sum(weighted.weight for weighted in sets)
    chosen = []
    for weighted in sets:
        places = pairs_between(len(weighted.pairs), config.pairs_from, 1.0)
        count = round(config.prompts * weighted.weight / total)
        chosen.append([weighted.pairs[place] for place in places[:count].tolist()])
    return chosen


@dataclass(frozen=True)
class _Reader:
    """One checkpoint in every process, each of which reads its part of the items."""

    embedder: MMEmbR1Embedder
    batch_size: int
    world: World

    def read(self, items: Sequence[Item], role: Literal["query", "candidate"], what: str) -> tuple[Tensor, Floats]:
        """Vectors (N, D) and gates (N,) of all items, in every process."""
        embedder, rank, size = self.embedder, self.world.rank, self.world.size
        mine = items[rank::size]
        batches = [mine[first : first + self.batch_size] for first in range(0, len(mine), self.batch_size)]
        vectors = [np.empty((0, embedder.info.dimensions), np.float32)]
        gates: list[float | None] = []
        with progress_of(f"calibrate, {what}", len(mine), shown=self.world.is_first) as advance:
            for result in embedder.encode_stream(embedder.prepare(batch, role) for batch in batches):
                vectors.append(np.asarray(result.vectors))
                gates += [trace.gate for trace in result.traces or ()]
                advance(len(result.vectors))
        vectors_ND, gates_N = np.empty((len(items), embedder.info.dimensions), np.float32), np.empty(len(items))
        for other, (part_ND, part_N) in enumerate(self.world.gather_objects((np.concatenate(vectors), gates))):
            vectors_ND[other::size], gates_N[other::size] = part_ND, part_N
        return torch.from_numpy(vectors_ND), gates_N

    def negatives(self, items: Sequence[Item]) -> Tensor:
        """Vectors (M, D) of candidates."""
        return self.read(items, "candidate", "negatives")[0]


def _is_first(vector_D: Tensor, right_D: Tensor, negatives_MD: Tensor) -> bool:
    """Whether what is right is nearer than each negative; a tie is no first place."""
    return not len(negatives_MD) or bool(vector_D @ right_D > (negatives_MD @ vector_D).max())
