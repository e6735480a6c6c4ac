"""`mmemb-r1 estimate`: what a configuration of the published training sets costs, by arithmetic alone.

Nothing here is measured. Operations and bytes follow from the model's shape and the configuration; what the data look
like, how long rationales get, and what share of its peak a GPU reaches are assumptions, and are printed.

    passes of a training step, in forward passes     frozen weights   weights that learn
    forward; again where gradient caching is on      1 or 2           1 or 2
    forward once more where checkpointing is on      1                1
    backward                                         1                2     (attention: 2)
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from mmemb_r1_model.data.pairs import SIDES
from mmemb_r1_model.data.pairs import Side as SideName
from mmemb_r1_model.data.recipe import PUBLISHED, TrainingSetConfig
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.model.settings import Settings
from mmemb_r1_model.model.vision import TEMPORAL_PATCH, image_size, video_size
from mmemb_r1_model.pipeline import PipelineConfig
from mmemb_r1_model.rationales.config import Kind, RationaleConfig, WorkerConfig
from mmemb_r1_model.shape import MERGED, SHAPES, Shape, shape_of
from mmemb_r1_model.training.batches import PlanConfig
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.loop import LoopConfig
from mmemb_r1_model.training.stage1 import TrainConfig
from mmemb_r1_model.training.stage2 import AdaptConfig
from mmemb_r1_model.training.student import StudentConfig


@dataclass(frozen=True)
class Gpu:
    """Peak dense bfloat16 operations and memory traffic a second, bytes of memory; the makers' data sheets."""

    flops: float
    bandwidth: float
    memory: float


GPUS: dict[str, Gpu] = {
    "a100": Gpu(312e12, 2.04e12, 80e9),
    "h100": Gpu(989e12, 3.35e12, 80e9),
    "h200": Gpu(989e12, 4.8e12, 141e9),
    "h20": Gpu(148e12, 4.0e12, 96e9),
}


@dataclass(frozen=True)
class Assumptions:
    """What no configuration says. All ours, none measured on these data.

    Attributes:
        utilisation: of the peak operations, in training and where prompts are read.
        bandwidth_share: of the peak memory traffic, where tokens are written one by one.
        image, page, frame: height and width in pixels before the model's own bounds.
        turn_tokens: of instruction, request and chat template around an input.
        worker_turn_tokens: the same around a worker's or the evaluator's.
        rationale_tokens: by kind of worker. UME-R1's data have about 430 a side, by a thinking model.
        chosen_tokens: of a selected one; also of a rollout.
        usable: share of written rationales that are whole and no repetition.
        selected: share of sides with rationales for which one helps.
        launch_seconds: of a layer, a token, in transformers without a compiled graph: 9.0 s for 403 tokens through 28
            layers, as PLUME measured for UME-R1-2B. A server doesn't pay it.
        longest: a batch of rollouts ends with its longest, so many times the mean.
        server_rows: sequences that a server writes at once, if memory has room for their caches.
        server_memory: share of a GPU's memory that a server takes.
    """

    utilisation: float = 0.35
    bandwidth_share: float = 0.6
    image: tuple[int, int] = (480, 640)
    page: tuple[int, int] = (2200, 1700)
    frame: tuple[int, int] = (360, 640)
    turn_tokens: int = 50
    worker_turn_tokens: int = 200
    rationale_tokens: tuple[tuple[Kind, int], ...] = (("instruct", 200), ("thinking", 800), ("api", 200))
    chosen_tokens: int = 400
    usable: float = 0.9
    selected: float = 0.8
    launch_seconds: float = 9.0 / 403 / 28
    longest: float = 2.5
    server_rows: int = 256
    server_memory: float = 0.9


Media = Literal["", "image", "page", "video"]


@dataclass(frozen=True)
class Side:
    """One side of a data set's pairs: what it shows, and how many tokens its own words are."""

    media: Media
    words: int

    @property
    def is_short(self) -> bool:
        """Whether it is a label: no longer than a few words."""
        return not self.media and self.words <= _LABEL


