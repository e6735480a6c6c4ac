"""The steps that take a GPU's memory, on models and batches of a given size: the project's own code on whatever device.

On the accelerator that isn't there they show what they would take and where they would wait; on a GPU the same steps
take it. Items are all alike, of the largest size that a batch is to be counted for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, distributed
from transformers import DynamicCache, Qwen3VLConfig

from mmeb_harness.adapter.pixels import Patches, PatchShape, Pixels
from mmemb_r1_model.data.pairs import Item, Side
from mmemb_r1_model.decoding import at_once, quicken
from mmemb_r1_model.embed.engine import Engine
from mmemb_r1_model.model import collate as collating
from mmemb_r1_model.model.checkpoint import Checkpoint
from mmemb_r1_model.model.collate import Pictures
from mmemb_r1_model.model.prompt import END_OF_TEXT, Prompt, PromptBuilder, extended
from mmemb_r1_model.model.vision import image_size, video_size
from mmemb_r1_model.rehearsal.sizes import model_on
from mmemb_r1_model.selection.judge import JudgeModel
from mmemb_r1_model.training.bank import Bank
from mmemb_r1_model.training.batches import Input, Labels, StepBatch
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.joint import ContrastConfig, joint_backward
from mmemb_r1_model.training.loop import Loop, LoopConfig
from mmemb_r1_model.training.packing import pack
from mmemb_r1_model.training.rollouts import LocalSampler, Rollout
from mmemb_r1_model.training.stage2 import AdaptConfig, AdaptStep, Reference
from mmemb_r1_model.training.student import Student, StudentConfig, prepared

#: What an item shows. Each in its largest size: the largest picture that the settings allow, the largest clip.
Shown = Literal["text", "picture", "clip"]

#: Tokens of an item's words, of a text that has nothing else; and around pictures.
_TEXT_TOKENS, _WORDS = 512, 64
_FRAMES = 8
_LARGE_PICTURE = 1080, 1920


@dataclass(frozen=True)
class Load:
    """What a batch is made of.

    Attributes:
        rationale: tokens of each; 0: there are none.
    """

    checkpoint: Checkpoint
    shown: Shown
    rationale: int

    @property
    def prompt(self) -> Prompt:
        """The prompt of each item."""
        builder = PromptBuilder(self.checkpoint.tokenizer, self.checkpoint.vision.merge)
        settings, vision = self.checkpoint.settings, self.checkpoint.vision
        if self.shown == "picture":
            bounds = settings.min_pixels, settings.max_pixels
            builder.picture(_blank(1, 1, image_size(*_LARGE_PICTURE, vision.factor, *bounds), vision))
        elif self.shown == "clip":
            bounds = settings.video_min_pixels, settings.video_max_pixels
            size = video_size(_FRAMES, *_LARGE_PICTURE, vision.factor, *bounds)
            builder.clip(_blank(_FRAMES // 2, 2, size, vision), settings.frames_per_second)
        word = self.checkpoint.tokenizer.plain(".")[0]
        return extended(builder.build(), [word] * (_TEXT_TOKENS if self.shown == "text" else _WORDS))

    def batch(self, pairs: int) -> StepBatch:
        """Pairs whose sides are all this item."""
        item, rationale = Item("item"), "." * self.rationale or None
        inputs = (Input(item, self.prompt, rationale),) * pairs
        labels = tuple(Labels(frozenset({number}), frozenset({number})) for number in range(pairs))
        return StepBatch(0, ("set",) * pairs, ("set/item",) * pairs, inputs, inputs, (), labels, ())


def _blank(time: int, frames: int, size: tuple[int, int], shape: PatchShape) -> Patches:
    """Patches of nothing, of so many frames each, that take no memory."""
    rows, columns = size[0] // shape.patch, size[1] // shape.patch
    nothing = np.broadcast_to(np.uint8(0), (time * rows * columns, 3, frames, shape.patch**2))
    return Patches(Pixels(nothing, shape.levels, shape.temporal), (time, rows, columns))


def _pixels_of(pieces: Sequence[Prompt]) -> Pictures:
    """The same as `collate.pixels_of`, of blank pictures: memory that is never written to takes none."""
    with patch.object(np, "concatenate", lambda parts: np.zeros((sum(map(len, parts)), *parts[0].shape[1:]), np.uint8)):
        return _original_pixels_of(pieces)


_original_pixels_of = collating.pixels_of


@contextmanager
def blank_pictures() -> Iterator[None]:
    """While it lasts, pictures of batches are blank, and take none of the host's memory."""
    with patch.object(collating, "pixels_of", _pixels_of):
        yield


@contextmanager
def one_of(processes: int) -> Iterator[None]:
    """While it lasts, this process finds as many others, with batches like its own."""
    others = {
        "all_gather": lambda parts, own: [part.copy_(own) for part in parts],
        "all_reduce": lambda tensor: None,
        "all_gather_object": lambda values, own: values.__setitem__(slice(None), [own] * processes),
    }
    with ExitStack() as stack:
        for name, stand_in in others.items():
            stack.enter_context(patch.object(distributed, name, stand_in))
        yield


def student_on(world: World, checkpoint: Checkpoint, model: Qwen3VLConfig, config: StudentConfig) -> Student:
    """A student of that size with random weights, or none."""
    device = world.device
    frozen = getattr(torch, config.dtype) if config.lora_rank else torch.float32
    backbone = model_on(device, model, checkpoint.tokenizer, frozen)
    with device:  # adapters, too, are made there
        return prepared(checkpoint, backbone, config, world)


