"""What only a GPU can show, with random weights of Qwen3-VL-2B's shape, in at most 8 minutes; nothing is downloaded.

python tests/benchmarks/gpu_check.py [--size 2b|tiny] [--only PART,…] [--seconds N] [--output FOLDER]

engine    the engine gives what the plain reference gives, in float32 and in bfloat16
graphs    steps are recorded (CUDA graphs), and replayed they give what they give one kernel at a time
faiss     the same ranks as by numpy in float64, ties and all, on the GPUs if FAISS has its GPU half
bench     `mmeb-eval bench`: ratios to the plain loop, share of the machine's floor, memory
stage1    steps of `mmemb-r1 train` as the 2B recipe has them, of few pairs: seconds, memory
stage2    the same of `mmemb-r1 adapt`
predicted the memory of these steps as the rehearsal without a GPU has it, beside what they took

Without a GPU the size is tiny, and what needs one is skipped: so it runs in the tests. A part that fails stops no
other. Each has its share of the seconds; what it does many times it does less often where the first time took long, and
says so. Writes gpu_check.json. Exit status: 0 all parts passed, 3 the others were skipped, 1 one failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if not __package__:  # as a file, from any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import contextlib
import dataclasses
import functools
import gc
import re
import subprocess
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import click
import numpy as np
import torch
from PIL import Image

from mmeb_harness import Item, Samples, Task, run_command
from mmeb_harness.adapter.memory import forget_peak, peak_memory
from mmeb_harness.bench.make import run_bench, save_bench
from mmeb_harness.bench.measure import Plan
from mmeb_harness.bench.values import ModeResult
from mmeb_harness.core import environment
from mmeb_harness.core.errors import UnknownNameError
from mmeb_harness.core.files import write_json
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.ranking.corpus import Floats, RankedQuery, rank_corpus, require_faiss
from mmeb_harness.ranking.nearest import Positions, gpu_count
from mmemb_r1_model.data.pairs import Pair
from mmemb_r1_model.decoding.slots import KeyValueShape, SlotCache
from mmemb_r1_model.decoding.step import COLUMNS, Graphs, Records, Step, rounded
from mmemb_r1_model.disk.config import build_config, named_config, read_yaml
from mmemb_r1_model.disk.jsonl import Row
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder
from mmemb_r1_model.model.checkpoint import load_weights, open_checkpoint
from mmemb_r1_model.model.items import ItemReader
from mmemb_r1_model.model.prompt import Prompt
from mmemb_r1_model.model.settings import Settings
from mmemb_r1_model.rehearsal.counted import Subject, adapt_peak, train_peak
from mmemb_r1_model.rehearsal.memory import Peak
from mmemb_r1_model.training.batches import WeightedSet
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import LoopConfig, TrainingError
from mmemb_r1_model.training.stage1 import TrainConfig, train
from mmemb_r1_model.training.stage2 import AdaptConfig, adapt
from mmemb_r1_model.training.student import StudentConfig, open_student
from tests.benchmarks.equality import BATCH, ListeningEngine, by_engine, by_reference, compare_exactly, compare_rounded
from tests.benchmarks.made_model import QWEN3_VL_2B, TINY, Shape, make_checkpoint
from tests.benchmarks.ranking import BLOCK, queries_for, unit_vectors
from tests.mmemb_r1.small_pairs import Pairs
from tests.mmemb_r1.small_training import Written

Figures = dict[str, float | str]
Status = Literal["passed", "failed", "skipped"]

RECIPE = "mmemb_r1_2b"
#: With what Python imports before, 8 minutes.
SECONDS = 450.0
#: What pairs show: as large as the settings let through.
LARGE_PICTURE = 1920, 1080
#: Of scores in float64: sums in another order make less.
SAME_SCORE = 1e-9
#: Of a step's states, recorded and not: by other kernels they are rounded otherwise; of other inputs they are 1 apart.
SAME_STATE: Mapping[torch.dtype, float] = {torch.float32: 1e-4, torch.bfloat16: 0.1}
#: Cosine of direct vectors in `bench`, of a model in bfloat16 of which `engine` has shown what rounding does.
SAME_VECTOR = 0.99
#: Of stage 2's first step: between log-probabilities when sampled and when learnt from, in bfloat16.
MOST_LOG_RATIO = 0.1


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        side: of a large picture, in pixels.
        prompts: of `engine` and `graphs`.
        ranked: queries, candidates and dimensions of `faiss`.
        bench_items: queries of `bench`, and as many candidates.
        repeats: of `bench`.
        rationale: tokens of a rationale that stage 1 learns, about.
        micro_batch, micro_groups: `None`: the recipe's.
        steps: of each stage.
        workers: that prepare in `bench`.
    """

    shape: Shape
    settings: Settings
    side: int
    prompts: int
    ranked: tuple[int, int, int]
    bench_items: int
    repeats: int
    rationale: int
    micro_batch: int | None
    micro_groups: int | None
    steps: int
    workers: int


