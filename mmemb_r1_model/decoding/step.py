"""One step: each row's next token in, the token that follows out. A function of tensors that stay where they are.

On a GPU the step is recorded once for each number of rows and columns and then replayed (CUDA graphs): launching some
thousand small kernels one by one takes longer than running them.

Legend of shapes: S slots, B rows of the step, D hidden size, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmemb_r1_model.decoding.place import on_gpu
from mmemb_r1_model.decoding.slots import SlotCache, cache_argument, slot_attention

Graphs = Literal["auto", "on", "off"]

#: Numbers of rows that steps are recorded for; in between, idle slots run along.
ROW_BUCKETS = (8, 16, 32, 48, 64, 96, 128, 192, 256)
#: What numbers of columns are a multiple of. Where steps are recorded: of much, so that few are.
COLUMNS = {"cuda": 64, "cpu": 16}


def rounded(count: int, parts: int, grain: int = COLUMNS["cuda"]) -> int:
    """Up to a multiple of `grain`, coarser for larger numbers: of a 1 / `parts` of the power of two below."""
    grain = max(grain, (1 << (count.bit_length() - 1)) // parts)
    return -(-count // grain) * grain


@dataclass(frozen=True)
class Held:
    """A row between two slots.

    Attributes:
        inputs: (3,), see `Step.inputs`.
        kept_D: state at its last mark.
        states: keys and values (2, H, L, D) of each layer.
    """

    inputs: NDArray[np.int64]
    kept_D: Tensor
    states: Sequence[Tensor]

    def on_host(self) -> Held:
        """The same, copied to where a slot costs nothing."""
        states = [states.to("cpu", copy=True) for states in self.states]
        return Held(self.inputs, self.kept_D.to("cpu", copy=True), states)


class Step:
    """The step of one model over one cache."""

    def __init__(
        self,
        model: Any,
        cache: SlotCache,
        mark: int,
        never: Sequence[int],
        records: Records | None = None,
        scores: bool = False,
    ) -> None:
        """Make the tensors that every step reads and writes.

        Args:
            model: of transformers, with `model.language_model` and `lm_head`.
            mark: token whose state is kept.
            never: tokens that are not chosen.
            records: where recorded steps are kept; `None`: none are made.
            scores: whether how sure the model is of a token is wanted.
        """
        self._text_model, self._head, self._mark, self.cache = model.model.language_model, model.lm_head, mark, cache
        self._cache_argument = cache_argument(type(self._text_model).forward)
        device, dtype = model.device, model.dtype
        self._grain = COLUMNS["cuda" if on_gpu(device) else "cpu"]
        slots, hidden = cache.slots, self._text_model.config.hidden_size
        #: (3, S): tokens to feed, columns held, positions; on the host and on the device.
        self._host = torch.zeros((3, slots), dtype=torch.int64, pin_memory=on_gpu(device))
        self.inputs: NDArray[np.int64] = self._host.numpy()
        self.static_inputs = self._host.to(device, copy=True)
        self.chosen_S = torch.zeros(slots, dtype=torch.int64, device=device)
        #: Log-probability of each of them; `None` where it isn't wanted.
        self.log_probs_S = torch.zeros(slots, dtype=torch.float32, device=device) if scores else None
        #: State at the last mark that a row was fed.
        self.kept_SD = torch.zeros((slots, hidden), dtype=dtype, device=device)
        self._never_V = suppressed(model, never)
        self._records = records

    def __call__(self, rows: int) -> None:
        """Feed `inputs` to the first `rows` slots.

        Leaves the likeliest next tokens in `chosen_S`, how likely they are in `log_probs_S` if that is wanted, and the
        state at a mark in `kept_SD`.
        """
        width = rounded(int(self.inputs[1, :rows].max()) + 1, parts=8, grain=self._grain)
        width = min(width, self.cache.columns)
        self.static_inputs.copy_(self._host, non_blocking=True)
        if self._records is None or not self._records.works:
            self.compute(rows, width)
            return
        rows = next((bucket for bucket in ROW_BUCKETS if rows <= bucket <= self.cache.slots), self.cache.slots)
        key = self.cache.columns, self.cache.slots, rows, width
        if not self._records.replay(key, lambda: self.compute(rows, width)):
            self.compute(rows, width)

    def compute(self, rows: int, width: int) -> None:
        """The same without a recording. Nothing here may wait for the device, or have a shape that depends on it."""
        tokens_B, lengths_B, positions_B = self.static_inputs[:, :rows]
        with slot_attention(self._text_model):
            hidden_BD = self._text_model(
                input_ids=tokens_B[:, None],
                attention_mask=self.cache.begin(lengths_B, width),
                position_ids=positions_B[None, :, None].expand(3, -1, 1),
                use_cache=True,
                **{self._cache_argument: self.cache},
            ).last_hidden_state[:, 0]
        kept_BD = self.kept_SD[:rows]
        kept_BD.copy_(torch.where((tokens_B == self._mark)[:, None], hidden_BD, kept_BD))
        self.chosen_S[:rows].copy_(likeliest(self._head, hidden_BD, self._never_V))
        if self.log_probs_S is not None:
            logits_BV = (self._head(hidden_BD) + self._never_V).float()
            self.log_probs_S[:rows].copy_(logits_BV.amax(dim=-1) - logits_BV.logsumexp(dim=-1))

    def take_over(self, earlier: Step, rows: int) -> None:
        """The first rows of a step, whose keys and values are in the cache already."""
        self.kept_SD[:rows] = earlier.kept_SD[:rows]
        self.inputs[:, :rows] = earlier.inputs[:, :rows]

    def take(self, slot: int) -> Held:
        """A row as it is; its tensors are views."""
        inputs = self.inputs[:, slot].copy()
        return Held(inputs, self.kept_SD[slot], self.cache.taken(slot, int(inputs[1])))

    def put(self, slot: int, held: Held) -> None:
        """A row from elsewhere."""
        self.inputs[:, slot] = held.inputs
        self.kept_SD[slot] = held.kept_D
        self.cache.put(slot, held.states)


def suppressed(model: Any, tokens: Sequence[int]) -> Tensor:
    """What is added to the head's logits (V,): -inf for these tokens, else 0."""
    never_V = torch.zeros(model.lm_head.weight.shape[0], dtype=model.dtype, device=model.device)
    never_V[torch.tensor(tokens, dtype=torch.int64, device=model.device)] = -torch.inf
    return never_V


