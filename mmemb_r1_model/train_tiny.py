"""Trains the embedded tiny checkpoint on the mini suite's training split.

    python -m mmeb_tasks.mini TRAIN --split train --queries 500
    python -m mmemb_r1_model.train_tiny --data TRAIN --output mmemb_r1_model/tiny

Contrastive loss on direct and reasoned embeddings plus next-token loss on the rationale. Which queries should
reason is told by the world's own labels (hard or easy), not found out: the full method replaces this.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmemb_r1_model.data import CompactPrompt, TrainingPair, TrainingTask, read_texts, read_training_tasks, split_off
from mmemb_r1_model.engine import Batch, Engine, Mode, collate
from mmemb_r1_model.losses import info_nce, next_token_loss
from mmemb_r1_model.prompt import END_OF_TEXT, Prompt, PromptTokenizer
from mmemb_r1_model.settings import EMB, END_THINK, THINK
from mmemb_r1_model.tiny import TINY_SETTINGS, TinySize, build_model, build_tokenizer, save_tiny


@dataclass(frozen=True)
class TinyTraining:
    """How the tiny checkpoint is trained.

    Attributes:
        batch: queries of one task in a step.
        extra_negatives: further text candidates of the task in a step; label lists have many that are never right.
        generation_weight: of the next-token loss; 3 brings the jump to reliable look-ups forward.
        held_out: queries of each task that are only ever evaluated.
        first_group, first_steps: seeing comes first. Begun with all tasks at once, the model settles for colours
            and takes thousands of steps to tell shapes.
    """

    steps: int = 6000
    seed: int = 0
    batch: int = 48
    extra_negatives: int = 48
    learning_rate: float = 2e-3
    warmup: int = 100
    weight_decay: float = 0.01
    temperature: float = 0.05
    generation_weight: float = 3.0
    held_out: int = 16
    evaluate_every: int = 500
    first_group: str = "I-CLS"
    first_steps: int = 300


#: How often a group is drawn. Groups with a chain and a picture in one query need most.
GROUP_WEIGHTS = {"I-QA": 3.0, "I-RET": 3.0, "I-CLS": 2.0, "I-VG": 1.5, "V-CLS": 2.0, "V-QA": 2.5}


class Trainer:
    """Model, data and optimiser of one training run."""

    def __init__(self, model: Any, tokenizer: PromptTokenizer, tasks: list[TrainingTask], config: TinyTraining) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self._tasks, self.held_out = split_off(tasks, config.held_out)
        self._rng = np.random.default_rng(config.seed)
        self._think, self._end_think, self._emb = (tokenizer.id_of(token) for token in (THINK, END_THINK, EMB))
        self._pad = tokenizer.id_of(END_OF_TEXT)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then cosine to a twentieth. By steps, never by the clock."""
        done = step / self.config.steps
        cosine = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))
        return self.config.learning_rate * min(1.0, (step + 1) / self.config.warmup) * cosine

    def batches(self) -> Iterator[tuple[TrainingTask, list[TrainingPair]]]:
        """Endless: a task by weight, then pairs of it without repeats."""
        first = [task for task in self._tasks if task.group == self.config.first_group]
        weights = np.array(self._weights())
        for step in itertools.count():
            if first and step < self.config.first_steps:
                task = first[int(self._rng.integers(len(first)))]
            else:
                task = self._tasks[int(self._rng.choice(len(self._tasks), p=weights / weights.sum()))]
            size = min(self.config.batch, len(task.pairs))
            yield task, [task.pairs[int(i)] for i in self._rng.choice(len(task.pairs), size, replace=False)]

    def _weights(self) -> list[float]:
        sizes: dict[str, int] = {}
        for task in self._tasks:
            sizes[task.group] = sizes.get(task.group, 0) + 1
        return [GROUP_WEIGHTS.get(task.group, 1.0) / sizes[task.group] for task in self._tasks]

    def step(self, number: int, task: TrainingTask, pairs: list[TrainingPair]) -> dict[str, float]:
        """One optimiser step; the losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(number)
        losses = self.losses(task, pairs)
        total = (
            losses["direct"] + losses["reasoned"] + self.config.generation_weight * losses["rationale"] + losses["gate"]
        )
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return {name: loss.item() for name, loss in losses.items()}

    def losses(self, task: TrainingTask, pairs: Sequence[TrainingPair]) -> dict[str, Tensor]:
        """The four terms of one batch of one task."""
        chosen = [int(self._rng.choice(pair.relevant)) for pair in pairs]
        extras = self._extra_negatives(task, pairs)
        candidates = self._embed_candidates([task.candidates[index] for index in [*chosen, *extras]])
        direct, reasoned, rationale_loss, gate_loss = self._embed_queries(pairs)
        same = self._same(task, pairs, extras)
        temperature = self.config.temperature
        return {
            "direct": info_nce(direct, candidates, temperature, same),
            "reasoned": info_nce(reasoned, candidates, temperature, same),
            "rationale": rationale_loss,
            "gate": gate_loss,
        }

    def _extra_negatives(self, task: TrainingTask, pairs: Sequence[TrainingPair]) -> list[int]:
        """Only bare texts: of two pictures nobody can tell here whether they show the same."""
        usable = [index for index, text in enumerate(task.texts) if text is not None]
        n = min(self.config.extra_negatives, len(usable))
        return [usable[int(i)] for i in self._rng.choice(len(usable), n, replace=False)] if n else []

    def _same(self, task: TrainingTask, pairs: Sequence[TrainingPair], extras: Sequence[int]) -> Tensor:
        answers = [pair.answer for pair in pairs]
        texts = [task.texts[index] for index in extras]
        right = [{task.texts[index] for index in pair.relevant} for pair in pairs]
        rows = [
            [answer == other for other in answers] + [text in right[row] for text in texts]
            for row, answer in enumerate(answers)
        ]
        return torch.tensor(rows)

    def _embed_candidates(self, prompts: Sequence[CompactPrompt]) -> Tensor:
        batch = collate([with_token(prompt.restore(), self._emb) for prompt in prompts], self._pad)
        return functional.normalize(self._forward(batch)[:, -1], dim=-1)

    def _embed_queries(self, pairs: Sequence[TrainingPair]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both paths in one forward pass: prompt, <emb>, and behind it <think> r </think> <emb>, which can't see
        the first <emb> and stands at the positions it would have without it."""
        answers = [self._answer(pair) for pair in pairs]
        longest = max(len(answer) for answer in answers)
        batch = collate([pair.query.restore() for pair in pairs], self._pad)
        prompt_length = batch.ids_BL.shape[1]
        hidden = self._forward(*self._with_answers(batch, answers, longest))
        direct = functional.normalize(hidden[:, prompt_length], dim=-1)
        ends = torch.tensor([prompt_length + len(answer) for answer in answers])
        reasoned = functional.normalize(hidden[torch.arange(len(pairs)), ends], dim=-1)
        targets = torch.full((len(pairs), longest), -100)
        for row, answer in enumerate(answers):
            targets[row, : len(answer) - 1] = torch.tensor(answer[1:])
        logits = self.model.lm_head(hidden[:, prompt_length + 1 :])
        first = torch.tensor([self._think if pair.reason else self._emb for pair in pairs])
        gate = functional.cross_entropy(self.model.lm_head(hidden[:, prompt_length - 1]).float(), first)
        return direct, reasoned, next_token_loss(logits, targets), gate

    def _answer(self, pair: TrainingPair) -> list[int]:
        return [self._think, *self.tokenizer.plain(" " + pair.rationale), self._end_think, self._emb]

    def _with_answers(self, batch: Batch, answers: list[list[int]], longest: int) -> tuple[Batch, Tensor]:
        """The batch with both answers behind the prompts, and who may see whom (B, 1, L, L)."""
        rows, prompt_length = batch.ids_BL.shape
        tail = torch.full((rows, longest), self._pad)
        for row, answer in enumerate(answers):
            tail[row, : len(answer)] = torch.tensor(answer)
        direct = torch.full((rows, 1), self._emb)
        ids = torch.cat([batch.ids_BL, direct, tail], dim=1)
        steps = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(longest)])
        positions = (batch.next_position_B[:, None] + steps)[None].expand(3, -1, -1)
        length = ids.shape[1]
        visible = torch.ones(length, length, dtype=torch.bool).tril()
        visible[prompt_length + 1 :, prompt_length] = False
        known = torch.cat([batch.mask_BL.bool(), torch.ones(rows, 1 + longest, dtype=torch.bool)], dim=1)
        # Padding sees itself, so that no row of the soft-max is empty.
        allowed = visible & known[:, None, :] | torch.eye(length, dtype=torch.bool)
        types = torch.cat([batch.types_BL, torch.zeros(rows, 1 + longest, dtype=torch.long)], dim=1)
        packed = Batch(
            ids, known.long(), types, torch.cat([batch.positions_3BL, positions], dim=2), batch.next_position_B,
            batch.pixels,
        )  # fmt: skip
        return packed, allowed[:, None]

    def _forward(self, batch: Batch, allowed: Tensor | None = None) -> Tensor:
        """Hidden states (B, L, D) after the final norm."""
        hidden: Tensor = self.model.model(
            input_ids=batch.ids_BL,
            attention_mask=batch.mask_BL if allowed is None else allowed,
            position_ids=batch.positions_3BL,
            mm_token_type_ids=batch.types_BL,
            use_cache=False,
            **batch.pixels,
        ).last_hidden_state
        return hidden


