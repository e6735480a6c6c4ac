"""What a measurement writes to disk. A JSON key is the field's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmeb_harness.core.embedder import Work
from mmeb_harness.core.items import Scalar

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Spread:
    """Median over the repeats, the least and the most."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(float(np.median(values)), float(min(values)), float(max(values)))


@dataclass(frozen=True)
class Speed:
    """What a machine could do at best.

    Attributes:
        flops: floating-point operations a second.
        bandwidth: bytes of memory a second.
        source: whose word that is.
    """

    flops: float
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Pass:
    """One side's way through the sample, once.

    Attributes:
        turn: its place in the order of its repeat, from 0.
        seconds: from the first item until everything is ranked.
        cpu_seconds: of all threads of this process meanwhile.
        stages: where the seconds went; they add up. "plan": content keys, batches; "wait": nothing to compute until
            media were decoded; stages of the accelerator, of models that tell them apart; "rank"; "other".
        prepare_seconds: decoding media and tokenising, wherever it ran: what of it nobody waited for is hidden
            behind the accelerator. `None`: this side doesn't tell it apart.
        written_tokens: of rationales, markers included.
        latency_seconds: p50, p95 and p99 of the queries asked for: preparing an item's batch, and encoding it.
        memory: bytes; the most that this process and its workers held meanwhile, or (not on Linux) ever.
        device_memory: the same of the accelerator, of models that tell it.
    """

    turn: int
    seconds: float
    cpu_seconds: float
    stages: Mapping[str, float]
    prepare_seconds: float | None
    written_tokens: int
    latency_seconds: Mapping[str, float]
    work: Work | None
    memory: int | None
    device_memory: int | None

    @property
    def encode_seconds(self) -> float:
        """Seconds of all but ranking."""
        return self.seconds - self.stages.get("rank", 0.0)

    @property
    def accelerator_seconds(self) -> float | None:
        """As the model measured it."""
        return sum(self.work.seconds.values()) if self.work and self.work.seconds else None


@dataclass(frozen=True)
class Efficiency:
    """The work done, held against what the machine could do at best; medians over the repeats.

    Attributes:
        flops_utilisation: operations that had to be done, over what the encoding time had room for.
        floor_seconds: below which no program could do the same; see `floor_seconds`.
        share_of_encoding: the floor over the wall time of encoding.
        share_of_accelerator: the floor over the accelerator's own time; `None` where the model doesn't measure it.
    """

    flops_utilisation: float
    floor_seconds: float
    share_of_encoding: float
    share_of_accelerator: float | None


@dataclass(frozen=True)
class Measured:
    """One side, over all repeats.

    Attributes:
        side: "ours", "plain loop", "fixed batches" or a peer's name.
        sample: "whole", or "part": only some of the items, which aren't ranked.
        batch_tokens: budget, of ours.
        batch_items: of the others; `None` of a peer that is given everything at once.
        settings: of a peer, in its own words.
        items: asked for, duplicates too.
        encoded: given to the model.
        score: mean over the tasks of their main metric; `None` if nothing was ranked.
        cpu_seconds, stages, latency_seconds: medians.
        prompt_tokens_per_second, written_tokens_per_second: over the time of encoding.
        memory, device_memory: the most of any repeat.
    """

    side: str
    sample: str
    batch_tokens: int | None
    batch_items: int | None
    settings: Mapping[str, Scalar] | None
    items: int
    encoded: int
    score: float | None
    seconds: Spread
    cpu_seconds: float
    items_per_second: Spread
    encoded_per_second: Spread
    prompt_tokens_per_second: Spread | None
    written_tokens_per_second: Spread
    stages: Mapping[str, float]
    prepare_seconds: float | None
    latency_seconds: Mapping[str, float]
    efficiency: Efficiency | None
    memory: int | None
    device_memory: int | None
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Agreement:
    """Whether two sides gave the same, item by item, in the first repeat.

    Attributes:
        largest_difference: of a vector's entry.
        lowest_cosine: of an item's two vectors; of several vectors an item, the lowest of all.
        reasoned: items that reasoned on either side.
        same_rationales: share of these with the same text on both; `None` if there are none.
    """

    items: int
    largest_difference: float
    lowest_cosine: float
    reasoned: int
    same_rationales: float | None


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than a reference, on the same items: repeat by repeat, then the median.

    Attributes:
        score_difference: of the reference's mean score from ours; `None` if nothing was ranked.
        agreement: `None` of a peer that shows no vectors.
    """

    reference: str
    batch_tokens: int
    times: Spread
    score_difference: float | None
    agreement: Agreement | None


@dataclass(frozen=True)
class RankingRatio:
    """How many times faster our ranking is than a peer's, on the same vectors.

    Attributes:
        task: whose queries rank all candidates.
        depth: places of each ranking.
        ours, theirs: seconds.
        same_places: share of all places where the two name the same candidate, or two whose scores differ by at most
            1e-6: candidates that tie in float32.
    """

    peer: str
    settings: Mapping[str, Scalar]
    task: str
    queries: int
    candidates: int
    dimensions: int
    depth: int
    ours: Spread
    theirs: Spread
    times: Spread
    same_places: float


@dataclass(frozen=True)
class ModeResult:
    """Everything about one mode of the model.

    Attributes:
        mode: of the queries' reasoning; "direct": the model can't reason.
        part_items: how many items the references had, where these are not all.
    """

    mode: str
    model_settings: Mapping[str, Scalar]
    part_items: int | None
    sides: tuple[Measured, ...]
    ratios: tuple[Ratio, ...]
    ranking: tuple[RankingRatio, ...]


@dataclass(frozen=True)
class BenchResult:
    """One call of `mmeb-eval bench`."""

    model: str
    model_revision: str
    model_args: Mapping[str, str]
    data: str
    data_synthetic: bool
    tasks: tuple[str, ...]
    limit: int | None
    frames: int | None
    repeats: int
    workers: int
    speed: Speed | None
    modes: tuple[ModeResult, ...]
    seconds: float
    started: str
    machine: Mapping[str, Scalar]
    threads: int | None
    versions: Mapping[str, str]
    git_commit: str | None
    schema_version: int = SCHEMA_VERSION
