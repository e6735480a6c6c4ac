"""What both stages share: optimiser, schedule, checkpoints to go on from, the log, and what stops a run.

A run that was broken off goes on from its last checkpoint with the losses it would have had: batches, draws and
dropout are functions of seed and step, the rest (weights, optimiser) is in the checkpoint. A test compares curves.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from mmemb_r1_model.disk.config import Above0, Below1, Least0, Least0Float, Least1, Seed
from mmemb_r1_model.disk.errors import ModelError, OptionError, one_line, progress_of
from mmemb_r1_model.disk.files import matching, read_object, replacing_folder, write_json
from mmemb_r1_model.disk.jsonl import Row, RowWriter, read_rows, rewrite
from mmemb_r1_model.disk.trackers import OpenCurves, log_alone
from mmemb_r1_model.model.checkpoint import Checkpoint
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.sharding import gather_on_first, part_of, whole

STATE = "state.pt"
LOG = "log.jsonl"
FINAL = "final"
#: A written model that wasn't compared with the trained one yet.
UNCHECKED = "unchecked"


@dataclass(frozen=True)
class LoopConfig:
    """How long, how fast, and what is written.

    Attributes:
        learning_rate: at its highest; linear warm-up, then cosine down to `final_rate` times it.
        clip: largest norm of the gradient.
        save_every: steps between checkpoints to go on from; 0: none.
        keep: how many of them stay.
        loader_workers: processes that read and tokenise ahead; 0: in the training process.
        cached_prompts: how many prompts stay in memory, for small data.
    """

    steps: Least1 = 1000
    learning_rate: Least0Float = 1e-4
    final_rate: Least0Float = 0.0
    warmup: Least0 = 10
    weight_decay: Least0Float = 0.01
    betas: tuple[Below1, Below1] = (0.9, 0.98)
    clip: Above0 = 1.0
    seed: Seed = 0
    log_every: Least1 = 10
    save_every: Least0 = 500
    keep: Least1 = 2
    loader_workers: Least0 = 0
    cached_prompts: Least0 = 0


class TrainingError(ModelError):
    """A step that can't be taken. The last good checkpoint stays."""


class Trained(Protocol):
    """A model that a run trains."""

    #: What it started from.
    checkpoint: Checkpoint

    @property
    def module(self) -> torch.nn.Module:
        """The model with all of its weights."""

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that learn."""

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder that can be loaded. Every process calls it, the first writes."""