def likeliest(head: Any, hidden_BD: Tensor, never_V: Tensor) -> Tensor:
    """Greedy choice (B,); `never_V`: see `suppressed`."""
    chosen_B: Tensor = (head(hidden_BD) + never_V).argmax(dim=-1)
    return chosen_B


class Records:
    """Recorded steps, by columns, slots, rows and width; in one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, ...], torch.cuda.CUDAGraph] = {}
        self.works = True

    def __len__(self) -> int:
        return len(self._graphs)

    def replay(self, key: tuple[int, ...], step: Callable[[], None]) -> bool:
        """Run a step by its recording, which the first call makes; false: it can't be recorded, and wasn't run."""
        if key not in self._graphs:
            try:
                self._graphs[key] = self._record(step)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.works = False
                reason = " ".join(str(error).split())[:300]
                warnings.warn(f"no CUDA graphs, steps run one kernel at a time, slower: {reason}", stacklevel=2)
                return False
        self._graphs[key].replay()
        return True

    def forget(self, columns: int) -> None:
        """Drop those over slots of that size: the memory that they work on is about to go."""
        self._graphs = {key: graph for key, graph in self._graphs.items() if key[0] != columns}
        if not self._graphs:
            self._pool = torch.cuda.graph_pool_handle()

    def _record(self, step: Callable[[], None]) -> torch.cuda.CUDAGraph:
        # Libraries set themselves up in their first calls, which can't be recorded. A step may run twice: it writes
        # the same to the same places.
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            step()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads may copy batches meanwhile: their calls are none of the recording's business.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            step()
        return graph
