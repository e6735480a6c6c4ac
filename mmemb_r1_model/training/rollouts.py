"""Sampled rationales of the current policy: K a prompt, from one prefill.

Legend: B prompts, K samples of each, L columns, V vocabulary.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import DynamicCache

from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.decoding import states_of
from mmemb_r1_model.disk.errors import ModelError
from mmemb_r1_model.model.collate import collate
from mmemb_r1_model.model.prompt import TURN_END
from mmemb_r1_model.training.batches import Input, StepBatch
from mmemb_r1_model.training.distributed import World
from mmemb_r1_model.training.loop import TrainingError
from mmemb_r1_model.training.student import PackedModel, Student, evaluating
from mmemb_r1_model.vllm.client import Question, Reader
from mmemb_r1_model.vllm.request import CLOSING_TOKENS, chat, two_frames
from mmemb_r1_model.vllm.rollouts import RolloutWriter, Written
from mmemb_r1_model.vllm.server import Server


@dataclass(frozen=True)
class Rollout:
    """One sampled answer that was made to begin with <think>.

    Attributes:
        ids: the whole completion, <think> … </think> <emb>, closed by rule if the sample wasn't.
        log_probs: of `ids[1:]` under the weights that sampled them.
        well_formed: </think>, then <emb>, something in between, within the length.
        sampled: how many of `ids[1:]` the policy chose itself; the rest closes by rule and is not its doing.
    """

    ids: tuple[int, ...]
    log_probs: tuple[float, ...]
    well_formed: bool
    sampled: int

    @property
    def length(self) -> int:
        """Tokens of the rationale, markers not counted."""
        return len(self.ids) - 3


@dataclass(frozen=True)
class Marks:
    """Ids that end a rationale.

    Attributes:
        banned: those that can't be in one.
        vocabulary: from here on there are none.
    """

    end_think: int
    emb: int
    turn_end: int
    banned: frozenset[int]
    vocabulary: int

    @classmethod
    def of(cls, student: Student) -> Marks:
        """The marks of a student's vocabulary."""
        banned_V = student.module.banned
        banned = frozenset(banned_V.nonzero()[:, 0].tolist())
        return cls(student.end_think, student.emb, student.tokenizer.id_of(TURN_END), banned, len(banned_V))

    def end(self, ids: Sequence[int]) -> bool:
        """A mark, or the token after </think>, whatever it is."""
        return self.is_mark(ids[-1]) or ids[-2] == self.end_think

    def is_mark(self, token: int) -> bool:
        """<emb>, the end of the turn, or what can't be written; not </think>, behind which one more token counts."""
        return token in (self.emb, self.turn_end) or token in self.banned or not 0 <= token < self.vocabulary


def finished(ids: Sequence[int], log_probs: Sequence[float], marks: Marks, max_new_tokens: int) -> Rollout:
    """What was sampled as a rollout, closed by rule if it has to be.

    Args:
        ids: <think> and what was sampled behind it, up to where `Marks.end` holds or the length is reached.
        log_probs: of `ids[1:]`.
    """
    well_formed = len(ids) >= 4 and list(ids[-2:]) == [marks.end_think, marks.emb]
    if well_formed and len(ids) - 3 <= max_new_tokens:
        return Rollout(tuple(ids), tuple(log_probs), True, len(ids) - 1)
    stops = (place for place, token in enumerate(ids) if place and (token == marks.end_think or marks.is_mark(token)))
    written = next(stops, len(ids))
    kept = min(written, max_new_tokens + 1)
    # What the policy chose after the rationale (the wrong mark) is charged to it where it is kept.
    marked = kept < len(ids) and ids[kept] == marks.end_think
    sampled = kept - 1 + int(marked)
    whole = [*ids[:kept], marks.end_think, marks.emb]
    missing = len(whole) - 1 - sampled
    return Rollout(tuple(whole), (*log_probs[:sampled], *[0.0] * missing), False, sampled)


class Sampler(Protocol):
    """Who writes rollouts: the model at hand, or a server with its weights."""

    def refresh(self, step: int) -> None:
        """Take the weights as they are before a step. Every process calls it before the first sample of each step."""

    def release(self) -> None:
        """Let go of them: nothing more is sampled in this step."""

    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        """`count` rollouts of every input: first the greedy one, then others at temperature 1."""