class Training:
    """A student with its optimiser, as after some steps."""

    def __init__(self, student: Student) -> None:
        self.student, self.world = student, student.world
        #: Told when a step's gradients are complete, before the optimiser.
        self.when_gradients_are_there: Callable[[], None] = lambda: None
        self._loop = Loop(student, LoopConfig(steps=2), student.world, Path(), {})
        with one_of(student.world.size):
            self.take(self._nothing)

    def take(self, step: Callable[[int], dict[str, float]]) -> dict[str, float]:
        """A step, from no gradients to changed weights."""

        def telling(number: int) -> dict[str, float]:
            values = step(number)
            self.when_gradients_are_there()
            return values

        return self._loop.take(0, 0.0, telling, lambda _: "")

    def kept(self) -> dict[str, list[Tensor]]:
        """What a training holds between steps, and the gradients of the last one, by kind."""
        module, states = self.student.module, self._loop.optimiser.state.values()
        return {
            "weights": [*module.parameters(), *module.buffers()],
            "gradients": [own.grad for own in self.student.trained() if own.grad is not None],
            "optimiser": [value for state in states for value in state.values() if isinstance(value, Tensor)],
        }

    def _nothing(self, _: int) -> dict[str, float]:
        for parameter in self.student.trained():
            parameter.grad = torch.zeros_like(parameter)
        return {}


def joint_step(training: Training, load: Load, contrast: ContrastConfig, pairs: int) -> dict[str, float]:
    """A step of stage 1 over some pairs of this process."""
    batch = load.batch(pairs)
    return training.take(lambda _: joint_backward(training.student, batch, contrast, training.world, 0))


def adapt_step(training: Training, load: Load, config: AdaptConfig, pairs: int, groups: int) -> dict[str, float]:
    """A step of stage 2: the contrastive terms of some pairs, then both policies on some groups at once.

    The rollouts are there already, each of the greatest length; see `rollouts`.
    """
    student, world = training.student, training.world
    # One group has no deviation: then there are two, one after the other.
    config = dataclasses.replace(config, groups=max(groups, 2) * world.size, contrast=_without_own(config.contrast))
    labels = (Labels(frozenset(), frozenset()),) * config.negatives
    width = student.backbone.config.get_text_config().hidden_size
    bank = Bank(torch.zeros(config.negatives, width, device=student.device), labels)
    reference = Reference(student, config.contrast.micro_batch or groups)
    banks: dict[tuple[str, Side], Bank] = {("set", side): bank for side in config.sides}
    stage = AdaptStep(student, reference, _Longest(student, load), banks, config, world, {"sigma": 1.0})
    return training.take(lambda _: stage.step(0, load.batch(pairs), load.batch(max(groups, 2)), groups))


def rollouts(student: Student, load: Load, groups: int, count: int) -> None:
    """The last tokens of `count` rationales of some prompts: what was written before stands in the prompt."""
    word = load.checkpoint.tokenizer.plain(".")[0]
    (given, *_) = load.batch(1).queries
    whole = dataclasses.replace(given, prompt=extended(given.prompt, [word] * load.rationale))
    sampler = LocalSampler(student)
    sampler.refresh(0)
    sampler.sample([whole] * groups, count, 1, 0)


def judge_pass(device: torch.device, model: Any, load: Load, queries: int, candidates: int, half: bool) -> None:
    """An evaluator's pass over queries, each with a rationale and its candidates behind it."""
    quicken(model, device)
    judge = JudgeModel(model, 0, 1)
    word = load.checkpoint.tokenizer.plain(".")[0]
    query, pad = extended(load.prompt, [word] * load.rationale), load.checkpoint.tokenizer.id_of(END_OF_TEXT)
    packed = pack([query] * queries, [[load.prompt] * candidates] * queries, pad, device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        judge(packed).tolist()


def prefill(engine: Engine, load: Load, rows: int) -> Any:
    """What reading a batch leaves: keys and values of its rows."""
    past = DynamicCache(config=engine.model.config.get_text_config())
    with torch.inference_mode():
        engine.gates(at_once(engine.read(engine.batch([load.prompt] * rows), past, wanted=2))[:, -1])
    return past


def decode(engine: Engine, load: Load, past: Any, rows: int) -> Any:
    """A token of so many rows, which have written a quarter of what they may; the decoder's step over them."""
    length = len(load.prompt)
    with torch.inference_mode():
        group = engine.decoder.groups.place([length + load.rationale // 4 + 3] * rows)
        assert group is not None, "no memory for a single row"
        step = group.step
        slots = step.cache.slots
        step.cache.admit(past, [0], [0], [length], [0])
        step.inputs[1] = step.cache.columns - 1
        step(slots)
        step.chosen_S.tolist()
    return step


def _without_own(contrast: ContrastConfig) -> ContrastConfig:
    return dataclasses.replace(contrast, own_from=1.0)


@dataclass(frozen=True)
class _Longest:
    """A sampler whose rollouts all have the greatest length."""

    student: Student
    load: Load

    def refresh(self, step: int) -> None:
        """Nothing to do."""

    def release(self) -> None:
        """Nothing to do."""

    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        """The same rollout for all."""
        ids = tuple(self.student.completion("." * self.load.rationale))
        rollout = Rollout(ids, (0.0,) * (len(ids) - 1), True, len(ids) - 1)
        return [[rollout] * count for _ in inputs]
