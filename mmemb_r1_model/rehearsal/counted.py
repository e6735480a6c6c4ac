"""What each step takes at most on the device of one process, counted at true size.

Without gradients a step is counted with all of its layers. With them that takes a minute, and layers are alike: it is
counted with four, with one more, and with one more block of the vision tower, and what each adds is added for all
others (tested). The steps are those of `steps`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.model.checkpoint import Checkpoint
from mmemb_r1_model.rehearsal.accelerator import Accelerator
from mmemb_r1_model.rehearsal.memory import Ledger, Peak
from mmemb_r1_model.rehearsal.sizes import model_on
from mmemb_r1_model.rehearsal.steps import (
    Load,
    Shown,
    Training,
    adapt_step,
    blank_pictures,
    decode,
    joint_step,
    judge_pass,
    one_of,
    prefill,
    rollouts,
    student_on,
)
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig
from mmemb_r1_model.training.stage2 import AdaptConfig
from mmemb_r1_model.training.student import Student, StudentConfig

#: The first three of the language model get the vision tower's inner states, and differ from the others by them.
_LAYERS = 4


@dataclass(frozen=True)
class Subject:
    """A model, and what it is shown.

    Attributes:
        checkpoint: whose settings and tokenizer count.
        model: its sizes.
        rationale: tokens of the longest.
        processes: that train together, each on its device.
    """

    checkpoint: Checkpoint
    model: Qwen3VLConfig
    shown: Shown
    rationale: int
    processes: int = 1

    @property
    def load(self) -> Load:
        """Items of the largest size, with the longest rationales."""
        return Load(self.checkpoint, self.shown, self.rationale)


def train_peak(subject: Subject, student: StudentConfig, contrast: ContrastConfig, pairs: int) -> Peak:
    """Of a step of stage 1 over `pairs` of one process, as after some steps."""
    return _training_peak(subject, student, lambda training: joint_step(training, subject.load, contrast, pairs))


def adapt_peak(subject: Subject, student: StudentConfig, config: AdaptConfig, pairs: int, groups: int) -> Peak:
    """Of a step of stage 2, with contrastive terms of `pairs` and both policies on `groups` at once."""
    return _training_peak(subject, student, lambda training: adapt_step(training, subject.load, config, pairs, groups))


def rollouts_peak(subject: Subject, student: StudentConfig, groups: int, count: int) -> Peak:
    """Of the longest rationales, `count` of each of some prompts, written by a student as it is trained."""

    def counted(model: Qwen3VLConfig, ledger: Ledger, device: torch.device) -> Peak:
        training = Training(_student(subject, student, model, device))
        for parameter in training.student.trained():
            parameter.grad = None
        since = ledger.mark()
        rollouts(training.student, subject.load, groups, count)
        for kind, tensors in training.kept().items():
            ledger.hold(kind, tensors)
        return ledger.peak(since)

    return _passing_peak(subject, frozen_dtype(student), counted)


def judge_peak(subject: Subject, queries: int, candidates: int, dtype: torch.dtype) -> Peak:
    """Of an evaluator's pass over queries with their candidates."""

    def count(config: Qwen3VLConfig, ledger: Ledger, device: torch.device) -> Peak:
        model = model_on(device, config, subject.checkpoint.tokenizer, dtype)
        ledger.hold("weights", [*model.parameters(), *model.buffers()])
        since = ledger.mark()
        judge_pass(device, model, subject.load, queries, candidates, dtype == torch.bfloat16)
        return ledger.peak(since)

    return _passing_peak(subject, dtype, count)


def prefill_peak(subject: Subject, rows: int) -> Peak:
    """Of the engine's reading of a batch, whose keys and values are kept."""

    def run(engine: Engine, ledger: Ledger) -> Peak:
        since = ledger.mark()
        prefill(engine, subject.load, rows)
        return ledger.peak(since)

    return _engine_peak(subject, run)


def decode_peak(subject: Subject, slots: int) -> Peak:
    """Of the engine's step that writes a token of `slots` rationales of the greatest length."""

    def run(engine: Engine, ledger: Ledger) -> Peak:
        past = prefill(engine, subject.load, 1)
        since = ledger.mark()
        step = decode(engine, subject.load, past, slots)
        ledger.hold("kv", step.cache.stores)
        return ledger.peak(since)

    return _engine_peak(subject, run, slots)


def _engine_peak(subject: Subject, run: Callable[[Engine, Ledger], Peak], slots: int | None = None) -> Peak:
    def count(config: Qwen3VLConfig, ledger: Ledger, device: torch.device) -> Peak:
        model = model_on(device, config, subject.checkpoint.tokenizer, torch.bfloat16)
        ledger.hold("weights", [*model.parameters(), *model.buffers()])
        return run(Engine(model, subject.checkpoint.tokenizer, subject.rationale, "off", slots), ledger)

    return _passing_peak(subject, torch.bfloat16, count)