class LocalSampler:
    """Rollouts by the student itself."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._module: PackedModel | None = None

    def refresh(self, step: int) -> None:
        """Have all weights at hand: processes stop sampling at different tokens, so none may need another then."""
        self._module = self._student.whole_module()

    def release(self) -> None:
        """Of a split model only this process's part stays."""
        self._module = None

    @torch.no_grad()
    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        """One prefill, its cache repeated for the samples; rows that have ended leave."""
        module = self._module
        assert module is not None, "refresh comes first"
        with evaluating(module), self._student.precision(module):
            flat = _Sampling(self._student, module, inputs, count, max_new_tokens, seed).run()
        return [flat[start : start + count] for start in range(0, len(flat), count)]


def shortened(rollout: Rollout, tokens: int) -> Rollout:
    """The same rationale as a short budget closes it, after so many tokens; one that ended before stays as it is."""
    if rollout.length < tokens:
        return rollout
    ids = (*rollout.ids[: tokens + 1], *rollout.ids[-2:])
    sampled = min(rollout.sampled, tokens)
    return Rollout(ids, (*rollout.log_probs[:sampled], *[0.0] * (len(ids) - 1 - sampled)), True, sampled)


def with_short_rationales(batch: StepBatch, student: Student, tokens: int) -> StepBatch:
    """A batch in which every second pair's rationales are closed after so many tokens.

    A vector that has only been behind whole rationales reads a closed one's last word as the answer.
    """

    def closed(inputs: Sequence[Input]) -> tuple[Input, ...]:
        own = list(inputs)
        for place, given in enumerate(inputs):
            if place % 2 and given.rationale is not None:
                ids = given.written or tuple(student.completion(given.rationale))
                short = shortened(Rollout(ids, (), True, 0), tokens)
                own[place] = dataclasses.replace(given, written=short.ids)
        return tuple(own)

    return dataclasses.replace(batch, queries=closed(batch.queries), positives=closed(batch.positives))


def with_own_rationales(batch: StepBatch, sampler: Sampler, longest: int, at_once: int) -> StepBatch:
    """A batch with what the student writes of every item that has a rationale, `at_once` of them at a time.

    Args:
        sampler: refreshed for this step.
        longest: tokens of a rationale.
    """

    def written(inputs: Sequence[Input]) -> tuple[Input, ...]:
        places = [place for place, given in enumerate(inputs) if given.rationale is not None]
        own = list(inputs)
        for first in range(0, len(places), at_once):
            some = places[first : first + at_once]
            rollouts = sampler.sample([inputs[place] for place in some], 1, longest, 0)
            for place, (greedy,) in zip(some, rollouts, strict=True):
                own[place] = dataclasses.replace(inputs[place], written=greedy.ids)
        return tuple(own)

    return dataclasses.replace(batch, queries=written(batch.queries), positives=written(batch.positives))