_LABEL, _SENTENCE, _CAPTION = 5, 25, 130  # tokens
_IMAGE_TO_LABEL = (Side("image", _SENTENCE), Side("", _LABEL))
_PAGE_TO_LABEL = (Side("page", _SENTENCE), Side("", _LABEL))
_WORDS_TO_IMAGE = (Side("", 2 * _SENTENCE), Side("image", 0))
_IMAGE_TO_WORDS = (Side("image", 0), Side("", _SENTENCE))
_IMAGE_TO_IMAGE = (Side("image", _SENTENCE), Side("image", 0))
_MMEB_TRAIN: dict[str, tuple[Side, Side]] = {
    **dict.fromkeys(("DocVQA", "InfographicsVQA", "ChartQA"), _PAGE_TO_LABEL),
    **dict.fromkeys(("VisDial", "VisualNews_t2i", "MSCOCO_t2i", "WebQA"), _WORDS_TO_IMAGE),
    **dict.fromkeys(("VisualNews_i2t", "MSCOCO_i2t"), _IMAGE_TO_WORDS),
    **dict.fromkeys(("CIRR", "NIGHTS", "MSCOCO"), _IMAGE_TO_IMAGE),
}
_SETS: dict[str, tuple[Side, Side]] = {
    "colpali": (Side("page", _SENTENCE), Side("", 2 * _LABEL)),
    "visrag": (Side("", _SENTENCE), Side("page", 0)),
    "llava-hound-caption": (Side("video", 0), Side("", _CAPTION)),
    "llava-hound-retrieval": (Side("", _CAPTION), Side("video", 0)),
    "llava-hound-qa": (Side("video", _SENTENCE), Side("", 2 * _SENTENCE)),
}
#: Rows of sets that have fewer than the published limit, by their cards (data/recipe.py); the others have the limit.
_ROWS = {
    **{"VisDial": 123_000, "DocVQA": 39_000, "CIRR": 26_000, "ChartQA": 28_000, "InfographicsVQA": 24_000},
    **{"SUN397": 20_000, "WebQA": 17_000, "A-OKVQA": 17_000, "NIGHTS": 16_000, "OK-VQA": 9_000},
    **{"HatefulMemes": 8_500, "VOC2007": 8_000, "colpali": 118_000, "visrag": 123_000},
    **{"llava-hound-caption": 300_000, "llava-hound-retrieval": 300_000, "llava-hound-qa": 240_000},
}


@dataclass(frozen=True)
class DataSet:
    """A training set as the arithmetic sees it.

    Attributes:
        share: of all draws.
        reasoned: share of its pairs whose sides may have a rationale.
    """

    sides: dict[SideName, Side]
    pairs: int
    share: float
    reasoned: float


def read_sets(config: PipelineConfig) -> list[DataSet]:
    """The configuration's training sets.

    Raises:
        OptionError: one that isn't among the published ones.
    """
    total = sum(one.weight for one in config.data)
    most = config.rationales.pairs_per_set
    found = []
    for place, one in enumerate(config.data):
        sides = _sides(one, f"data[{place}]")
        known = _ROWS.get(one.subset or one.kind)
        counts = [count for count in (known, one.limit) if count is not None]
        pairs = min(counts, default=100_000)
        reasoned = 1.0 if most is None else min(1.0, most / pairs)
        found.append(DataSet(dict(zip(SIDES, sides, strict=True)), pairs, one.weight / total, reasoned))
    return found


def _sides(config: TrainingSetConfig, where: str) -> tuple[Side, Side]:
    if config.kind == "mmeb-train":
        return _MMEB_TRAIN.get(config.subset, _IMAGE_TO_LABEL)
    if config.kind not in _SETS:
        known = ", ".join(("mmeb-train", *_SETS))
        raise OptionError(f"{where}: what {config.kind!r} holds isn't known; the estimate knows {known}")
    return _SETS[config.kind]