def with_token(prompt: Prompt, token: int) -> Prompt:
    """A prompt with one more token behind it."""
    return Prompt(
        ids=np.append(prompt.ids, token),
        types=np.append(prompt.types, 0),
        positions=np.concatenate([prompt.positions, np.full((3, 1), prompt.next_position)], axis=1),
        next_position=prompt.next_position + 1,
        patches=prompt.patches,
    )


@dataclass(frozen=True)
class Outcome:
    """One held-out query in one mode."""

    group: str
    mode: Mode
    hard: bool
    right: bool
    reasoned: bool


MODES: tuple[Mode, ...] = ("never", "always", "adaptive")


def evaluate(trainer: Trainer) -> dict[str, dict[str, float]]:
    """hit@1 in % on held-out training queries by group and mode, over each query's own pool; easy and hard apart.

    "share" is how many queries reasoned in adaptive mode.
    """
    engine = Engine(trainer.model, trainer.tokenizer)
    outcomes = [outcome for task in trainer.held_out for outcome in _outcomes(trainer, engine, task)]
    trainer.model.train()
    groups = dict.fromkeys(outcome.group for outcome in outcomes)
    by_group = {group: [outcome for outcome in outcomes if outcome.group == group] for group in groups}
    return {"all": _summary(outcomes)} | {group: _summary(members) for group, members in by_group.items()}


