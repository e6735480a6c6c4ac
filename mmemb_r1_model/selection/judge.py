"""The evaluator: a vision-language model asked whether a candidate meets a query, with a rationale or without.

    C(q, t | r) = logit("Yes") - logit("No")

One pass over the query serves many candidates: each is a branch behind it. The words are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmemb_r1_model.data.pairs import Item
from mmemb_r1_model.decoding import quicken
from mmemb_r1_model.disk.config import Least1
from mmemb_r1_model.disk.errors import ModelError, OptionError
from mmemb_r1_model.model.checkpoint import Checkpoint, load_weights, open_checkpoint
from mmemb_r1_model.model.items import ItemReader
from mmemb_r1_model.model.prompt import (
    END_OF_TEXT,
    IMAGE_PAD,
    TURN_END,
    TURN_START,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
    Prompt,
    PromptBuilder,
    extended,
)
from mmemb_r1_model.training.packing import Packed, pack, run_packed
from mmemb_r1_model.training.student import save_checkpoint

SYSTEM = "Does the candidate meet the query? Answer Yes or No."
QUERY, CANDIDATE, REASONING = "Query:", "Candidate:", "Reasoning:"
YES, NO = "Yes", "No"
#: All that its vocabulary must have besides the words of the data.
WORDS = (YES, NO, SYSTEM, QUERY, CANDIDATE, REASONING, "system", "user", "assistant")
_TOKENS = (IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END, TURN_START, TURN_END)


@dataclass(frozen=True)
class JudgeConfig:
    """The evaluator: the strongest affordable Qwen3-VL-Instruct, and none of the workers.

    Attributes:
        checkpoint: folder or hub id.
        batch_size: queries, each with its rationale, that it sees at once.
    """

    checkpoint: str = ""
    revision: str | None = None
    batch_size: Least1 = 16
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "auto"


@dataclass(frozen=True)
class Shown:
    """An item as the judge is shown it: with a rationale behind it, or not."""

    item: Item
    rationale: str | None = None


class JudgeModel(nn.Module):
    """A Qwen3-VL that says Yes or No at the end of every branch."""

    def __init__(self, backbone: Any, yes: int, no: int) -> None:
        super().__init__()
        self.backbone, self._yes, self._no = backbone, yes, no

    def forward(self, packed: Packed) -> Tensor:
        """Confidences (R,): a number for every branch."""
        hidden_BLD = run_packed(self.backbone, packed)
        rows = torch.tensor([branch.row for branch in packed.branches], device=hidden_BLD.device)
        ends = torch.tensor([branch.end - 1 for branch in packed.branches], device=hidden_BLD.device)
        logits = self.backbone.lm_head(hidden_BLD[rows, ends]).float()
        confidence: Tensor = logits[:, self._yes] - logits[:, self._no]
        return confidence


class Judge:
    """An evaluator with its weights, which says how well two items fit."""

    def __init__(self, checkpoint: Checkpoint, model: Any, config: JudgeConfig, device: torch.device) -> None:
        self.checkpoint, self.config, self.device = checkpoint, config, device
        self._tokenizer, self._settings = checkpoint.tokenizer, checkpoint.settings
        self._reader = ItemReader(checkpoint, checkpoint.settings)
        self._pad = self._tokenizer.id_of(END_OF_TEXT)
        # A turn ends, the assistant's begins.
        self._answer = [
            *(self._tokenizer.id_of(TURN_END), *self._tokenizer.plain("\n"), self._tokenizer.id_of(TURN_START)),
            *self._tokenizer.plain("assistant\n"),
        ]
        self.module = JudgeModel(model, *_answer_tokens(checkpoint))

    def trained(self) -> list[nn.Parameter]:
        """All weights of the evaluator."""
        return list(self.module.parameters())

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder."""
        save_checkpoint(self.module.backbone, self.checkpoint.folder, self._settings, folder)

    def query(self, shown: Shown, read: dict[Item, Prompt] | None = None) -> Prompt:
        """The system turn, and the user's turn up to the candidate; `read`: queries whose media were read before."""
        return self._behind(self._item(shown.item, (f"system\n{SYSTEM}", f"user\n{QUERY}"), "", read), shown.rationale)

    def candidate(self, shown: Shown, read: dict[Item, Prompt] | None = None) -> Prompt:
        """The rest: the candidate, up to where the answer begins; `read`: candidates whose media were read before."""
        return self._behind(self._item(shown.item, (), CANDIDATE, read), shown.rationale, self._answer)

    def _item(self, item: Item, turns: Sequence[str], name: str, read: dict[Item, Prompt] | None) -> Prompt:
        if read is not None and item in read:
            return read[item]
        builder = PromptBuilder(self._tokenizer, self.checkpoint.vision.merge)
        for turn in turns:
            builder.turn(turn)
        builder.text(name)
        before = "".join(f" {words}" for words in (item.instruction,) if words) + (" " if item.text else "")
        self._reader.show(builder, item.between(before, "\n"))
        prompt = builder.build()
        if read is not None:
            read[item] = prompt
        return prompt

    def _behind(self, prompt: Prompt, rationale: str | None, ids: Sequence[int] = ()) -> Prompt:
        words = "" if rationale is None else f"{REASONING} {rationale.strip()}\n"
        return extended(prompt, [*self._tokenizer.plain(words), *ids])

    def pack(self, queries: Sequence[Prompt], candidates: Sequence[Sequence[Prompt]]) -> Packed:
        """Queries with their candidates as branches, on the device."""
        return pack(queries, candidates, self._pad, self.device)

    @torch.no_grad()
    def confidences(self, questions: Sequence[tuple[Shown, Shown]]) -> list[float]:
        """C of every (query, candidate). Questions of one query share a pass over it.

        Raises:
            ModelError: one is infinite or none.
        """
        self.module.eval()
        of_query: dict[Shown, list[int]] = {}
        for place, (query, _) in enumerate(questions):
            of_query.setdefault(query, []).append(place)
        # Neighbours in length share a batch; little is padding then.
        read: dict[Item, Prompt] = {}
        queries = sorted(
            ((self.query(query, read), places) for query, places in of_query.items()),
            key=lambda queried: len(queried[0]),
        )
        confidences = [0.0] * len(questions)
        for first in range(0, len(queries), self.config.batch_size):
            some = queries[first : first + self.config.batch_size]
            read = {}
            candidates = [[self.candidate(questions[place][1], read) for place in places] for _, places in some]
            with self._precision():
                flat = self.module(self.pack([prompt for prompt, _ in some], candidates))
            for place, score in zip((place for _, places in some for place in places), flat.tolist(), strict=True):
                if not math.isfinite(score):
                    ids = [shown.item.id for shown in questions[place]]
                    raise ModelError(
                        f"evaluator {self.checkpoint.name}: its confidence for query {ids[0]!r} and candidate "
                        f"{ids[1]!r} is {score}; try dtype float32, or another evaluator"
                    )
                confidences[place] = score
        return confidences

    def _precision(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")


def open_judge(config: JudgeConfig, device: torch.device) -> Judge:
    """Load an evaluator.

    Raises:
        ModelError: the checkpoint can't be used, or doesn't know Yes and No as one token each.
        OptionError: no checkpoint is named.
    """
    if not config.checkpoint:
        raise OptionError("select.judge.checkpoint is empty: name a Qwen3-VL-Instruct, as a folder or hub id")
    checkpoint = open_checkpoint(config.checkpoint, config.revision, _TOKENS)
    model = load_weights(checkpoint, device, getattr(torch, config.dtype), "sdpa")
    quicken(model, device)
    return Judge(checkpoint, model, config, device)


def _answer_tokens(checkpoint: Checkpoint) -> tuple[int, int]:
    tokens = []
    for word in (YES, NO):
        ids = checkpoint.tokenizer.plain(word)
        if len(ids) != 1:
            raise ModelError(
                f"evaluator {checkpoint.name}: {word!r} is {len(ids)} tokens in its vocabulary, and the confidence is "
                "read from one; choose another evaluator"
            )
        tokens.append(ids[0])
    return tokens[0], tokens[1]