class ServerSampler:
    """Rollouts by a server that gets the student's adapters; see `vllm.rollouts` for what is exact."""

    def __init__(self, student: Student, server: Server, folder: Path, world: World) -> None:
        """Set up; nothing is asked yet.

        Args:
            folder: of the run.

        Raises:
            OptionError: the key isn't there.
        """
        self._student, self._world = student, world
        self._marks = Marks.of(student)
        ends = (self._marks.emb, self._marks.turn_end)
        checkpoint = student.config.checkpoint
        self._adapter = Path(server.adapter_folder or folder).expanduser().resolve() / "adapter"
        reader = Reader(student.tokenizer, self._marks.banned, ends, checkpoint)
        self._writer = RolloutWriter(server, reader, self._adapter, student.config.lora_rank)
        self._reload_every = server.reload_every
        self._loaded: int | None = None
        self._salt = ""

    def refresh(self, step: int) -> None:
        """Give the server the adapters as they are, if its own are `reload_every` steps old or it has none of us.

        Raises:
            TrainingError: the server can't load them.
        """
        if self._loaded is not None and step - self._loaded < self._reload_every:
            return
        self._student.save_adapter(self._adapter)
        with stopping():
            salt = self._writer.load() if self._world.is_first else ""
        # Also holds the others back until the new weights are there.
        self._salt = self._world.gather_objects(salt)[0]
        if self._loaded is None:
            self._check()
        self._loaded = step

    def release(self) -> None:
        """Nothing to do: the server keeps them."""

    def _check(self) -> None:
        """Every process has its own client, which must know how clips are asked for."""
        with tempfile.TemporaryDirectory() as folder, stopping():
            items = Item("a text", text="text"), two_frames(Path(folder))
            text, clip = (self._prompt(Input(item, self._student.reader.read(item), None)) for item in items)
            self._writer.check(text, clip)

    def sample(self, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int) -> list[list[Rollout]]:
        """The server's answers, each up to its end.

        Raises:
            TrainingError: see `RolloutWriter.write`.
            DataError: a picture that can't be read.
        """
        prompts = [self._prompt(given) for given in inputs]
        with stopping():
            answers = self._writer.write(prompts, count, max_new_tokens, seed, self._salt)
        return [[self._rollout(written, max_new_tokens) for written in group] for group in answers]

    def _prompt(self, given: Input) -> tuple[Question, list[int]]:
        student = self._student
        item = student.reader.fitted(given.item)
        question = Question(item.id, chat(item, student.settings, student.checkpoint.vision.factor))
        return question, [*given.prompt.ids.tolist(), student.think]

    def _rollout(self, written: Written, max_new_tokens: int) -> Rollout:
        """What a server writes beyond its end is not wanted."""
        ids = [self._student.think]
        for token in written.ids[: max_new_tokens + CLOSING_TOKENS]:
            ids.append(token)
            if self._marks.end(ids):
                break
        return finished(ids, written.log_probs[: len(ids) - 1], self._marks, max_new_tokens)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Of a server that can't be used: the step isn't taken."""
    try:
        yield
    except ModelError as error:
        raise TrainingError(str(error)) from error


class _Sampling:
    """The answers of one batch."""

    def __init__(
        self, student: Student, module: PackedModel, inputs: Sequence[Input], count: int, max_new_tokens: int, seed: int
    ) -> None:
        self._student, self._count, self._max_new_tokens = student, count, max_new_tokens
        self._model, self._banned_V, self._marks = module.transformers_model, module.banned, Marks.of(student)
        self._generator = torch.Generator(student.device).manual_seed(seed)
        batch = collate([given.prompt for given in inputs], student.pad).to(student.device, torch.float32)
        self._cache = DynamicCache(config=self._model.config.get_text_config())
        states_of(self._model, batch.mask_BL, batch.positions_3BL, self._cache, **batch.inputs)
        self._cache.batch_repeat_interleave(count)
        self._mask_BL = batch.mask_BL.repeat_interleave(count, dim=0)
        self._position_B = batch.next_position_B.repeat_interleave(count)

    def run(self) -> list[Rollout]:
        student, marks = self._student, self._marks
        ids = [[student.think] for _ in range(len(self._mask_BL))]
        log_probs: list[list[float]] = [[] for _ in ids]
        #: Rows that go on, by their place among all.
        active_B = torch.arange(len(ids), device=student.device)
        tokens_B = torch.full_like(active_B, student.think)
        # A rationale, </think> and <emb>.
        for _ in range(self._max_new_tokens + 2):
            probabilities_BV = torch.softmax(self._feed(tokens_B), dim=-1)
            drawn_B = torch.multinomial(probabilities_BV, 1, generator=self._generator)[:, 0]
            tokens_B = torch.where(active_B % self._count == 0, probabilities_BV.argmax(dim=-1), drawn_B)
            chosen = torch.log(probabilities_BV.gather(1, tokens_B[:, None])[:, 0]).tolist()
            active = active_B.tolist()
            for row, token, log_prob in zip(active, tokens_B.tolist(), chosen, strict=True):
                ids[row].append(token)
                log_probs[row].append(log_prob)
            going = [place for place, row in enumerate(active) if not marks.end(ids[row])]
            if not going:
                break
            if len(going) < len(active):
                kept = torch.tensor(going, device=student.device)
                self._cache.batch_select_indices(kept)
                self._mask_BL, self._position_B = self._mask_BL[kept], self._position_B[kept]
                active_B, tokens_B = active_B[kept], tokens_B[kept]
        return [finished(row, own, marks, self._max_new_tokens) for row, own in zip(ids, log_probs, strict=True)]

    def _feed(self, tokens_B: torch.Tensor) -> torch.Tensor:
        """Feed one token a row; logits (B, V) without what can't be written."""
        self._mask_BL = torch.cat([self._mask_BL, torch.ones_like(tokens_B[:, None])], dim=1)
        positions = self._position_B[None, :, None].expand(3, -1, 1)
        self._position_B = self._position_B + 1
        states_B1D = states_of(self._model, self._mask_BL, positions, self._cache, input_ids=tokens_B[:, None])
        logits: torch.Tensor = self._model.lm_head(states_B1D[:, -1]).float()
        return logits.masked_fill(self._banned_V, -torch.inf)