def _outcomes(trainer: Trainer, engine: Engine, task: TrainingTask) -> Iterator[Outcome]:
    candidates = _vectors(trainer, engine, list(task.candidates), "never")[0]
    for mode in MODES:
        vectors, reasoned = _vectors(trainer, engine, [pair.query for pair in task.pairs], mode)
        for pair, vector, did in zip(task.pairs, vectors, reasoned, strict=True):
            best = pair.pool[int(np.argmax(candidates[list(pair.pool)] @ vector))]
            yield Outcome(task.group, mode, pair.reason, best in pair.relevant, did)


def _summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    summary = {}
    for suffix, kinds in (("", (False, True)), (" easy", (False,)), (" hard", (True,))):
        chosen = [outcome for outcome in outcomes if outcome.hard in kinds]
        for mode in MODES:
            summary[mode + suffix] = _percent([outcome.right for outcome in chosen if outcome.mode == mode])
        summary["share" + suffix] = _percent([outcome.reasoned for outcome in chosen if outcome.mode == "adaptive"])
    return summary


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / len(values), 1) if values else 0.0


def _vectors(
    trainer: Trainer, engine: Engine, prompts: list[CompactPrompt], mode: Mode, size: int = 128
) -> tuple[np.ndarray, list[bool]]:
    vectors, reasoned = [], []
    pad = trainer.tokenizer.id_of(END_OF_TEXT)
    for start in range(0, len(prompts), size):
        batch = collate([prompt.restore() for prompt in prompts[start : start + size]], pad)
        found, readouts = engine.embed(batch, mode, 0.5, TINY_SETTINGS.max_new_tokens)
        vectors.append(found.numpy())
        reasoned += [readout.reasoned for readout in readouts]
    return np.concatenate(vectors), reasoned