SIZES = {
    "2b": Size(
        shape=QWEN3_VL_2B,
        settings=Settings(max_new_tokens=64),
        side=1344,
        prompts=16,
        ranked=(200, 300_000, 2048),  # more than one block on a GPU
        bench_items=24,
        repeats=3,
        rationale=512,
        micro_batch=None,
        micro_groups=None,
        steps=3,
        workers=2,
    ),
    "tiny": Size(
        shape=TINY,
        settings=Settings(
            min_pixels=32**2,
            max_pixels=96**2,
            video_min_pixels=32**2,
            video_max_pixels=4 * 96**2,
            max_new_tokens=12,
        ),
        side=96,
        prompts=8,
        ranked=(20, 3000, 32),
        bench_items=8,
        repeats=1,
        rationale=8,
        micro_batch=2,
        micro_groups=2,
        steps=2,
        workers=0,
    ),
}


class Clock:
    """The seconds of a part. Nothing is stopped: what is done many times is planned by how long it took once."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.cut: list[str] = []

    @property
    def left(self) -> float:
        """Seconds; below zero when they are over."""
        return self._end - time.monotonic()

    def affordable(self, wanted: int, seconds: float, what: str, least: int = 1) -> int:
        """How many of `wanted` there is time for, at so many seconds each, but `least`; fewer are noted."""
        fits = max(least, min(wanted, int(self.left / max(seconds, 1e-9))))
        if fits < wanted:
            self.cut.append(f"{fits} of {wanted} {what}")
        return fits


class Memory:
    """The most that was held: of the GPU's by torch's own count, elsewhere of this process and those below it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device if device.type == "cuda" else None
        self.allocated = self.reserved = 0
        self.take()
        self.allocated = self.reserved = 0

    def take(self) -> int:
        """Bytes since the last call."""
        if self._device is None:
            allocated = peak_memory() or 0
            forget_peak()
        else:
            allocated = torch.cuda.max_memory_allocated(self._device)
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved(self._device))
            torch.cuda.reset_peak_memory_stats(self._device)
        self.note(allocated)
        return allocated

    def note(self, allocated: int) -> None:
        """What somebody else has seen, who started the count again."""
        self.allocated = max(self.allocated, allocated)


class SkippedError(Exception):
    """A part can't be tried here; says why, and what was done instead."""

    def __init__(self, reason: str, figures: Figures) -> None:
        super().__init__(reason)
        self.figures = figures


