"""Which pairs stand in which step, and what a step's pairs look like to the student.

The plan is a pure function of seed and step: a run that is resumed, or split over more processes, sees the same
global batches. All pairs of a sub-batch come from one data set, so that negatives are of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmemb_r1_model.data.pairs import SIDES, Item, Pair, PairSet, Side, content_key, contents_of, item_of
from mmemb_r1_model.disk.config import Least0, Least1, Share
from mmemb_r1_model.disk.errors import DataError, OptionError, UnknownNameError
from mmemb_r1_model.disk.hashing import hash64
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import LoopConfig


@dataclass(frozen=True)
class WeightedSet:
    """A data set and how often it is drawn, relative to the others."""

    pairs: PairSet
    weight: float


def described_pairs(sets: Sequence[WeightedSet]) -> dict[str, dict[str, str]]:
    """What a training says of data sets that may change, beside its settings; nothing of published ones."""
    contents = contents_of(weighted.pairs for weighted in sets)
    return {"pairs": contents} if contents else {}


class Rationales(Protocol):
    """Where the rationales of a training come from."""

    @property
    def fingerprint(self) -> str:
        """Of all of them: a run that was broken off goes on with the same ones only."""

    def draw(self, pair: Pair, side: Side, rng: Callable[[], np.random.Generator]) -> str | None:
        """One of the pair's rationales for that side; `None`: the side is direct-only.

        Args:
            rng: makes a generator, which takes longer than to see that there is but one rationale.
        """


@dataclass(frozen=True)
class Input:
    """One item of a step.

    Attributes:
        prompt: the item as the student reads it.
        rationale: `None`: the direct path only.
        taught: whether its completion is in the next-token loss; distractors' are not.
        written: a completion of the student's own, which the contrastive terms see instead of the rationale.
    """

    item: Item
    prompt: Prompt
    rationale: str | None
    taught: bool = True
    written: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Labels:
    """What tells right candidates from wrong ones, as small hashes.

    Attributes:
        right: of a query: every label that a candidate may have to be no negative.
        has: of its positive, as a candidate.
    """

    right: frozenset[int]
    has: frozenset[int]


@dataclass(frozen=True)
class StepBatch:
    """One process's share of a step: n pairs, e extra candidates.

    Attributes:
        datasets: name of every pair's data set.
        names: "dataset/pair id" of every pair, for messages.
        extra_labels: what each extra candidate has, as `Labels.has`.
    """

    step: int
    datasets: tuple[str, ...]
    names: tuple[str, ...]
    queries: tuple[Input, ...]
    positives: tuple[Input, ...]
    extras: tuple[Input, ...]
    labels: tuple[Labels, ...]
    extra_labels: tuple[frozenset[int], ...]


@dataclass(frozen=True)
class PlanConfig:
    """How a global batch is put together.

    Attributes:
        batch_size: pairs of a step, over all processes.
        sub_batches: into how many data sets a batch is split; each block is of one.
        distractors: further candidates of the same data sets in a step, where they have some.
        hard_negatives: of each pair's own, at most.
        first_steps: so many steps draw from `first_sets` alone: a skill that hardly forms in a mix is taught before it.
        first_sets: names of data sets.
        pairs_from, pairs_to: which share of each data set's pairs, in one random order of them, 0 to 1. A student that
            has a pair by heart never needs to reason about it: stage 2 learns when to on pairs that stage 1 left out.
    """

    batch_size: Least1 = 64
    sub_batches: Least1 = 1
    distractors: Least0 = 0
    hard_negatives: Least0 = 0
    first_steps: Least0 = 0
    first_sets: tuple[str, ...] = ()
    pairs_from: Share = 0.0
    pairs_to: Share = 1.0


class Plan:
    """Which positions of which data sets stand in a step."""

    def __init__(self, sets: Sequence[WeightedSet], config: PlanConfig, steps: int, seed: int) -> None:
        self.sets, self.config, self.seed = sets, config, seed
        if not sets:
            raise OptionError("no training data: name at least one data set")
        if config.batch_size % config.sub_batches:
            raise OptionError(f"batch_size {config.batch_size} is not a multiple of sub_batches {config.sub_batches}")
        self._block = config.batch_size // config.sub_batches
        self._shares = [pairs_between(len(own.pairs), config.pairs_from, config.pairs_to) for own in sets]
        for weighted, share in zip(sets, self._shares, strict=True):
            if len(share) < self._block:
                raise OptionError(
                    f"data set {weighted.pairs.name!r} has {len(share)} pairs, fewer than the {self._block} that stand "
                    "in a batch together; leave it out or make batch_size smaller"
                )
            if weighted.weight <= 0:
                raise OptionError(f"data set {weighted.pairs.name!r} has weight {weighted.weight}; it must be above 0")
        weights = np.array([weighted.weight for weighted in sets])
        rng = np.random.default_rng((seed, 0))
        shape = (steps, config.sub_batches)
        self._sets_of_step: NDArray[np.int64] = rng.choice(len(sets), size=shape, p=weights / weights.sum())
        if config.first_steps:
            first = weights * _are_named(sets, config.first_sets)
            shape = (min(steps, config.first_steps), config.sub_batches)
            self._sets_of_step[: config.first_steps] = rng.choice(len(sets), size=shape, p=first / first.sum())
        elif config.first_sets:
            raise OptionError(f"first_sets {', '.join(config.first_sets)} needs first_steps, how many are theirs")
        self._draws_before = _draws_before(self._sets_of_step)

    def blocks(self, step: int) -> list[tuple[int, list[int]]]:
        """(data set, positions) of every sub-batch of a step."""
        drawn = zip(self._sets_of_step[step].tolist(), self._draws_before[step].tolist(), strict=True)
        return [(chosen, self._positions(chosen, before * self._block)) for chosen, before in drawn]

    def _positions(self, chosen: int, first: int) -> list[int]:
        """The next positions of a data set that is gone through in a new order every epoch."""
        share = self._shares[chosen]
        size = len(share)
        positions: list[int] = []
        while len(positions) < self._block:
            epoch, offset = divmod(first + len(positions), size)
            order = _order(self.seed, chosen, epoch, size)
            positions += share[order[offset : offset + self._block - len(positions)]].tolist()
        return positions


def _are_named(sets: Sequence[WeightedSet], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which data sets the first steps draw from."""
    known = [weighted.pairs.name for weighted in sets]
    if not names:
        raise OptionError("first_steps needs first_sets, the data sets of those steps")
    for name in names:
        if name not in known:
            raise UnknownNameError("data set in first_sets", name, known)
    return np.isin(known, names)