def learning_rate(config: LoopConfig, step: int) -> float:
    """Of a step, counted from 0. By steps, never by the clock."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return config.learning_rate * warm * (config.final_rate + (1 - config.final_rate) * cosine)


def _step(row: Row, log: Path) -> int:
    step = row.get("step")
    if type(step) is not int:
        raise TrainingError(f"{log}: a line has no whole number as its step: {row}; delete it, it is but a log")
    return step


class Loop:
    """A run in a folder: `checkpoint-STEP/state.pt`, `log.jsonl`, and at the end `final/`, a checkpoint to load."""

    def __init__(
        self,
        student: Trained,
        config: LoopConfig,
        world: World,
        folder: Path,
        described: dict[str, Any],
        open_curves: OpenCurves = log_alone,
    ) -> None:
        """Set up.

        Args:
            described: all that decides what the run makes; written beside it, and compared before it is gone on with.
            open_curves: what else gets the log's rows, all of them when the run goes on; asked in the first process.
        """
        self.student, self.config, self.world, self.folder = student, config, world, folder
        self._described, self._open_curves = described, open_curves
        # Of what it starts from, not of where that lies: a run goes on from another folder, too, or by another path.
        self._comparable = _with_revisions(described, student.checkpoint.revision)
        self._fingerprint = fingerprint(_as_begun(self._comparable))
        self._parameters = student.trained()
        self.optimiser = torch.optim.AdamW(
            self._parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.extra_state: dict[str, Any] = {}

    def restore(self) -> int:
        """Load the last checkpoint, if there is one; the step to go on with.

        Raises:
            OptionError: the checkpoint is of another configuration.
            TrainingError: it is cut, or not of this model's weights.
        """
        states = matching(self.folder, f"checkpoint-*/{STATE}")
        if not states:
            return 0
        try:
            with zipfile.ZipFile(states[-1]) as parts:  # as torch writes, with a sum of each tensor that it never reads
                if flipped := parts.testzip():
                    raise ValueError(f"{flipped} isn't what was written")
            # Mapped, not read: a process whose weights are split needs only its part of each tensor.
            state = torch.load(states[-1], map_location="cpu", weights_only=True, mmap=True)
            fields = {"fingerprint", "parameters", "optimiser", "extra", "step"} - state.keys()
        except Exception as error:  # zip, pickle and mmap raise what they please
            raise self._damaged(states[-1], one_line(error)) from error
        if fields:
            raise self._damaged(states[-1], f"it lacks {', '.join(sorted(fields))}")
        begun = [(of, events) for of in (self._comparable, self._described) for events in (False, True)]  # release 0.1
        if state["fingerprint"] not in {fingerprint(_as_begun(of, event_files=events)) for of, events in begun}:
            raise OptionError(
                f"{states[-1].parent} was made with {self._difference()}; go on with the old one "
                f"({self.folder / 'config.json'}), or choose another --output"
            )
        named = dict(self.student.module.named_parameters())
        if others := state["parameters"].keys() ^ {name for name, value in named.items() if value.requires_grad}:
            raise self._damaged(states[-1], f"its weights aren't those that learn here, e.g. {min(others)}")
        try:
            return self._take_over(state, named)
        except torch.OutOfMemoryError:  # the checkpoint isn't to blame, and must not be deleted for it
            raise
        except Exception as error:  # whatever values of other types and shapes lead to
            raise self._damaged(states[-1], one_line(error)) from error

    def _difference(self) -> str:
        changed = changed_pairs(self.folder, self._described.get("pairs", {}))
        return f"other pairs of {', '.join(changed)}" if changed else "another configuration"

    def _take_over(self, state: dict[str, Any], named: dict[str, torch.nn.Parameter]) -> int:
        """Go on from a checkpoint's content; ValueError and whatever else where it is none of this run."""
        step: int = state["step"]
        if not 0 <= step <= self.config.steps:
            raise ValueError(f"it is of step {step}, and there are {self.config.steps}")
        with torch.no_grad():
            for name, value in state["parameters"].items():
                if value.shape != named[name].shape or not torch.isfinite(value).all():
                    raise ValueError(f"{name} has another shape, NaN or infinity")
                named[name].copy_(part_of(value, named[name]))
        for index, values in state["optimiser"]["state"].items():
            for name, value in values.items():
                # A copy, or the optimiser would hold on to the file, which is removed one day.
                values[name] = part_of(value, self._parameters[index]).clone()
        self.optimiser.load_state_dict(state["optimiser"])
        self.extra_state = state["extra"]
        return step

    @staticmethod
    def _damaged(path: Path, why: str) -> TrainingError:
        return TrainingError(
            f"{path} can't be gone on from ({why}): delete the folder {path.parent}, then the same command goes on "
            "from the checkpoint before it"
        )

    def run(
        self,
        start: int,
        step: Callable[[int], dict[str, float]],
        describe: Callable[[int], str],
        check: Callable[[Path], None] = lambda _: None,
    ) -> None:
        """Take the steps from `start` on and write `final/`.

        Args:
            describe: step → which pairs it saw, for messages.
            check: raises what is wrong with the written model, before it gets its name; every process calls it.

        Raises:
            TrainingError: a loss or gradient that is not a number, or out of memory.
        """
        if self.world.is_first:
            write_json(self.folder / "config.json", self._described)
            log = self.folder / LOG
            if log.is_file():  # without rows of steps that will be taken again
                rewrite(log, [row for row in read_rows(log) if _step(row, log) <= start])
        steps = f"{self.folder.name}, steps", self.config.steps
        with contextlib.ExitStack() as stack:
            write = self._open_log(stack)
            advance = stack.enter_context(progress_of(*steps, done=start, shown=self.world.is_first))
            for number in range(start, self.config.steps):
                began = time.perf_counter()
                rate = learning_rate(self.config, number)
                values = self.take(number, rate, step, describe)
                seconds = time.perf_counter() - began
                if (number + 1) % self.config.log_every == 0 or number + 1 == self.config.steps:
                    rounded = {name: float(f"{value:.6g}") for name, value in values.items()}
                    write({"step": number + 1, **rounded, "rate": rate, "seconds": round(seconds, 4)})
                advance(note=f"loss {values['loss']:.3g}" if "loss" in values else "")
                if self.config.save_every and (number + 1) % self.config.save_every == 0:
                    self.save(number + 1)
        with progress_of(f"{self.folder.name}, writing {FINAL}", shown=self.world.is_first):
            # No step follows, and a check may need the room: it runs a second model beside this one.
            self.optimiser.zero_grad(set_to_none=True)
            self.optimiser.state.clear()
            self.student.save(self.folder / UNCHECKED)
            check(self.folder / UNCHECKED)
            if self.world.is_first:
                shutil.rmtree(self.folder / FINAL, ignore_errors=True)
                (self.folder / UNCHECKED).rename(self.folder / FINAL)
        self.world.wait()

    def take(
        self, number: int, rate: float, step: Callable[[int], dict[str, float]], describe: Callable[[int], str]
    ) -> dict[str, float]:
        """One step, with gradients that `step` makes; what it showed, and the gradient's norm."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        values = step(number)
        self.world.add_gradients(self._parameters)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._parameters, self.config.clip)))
        bad = {name: value for name, value in {**values, "grad_norm": norm}.items() if not math.isfinite(value)}
        if bad:
            last = next(reversed(self._checkpoints()), "no checkpoint yet")
            raise TrainingError(
                f"step {number + 1}: {', '.join(f'{name} is {value}' for name, value in bad.items())}; the weights "
                f"before it are kept ({last}). Batch: {describe(number)}. "
                "Try a lower learning rate, or leave out the pair that does it"
            )
        self.optimiser.step()
        return {**values, "grad_norm": norm}

    def _open_log(self, stack: contextlib.ExitStack) -> Callable[[dict[str, float]], None]:
        """log.jsonl, and curves elsewhere if wanted; of the first process alone."""
        if not self.world.is_first:
            return lambda _: None
        log = self.folder / LOG
        earlier = list(read_rows(log)) if log.is_file() else []
        rows = stack.enter_context(RowWriter(log))
        draw = stack.enter_context(self._open_curves(log, self._comparable))
        for row in earlier:
            draw(row)

        def write(row: dict[str, float]) -> None:
            rows.write(row)
            draw(row)

        return write

    def _checkpoints(self) -> list[Path]:
        return matching(self.folder, "checkpoint-*")

    def save(self, step: int) -> None:
        """Write what is needed to go on after `step` steps; whole or not at all. Every process must call it."""
        state = self._state(step)
        if not self.world.is_first:
            return
        folder = self.folder / f"checkpoint-{step:07d}"
        # A file, since by a path torch writes itself, and loses the system's error.
        with replacing_folder(folder) as temporary, (temporary / STATE).open("wb") as file:
            torch.save(state, file)
        for old in self._checkpoints()[: -self.config.keep]:
            shutil.rmtree(old)

    def _state(self, step: int) -> dict[str, Any]:
        """What goes into a checkpoint; of tensors that are split all, in the first process alone."""
        optimiser = self.optimiser.state_dict()
        states = {index: gather_on_first(own.items(), self.world) for index, own in optimiser["state"].items()}
        named = self.student.module.named_parameters()
        learning = ((name, parameter) for name, parameter in named if parameter.requires_grad)
        return {
            "step": step,
            "fingerprint": self._fingerprint,
            "parameters": gather_on_first(learning, self.world),
            "optimiser": {**optimiser, "state": states},
            "extra": self.extra_state,
        }


def within_memory(
    attempt: Callable[[int], dict[str, float]], size: int, setting: str, world: World
) -> dict[str, float]:
    """`attempt(size)`; if that doesn't fit in memory, say which smaller size does.

    Args:
        attempt: a step, given how many items the model sees at once.
        setting: what the size is called in the configuration.

    Raises:
        TrainingError: it doesn't fit.
    """
    try:
        return attempt(size)
    except torch.OutOfMemoryError as error:
        why = one_line(error, longest=200)
    if world.size > 1:
        # The others are in the middle of this step: another attempt would answer them with the wrong messages, and
        # all would wait for ever. torchrun ends them when this process ends.
        raise TrainingError(
            f"{setting}: {size} does not fit in memory on process {world.rank} of {world.size} ({why}); make it "
            "smaller, or use gradient_checkpointing, LoRA or student.shard"
        )
    smaller = size
    while smaller > 1:
        smaller //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(smaller)
        except torch.OutOfMemoryError:
            continue
        raise TrainingError(f"{setting}: {size} does not fit in memory, {smaller} does ({why})")
    raise TrainingError(
        f"{setting}: not even 1 fits in memory ({why}); use gradient_checkpointing, LoRA or student.shard"
    )


def is_finished(folder: Path) -> bool:
    """Whether a run in this folder has come to its end."""
    return (folder / FINAL / "config.json").is_file()


def changed_pairs(folder: Path, pairs: Mapping[str, str]) -> list[str]:
    """The data sets whose content is another one now than when a run was begun in a folder; none if it doesn't say.

    Args:
        pairs: the content of each now, by name.
    """
    path = folder / "config.json"
    described = read_object(path, "copy it back, or choose another --output") if path.is_file() else {}
    before: dict[str, str] = described.get("pairs", pairs)
    return sorted(name for name in before.keys() | pairs.keys() if before.get(name) != pairs.get(name))


def _with_revisions(described: Any, revision: str) -> Any:
    """The same with the revision for a checkpoint's place."""
    if not isinstance(described, dict):
        return described
    return {
        name: revision if name == "checkpoint" else _with_revisions(value, revision)
        for name, value in described.items()
    }


#: Settings that came later, at what changes nothing: a run that was begun without them goes on.
_CAME_LATER = {"gate_entropy_end": None, "own_from": 1.0, "short_tokens": 0, "max_text_tokens": 8192}


def _as_begun(described: Any, *, event_files: bool = False) -> Any:
    """The same with a setting that is gone, and without those that came later: runs begun before go on."""
    if not isinstance(described, dict):
        return described
    gone = {"loop": {"tensorboard": event_files}}
    return {
        name: {**_as_begun(value, event_files=event_files), **gone.get(name, {})} if isinstance(value, dict) else value
        for name, value in described.items()
        if name not in _CAME_LATER or value != _CAME_LATER[name]
    }


def fingerprint(described: object) -> str:
    """Sixteen hex digits of a description."""
    return hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()[:16]