@dataclass
class Bench:
    """Where everything runs, and what parts share."""

    size: Size
    device: torch.device
    folder: Path
    #: By stage: the micro-batch that fitted, and the bytes of its last step.
    taken: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether there is one."""
        return self.device.type == "cuda"

    @functools.cached_property
    def checkpoint(self) -> Path:
        """Made by the first part that needs it."""
        return make_checkpoint(self.folder / "model", self.size.shape, self.size.settings, self.device)

    def engine(self, dtype: torch.dtype, graphs: Graphs = "auto") -> ListeningEngine:
        """Few slots: two engines share the memory."""
        checkpoint = open_checkpoint(str(self.checkpoint), None)
        model = load_weights(checkpoint, self.device, dtype, "auto")
        limit = self.size.settings.max_new_tokens
        return ListeningEngine(model, checkpoint.tokenizer, limit, graphs, slots=self.size.prompts)

    def prompts(self) -> list[Prompt]:
        """Of every kind and length, no two alike."""
        checkpoint = open_checkpoint(str(self.checkpoint), None)
        reader = ItemReader(checkpoint, checkpoint.settings)
        side = self.size.side // 2
        items = []
        for number in range(self.size.prompts):
            text = f"what is {number} times {number + 7}? " * (1 + number % 5)
            pictures = tuple(
                self.picture(f"prompt-{number}-{place}", side, side * (place + 2) // 3) for place in (0, 1)
            )
            media = ({}, {"images": pictures[:1]}, {"images": pictures}, {"frames": pictures[:1] * 3})[number % 4]
            items.append(Item(f"{number}", text=text, **media))
        return [reader.prompt(item) for item in items]

    def picture(self, name: str, width: int, height: int) -> Path:
        """Smooth noise, of its own for each name."""
        path = self.folder / "pictures" / f"{name}.jpg"
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            draw = np.random.default_rng(list(name.encode()))
            coarse = draw.integers(0, 256, (max(1, height // 32), max(1, width // 32), 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height)).save(path, quality=90)
        return path


def check_device(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """That torch sees the GPU that the driver sees, and has kernels for it."""
    listed = environment.visible_gpus(os.environ)
    if listed and not bench.on_gpu:
        raise AssertionError(
            f"the driver lists {', '.join(listed)}, and torch {torch.__version__} sees none: install a build of torch "
            'for this driver, or hide them (CUDA_VISIBLE_DEVICES="")'
        )
    one = torch.randn(256, 256, device=bench.device)
    apart = float(((one.bfloat16() @ one.bfloat16()).float() - one @ one).abs().max())
    if not apart < 2:  # 256 products, of which each is rounded to 8 bits
        raise AssertionError(f"a product of bfloat16 matrices is {apart:.2g} off")
    if not bench.on_gpu:
        return {"computes on": environment.processors()}
    properties = torch.cuda.get_device_properties(bench.device)
    return {
        "computes on": properties.name,
        "compute capability": f"{properties.major}.{properties.minor}",
        "torch's kernels": " ".join(torch.cuda.get_arch_list()),
        "GB in all": properties.total_memory / 1e9,
        "driver": driver_version(),
        "CUDA of torch": str(torch.version.cuda),
    }


def driver_version() -> str:
    """As nvidia-smi says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError) as error:
        return f"unknown ({error})"