@dataclass(frozen=True)
class Prompt:
    """An input: tokens, its visual ones among them; pictures and patches of each."""

    tokens: float
    pictures: int = 0
    patches: int = 0


@dataclass(frozen=True)
class Row:
    """A line of the table. `None`: not on our GPUs, or no sense."""

    stage: str
    amount: str
    tokens: float
    flops: float | None
    hours: float | None
    memory: float | None


class Estimator:
    """The arithmetic of one configuration on some GPUs."""

    def __init__(
        self, config: PipelineConfig, gpu: Gpu, gpus: int, assumed: Assumptions, student: Shape | None = None
    ) -> None:
        """Set up. `student`: its shape; `None`: as its checkpoint's name or folder says."""
        self.config, self.gpu, self.gpus, self.assumed = config, gpu, gpus, assumed
        self.sets = read_sets(config)
        self.student = student or shape_of(config.student.checkpoint, "student.checkpoint")
        self.pixels = Settings()
        workers = [one.max_new_tokens for one in config.rationales.workers]
        self.max_new_tokens = max(workers, default=self.pixels.max_new_tokens)

    def rows(self) -> list[Row]:
        """All stages, in order."""
        found = [self._worker(one) for one in self.config.rationales.workers]
        found += [self._select(), self.train()]
        return found + (self.adapt(self.config.adapt) if self.config.adapt else [])

    def prompt(self, side: Side, turn: int, shape: Shape) -> Prompt:
        """A side as a model of this shape sees it."""
        factor, settings, assumed = shape.patch * 2, self.pixels, self.assumed
        words = turn + side.words
        if not side.media:
            return Prompt(words)
        if side.media == "video":
            frames = max(one.frames for one in self.config.data)
            bounds = settings.video_min_pixels, settings.video_max_pixels
            rows, columns = video_size(frames, *assumed.frame, factor, *bounds)
            pictures, marks = -(-frames // TEMPORAL_PATCH), 10  # <|vision_start|>, <|vision_end|>, and the time
        else:
            size = assumed.page if side.media == "page" else assumed.image
            rows, columns = image_size(*size, factor, settings.min_pixels, settings.max_pixels)
            pictures, marks = 1, 2
        visual = rows * columns // factor**2
        return Prompt(words + pictures * (visual + marks), pictures, visual * MERGED)

    def _hours(self, flops: float) -> float:
        return flops / (self.gpu.flops * self.assumed.utilisation) / 3600

    def _reading(self, shape: Shape, prompt: Prompt) -> float:
        """Operations of reading a prompt, causally."""
        return (
            shape.linear_flops(prompt.tokens)
            + shape.attention_flops(prompt.tokens**2 / 2)
            + shape.vision_flops(prompt.pictures, prompt.patches)
        )

    def _rationale_sides(self) -> list[tuple[DataSet, SideName, float]]:
        """(data set, side, pairs of it that get rationales)."""
        config = self.config.rationales
        return [
            (one, name, one.pairs * one.reasoned)
            for one in self.sets
            for name in config.sides
            if not (name == "positive" and config.skip_short_texts and one.sides[name].is_short)
        ]

    def _worker(self, worker: WorkerConfig) -> Row:
        assumed, samples = self.assumed, self.config.rationales.samples
        shape = _worker_shape(worker)
        asks = [
            (count * samples, self.prompt(one.sides[name], assumed.worker_turn_tokens, shape or SHAPES["8b"]))
            for one, name, count in self._rationale_sides()
        ]
        number = sum(count for count, _ in asks)
        written = min(dict(assumed.rationale_tokens)[worker.kind], worker.max_new_tokens)
        read = sum(count * prompt.tokens for count, prompt in asks)
        label, tokens = f"rationales: {worker.name}", read + number * written
        amount = f"{_millions(number)} texts"
        if shape is None:
            return Row(label, amount, tokens, None, None, None)
        reading = sum(count * self._reading(shape, prompt) for count, prompt in asks)
        context = read / number + written / 2
        writing = number * written * self._server_seconds(shape, context) / 3600
        per_token = shape.linear_flops(1) + shape.head_flops(1) + shape.attention_flops(context)
        flops = reading + number * written * per_token
        memory = self.gpu.memory * assumed.server_memory
        return Row(label, amount, tokens, flops, self._hours(reading) + writing, memory)

    def _server_seconds(self, shape: Shape, context: float) -> float:
        """Of one written token on one GPU that writes many sequences at once."""
        assumed, weights, cache = self.assumed, 2 * shape.parameters, context * shape.kv_bytes
        room = self.gpu.memory * assumed.server_memory - weights
        if room < cache:
            return float("inf")
        rows = min(assumed.server_rows, room // cache)
        return (weights + rows * cache) / (self.gpu.bandwidth * assumed.bandwidth_share) / rows

    def _select(self) -> Row:
        """The evaluator: first the pool without a rationale, then each rationale with the hard ones of it."""
        config, assumed = self.config.select, self.assumed
        shape = shape_of(config.judge.checkpoint, "select.judge.checkpoint")
        kept = len(self.config.rationales.workers) * self.config.rationales.samples * assumed.usable
        negatives = config.negatives
        pool = 1.0 + (config.negative_pool if negatives else 0)
        cases = tokens = flops = widest = 0.0
        for one, name, count in self._rationale_sides():
            other_name: SideName = "positive" if name == "query" else "query"
            own, other = (
                self.prompt(one.sides[side], assumed.worker_turn_tokens // 2, shape) for side in (name, other_name)
            )
            more = Prompt(own.tokens + self._mean_rationale(), own.pictures, own.patches)  # with its rationale
            # (rows, what begins a row, how many branches, what a branch is)
            laid: list[tuple[float, Prompt, float, Prompt]]
            if name == "query":
                laid = [(1.0, own, pool, other), (kept, more, 1.0 + negatives, other)]
            else:
                laid = [(pool, other, 1.0, own), (1.0 + negatives, other, kept, more)]
            for number, head, branches, branch in laid:
                length = head.tokens + branches * branch.tokens
                row = shape.attention_flops(length**2) + shape.linear_flops(length)
                row += shape.vision_flops(head.pictures, head.patches)
                row += branches * shape.vision_flops(branch.pictures, branch.patches)
                tokens, flops = tokens + count * number * length, flops + count * number * row
                widest = max(widest, length)
            cases += count
        batch = config.judge.batch_size * widest
        size = 2 if config.judge.dtype == "bfloat16" else 4
        mask = 3 * config.judge.batch_size * widest**2
        memory = size * shape.parameters + batch * self._working_bytes(shape) + mask
        return Row("select", f"{_millions(cases)} sides", tokens, flops, self._hours(flops), memory)

    def _mean_rationale(self) -> float:
        """Tokens of a worker's rationale, over the workers."""
        lengths = dict(self.assumed.rationale_tokens)
        workers = self.config.rationales.workers
        return sum(min(lengths[one.kind], one.max_new_tokens) for one in workers) / len(workers)

    def _pair_cost(self, contrast: ContrastConfig, rank: int) -> tuple[float, float, float]:
        """(tokens, operations, share with a rationale) of a pair of the mix in stage 1."""
        may = {(id(one), name) for one, name, _ in self._rationale_sides()}
        tokens = flops = reasoned = 0.0
        for one in self.sets:
            for name in SIDES:
                prompt = self.prompt(one.sides[name], self.assumed.turn_tokens, self.student)
                share = one.reasoned * self.assumed.selected if (id(one), name) in may else 0.0
                for chance, length in ((share, self.assumed.chosen_tokens + 3), (1 - share, 0)):
                    weight = one.share * chance
                    tokens += weight * (prompt.tokens + 1 + length)
                    flops += weight * self._training(prompt, 1 + length, length, contrast.gradient_caching, rank)
                reasoned += one.share * share / 2
        return tokens, flops, reasoned

    def _training(self, prompt: Prompt, further: float, scored: float, caching: bool, rank: int) -> float:
        """Operations of a prompt with `further` tokens behind it, forward and back, as the module's table says."""
        shape, student = self.student, self.config.student
        forward = 2 if caching else 1
        again = 1 if student.gradient_checkpointing else 0
        back = 1 if rank else 2
        length = prompt.tokens + further
        linear = shape.linear_flops(length) + shape.head_flops(1 + scored)
        adapters = 2.0 * shape.adapter_parameters(rank, student.lora_targets) * length
        vision = shape.vision_flops(prompt.pictures, prompt.patches)
        vision *= forward + (again + 2 if student.train_vision and not rank else 0)
        return (
            (forward + again + back) * linear
            + (forward + again + 2) * (adapters + shape.attention_flops(length**2))
            + vision
        )

    def train(self) -> Row:
        """Stage 1."""
        config = self.config.train
        pairs = config.loop.steps * config.plan.batch_size
        tokens, flops, reasoned = self._pair_cost(config.contrast, self.config.student.lora_rank)
        micro = config.contrast.micro_batch or config.plan.batch_size // self.gpus
        memory = self._training_memory(micro, 1, self.config.student.gradient_checkpointing)
        amount = f"{_millions(pairs)} pairs, {100 * reasoned:.0f} % of sides reason"
        return Row("train", amount, pairs * tokens, pairs * flops, self._hours(pairs * flops), memory)

    def adapt(self, config: AdaptConfig) -> list[Row]:
        """Stage 2: rollouts, and what is learned from them."""
        shape, assumed, rank = self.student, self.assumed, self.config.student.lora_rank
        steps, per_group, sides = config.loop.steps, config.rollouts // 2, len(config.sides)
        groups = steps * config.groups * sides
        mean = min(assumed.chosen_tokens, self.max_new_tokens)
        prompts = [
            (one.share / sides, self.prompt(one.sides[name], assumed.turn_tokens, shape))
            for one in self.sets
            for name in config.sides
        ]
        tokens_of_prompt = sum(share * prompt.tokens for share, prompt in prompts)
        at_once = self._groups_at_once(config) * per_group
        longest = min(assumed.longest * mean, self.max_new_tokens)
        batches = groups * per_group / at_once
        reading = groups * sum(share * self._reading(shape, prompt) for share, prompt in prompts)
        token_bytes = self.weight_bytes + at_once * (tokens_of_prompt + longest / 2) * shape.kv_bytes
        seconds = max(
            assumed.launch_seconds * shape.layers, token_bytes / (self.gpu.bandwidth * assumed.bandwidth_share)
        )
        written = groups * per_group * mean
        writing = written * (
            shape.linear_flops(1) + shape.head_flops(1) + shape.attention_flops(tokens_of_prompt + mean / 2)
        )
        rollouts = Row(
            "adapt: rollouts",
            f"{_thousands(groups)} groups, {_thousands(groups * per_group)} texts",
            groups * tokens_of_prompt + written,
            reading + writing,
            self._hours(reading) + batches * longest * seconds / 3600,
            self.weight_bytes + self.learning_bytes + self.rollout_cache(config),
        )
        further = 1 + per_group * (mean + 3)
        scored = per_group * (mean + 3)
        update = groups * sum(
            share * (self._training(prompt, further, scored, False, rank) + self._forward(prompt, further, scored))
            for share, prompt in prompts
        )
        pairs = steps * config.plan.batch_size
        tokens, flops, _ = self._pair_cost(config.contrast, rank)
        update += pairs * flops
        row = Row(
            "adapt: update",
            f"the same, {_thousands(pairs)} pairs",
            2 * groups * (tokens_of_prompt + further) + pairs * tokens,
            update,
            self._hours(update),
            max(
                self._training_memory(
                    self._groups_at_once(config), per_group, self.config.student.gradient_checkpointing
                ),
                self._training_memory(config.contrast.micro_batch or 1, 1, self.config.student.gradient_checkpointing),
            ),
        )
        return [rollouts, row]

    def _groups_at_once(self, config: AdaptConfig) -> int:
        return config.micro_groups or max(1, config.groups // self.gpus)

    def rollout_cache(self, config: AdaptConfig) -> float:
        """Bytes of keys and values of a batch of rollouts, at the longest input and the greatest length."""
        rows = self._groups_at_once(config) * (config.rollouts // 2)
        return rows * (self._longest() + self.max_new_tokens) * self.student.kv_bytes

    def _forward(self, prompt: Prompt, further: float, scored: float) -> float:
        shape, length = self.student, prompt.tokens + further
        linear = shape.linear_flops(length) + shape.head_flops(1 + scored)
        return linear + shape.attention_flops(length**2) + shape.vision_flops(prompt.pictures, prompt.patches)

    @property
    def weight_bytes(self) -> float:
        """Frozen weights in the configured type under adapters in float32; else float32, and copies to compute with."""
        student = self.config.student
        half = student.dtype == "bfloat16"
        if not student.lora_rank:
            return 4 * self.student.parameters + (2 * self.student.text_matrices if half else 0)
        frozen = 2 if half else 4
        return frozen * self.student.parameters + 4 * self.learned

    @property
    def learned(self) -> int:
        """Parameters that learn."""
        student, shape = self.config.student, self.student
        if student.lora_rank:
            return shape.adapter_parameters(student.lora_rank, student.lora_targets)
        return shape.text_parameters + (shape.vision_parameters if student.train_vision else 0)

    @property
    def learning_bytes(self) -> float:
        """Gradients and AdamW's two moments."""
        return 12 * self.learned

    def _working_bytes(self, shape: Shape) -> float:
        """Of a token, while one layer runs and nothing is kept."""
        return 2.0 * (6 * shape.hidden + 3 * shape.attention_width + 3 * shape.intermediate)

    def activations(self, tokens: float, rows: int, checkpointing: bool) -> float:
        """Bytes that a micro-batch keeps or works on: `rows` rows of `tokens` tokens."""
        shape, learns = self.student, not self.config.student.lora_rank
        state, mask = (4 if learns else 2) * shape.hidden, 2 * tokens  # a token's, in every layer
        layer = layer_bytes(shape, learns) + mask
        kept = shape.layers * state + layer if checkpointing else shape.layers * layer
        return rows * tokens * (kept + mask) + self._logit_bytes()

    def _logit_bytes(self) -> float:
        """Of 1,024 tokens: once in bfloat16, three times in float32 (plain, masked, and their gradient)."""
        return 1024 * self.student.vocabulary * (2 + 3 * 4)

    def _training_memory(self, rows: int, rationales: int, checkpointing: bool) -> float:
        """At the longest input of the mix with rationales of the greatest length."""
        tokens = self._longest() + 1 + rationales * (self.max_new_tokens + 3)
        return self.weight_bytes + self.learning_bytes + self.activations(tokens, rows, checkpointing)

    def pair_activations(self, checkpointing: bool) -> float:
        """Of one such input with one rationale."""
        return self.activations(self._longest() + self.max_new_tokens + 4, 1, checkpointing)

    def _longest(self) -> float:
        turn, shape = self.assumed.turn_tokens, self.student
        return max(self.prompt(side, turn, shape).tokens for one in self.sets for side in one.sides.values())


def layer_bytes(shape: Shape, learns: bool) -> float:
    """Kept by one layer for the way back, a token, under bfloat16 autocast and without the attention's mask.

    Keys and values are spread over all heads before the attention; norms work in float32.

    Args:
        learns: all weights, in float32, and so the states between layers; else adapters on frozen bfloat16 ones.
    """
    width, key = shape.attention_width, shape.kv_heads * shape.head_dim
    norms = 2 * (4 + 2 + 2) * shape.hidden + (4 + 2) * (width + key)
    between = 2 * 4 * shape.hidden if learns else 0
    attention = 2 * (3 + 2) * width  # query, key, value; what comes out, and again as the next matrix takes it
    return norms + between + attention + 2 * 4 * shape.intermediate


def _worker_shape(worker: WorkerConfig) -> Shape | None:
    """Of a Qwen3-VL that we run ourselves; `None`: somebody else's GPUs, or nobody's."""
    if worker.kind == "api" or worker.backend == "recorded":
        return None
    return shape_of(worker.model, f"worker {worker.name!r}: model")


#: The language model of Qwen2-VL-2B with its vision tower, by its published config.json. It has biases and no norms of
#: queries and keys, which is nothing in operations.
QWEN2_VL_2B = Shape(1536, 28, 12, 2, 128, 8960, 1280, 32, 5120, patch=14, positions=0, deepstack=0)
#: GPU hours on H20, as its authors gave them: supervised, and reinforced.
UME_R1_HOURS = (2336.0, 1344.0)


def ume_r1_hours(assumed: Assumptions) -> tuple[float, float]:
    """What this arithmetic gives for UME-R1-2B, whose cost is published: all weights, both sides always reason.

    5,000 steps of 1,024 pairs; then 43 of 256 (11 thousand pairs once) with eight rollouts of either side, written by
    transformers, two pairs at once on a GPU.
    """
    rows = {"colpali": 99_648, "visrag": 81_726, "llava-hound-caption": 235_513}
    rows |= {"llava-hound-retrieval": 248_634, "llava-hound-qa": 212_539}
    images = sum(one.weight for one in PUBLISHED if one.kind == "mmeb-train")
    data = tuple(
        TrainingSetConfig(
            one.kind, one.path, subset=one.subset, weight=rows.get(one.kind, 585_278 * one.weight / images)
        )
        for one in PUBLISHED
    )
    adapt = AdaptConfig(
        plan=PlanConfig(batch_size=0), groups=256, micro_groups=2, rollouts=16, sides=SIDES, loop=LoopConfig(steps=43)
    )
    config = PipelineConfig(
        data=data,
        rationales=RationaleConfig(workers=(WorkerConfig("glm", "thinking", "recorded", max_new_tokens=2048),)),
        student=StudentConfig(gradient_checkpointing=True, dtype="bfloat16"),
        train=TrainConfig(plan=PlanConfig(batch_size=1024), loop=LoopConfig(steps=5000)),
        adapt=adapt,
    )
    always = dataclasses.replace(assumed, selected=1.0, chosen_tokens=430)
    estimator = Estimator(config, GPUS["h20"], 64, always, QWEN2_VL_2B)
    reinforced = sum(row.hours or 0.0 for row in estimator.adapt(adapt))
    return estimator.train().hours or 0.0, reinforced


def report(config: PipelineConfig, name: str, gpu: str, gpus: int) -> str:
    """The table, with what it rests on.

    Raises:
        OptionError: training sets or models that the arithmetic doesn't know.
    """
    assumed = Assumptions()
    estimator = Estimator(config, GPUS[gpu], gpus, assumed)
    rows = estimator.rows()
    lines = [
        f"ESTIMATE, not measured: {name} on {gpus} {gpu.upper()} at {100 * assumed.utilisation:.0f} % of their peak "
        f"operations and {100 * assumed.bandwidth_share:.0f} % of their memory bandwidth",
        "",
        *_table([("stage", "amount", "tokens", "FLOPs", "GPU hours", "days", "GB a GPU"), *map(_cells(gpus), rows)]),
        "",
        *(line for note in _notes(estimator) for line in textwrap.wrap(note, 118, subsequent_indent="  ")),
    ]
    return "\n".join(lines)


def _cells(gpus: int) -> Callable[[Row], tuple[str, ...]]:
    def cells(row: Row) -> tuple[str, ...]:
        return (
            row.stage,
            row.amount,
            f"{row.tokens / 1e9:,.2f} G",
            "-" if row.flops is None else f"{row.flops:.1e}",
            "-" if row.hours is None else f"{row.hours:,.0f}",
            "-" if row.hours is None else f"{row.hours / gpus / 24:.1f}",
            "-" if row.memory is None else f"{row.memory / 1e9:.0f}",
        )

    return cells


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _notes(estimator: Estimator) -> list[str]:
    assumed, shape = estimator.assumed, estimator.student
    kinds: tuple[Media, ...] = ("image", "page", "video")
    visual = [estimator.prompt(Side(kind, 0), 0, shape).tokens for kind in kinds]
    lengths = ", ".join(f"{kind} {count}" for kind, count in assumed.rationale_tokens)
    plain, kept = (estimator.pair_activations(checkpointing) / 1e9 for checkpointing in (False, True))
    supervised, reinforced = ume_r1_hours(assumed)
    adapt = estimator.config.adapt
    cache = f" Rollouts: {estimator.rollout_cache(adapt) / 1e9:.0f} GB of cache." if adapt else ""
    return [
        f"student: {shape.parameters / 1e9:.2f} G parameters; {estimator.learned / 1e6:,.0f} M learn; a token is "
        f"{shape.kv_bytes / 1e3:.0f} kB of cache.",
        f"memory: weights {estimator.weight_bytes / 1e9:.1f} GB, gradients and AdamW "
        f"{estimator.learning_bytes / 1e9:.1f} GB, on every process; the rest is a micro-batch at its longest. One "
        f"input of the greatest length keeps {plain:.1f} GB of activations, {kept:.1f} GB with checkpointing.{cache}",
        f"inputs: {visual[0]:.0f} tokens an image ({_size(assumed.image)}), {visual[1]:.0f} a page "
        f"({_size(assumed.page)}), {visual[2]:.0f} a video (frames of {_size(assumed.frame)}); words {_LABEL} to "
        f"{_CAPTION}, {assumed.turn_tokens} around them.",
        f"rationales: {lengths} tokens; {100 * assumed.usable:.0f} % usable; {100 * assumed.selected:.0f} % of the "
        f"sides that have some keep one, of {assumed.chosen_tokens} tokens; rollouts as long, the longest of a batch "
        f"{assumed.longest:g} times that, {1000 * assumed.launch_seconds * shape.layers:.0f} ms a token at least.",
        "not in it: decoding of pictures, traffic between GPUs, padding, restarts, what an API costs, the evaluation "
        "(three modes of 78 tasks). Every process reads all weights into host memory first.",
        f"check: for UME-R1-2B the same arithmetic gives {supervised:,.0f} H20 hours of supervised training, its "
        f"authors {UME_R1_HOURS[0]:,.0f} ({UME_R1_HOURS[0] / supervised:.1f} times as many), and {reinforced:,.0f} of "
        f"reinforced, they {UME_R1_HOURS[1]:,.0f} ({UME_R1_HOURS[1] / reinforced:.0f} times; their rollouts ran on "
        "weights sharded over 64 GPUs, whose gathering at every token isn't in the arithmetic and may be why). The "
        "hours above are a floor of the same kind: expect two to three times as many, and more on slow links.",
    ]


def _size(pixels: tuple[int, int]) -> str:
    return f"{pixels[1]} x {pixels[0]}"


def _millions(count: float) -> str:
    return f"{count / 1e6:.2f} M"


def _thousands(count: float) -> str:
    return f"{count / 1e3:.0f} k"
