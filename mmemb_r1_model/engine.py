"""The forward pass: one prefill gives the gate; the direct or the reasoned embedding is read from the same cache.

    direct    : prompt <emb>                            z = h at <emb>, scaled to unit length
    reasoned  : prompt <think> r </think> <emb>         the same, after a rationale

h is the hidden state after the final norm. Every row of a batch takes its own path: in the step after the
prefill a direct row is fed <emb> and is done, a reasoned row is fed <think> and goes on. Finished rows leave
the batch and its cache.

Legend of shapes: B rows, L tokens, V vocabulary, D hidden size.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from mmemb_r1_model.prompt import IMAGE, TURN_END, VIDEO, Prompt, PromptTokenizer
from mmemb_r1_model.settings import EMB, END_THINK, THINK

Mode = Literal["adaptive", "always", "never"]


@dataclass(frozen=True)
class Readout:
    """One row's outcome.

    Attributes:
        gate: p(reason | x).
        rationale: text between the markers; `None` on the direct path.
        generated: number of tokens fed after the prompt, markers included; 0 on the direct path.
        truncated: no </think>, no <emb> after it, or nothing between the markers: closed by rule.
        seconds: from the start of the batch until the embedding was there.
    """

    gate: float
    reasoned: bool
    rationale: str | None
    generated: int
    truncated: bool
    seconds: float


@dataclass(frozen=True)
class Batch:
    """Prompts as tensors, padded on the left. Built on the CPU; `to` moves it."""

    ids_BL: Tensor
    mask_BL: Tensor
    types_BL: Tensor
    positions_3BL: Tensor
    next_position_B: Tensor
    pixels: dict[str, Tensor]  # pixel values and grids, by transformers' names

    def to(self, device: torch.device, dtype: torch.dtype) -> Batch:
        """The batch on a device; pixel values in the model's dtype."""

        def moved(name: str, tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype if name.startswith("pixel") else None, non_blocking=True)

        return Batch(
            self.ids_BL.to(device),
            self.mask_BL.to(device),
            self.types_BL.to(device),
            self.positions_3BL.to(device),
            self.next_position_B.to(device),
            {name: moved(name, tensor) for name, tensor in self.pixels.items()},
        )