def check_engine(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """The engine beside the reference."""
    engines = {dtype: bench.engine(dtype) for dtype in (torch.float32, torch.bfloat16)}
    exact, rounded_engine = engines.values()
    prompts = bench.prompts()
    first, emb = prompts[:BATCH], [[exact.rule.emb]] * BATCH
    by_reference(rounded_engine, first, emb)
    started = time.monotonic()
    by_engine(exact, first, "always")
    by_reference(rounded_engine, first, emb)  # in some versions of cuDNN its convolution takes longer than all else
    # Each is done eight times at most; `generate` takes as long as several.
    seconds = 8 * (time.monotonic() - started)
    prompts = prompts[: BATCH * clock.affordable(len(prompts) // BATCH, seconds, f"batches of {BATCH} prompts")]
    # TF32 would round the reference's convolution to 10 bits.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        figures: Figures = {**compare_exactly(exact, prompts), **compare_rounded(rounded_engine, exact, prompts)}
    return {"prompts": len(prompts), "longest": max(map(len, prompts)), **figures}


class Rerun:
    """Stands in for recordings where there are none: a step is taken again for every replay, idle rows and all."""

    works = True

    def __init__(self) -> None:
        self._keys: set[tuple[int, ...]] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def replay(self, key: tuple[int, ...], step: Callable[[], None]) -> bool:
        self._keys.add(key)
        step()
        return True


def check_graphs(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """Recorded steps beside the same steps unrecorded, then whole rationales with and without."""
    figures: Figures = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "no CUDA graphs")
        for dtype in (torch.float32, torch.bfloat16):
            engine = bench.engine(dtype, "off")
            apart, recorded = _replayed(engine, Records() if bench.on_gpu else Rerun())
            figures |= {f"{dtype}: states apart": apart, f"{dtype}: recorded steps": recorded}
            if not apart <= SAME_STATE[dtype]:
                raise AssertionError(f"states after replayed steps are {apart:.2g} apart, up to {SAME_STATE[dtype]}")
        figures |= _with_and_without(engine, bench.prompts()[: 2 * BATCH])
    if not bench.on_gpu:
        raise SkippedError("no GPU: steps were taken twice instead of recorded", figures)
    return figures


def _with_and_without(engine: ListeningEngine, prompts: Sequence[Prompt]) -> Figures:
    """Rationales of one model by recorded steps and by others."""
    seconds, written = {}, {}
    choices: tuple[Graphs, ...] = ("off", "on")
    for graphs in choices:
        own = ListeningEngine(engine.model, engine.tokenizer, engine.rule.limit, graphs, slots=len(prompts))
        by_engine(own, prompts, "always")  # records
        started = time.monotonic()
        written[graphs] = by_engine(own, prompts, "always").fed
        seconds[graphs] = time.monotonic() - started
    same = sum(one == other for one, other in zip(written["off"], written["on"], strict=True))
    return {
        "rationales alike": f"{same} of {len(prompts)}",
        "seconds without, over with": seconds["off"] / seconds["on"],
    }


@torch.inference_mode()
def _replayed(engine: ListeningEngine, records: Any) -> tuple[float, int]:
    """How far states after replayed steps are from those after unrecorded ones, and how many were recorded."""
    slots, columns, mark = 16, 256, engine.rule.mark
    cache = SlotCache(KeyValueShape.of(engine.model.model.language_model), slots, columns)
    for store in cache.stores:
        store.normal_()
    step = Step(engine.model, cache, mark, engine.rule.never, records)
    draw = np.random.default_rng(0)
    apart, sizes, widths = 0.0, {3: 8, 8: 8, 13: 16}, set()
    for rows, bucket in [*sizes.items(), *sizes.items()]:  # the second time none is recorded
        step.inputs[0] = draw.integers(0, engine.rule.vocabulary, slots)
        step.inputs[1] = step.inputs[2] = draw.integers(100, 112, slots)
        step.inputs[0, ::2] = mark
        step.kept_SD.zero_()
        step(rows)
        kept_SD = step.kept_SD.clone()
        step.kept_SD.zero_()
        grain = COLUMNS["cuda" if engine.model.device.type == "cuda" else "cpu"]
        width = rounded(int(step.inputs[1, :rows].max()) + 1, parts=8, grain=grain)
        widths.add((bucket, width))
        step.compute(bucket, width)
        lengths_R = step.kept_SD[:rows:2].float().norm(dim=-1)
        apart = max(apart, float(((kept_SD - step.kept_SD)[:rows:2].float().norm(dim=-1) / lengths_R).max()))
    if len(records) != len(widths):
        raise AssertionError(f"{len(records)} steps were recorded, not {len(widths)}")
    return apart, len(records)


def check_faiss(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """Ranks by FAISS beside those of all scores in float64."""
    require_faiss()
    num_queries, num_candidates, dimensions = bench.size.ranked
    candidates = unit_vectors(num_candidates, dimensions, seed=0)
    candidates[-num_candidates // 10 :] = candidates[: num_candidates // 10]  # ties
    queries, relevant = queries_for(candidates, num_queries, missed=0.1)
    rank_corpus(queries[:1], candidates[:100], [np.array([0])], depth=10, cut=5)  # sets up what the first call does
    started = time.monotonic()
    ranked = rank_corpus(queries, candidates, relevant, depth=100, cut=5)
    seconds = time.monotonic() - started
    block = candidates[:BLOCK]
    started = time.monotonic()
    _exact_scores(queries, block)
    whole = (time.monotonic() - started) * num_candidates / len(block)
    checked = clock.affordable(num_queries, whole / num_queries, "queries, ranked by numpy as well")
    _check_ranks(ranked[:checked], _exact_scores(queries[:checked], candidates), relevant)
    figures: Figures = {
        "queries x candidates x dimensions": f"{num_queries:,} x {num_candidates:,} x {dimensions:,}",
        "ranked in seconds": seconds,
        "queries checked": checked,
        "GPUs": gpu_count(),
    }
    if not gpu_count():
        build = ", ".join(name for name in ("faiss-gpu", "faiss-cpu") if name in environment.package_versions())
        raise SkippedError(f"not available: {build}; on the CPU the ranks are numpy's", figures)
    return figures


def _exact_scores(queries: Floats, candidates: Floats) -> Floats:
    """(q, c), in float64."""
    scores = np.empty((len(queries), len(candidates)))
    for start in range(0, len(candidates), BLOCK):
        block = candidates[start : start + BLOCK].astype(np.float64)
        np.matmul(queries.astype(np.float64), block.T, out=scores[:, start : start + BLOCK])
    return scores


def _check_ranks(ranked: Sequence[RankedQuery], scores_QC: Floats, relevant: Sequence[Positions]) -> None:
    for number, (own, scores) in enumerate(zip(ranked, scores_QC, strict=True)):
        order = np.argsort(-scores, kind="stable")[: len(own.positions)]
        if np.abs(scores[own.positions] - scores[order]).max() > SAME_SCORE:
            raise AssertionError(f"query {number}: other candidates than by numpy: {own.positions[:5]} and {order[:5]}")
        if ((np.diff(own.scores) == 0) & (np.diff(own.positions) < 0)).any():
            raise AssertionError(f"query {number}: equal scores that aren't in the order of their candidates")
        best = scores[relevant[number]].max()
        least, most = 1 + (scores > best + SAME_SCORE).sum(), (scores >= best - SAME_SCORE).sum()
        if not least <= own.first_relevant <= most:
            raise AssertionError(f"query {number}: rank {own.first_relevant}, by numpy {least} to {most}")


def check_bench(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """`mmeb-eval bench` on made-up texts and pictures, directly and with rationales."""
    dtype = "bfloat16" if bench.on_gpu else "float32"
    spec = ModelSpec("mmemb_r1", {"path": str(bench.checkpoint)}, {"device": str(bench.device), "dtype": dtype})
    embedder = dataclasses.replace(spec, options={**spec.options, "reasoning": "always"}).load()
    assert isinstance(embedder, MMEmbR1Embedder)
    embedder.warm_up()
    queries = [Item(f"q{place}", text=f"which is number {place}?") for place in range(bench.size.bench_items)]
    started = time.monotonic()
    embedder.encode_reference(queries[:4], "query")
    # By the plain loop once to warm up and once a repeat; all other sides and the other mode take less than that again.
    seconds = 2 * (1 + bench.size.repeats) * (time.monotonic() - started)
    del embedder
    queries = queries[: 4 * clock.affordable(len(queries) // 4, seconds, "batches of 4 queries")]
    plan = Plan((8192,), bench.size.repeats, modes=("never", "always"), workers=bench.size.workers)
    samples = Samples(
        queries=tuple(queries),
        candidates=tuple(
            Item(f"c{place}", images=(bench.picture(f"bench-{place}", side, side),))
            for place, side in enumerate(bench.size.side // (2 + place % 2) for place in range(len(queries)))
        ),
        gains={query.id: {f"c{place}": 1.0} for place, query in enumerate(queries)},
    )
    load = functools.partial(lambda samples, _folder, _frames: samples, samples)
    task = Task("Made", "visdoc", "D-OOD", "ndcg_linear@5", load, annotations=())
    result = run_bench(spec, [task], DataInfo(bench.folder, "made-up", synthetic=True), plan, note=lambda _: None)
    save_bench(bench.folder / "bench", result)
    figures: Figures = {
        "floor by": result.speed.source if result.speed else "nobody: --peak-tflops of `mmeb-eval bench`"
    }
    for mode in result.modes:
        figures |= _bench_figures(mode, memory, bench.on_gpu)
    return figures


def _bench_figures(mode: ModeResult, memory: Memory, on_gpu: bool) -> Figures:
    ours, ratio = mode.sides[0], mode.ratios[0]
    figures: Figures = {
        f"{mode.mode}: items a second": ours.items_per_second.median,
        f"{mode.mode}: times as fast as the plain loop": ratio.times.median,
        f"{mode.mode}: from, to": f"{ratio.times.low:.2f}, {ratio.times.high:.2f}",
    }
    if ratio.agreement is not None:
        figures[f"{mode.mode}: lowest cosine to it"] = ratio.agreement.lowest_cosine
        if ratio.agreement.same_rationales is not None:
            figures[f"{mode.mode}: rationales alike"] = ratio.agreement.same_rationales
        if mode.mode == "never" and not ratio.agreement.lowest_cosine >= SAME_VECTOR:
            raise AssertionError(
                f"direct vectors have a cosine of {ratio.agreement.lowest_cosine:.4f} to the plain loop's"
            )
    if ours.efficiency is not None:
        own = ours.efficiency.share_of_accelerator or ours.efficiency.share_of_encoding
        figures[f"{mode.mode}: the floor, of the time taken"] = own
        if not 0 < own <= 1:
            raise AssertionError(f"{mode.mode}: {own:.2f} of the least time that was possible: the floor is wrong")
    if on_gpu:
        if not ours.device_memory:
            raise AssertionError(f"{mode.mode}: no memory of the GPU was seen")
        memory.note(ours.device_memory)
    return figures


class EnoughError(Exception):
    """A training has taken the steps that were wanted of it, and need not be saved."""


@dataclass
class Watch:
    """Takes the rows of a training's log, and looks at the memory after each step."""

    wanted: int
    clock: Clock
    memory: Memory
    rows: list[Row] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def opened(self, _log: Path, _settings: Mapping[str, Any]) -> Iterator[Callable[[Row], None]]:
        self.memory.take()  # what the models took before
        yield self._note

    def _note(self, row: Row) -> None:
        self.rows.append(row)
        self.peaks.append(self.memory.take())
        if len(self.rows) == 1:
            more = self.clock.affordable(self.wanted - 1, row["seconds"], "further steps", least=0)
            self.wanted = 1 + more
        if len(self.rows) >= self.wanted:
            raise EnoughError


def made_pairs(bench: Bench, count: int, rationale: int) -> tuple[WeightedSet, Written]:
    """Queries with a large picture and a rationale; captions."""
    pairs = []
    for number in range(count):
        picture = bench.picture(f"pair-{number}", *LARGE_PICTURE)
        query = Item(
            f"q{number}", text=f"which is number {number}?", images=(picture,), instruction="Find its caption."
        )
        pairs.append(Pair(f"{number}", "made", query, Item(f"c{number}", text=f"the caption of number {number}")))
    texts = {("query", pair.id): "." * rationale for pair in pairs}
    return WeightedSet(Pairs("made", tuple(pairs)), 1.0), Written(texts)


class Recipe:
    """The stages as the recipe has them, short: of one micro-batch, and of few steps."""

    def __init__(self, bench: Bench) -> None:
        values = read_yaml(named_config(RECIPE))
        student = build_config(StudentConfig, values["student"])
        self.student = dataclasses.replace(student, checkpoint=str(bench.checkpoint), device=bench.device.type)
        self._train, self._adapt = (
            build_config(TrainConfig, values["train"]),
            build_config(AdaptConfig, values["adapt"]),
        )
        self._size = bench.size

    @property
    def micro_batch(self) -> int:
        """Of stage 1, in items."""
        return self._size.micro_batch or self._train.contrast.micro_batch

    @property
    def micro_groups(self) -> int:
        """Of stage 2."""
        return self._size.micro_groups or self._adapt.micro_groups

    def train(self, micro: int) -> TrainConfig:
        """Stage 1 with that micro-batch."""
        plan = dataclasses.replace(self._train.plan, batch_size=micro, sub_batches=1, pairs_to=1.0)
        contrast = dataclasses.replace(self._train.contrast, micro_batch=micro)
        return TrainConfig(plan, contrast, self._few_steps(self._train.loop))

    def adapt(self, micro: int) -> AdaptConfig:
        """Stage 2 with as many groups at once."""
        return dataclasses.replace(
            self._adapt,
            plan=dataclasses.replace(self._adapt.plan, batch_size=micro, pairs_to=1.0),
            prompts=None,
            groups=micro,
            micro_groups=micro,
            negatives=min(self._adapt.negatives, 2 * micro),
            contrast=dataclasses.replace(self._adapt.contrast, micro_batch=micro),
            loop=self._few_steps(self._adapt.loop),
        )

    def _few_steps(self, loop: LoopConfig) -> LoopConfig:
        return dataclasses.replace(loop, steps=self._size.steps, log_every=1, save_every=0, loader_workers=0)


def check_stage1(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """Steps of `train`: a micro-batch of queries, and one of what they ask for."""
    recipe = Recipe(bench)

    def take(micro: int, watch: Watch, folder: Path) -> None:
        made, written = made_pairs(bench, micro, bench.size.rationale)
        student = open_student(recipe.student, World(device=bench.device))
        train(student, [made], written, recipe.train(micro), folder, student.world, watch.opened)

    return _steps(bench, clock, memory, "stage1", recipe.micro_batch, take)[0]


def check_stage2(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """Steps of `adapt`: one micro-batch of groups, with rollouts as long as `Size.settings` let them be."""
    recipe = Recipe(bench)

    def take(micro: int, watch: Watch, folder: Path) -> None:
        made, written = made_pairs(bench, 2 * micro, bench.size.settings.max_new_tokens)
        student = open_student(recipe.student, World(device=bench.device))
        adapt(student, [made], written, recipe.adapt(micro), folder, student.world, open_curves=watch.opened)

    figures, rows = _steps(bench, clock, memory, "stage2", recipe.micro_groups, take)
    figures["log_ratio of the first step"] = rows[0]["log_ratio"]
    if not rows[0]["log_ratio"] <= MOST_LOG_RATIO:
        raise AssertionError(f"sampling and learning differ: log_ratio {rows[0]['log_ratio']:.2g} of the first step")
    return figures


def check_predicted(bench: Bench, clock: Clock, memory: Memory) -> Figures:
    """What the rehearsal without a GPU says of the memory of these steps, beside what they took."""
    recipe, checkpoint = Recipe(bench), open_checkpoint(str(bench.checkpoint), None)

    def subject(rationale: int) -> Subject:
        return Subject(checkpoint, bench.size.shape.config, "picture", rationale)

    def stage1(micro: int) -> Peak:
        return train_peak(subject(bench.size.rationale), recipe.student, recipe.train(micro).contrast, micro)

    def stage2(micro: int) -> Peak:
        longest = bench.size.settings.max_new_tokens
        return adapt_peak(subject(longest), recipe.student, recipe.adapt(micro), micro, micro)

    figures: Figures = {}
    stages = [("stage1", stage1, recipe.micro_batch), ("stage2", stage2, recipe.micro_groups)]
    for name, predict, asked in stages if bench.on_gpu else stages[:1]:  # seconds each
        micro, measured = bench.taken.get(name, (asked, 0))
        figures[f"{name}: micro-batch"] = micro
        figures[f"{name}: GB predicted"] = predict(micro).bytes / 1e9
        figures[f"{name}: GB measured"] = measured / 1e9 if bench.on_gpu and measured else "not measured"
    if not (bench.on_gpu and bench.taken):
        raise SkippedError("no step was taken on a GPU", figures)
    return figures


def _steps(
    bench: Bench, clock: Clock, memory: Memory, name: str, micro: int, take: Callable[[int, Watch, Path], None]
) -> tuple[Figures, list[Row]]:
    """Take them, with a smaller micro-batch where it doesn't fit."""
    asked = micro
    while True:
        watch = Watch(bench.size.steps, clock, memory)
        try:
            take(micro, watch, bench.folder / f"{name}-{micro}")
        except EnoughError:
            break
        except TrainingError as error:
            smaller = re.search(r"does not fit in memory, (\d+) does", str(error))
            if smaller is None:
                raise
            micro = int(smaller[1])
        release(bench.device)
    last = watch.rows[-1]
    if not last["grad_norm"] > 0:
        raise AssertionError(f"after {len(watch.rows)} steps nothing had a gradient: {last}")
    figures: Figures = {
        "micro-batch": f"{micro}, for {asked} doesn't fit" if micro != asked else micro,
        "steps": len(watch.rows),
        "seconds of the first": watch.rows[0]["seconds"],
        "seconds of the last": last["seconds"],
        "loss": last["loss"],
        f"GB of the last{'' if bench.on_gpu else ', resident'}": watch.peaks[-1] / 1e9,
    }
    bench.taken[name] = micro, watch.peaks[-1]
    return figures, watch.rows


def release(device: torch.device) -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


Part = Callable[[Bench, Clock, Memory], Figures]
#: Each part's share of the seconds.
PARTS: Mapping[str, tuple[Part, float]] = {
    "device": (check_device, 10),
    "engine": (check_engine, 120),
    "graphs": (check_graphs, 70),
    "faiss": (check_faiss, 50),
    "bench": (check_bench, 100),
    "stage1": (check_stage1, 60),
    "stage2": (check_stage2, 60),
    "predicted": (check_predicted, 40),
}


@dataclass(frozen=True)
class PartResult:
    """What a part found.

    Attributes:
        reason: why it failed or was skipped.
        cut: what was done less often than wanted, for want of time.
        planned_seconds: its share.
        allocated, reserved: bytes at most, as `Memory` counts them.
        traceback: of what failed.
    """

    name: str
    status: Status
    reason: str
    figures: Figures
    cut: tuple[str, ...]
    seconds: float
    planned_seconds: float
    allocated: int
    reserved: int
    traceback: str


def run_part(name: str, bench: Bench, seconds: float) -> PartResult:
    """One part; whatever it raises is its result."""
    part, _ = PARTS[name]
    release(bench.device)
    clock, memory, started = Clock(seconds), Memory(bench.device), time.monotonic()
    status, reason, figures, trace = "passed", "", {}, ""
    try:
        if seconds <= 0:
            raise AssertionError("not begun: the parts before it took all the time")
        figures = part(bench, clock, memory)
    except SkippedError as skipped:
        status, reason, figures = "skipped", str(skipped), skipped.figures
    except Exception as error:  # the other parts are still to be run
        status, reason, trace = "failed", f"{type(error).__name__}: {error}", traceback.format_exc()
    taken = time.monotonic() - started
    memory.take()
    return PartResult(
        name, status, reason, figures, tuple(clock.cut), taken, seconds, memory.allocated, memory.reserved, trace
    )


def run_check(
    size: Size, device: torch.device, names: Sequence[str], seconds: float, folder: Path
) -> Iterator[PartResult]:
    """Parts, one after another, each with its share of the seconds that are left."""
    bench, end = Bench(size, device, folder), time.monotonic() + seconds
    for place, name in enumerate(names):
        shares = [PARTS[other][1] for other in names[place:]]
        left = end - time.monotonic()
        yield run_part(name, bench, left * shares[0] / sum(shares))


def exit_status(results: Sequence[PartResult]) -> int:
    """0: all passed; 3: none failed; 1."""
    statuses = {result.status for result in results}
    return 1 if "failed" in statuses else 3 if "skipped" in statuses else 0


def in_words(result: PartResult, on_gpu: bool) -> str:
    """A part as lines of text."""
    held = f"{result.allocated / 1e9:.2f} GB" + (f" ({result.reserved / 1e9:.2f} reserved)" if on_gpu else " resident")
    lines = [
        f"{result.name:9} {result.status:8} {result.seconds:6.1f} s of {result.planned_seconds:.0f}, {held}",
        *([f"           {result.reason}"] if result.reason else []),
        *(f"           cut short: {cut}" for cut in result.cut),
        *(
            f"           {name}: {value if isinstance(value, str | int) else format(value, '.4g')}"
            for name, value in result.figures.items()
        ),
        *(f"           | {line}" for line in result.traceback.splitlines()),
    ]
    return "\n".join(lines)


def names_of(value: str | None) -> list[str]:
    """Comma-separated names of parts, in the order of the file; all without a value.

    Raises:
        UnknownNameError: one that is none.
    """
    wanted = value.split(",") if value else list(PARTS)
    for name in wanted:
        if name not in PARTS:
            raise UnknownNameError("part", name, PARTS)
    return [name for name in PARTS if name in wanted]


@click.command(help=__doc__)
@click.option("--size", "name", type=click.Choice(list(SIZES)), help="Default: 2b on a GPU, tiny elsewhere.")
@click.option("--only", metavar="PART,…", help="Some parts: " + ", ".join(PARTS))
@click.option("--seconds", type=click.FloatRange(min=1), default=SECONDS, show_default=True, help="For all parts.")
@click.option("--output", type=click.Path(path_type=Path), default="runs/gpu_check", show_default=True)
def main(name: str | None, only: str | None, seconds: float, output: Path) -> int:
    chosen = names_of(only)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    name = name or ("2b" if device.type == "cuda" else "tiny")
    results: list[PartResult] = []
    versions = ", ".join(f"{package} {version}" for package, version in environment.package_versions().items())
    click.echo(f"size {name}; {versions}; commit {environment.git_commit()}")
    with tempfile.TemporaryDirectory(prefix="mmeb-gpu-check-") as folder:
        for result in run_check(SIZES[name], device, chosen, seconds, Path(folder)):
            click.echo(in_words(result, device.type == "cuda"))
            results.append(result)
            write_json(output / "gpu_check.json", report(name, results))
    click.echo(f"{sum(result.seconds for result in results):.0f} s of {seconds:.0f}; {output / 'gpu_check.json'}")
    return exit_status(results)


def report(size: str, results: Sequence[PartResult]) -> dict[str, Any]:
    """What is written."""
    return {
        "size": size,
        "machine": environment.machine(),
        "versions": environment.package_versions(),
        "git_commit": environment.git_commit(),
        "parts": [dataclasses.asdict(result) for result in results],
    }


if __name__ == "__main__":
    run_command(main)
