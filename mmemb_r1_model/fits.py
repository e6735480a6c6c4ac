"""`mmemb-r1 estimate --gpus 8x80`: what each stage takes of a GPU, counted without one, and what fits.

Counted by running the stages' own steps on tensors without memory (`rehearsal`), with items of the largest size and the
longest rationales. How long they take only a GPU can say.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from transformers import Qwen3VLConfig

from mmeb_harness.adapter.pixels import PatchShape
from mmemb_r1_model.decoding.groups import affordable, columns_for
from mmemb_r1_model.decoding.slots import KeyValueShape
from mmemb_r1_model.decoding.step import ROW_BUCKETS
from mmemb_r1_model.decoding.stream import GPU_SHARE, SLOTS
from mmemb_r1_model.disk.errors import OptionError
from mmemb_r1_model.model.checkpoint import open_checkpoint
from mmemb_r1_model.model.settings import Settings, read_settings
from mmemb_r1_model.model.tiny_model import TinySize, tiny_config
from mmemb_r1_model.model.vision import TEMPORAL_PATCH, levels_of
from mmemb_r1_model.pipeline import PipelineConfig
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rehearsal.counted import (
    Subject,
    adapt_peak,
    decode_peak,
    frozen_dtype,
    judge_peak,
    prefill_peak,
    rollouts_peak,
    train_peak,
    weight_bytes,
)
from mmemb_r1_model.rehearsal.memory import Peak
from mmemb_r1_model.rehearsal.sizes import published_config, published_size
from mmemb_r1_model.rehearsal.steps import Shown
from mmemb_r1_model.training.batches import PlanConfig
from mmemb_r1_model.training.joint import ContrastConfig

#: What cards have, in GB as they are sold.
CARDS = (24, 48, 80, 141)
#: Of a card, for what isn't counted: CUDA's context, workspaces of kernels, holes between tensors.
RESERVE = 0.1
_KINDS = ("weights", "kv", "activations", "logits", "gradients", "optimiser")
#: Padded tokens of a batch of the harness, by default.
_BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Gpus:
    """So many cards of one kind; `gigabytes` as they are sold."""

    count: int
    gigabytes: int

    @property
    def room(self) -> int:
        """Bytes of one that a step may take."""
        return room_of(self.gigabytes)

    def __str__(self) -> str:
        return f"{self.count}x{self.gigabytes}"


def room_of(gigabytes: int) -> int:
    """Bytes of a card that a step may take: what is sold as 80 GB has nearly 80 GiB."""
    return int((1 - RESERVE) * gigabytes * 2**30)


def read_gpus(text: str) -> Gpus:
    """From "8x80": eight of 80 GB.

    Raises:
        OptionError: it is something else.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if "," in text:
        raise OptionError(f"--gpus {text}: all processes of a run need equal GPUs; ask for one kind, e.g. 8x80")
    if not match or not int(match[1]) or not int(match[2]):
        raise OptionError(f"--gpus {text}: write how many, and of how many GB each: 8x80, or 1x24")
    return Gpus(int(match[1]), int(match[2]))


@dataclass(frozen=True)
class Fit:
    """What a part of a stage takes of each process's GPU.

    Attributes:
        peak: `None`: not known.
        note: what would fit, or what else to know.
        least: bytes that it can do with, where it takes as much as it finds.
    """

    part: str
    peak: Peak | None = None
    note: str = ""
    least: int | None = None