def frozen_dtype(student: StudentConfig) -> torch.dtype:
    """Of the weights beside adapters; without adapters all weights learn, in single precision."""
    dtype: torch.dtype = getattr(torch, student.dtype) if student.lora_rank else torch.float32
    return dtype


def weight_bytes(config: Qwen3VLConfig, dtype: torch.dtype) -> int:
    """Of all weights of a model, in that type."""
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration._from_config(config, dtype=dtype)
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _training_peak(subject: Subject, config: StudentConfig, run: Callable[[Training], Any]) -> Peak:
    def count(model: Qwen3VLConfig, ledger: Ledger, device: torch.device) -> list[Peak]:
        training = Training(_student(subject, config, model, device))
        moments = [ledger.mark()]

        def noted() -> None:
            moments.append(ledger.mark())
            ledger.hold("gradients", training.kept()["gradients"])  # a sum over processes has a place of its own

        training.when_gradients_are_there = noted
        with one_of(subject.processes):
            run(training)
        for kind, tensors in training.kept().items():
            ledger.hold(kind, tensors)
        return [ledger.peak(moments[0], moments[1]), ledger.peak(moments[1])]

    model = subject.model
    layers, blocks = model.text_config.num_hidden_layers, model.vision_config.depth
    first = len(model.vision_config.deepstack_visual_indexes)
    if layers <= _LAYERS + 1 and blocks <= first + 1:
        return max(_counted(model, count), key=lambda peak: peak.bytes)
    sizes = [(_LAYERS, first), (_LAYERS + 1, first)]
    missing = 0
    if config.lora_rank:  # a block of the frozen tower leaves nothing but its weights
        whole, few = (weight_bytes(_shortened(model, layers, depth), frozen_dtype(config)) for depth in (blocks, first))
        missing = whole - few
    else:
        sizes.append((_LAYERS, first + 1))
    parts = zip(*(_counted(_shortened(model, *size), count) for size in sizes), strict=True)
    added = max((_added_up(peaks, layers - _LAYERS, blocks - first) for peaks in parts), key=lambda peak: peak.bytes)
    return Peak({**added.by_kind, "weights": added.by_kind["weights"] + missing})


def _added_up(peaks: Sequence[Peak], layers: int, blocks: int) -> Peak:
    """A small model's, with what one more layer adds so many times, and one more block where that was counted."""
    whole = {}
    for kind in sorted({kind for peak in peaks for kind in peak.by_kind}):
        size, *more = (peak.by_kind.get(kind, 0) for peak in peaks)
        whole[kind] = size + sum(times * (own - size) for times, own in zip((layers, blocks), more, strict=False))
    return Peak(whole)


def _student(subject: Subject, config: StudentConfig, model: Qwen3VLConfig, device: torch.device) -> Student:
    world = World(size=subject.processes, device=device)
    return student_on(world, subject.checkpoint, model, dataclasses.replace(config, shard=False))


def _passing_peak(
    subject: Subject, dtype: torch.dtype, count: Callable[[Qwen3VLConfig, Ledger, torch.device], Peak]
) -> Peak:
    """Of a step without gradients, in which a block of the vision tower leaves nothing but its weights."""

    def counted(model: Qwen3VLConfig, ledger: Ledger, device: torch.device) -> list[Peak]:
        ledger.kept_heads = model.text_config.num_key_value_heads, model.text_config.head_dim
        return [count(model, ledger, device)]

    model = subject.model
    short = _shortened(model, model.text_config.num_hidden_layers, len(model.vision_config.deepstack_visual_indexes))
    (peak,) = _counted(short, counted)
    missing = weight_bytes(model, dtype) - weight_bytes(short, dtype)
    return Peak({**peak.by_kind, "weights": peak.by_kind["weights"] + missing})


def _counted(model: Qwen3VLConfig, count: Callable[[Qwen3VLConfig, Ledger, torch.device], list[Peak]]) -> list[Peak]:
    accelerator = Accelerator(memory=1 << 50)
    with accelerator.there() as ledger, blank_pictures():
        ledger.vocabulary = model.text_config.vocab_size
        return count(model, ledger, accelerator.device)


def _shortened(model: Qwen3VLConfig, layers: int, blocks: int) -> Qwen3VLConfig:
    """With the first layers and blocks alone; the tower's inner states are those of its first blocks."""
    config = copy.deepcopy(model)
    config.text_config.num_hidden_layers, config.vision_config.depth = layers, blocks
    config.vision_config.deepstack_visual_indexes = list(range(len(config.vision_config.deepstack_visual_indexes)))
    return config