def pairs_between(size: int, pairs_from: float, pairs_to: float) -> NDArray[np.int64]:
    """Positions of a share of a data set's pairs; of the same order for all who ask, so that two shares don't overlap.

    Raises:
        OptionError: no share.
    """
    if not 0 <= pairs_from < pairs_to <= 1:
        raise OptionError(f"pairs_from {pairs_from} and pairs_to {pairs_to} must be 0 ≤ from < to ≤ 1")
    if (pairs_from, pairs_to) == (0, 1):
        return np.arange(size)
    order = np.random.default_rng(0).permutation(size)
    return order[round(pairs_from * size) : round(pairs_to * size)]


def _draws_before(sets_of_step: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often a block's data set was drawn before it."""
    flat = sets_of_step.flatten()
    before = np.zeros_like(flat)
    for chosen in np.unique(flat):
        here = np.flatnonzero(flat == chosen)
        before[here] = np.arange(len(here))
    return before.reshape(sets_of_step.shape)


@lru_cache(maxsize=256)
def _order(seed: int, chosen: int, epoch: int, size: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, 1, chosen, epoch)).permutation(size)


class StepReader(torch.utils.data.Dataset[StepBatch]):
    """Step number → this process's share of the step, read and tokenised. Usable from loader processes."""

    def __init__(
        self, plan: Plan, read: Callable[[Item], Prompt], rationales: Rationales, rank: int = 0, size: int = 1
    ) -> None:
        config = plan.config
        if config.batch_size % (size * config.sub_batches):
            raise OptionError(
                f"batch_size {config.batch_size} can't be split over {size} processes and {config.sub_batches} "
                "sub-batches; make it a multiple of both"
            )
        self._plan, self._config, self._read, self._rationales = plan, config, read, rationales
        self._rank, self._size = rank, size

    def __getitem__(self, step: int) -> StepBatch:
        pairs: list[Pair] = []
        extras: list[Item] = []
        for block, (chosen, positions) in enumerate(self._plan.blocks(step)):
            own = self._plan.sets[chosen].pairs
            share = len(positions) // self._size
            mine = positions[self._rank * share : (self._rank + 1) * share]
            pairs += [own[position] for position in mine]
            extras += self._distractors(own, step, block)
        extras += [item for pair in pairs for item in pair.negatives[: self._config.hard_negatives]]
        return StepBatch(
            step=step,
            datasets=tuple(pair.dataset for pair in pairs),
            names=tuple(f"{pair.dataset}/{pair.id}" for pair in pairs),
            queries=tuple(self._input(pair, "query", step) for pair in pairs),
            positives=tuple(self._input(pair, "positive", step) for pair in pairs),
            extras=tuple(Input(item, self._read(item), None, taught=False) for item in extras),
            labels=tuple(labels_of(pair) for pair in pairs),
            extra_labels=tuple(frozenset({hash64(content_key(item))}) for item in extras),
        )

    def _input(self, pair: Pair, side: Side, step: int) -> Input:
        def rng() -> np.random.Generator:
            # Drawn by pair and step, not by place: the same whatever the number of processes.
            of_pair = hash64(f"{pair.dataset}\0{pair.id}") % 2**63
            return np.random.default_rng((self._plan.seed, 3, step, of_pair, SIDES.index(side)))

        item = item_of(pair, side)
        try:
            return Input(item, self._read(item), self._rationales.draw(pair, side, rng))
        except DataError as error:
            raise DataError(f"{pair.dataset}, pair {pair.id!r}, {side}: {error}") from error

    def _distractors(self, own: PairSet, step: int, block: int) -> list[Item]:
        wanted = min(self._config.distractors // self._config.sub_batches, len(own.distractors))
        rng = np.random.default_rng((self._plan.seed, 2, step, block))
        chosen = rng.choice(len(own.distractors), wanted, replace=False) if wanted else np.zeros(0, int)
        return [own.distractors[int(index)] for index in chosen[self._rank :: self._size]]


def labels_of(pair: Pair) -> Labels:
    """What is right for a pair, and what its positive is."""
    own = hash64(content_key(pair.positive))
    answer = {hash64(f"{pair.dataset}\0{pair.answer}")} if pair.answer else set()
    return Labels(
        right=frozenset({own, *answer, *map(hash64, pair.relevant)}),
        has=frozenset({own, *answer}),
    )


def right_pairs(right: Sequence[frozenset[int]], has: Sequence[frozenset[int]]) -> Tensor:
    """(queries, candidates) true where a candidate has a label that is right for the query."""
    columns: dict[int, list[int]] = {}
    for column, labels in enumerate(has):
        for label in labels:
            columns.setdefault(label, []).append(column)
    cells = [(row, column) for row, labels in enumerate(right) for label in labels for column in columns.get(label, ())]
    is_right = torch.zeros(len(right), len(has), dtype=torch.bool)
    is_right[tuple(torch.tensor(cells, dtype=torch.int64).view(-1, 2).T)] = True
    return is_right


class Steps:
    """This process's batches of a run by step number, from `start` on; each is read once, in order."""

    def __init__(
        self,
        sets: Sequence[WeightedSet],
        config: PlanConfig,
        loop: LoopConfig,
        read: Callable[[Item], Prompt],
        rationales: Rationales,
        world: World,
        start: int,
    ) -> None:
        """Read ahead in `loop.loader_workers` processes; 0: in this one.

        Raises:
            OptionError: a plan that doesn't fit the data or the number of processes.
        """
        plan = Plan(sets, config, loop.steps, loop.seed)
        loader = torch.utils.data.DataLoader(
            StepReader(plan, read, rationales, world.rank, world.size),
            batch_size=None,
            sampler=range(start, loop.steps),
            num_workers=loop.loader_workers,
            prefetch_factor=2 if loop.loader_workers else None,
            persistent_workers=loop.loader_workers > 0,
        )
        self._batches: Iterator[StepBatch] = iter(loader)
        self._last: StepBatch | None = None

    def __getitem__(self, number: int) -> StepBatch:
        """The batch of this step or, if that was asked for last, the same again."""
        if self._last is None or self._last.step != number:
            self._last = next(self._batches)
        return self._last

    def describe(self, number: int) -> str:
        """Which pairs a step sees, for messages."""
        return ", ".join(self[number].names[:8]) + " …"