@dataclass(frozen=True)
class Fits:
    """A configuration on GPUs.

    Attributes:
        say: told of every count, some of which take seconds.
    """

    config: PipelineConfig
    gpus: Gpus
    shown: Shown
    say: Callable[[str], None]

    def counted(self) -> Iterator[Fit]:
        """Every stage of the configuration, in order.

        Raises:
            OptionError: a model whose sizes aren't known.
        """
        config = self.config
        for worker in config.rationales.workers:
            yield _of_worker(worker)
        if config.rationales.workers and config.judge is None:
            yield self._judge()
        yield self._train()
        if config.adapt:
            yield from self._adapt()
        if config.evaluate:
            yield self._evaluate()

    def _judge(self) -> Fit:
        judge, select = self.config.select.judge, self.config.select
        subject = dataclasses.replace(subject_of(judge.checkpoint, self.config, self.shown), rationale=0)
        dtype = getattr(torch, judge.dtype)

        @cache
        def peak(queries: int) -> Peak:
            self.say(f"select, batch_size {queries}")
            return judge_peak(subject, queries, 1 + select.negative_pool, dtype)

        return self._sized("select", "select.judge.batch_size", judge.batch_size, peak)

    def _train(self) -> Fit:
        plan, contrast = self.config.train.plan, self.config.train.contrast
        return self._contrast("train", plan, contrast, functools.partial(train_peak, self.subject, self.config.student))

    def _contrast(
        self, part: str, plan: PlanConfig, contrast: ContrastConfig, step: Callable[[ContrastConfig, int], Peak]
    ) -> Fit:
        """A stage's contrastive terms, by how many pairs of a process go through at once."""
        pairs = max(1, plan.batch_size // self.gpus.count)

        @cache
        def peak(size: int) -> Peak:
            self.say(f"{part}, micro_batch {size}")
            caches = contrast.gradient_caching or size < pairs
            smaller = dataclasses.replace(contrast, micro_batch=size, gradient_caching=caches)
            # Of a batch that goes through in pieces two are enough: the second meets the gradients of the first.
            return self._split(step(smaller, size if caches else pairs))

        size = min(contrast.micro_batch or pairs, pairs)
        return self._sized(part, f"{part.partition(':')[0]}.contrast.micro_batch", size, peak)

    def _adapt(self) -> Iterator[Fit]:
        adapt = self.config.adapt
        assert adapt is not None
        student, mine = self.config.student, max(1, adapt.groups // self.gpus.count)
        whole = min(adapt.micro_groups or mine, mine)

        @cache
        def written(groups: int) -> Peak:
            self.say(f"adapt: rollouts, micro_groups {groups}")
            return self._split(rollouts_peak(self.subject, student, groups, adapt.rollouts // 2))

        @cache
        def learnt(groups: int) -> Peak:
            self.say(f"adapt: policies, micro_groups {groups}")
            return self._split(adapt_peak(self.subject, student, adapt, 1, groups))

        if adapt.server is None:
            yield self._sized("adapt: rollouts", "adapt.micro_groups", whole, written)
        else:
            yield Fit("adapt: rollouts", None, "a server writes them, on GPUs of its own")
        yield self._sized("adapt: policies", "adapt.micro_groups", whole, learnt)

        def contrasted(contrast: ContrastConfig, pairs: int) -> Peak:
            return adapt_peak(self.subject, student, dataclasses.replace(adapt, contrast=contrast), pairs, 1)

        yield self._contrast("adapt: contrast", adapt.plan, adapt.contrast, contrasted)

    def _evaluate(self) -> Fit:
        subject = self.subject
        self.say("evaluate")
        prompt = len(subject.load.prompt)
        rows = max(1, _BATCH_TOKENS // (prompt + subject.rationale // 4))
        read = prefill_peak(subject, rows)
        free = GPU_SHARE * (self.gpus.room - read.by_kind["weights"])
        most, token = SLOTS["cuda"], _token_bytes(subject.model)
        # As batches are planned: the longest are few.
        columns, longest = (columns_for(prompt + tokens + 3) for tokens in (subject.rationale // 4, subject.rationale))
        slots, fewest = (max(1, affordable(min(most, int(free // (each * token))))) for each in (columns, longest))
        step = decode_peak(subject, slots)
        beside = {kind: size for kind, size in read.by_kind.items() if kind != "weights"}
        both = Peak({kind: step.by_kind.get(kind, 0) + beside.get(kind, 0) for kind in _KINDS})
        least = both.bytes - max(0, slots - ROW_BUCKETS[0]) * columns * token
        at_once = f"{slots} of {most} rationales at once" + (f", {fewest} if all are the longest" * (fewest < slots))
        return Fit("evaluate", both, f"{at_once}; batches of {rows} such items", least)

    @cached_property
    def subject(self) -> Subject:
        """The student, and what it is shown."""
        subject = subject_of(self.config.student.checkpoint, self.config, self.shown)
        return dataclasses.replace(subject, processes=self.gpus.count)

    def _split(self, peak: Peak) -> Peak:
        """With `student.shard`: of what is kept each process has its part; gathered are a layer and the tables."""
        if not self.config.student.shard or self.gpus.count == 1:
            return peak
        model = self.subject.model
        kept = {kind: peak.by_kind.get(kind, 0) // self.gpus.count for kind in ("weights", "gradients", "optimiser")}
        gathered = weight_bytes(_of_one_layer(model), frozen_dtype(self.config.student))
        return Peak({**peak.by_kind, **kept, "activations": peak.by_kind["activations"] + gathered})

    def _sized(self, part: str, setting: str, size: int, peak: Callable[[int], Peak]) -> Fit:
        """What the configured size takes; if that doesn't fit, the largest that does: reckoned from two, then tried."""
        named = f"{part}, {setting.rpartition('.')[2]} {size}"
        own, room = peak(size), self.gpus.room
        if own.bytes <= room:
            return Fit(named, own)
        smallest = peak(1)
        if smallest.bytes > room:
            return Fit(named, own, f"not even 1 fits; {_ways_out(self.config, part)}")
        largest = 1 + int((room - smallest.bytes) * (size - 1) / (own.bytes - smallest.bytes))
        while peak(largest).bytes > room:
            largest -= 1
        return Fit(
            named,
            own,
            f"{setting}={largest} fits" + (" (with gradient_caching)" if setting.endswith("micro_batch") else ""),
        )


def _ways_out(config: PipelineConfig, part: str) -> str:
    if part == "select":
        narrower = ", or its dtype: bfloat16" if config.select.judge.dtype == "float32" else ""
        return f"use a smaller select.judge.checkpoint{narrower}"
    student = config.student
    ways = [
        *([] if student.gradient_checkpointing else ["student.gradient_checkpointing: true"]),
        *([] if student.lora_rank else ["student.lora_rank: 64 with lora_alpha and dtype: bfloat16"]),
        *([] if student.shard else ["student.shard: true on several GPUs"]),
        "a smaller student",
    ]
    return "try " + ", or ".join(ways)


def _of_worker(worker: WorkerConfig) -> Fit:
    part = f"rationales: {worker.name}"
    if worker.backend == "recorded":
        return Fit(part, None, "written already")
    size = published_size(worker.model)
    if size is None:
        return Fit(part, None, f"not known: {worker.model or 'no model'} is of no published size of Qwen3-VL")
    model = published_config(size)
    weights = weight_bytes(model, torch.bfloat16)
    if worker.backend == "endpoint":
        return Fit(part, Peak({"weights": weights}), "weights alone; vLLM fills what it may take with keys and values")
    columns = 2048 + worker.max_new_tokens
    kept = worker.batch_size * columns * _token_bytes(model)
    return Fit(part, Peak({"weights": weights, "kv": kept}), "without activations; of prompts of 2,048 tokens")


def _token_bytes(model: Qwen3VLConfig) -> int:
    """Of a token's keys and values, in bfloat16."""
    text = model.text_config
    sizes = text.num_hidden_layers, text.num_key_value_heads, text.head_dim
    return KeyValueShape(*sizes, torch.bfloat16, torch.device("meta")).token_bytes


def _of_one_layer(model: Qwen3VLConfig) -> Qwen3VLConfig:
    """What sharded weights gather at one time at most: a layer, and all that is none."""
    config = copy.deepcopy(model)
    config.text_config.num_hidden_layers = 1
    return config


def subject_of(checkpoint: str, config: PipelineConfig, shown: Shown) -> Subject:
    """A model by its folder, or by the published size that it is named after; "" and "tiny": a tiny one.

    Raises:
        OptionError: neither a folder nor a published size.
    """
    tiny = open_checkpoint(None, None)
    if checkpoint in ("", "tiny"):
        made = config.start.size if config.start else TinySize()
        model = tiny_config(made, made.vocabulary, tiny.tokenizer.added_tokens)
        return Subject(tiny, model, shown, _longest(config, None))
    folder = Path(checkpoint)
    if (folder / "config.json").is_file():
        settings = read_settings(folder)
        model = Qwen3VLConfig.from_pretrained(folder)
    elif (size := published_size(checkpoint)) is not None:
        settings, model = None, published_config(size)
    else:
        raise OptionError(
            f"{checkpoint} is no folder with a config.json, and not named after a published size of Qwen3-VL: its "
            "sizes aren't known here; name its folder with --set student.checkpoint=… (or select.judge.checkpoint)"
        )
    sides = model.vision_config.patch_size, model.vision_config.spatial_merge_size
    vision = PatchShape(*sides, TEMPORAL_PATCH, levels_of((0.5,) * 3, (0.5,) * 3))
    # Its own tokenizer isn't needed: what is counted are tokens.
    stand_in = dataclasses.replace(tiny, settings=settings or Settings(), vision=vision)
    return Subject(stand_in, model, shown, _longest(config, settings))


def _longest(config: PipelineConfig, settings: Settings | None) -> int:
    """Tokens of the longest rationale: of the checkpoint, or else of those who write for it."""
    if settings is not None:
        return settings.max_new_tokens
    if config.start is not None:
        return config.start.max_new_tokens
    asked = [worker.max_new_tokens for worker in config.rationales.workers if worker.backend != "recorded"]
    return max(asked, default=Settings().max_new_tokens)


def say_fits(config: PipelineConfig, gpus: Gpus, shown: Shown, say: Callable[[str], None]) -> list[Fit]:
    """Count every stage, and say it in a table.

    Raises:
        OptionError: a model whose sizes aren't known, or a batch that can't be split over so many GPUs.
    """
    fits = Fits(config, gpus, shown, lambda counted: say(f"counting {counted} …"))
    subject = fits.subject
    rows = list(fits.counted())
    say(
        f"\nGB that a process takes at most of its GPU, counted without one. {_described(config, subject)}\n"
        f"A card of {gpus.gigabytes} GB has room for {gpus.room / 1e9:.1f}: a tenth is left for CUDA's context, "
        "workspaces of kernels and holes, which aren't counted.\n"
    )
    say(_columns("part", *_KINDS, "in all", *map(str, CARDS), f"{gpus}"))
    for row in rows:
        say(_line(row, gpus))
    say("\nHow long it takes is unknown without such a GPU: on one, leave out --gpus.")
    return rows


def _described(config: PipelineConfig, subject: Subject) -> str:
    checkpoint = config.student.checkpoint
    sizes = "" if not checkpoint or Path(checkpoint).exists() else f" ({checkpoint} isn't here: its published sizes)"
    shown = "a text" if subject.shown == "text" else f"the largest {subject.shown}"
    return (
        f"Items are {shown}, {len(subject.load.prompt):,} tokens; rationales the longest, "
        f"{subject.rationale:,} tokens{sizes}."
    )


def _line(fit: Fit, gpus: Gpus) -> str:
    if fit.peak is None:
        return f"{fit.part:<34}  {fit.note}"
    numbers = [f"{fit.peak.by_kind.get(kind, 0) / 1e9:.1f}" for kind in _KINDS]
    least = fit.peak.bytes if fit.least is None else fit.least
    marks = ["yes" if least <= room_of(card) else "no" for card in (*CARDS, gpus.gigabytes)]
    return _columns(fit.part, *numbers, f"{fit.peak.bytes / 1e9:.1f}", *marks) + (f"  {fit.note}" if fit.note else "")


def _columns(part: str, *cells: str) -> str:
    widths = (8, 6, 11, 7, 9, 9, 7, 4, 4, 4, 4, 6)
    return f"{part:<34}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