def batch_vision_attention(model: Any) -> None:
    """Let the vision tower attend to all pictures of a batch at once, where they are of one size.

    On a CPU transformers loops over pictures. In training all pictures of a forward pass are equal in size, and
    one batched attention gives the same numbers in a fraction of the time.
    """
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision

    def forward(
        self: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: tuple[Tensor, Tensor], **_: Any
    ) -> Tensor:
        n = hidden_states.shape[0]
        lengths = cu_seqlens.diff()
        if not bool((lengths == lengths[0]).all()):
            raise ValueError("pictures of different sizes in one training batch")
        query, key, value = self.qkv(hidden_states).reshape(n, 3, self.num_heads, -1).unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        shape = (len(lengths), int(lengths[0]), self.num_heads, -1)
        query, key, value = (tensor.reshape(shape).transpose(1, 2) for tensor in (query, key, value))
        attended = functional.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        output: Tensor = self.proj(attended.transpose(1, 2).reshape(n, -1))
        return output

    for block in model.model.visual.blocks:
        block.attn.forward = forward.__get__(block.attn)


def train(data: Path, output: Path, config: TinyTraining, size: TinySize) -> None:
    """Build, train and save; `output` also gets the configuration and a log with one line per evaluation."""
    from mmemb_r1_model.checkpoint import open_checkpoint
    from mmemb_r1_model.embedder import MMEmbR1Embedder

    tokenizer = build_tokenizer(read_texts(data), size.vocabulary)
    model = build_model(tokenizer, size, config.seed)
    save_tiny(model, tokenizer, TINY_SETTINGS, output)
    checkpoint = open_checkpoint(str(output), None)
    reader = MMEmbR1Embedder(
        checkpoint, TINY_SETTINGS, {"query": "never", "candidate": "never"}, "cpu", "float32", "auto", False
    )
    trainer = Trainer(model, checkpoint.tokenizer, read_training_tasks(data, reader.prompt), config)
    batch_vision_attention(model)
    model.train()
    log = output / "train_log.jsonl"
    description = {"training": dataclasses.asdict(config), "size": dataclasses.asdict(size)}
    log.write_text(json.dumps(description) + "\n", encoding="utf-8")
    started = time.monotonic()
    sums: dict[str, float] = {}
    for number, (task, pairs) in zip(range(config.steps), trainer.batches(), strict=False):
        for name, loss in trainer.step(number, task, pairs).items():
            sums[name] = sums.get(name, 0.0) + loss
        if (number + 1) % config.evaluate_every == 0 or number + 1 == config.steps:
            losses = {name: round(value / config.evaluate_every, 4) for name, value in sums.items()}
            held_out = evaluate(trainer)
            line = {"step": number + 1, "losses": losses, "held_out": held_out}
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            click.echo(f"{number + 1}: {time.monotonic() - started:.0f} s {losses} {held_out['all']}")
            save_tiny(model, tokenizer, TINY_SETTINGS, output)
            sums = {}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--steps", type=int, default=TinyTraining.steps, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True)
def main(data: Path, output: Path, steps: int, seed: int, threads: int) -> None:
    """Train the tiny checkpoint on the training split in DATA and write it to OUTPUT."""
    torch.set_num_threads(threads)
    train(data, output, TinyTraining(steps=steps, seed=seed), TinySize())


if __name__ == "__main__":
    main()