def collate(prompts: Sequence[Prompt], pad_id: int) -> Batch:
    """Pad on the left: every row answers at the same place."""
    rows, length = len(prompts), max(len(prompt) for prompt in prompts)
    ids = np.full((rows, length), pad_id, dtype=np.int64)
    mask = np.zeros((rows, length), dtype=np.int64)
    types = np.zeros((rows, length), dtype=np.int64)
    positions = np.zeros((3, rows, length), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        start = length - len(prompt)
        ids[row, start:], mask[row, start:], types[row, start:] = prompt.ids, 1, prompt.types
        positions[:, row, start:] = prompt.positions
    return Batch(
        ids_BL=torch.from_numpy(ids),
        mask_BL=torch.from_numpy(mask),
        types_BL=torch.from_numpy(types),
        positions_3BL=torch.from_numpy(positions),
        next_position_B=torch.tensor([prompt.next_position for prompt in prompts]),
        pixels=pixels_of(prompts),
    )


def pixels_of(pieces: Sequence[Prompt]) -> dict[str, Tensor]:
    """Pixel values and grids by transformers' names, in the order in which their tokens stand in the batch."""
    found: dict[str, Tensor] = {}
    for kind, values, grid in (
        (IMAGE, "pixel_values", "image_grid_thw"),
        (VIDEO, "pixel_values_videos", "video_grid_thw"),
    ):
        patches = [piece.patches for piece in pieces if piece.patches is not None and kind in piece.types]
        if patches:
            found[values] = torch.from_numpy(np.concatenate([one.pixels for one in patches]))
            found[grid] = torch.tensor([one.grid for one in patches])
    return found


@dataclass
class _Row:
    """A row that reasons, while it does."""

    index: int  # in the batch
    fed: list[int]  # tokens fed after the prompt
    closing: bool = False  # </think> was fed: <emb> comes next
    truncated: bool = False


def feed(model: Any, past: DynamicCache, mask_BL: Tensor, positions_3BL: Tensor, **inputs: Tensor) -> Tensor:
    """Feed tokens behind what `past` holds; hidden state (B, D), after the final norm, of the last one.

    Args:
        model: Qwen3VLForConditionalGeneration.
        mask_BL: over everything fed so far.
        positions_3BL: of the new tokens.
    """
    output = model.model(
        **inputs,
        attention_mask=mask_BL,
        position_ids=positions_3BL,
        use_cache=True,
        **{_cache_argument(type(model.model).forward): past},
    )
    hidden: Tensor = output.last_hidden_state[:, -1]
    return hidden


@lru_cache
def _cache_argument(forward: Callable[..., Any]) -> str:
    """Renamed in transformers 5.2x; both spellings are in use."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class Engine:
    """A loaded model and what its answers are made of."""

    def __init__(self, model: Any, tokenizer: PromptTokenizer) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._think, self._end_think, self._emb = (tokenizer.id_of(token) for token in (THINK, END_THINK, EMB))
        self._turn_end = tokenizer.id_of(TURN_END)
        self._suppressed = torch.tensor(tokenizer.unwritable((self._end_think, self._emb, self._turn_end)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' type."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @torch.inference_mode()
    def embed(self, batch: Batch, mode: Mode, threshold: float, max_new_tokens: int) -> tuple[Tensor, list[Readout]]:
        """Embed a batch.

        Args:
            mode: adaptive: reason where the gate is above `threshold`.
            max_new_tokens: longest rationale; then it is closed and counted as truncated.

        Returns:
            Unit vectors (B, D) in float32 on the CPU, and how each came about.
        """
        started = time.perf_counter()
        batch = batch.to(self.device, self.dtype)
        cache = DynamicCache(config=self.model.config.get_text_config())
        hidden = feed(
            self.model,
            cache,
            batch.mask_BL,
            batch.positions_3BL,
            input_ids=batch.ids_BL,
            mm_token_type_ids=batch.types_BL,
            **batch.pixels,
        )
        gate_B = self.gate(hidden)
        reasons_B = self._decide(gate_B, mode, threshold)
        answer = _Answer(self, batch, cache, reasons_B, max_new_tokens, started)
        answer.run()
        vectors = torch.nn.functional.normalize(answer.hidden_BD.float(), dim=-1).cpu()
        return vectors, [answer.readout(row, float(gate)) for row, gate in enumerate(gate_B.tolist())]

    def gate(self, hidden_BD: Tensor) -> Tensor:
        """p(reason | x) (B,): soft-max over the logits of <think> and <emb> where the answer begins."""
        logits = self.model.lm_head(hidden_BD).float()
        return torch.sigmoid(logits[:, self._think] - logits[:, self._emb])

    def _decide(self, gate_B: Tensor, mode: Mode, threshold: float) -> Tensor:
        if mode == "adaptive":
            return gate_B > threshold
        return torch.full_like(gate_B, mode == "always", dtype=torch.bool)

    def _next_tokens(self, hidden_BD: Tensor) -> list[int]:
        """Greedy, without the suppressed tokens."""
        logits_BV = self.model.lm_head(hidden_BD).float()
        logits_BV[:, self._suppressed.to(logits_BV.device)] = -torch.inf
        tokens: list[int] = logits_BV.argmax(dim=-1).tolist()
        return tokens


class _Answer:
    """The answers of one batch, token by token."""

    def __init__(
        self, engine: Engine, batch: Batch, cache: DynamicCache, reasons_B: Tensor, max_new_tokens: int, started: float
    ) -> None:
        self._engine, self._cache, self._max_new_tokens, self._started = engine, cache, max_new_tokens, started
        self._mask_BL, self._position_B = batch.mask_BL, batch.next_position_B
        self._reasons: list[bool] = reasons_B.tolist()
        self._rows: dict[int, _Row] = {}
        self._seconds = [0.0] * len(self._reasons)
        hidden_size = engine.model.config.get_text_config().hidden_size
        self.hidden_BD = torch.zeros(len(self._reasons), hidden_size, dtype=engine.dtype, device=engine.device)

    def run(self) -> None:
        """Feed until every row's <emb> is read."""
        engine = self._engine
        active = [_Row(index, []) for index in range(len(self._reasons))]
        tokens = [engine._think if reasons else engine._emb for reasons in self._reasons]
        while active:
            hidden = self._feed(tokens)
            done = [position for position, token in enumerate(tokens) if token == engine._emb]
            for row, token in zip(active, tokens, strict=True):
                row.fed.append(token)
            self._finish([active[position] for position in done], hidden[done])
            going = [position for position, token in enumerate(tokens) if token != engine._emb]
            active = [active[position] for position in going]
            if done and active:
                self._keep(going)
            if active:
                wanted = engine._next_tokens(hidden[going])
                tokens = [self._choose(row, token) for row, token in zip(active, wanted, strict=True)]

    def _choose(self, row: _Row, wanted: int) -> int:
        """The model's token, unless the answer has to be closed by rule."""
        engine = self._engine
        if row.closing:
            row.truncated |= wanted != engine._emb
            return engine._emb
        written = len(row.fed) - 1  # without <think>
        if wanted == engine._end_think:
            row.truncated |= written == 0
        elif wanted in (engine._emb, engine._turn_end) or written >= self._max_new_tokens:
            row.truncated = True
            wanted = engine._end_think
        row.closing = wanted == engine._end_think
        return wanted

    def _feed(self, tokens: list[int]) -> Tensor:
        ids = torch.tensor(tokens, device=self._mask_BL.device)[:, None]
        self._mask_BL = torch.cat([self._mask_BL, torch.ones_like(ids)], dim=1)
        positions = self._position_B[None, :, None].expand(3, -1, 1)
        self._position_B = self._position_B + 1
        return feed(self._engine.model, self._cache, self._mask_BL, positions, input_ids=ids)

    def _keep(self, rows: list[int]) -> None:
        """Drop the other rows from the cache: nobody waits for what is done."""
        index = torch.tensor(rows, device=self._mask_BL.device)
        self._cache.batch_select_indices(index)
        self._mask_BL, self._position_B = self._mask_BL[index], self._position_B[index]

    def _finish(self, rows: list[_Row], hidden: Tensor) -> None:
        if not rows:
            return
        self.hidden_BD[[row.index for row in rows]] = hidden
        if hidden.device.type == "cuda":
            torch.cuda.synchronize(hidden.device)
        now = time.perf_counter() - self._started
        for row in rows:
            self._rows[row.index] = row
            self._seconds[row.index] = now

    def readout(self, index: int, gate: float) -> Readout:
        """What became of a row."""
        row, reasoned = self._rows[index], self._reasons[index]
        return Readout(
            gate=gate,
            reasoned=reasoned,
            rationale=self._engine.tokenizer.decode(row.fed[1:-2]).strip() if reasoned else None,
            generated=len(row.fed) if reasoned else 0,
            truncated=row.truncated,
            seconds=self._seconds[index],
        )
