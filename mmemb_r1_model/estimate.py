"""`mmemb-r1 estimate`: a dry run. Some units of every stage, timed on this machine, times what a run has of them.

The stages are the pipeline's own; the configuration is shorter in three ways: few pairs of each data set, drawn at
random and repeated where a batch wants more of them; few steps of each training; a share of each evaluation. Synthetic
data are made whole. Not in it: checkpoints on the way, what has to be read of pairs that aren't drawn, the gate's
calibration, the ranking.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmeb_harness.adapter.memory import forget_peak, peak_device_memory, peak_memory
from mmemb_r1_model.data.pairs import Item, Pair, PairSet
from mmemb_r1_model.disk.errors import HarnessError, OptionError
from mmemb_r1_model.disk.files import matching
from mmemb_r1_model.disk.jsonl import read_rows
from mmemb_r1_model.model.settings import Mode
from mmemb_r1_model.pipeline import EvaluateConfig, Pipeline, PipelineConfig, Stage
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.stage import sides_to_reason
from mmemb_r1_model.training.batches import PlanConfig
from mmemb_r1_model.training.loop import LOG, LoopConfig

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Measurement:
    """A stage, or a part of one: what was timed of it, and what the configuration asks of it.

    Attributes:
        unit: what the stage is counted in.
        units: that the configuration asks of one process.
        units_measured: how many of them were timed.
        seconds: of a unit; of several kinds their mean, in the configuration's proportions.
        setup_seconds: of what doesn't grow with the units: loading, warming up, saving.
        peak_bytes: of the GPU's memory or, without one, of this process and those below it; `None`: not known.
        note: why nothing was measured, or what else to know.
    """

    stage: str
    unit: str
    units: int
    units_measured: int = 0
    seconds: float = 0.0
    setup_seconds: float = 0.0
    peak_bytes: int | None = None
    note: str = ""

    @property
    def hours(self) -> float | None:
        """Of the whole stage on this machine; `None`: nothing was measured."""
        return (self.setup_seconds + self.units * self.seconds) / 3600 if self.units_measured else None


@dataclass(frozen=True)
class SomePairs:
    """A few pairs of a data set, in as many places as a batch wants."""

    name: str
    distractors: Sequence[Item]
    pairs: PairSet
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Pair:
        return self.pairs[self.places[index]]


def drawn(places: range, count: int) -> tuple[int, ...]:
    """The first `count` of places in a random order, which is always the same."""
    return tuple(np.random.default_rng(0).permutation(places)[:count].tolist())


@dataclass(frozen=True)
class DryRun:
    """A configuration, measured in a folder of its own.

    Attributes:
        steps: that are timed of each training; also the least number of pairs that is taken of each data set.
        shares: an evaluation's items are dealt out to so many, and one share is encoded.
    """

    config: PipelineConfig
    folder: Path
    steps: int
    shares: int
    say: Callable[[str], None]

    def measure(self) -> Iterator[Measurement]:
        """Every stage of the configuration, in order.

        Raises:
            HarnessError: training data that can't be had; with several processes also a stage that fails.
        """
        config = self.config
        short: PipelineConfig = shortened(config, self.steps)
        if config.synthetic or config.start:
            ran = self._run(("data", "start"), config)
            yield _measurement("data", "run", ran, [_Timed(1, 1, 1, ran.seconds)])
        sets = [weighted.pairs for weighted in Pipeline(config, self.folder, self.say).sets(config.data, "data")]
        answering: tuple[WorkerConfig, ...] = ()
        for worker in config.rationales.workers:  # one by one: if a server isn't there, the others can still be timed
            measured = self._worker(worker, _written_by((*answering, worker), short), sets)
            answering += (worker,) if measured.units_measured else ()
            yield measured
        short = _written_by(answering, short)
        if config.judge and config.rationales.workers:
            loops = [lessons.training.loop for lessons in config.judge.lessons]
            folders = [f"judge/lessons-{number}" for number in range(1, len(loops))]
            yield self._training("judge", dict(zip([*folders, "judge"], loops, strict=True)), short)
        if config.rationales.workers:
            yield self._select(short, sets)
        yield self._training("train", {"joint": config.train.loop}, short)
        if config.adapt:
            yield self._training("adapt", {"adaptive": config.adapt.loop}, short)
        if config.evaluate:
            yield from (self._evaluate(mode, config.evaluate, short) for mode in config.evaluate.modes)

    def _run(self, stages: Sequence[Stage], config: PipelineConfig, watch: _Stopwatch | None = None) -> _Ran:
        forget_peak()
        peak_device_memory(torch, _DEVICE)
        began, failure = time.perf_counter(), ""
        try:
            Pipeline(config, self.folder, self.say, self._sample, watch or _Stopwatch()).run(stages)
        except HarnessError as error:
            if _processes() > 1:
                raise  # the others wait in the middle of the stage
            failure = str(error)
        return _Ran(time.perf_counter() - began, peak_device_memory(torch, _DEVICE) or peak_memory(), failure)

    def _sample(self, stage: Stage, pairs: PairSet) -> SomePairs:
        """As many pairs as keep a worker or the evaluator busy; for a training in as many places as a batch has."""
        config, some = self.config, functools.partial(SomePairs, pairs.name, pairs.distractors, pairs)
        judged = max(self.steps, math.ceil(config.select.judge.batch_size / 2))  # both sides of a pair are judged
        first = min(len(pairs), config.rationales.pairs_per_set or len(pairs))  # the others get no rationales
        if stage == "rationales":
            asked = 3 * max(map(_at_once, config.rationales.workers), default=0)
            written = math.ceil(asked / len(config.data) / config.rationales.samples)
            return some(drawn(range(first), max(judged, written)))
        reasoned = max(1, round(judged * first / len(pairs)))
        places = drawn(range(first), reasoned) + drawn(range(first, len(pairs)), judged - reasoned)
        length = len(places) if stage == "select" else min(_longest_block(config), len(pairs))
        return some(tuple(itertools.islice(itertools.cycle(places), length)))

    def _worker(self, worker: WorkerConfig, short: PipelineConfig, sets: Sequence[PairSet]) -> Measurement:
        watch = _Stopwatch(_at_once(worker))
        ran = self._run(("rationales",), short, watch)
        texts = sum(map(self._texts, sets))
        return _measurement(f"rationales: {worker.name}", "texts", ran, [watch.timed_of(worker.name, texts)])

    def _texts(self, pairs: PairSet) -> int:
        """That a worker writes of a data set; how many sides are too short for one is known of some pairs."""
        config, sample = self.config.rationales, self._sample("rationales", pairs)
        sides = sum(len(sides_to_reason(sample[place], config)) for place in range(len(sample)))
        first = min(len(pairs), config.pairs_per_set or len(pairs))
        return round(first * sides / len(sample)) * config.samples

    def _select(self, short: PipelineConfig, sets: Sequence[PairSet]) -> Measurement:
        watch = _Stopwatch()
        ran = self._run(("select",), short, watch)
        # Of several processes the first has all of a set's few pairs, which are one chunk; in the run they share them.
        kinds = [watch.timed_of(pairs.name, math.ceil(len(pairs) / _processes())) for pairs in sets]
        return _measurement("select", "pairs" if _processes() == 1 else "pairs a process", ran, kinds)

    def _training(self, stage: Stage, loops: Mapping[str, LoopConfig], short: PipelineConfig) -> Measurement:
        """Of loops by their folders."""
        ran = self._run((stage,), short)
        kinds, lengths = [], []
        for folder, loop in loops.items():
            rows = [] if ran.failure else list(read_rows(self.folder / folder / LOG))
            timed = rows[-self.steps :]
            lengths += [row["length"] for row in timed if "length" in row]
            kinds.append(_Timed(loop.steps, len(rows), len(timed), sum(row["seconds"] for row in timed)))
        note = f"rollouts of {sum(lengths) / len(lengths):.0f} tokens" if lengths else ""
        return _measurement(stage, "steps", ran, kinds, note)

    def _evaluate(self, mode: Mode, evaluate: EvaluateConfig, short: PipelineConfig) -> Measurement:
        vectors = self.folder / "vectors" / mode
        options = ("--shard", f"1/{self.shares}", "--vectors", str(vectors))
        evaluate = dataclasses.replace(evaluate, modes=(mode,), options=(*evaluate.options, *options))
        ran = self._run(("evaluate",), dataclasses.replace(short, evaluate=evaluate))
        ran = dataclasses.replace(ran, peak_bytes=None)  # it was another process's
        kind = _Timed(self.shares, 1, 1, _encoding_seconds(vectors))
        return _measurement(f"evaluate: {mode}", "shares", ran, [kind])


def shortened(config: Any, steps: int) -> Any:
    """Trainings of so many steps after some to warm up, each logged, without checkpoints on the way."""
    if isinstance(config, tuple):
        return tuple(shortened(part, steps) for part in config)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values = {name: shortened(value, steps) for name, value in vars(config).items()}
    loop = values.get("loop")
    if isinstance(loop, LoopConfig):
        taken = _warm_up(loop) + steps
        values["loop"] = dataclasses.replace(loop, steps=taken, log_every=1, save_every=0)
        for name, plan in values.items():
            if isinstance(plan, PlanConfig) and plan.first_steps:
                first = _warm_up(loop) + round(steps * plan.first_steps / loop.steps)
                values[name] = dataclasses.replace(plan, first_steps=first)
    return dataclasses.replace(config, **values)


def _warm_up(loop: LoopConfig) -> int:
    """Steps before the first that is timed; loader processes have some ready by then, which no later step finds."""
    return 2 + 2 * loop.loader_workers


def _longest_block(config: PipelineConfig) -> int:
    """Pairs that a data set needs so that any batch finds its part."""
    plans = [config.train.plan]
    if config.adapt:
        plans += [config.adapt.plan, config.adapt.prompts or config.adapt.plan]
    lessons = [part.training.batch_size for part in config.judge.lessons] if config.judge else []
    blocks = [plan.batch_size / plan.sub_batches / (plan.pairs_to - plan.pairs_from) for plan in plans]
    return math.ceil(max([*blocks, *lessons])) + 1


def _at_once(worker: WorkerConfig) -> int:
    """Texts that a worker writes at the same time."""
    return {"local": worker.batch_size, "endpoint": worker.max_parallel, "recorded": 1}[worker.backend]


def _written_by(workers: tuple[WorkerConfig, ...], config: PipelineConfig) -> PipelineConfig:
    """With rationales of these workers, of all pairs that there are: the sample sees to it that they are few."""
    rationales = dataclasses.replace(config.rationales, workers=workers, pairs_per_set=None)
    return dataclasses.replace(config, rationales=rationales)


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _encoding_seconds(vectors: Path) -> float:
    """What a run of the harness spent on the vectors that it has stored."""
    import pyarrow as pa

    seconds = 0.0
    for path in matching(vectors, "**/chunk-*.arrow"):
        with pa.memory_map(str(path)) as source:
            seconds += sum(pa.ipc.open_file(source).read_all()["share_seconds"].to_pylist())
    return seconds


@dataclass(frozen=True)
class _Timed:
    """Units of one kind: asked for, done, and those that were timed."""

    units: int
    done: int
    timed: int
    seconds: float


@dataclass(frozen=True)
class _Ran:
    """A stage that has run, or failed."""

    seconds: float
    peak_bytes: int | None
    failure: str


class _Stopwatch:
    """The time from one report of a stage to the next, by the name in it; the first units only warm up."""

    def __init__(self, warm_up: int = 0) -> None:
        self._warm_up, self._last = warm_up, time.perf_counter()
        self._done, self._timed, self._seconds = Counter[str](), Counter[str](), defaultdict[str, float](float)

    def __call__(self, name: str, units: int) -> None:
        now = time.perf_counter()
        if units and self._done.total() >= self._warm_up:
            self._timed[name] += units
            self._seconds[name] += now - self._last
        self._done[name] += units
        self._last = now

    def timed_of(self, name: str, units: int) -> _Timed:
        """What was seen of a name of which the configuration has so many units."""
        return _Timed(units, self._done[name], self._timed[name], self._seconds[name])


def _measurement(stage: str, unit: str, ran: _Ran, kinds: Sequence[_Timed], note: str = "") -> Measurement:
    units, timed = sum(kind.units for kind in kinds), sum(kind.timed for kind in kinds)
    if ran.failure or not timed:
        return Measurement(stage, unit, units, note=ran.failure or "too few to time; raise --steps")
    overall = sum(kind.seconds for kind in kinds) / timed
    means = [kind.seconds / kind.timed if kind.timed else overall for kind in kinds]
    done = sum(kind.done * mean for kind, mean in zip(kinds, means, strict=True))
    seconds = sum(kind.units * mean for kind, mean in zip(kinds, means, strict=True)) / units
    return Measurement(stage, unit, units, timed, seconds, max(0.0, ran.seconds - done), ran.peak_bytes, note)


def dry_run(
    config: PipelineConfig, output: Path | None, steps: int, shares: int, say: Callable[[str], None]
) -> list[Measurement]:
    """Measure every stage, and say it in a table; of several processes the first speaks.

    Args:
        output: a folder that isn't there yet; `None`: a temporary one.

    Raises:
        OptionError: `output` has something in it, or several processes have no folder in common.
        HarnessError: see `DryRun.measure`.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    if output is None and _processes() > 1:
        raise OptionError("several processes need a folder for the dry run in common: --output NEW_FOLDER")
    if output and is_first and output.exists() and matching(output):
        raise OptionError(f"--output {output} has something in it; a dry run needs a new folder, never that of a run")
    with tempfile.TemporaryDirectory() if output is None else contextlib.nullcontext(output) as folder:
        measurements = list(DryRun(config, Path(folder), steps, shares, say).measure())
        Pipeline(config, Path(folder), say).leave()
    if is_first:
        say("\nDRY RUN; hours on this machine\n")
        say(_columns("stage", "measured", "s a unit", "set-up s", "hours", "peak GB"))
        for measured in measurements:
            say(_line(measured))
        say(f"in all, of what was measured: {sum(measured.hours or 0.0 for measured in measurements):.3g} hours")
    return measurements


def _line(measured: Measurement) -> str:
    counted = f"{measured.units_measured:,} of {measured.units:,} {measured.unit}"
    if measured.hours is None:
        return _columns(measured.stage, counted, "-", "-", "-", "-", measured.note)
    peak = "-" if measured.peak_bytes is None else f"{measured.peak_bytes / 1e9:.2f}"
    numbers = (f"{number:.3g}" for number in (measured.seconds, measured.setup_seconds, measured.hours))
    return _columns(measured.stage, counted, *numbers, peak, measured.note)


def _columns(stage: str, counted: str, *others: str) -> str:
    return (f"{stage:<22}  {counted:<28}" + "".join(f"  {cell:>8}" for cell in others)).rstrip()
