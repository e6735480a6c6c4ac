"""Long prompts read a piece at a time: between two pieces others get their tokens, and a signal is heard.

What a piece looks at is bounded: the further it is in a prompt, the shorter it is. Its pictures are read before its
first piece, in one pass of the vision tower, which a model's settings bound. A prompt of one piece is read as it always
was.

Legend of shapes: B rows, L columns, P columns of a piece, V visual tokens, D hidden size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mmemb_r1_model.decoding.slots import cache_argument

#: Columns of a piece at most, and least. The largest picture that the settings let through has 1,800: with some text
#: around it, it is read in one piece.
LONGEST_PIECE, SHORTEST_PIECE = 2048, 64
#: What a row's tokens of a piece look at together, at most: its mask has a number for each. Below some 800 columns a
#: CPU's attention is half as fast.
MOST_LOOKS = 2**26

ResultT = TypeVar("ResultT")
#: Work that stops after each of its pieces but the last, whose end is the result.
Pieces: TypeAlias = Generator[None, None, ResultT]

_stops = ContextVar("_stops", default=False)
_last_columns = ContextVar[int | None]("_last_columns", default=None)


class _ReachedError(Exception):
    """What a language model was going to be given."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


def stop_at_language_models(model: Any) -> None:
    """Let `read_in_pieces` see what a Qwen-VL model of transformers gives its language model; once a model."""
    text_model = model.model.language_model
    if _stop not in text_model._forward_pre_hooks.values():
        text_model.register_forward_pre_hook(_stop, with_kwargs=True)


def _stop(_: Any, args: Any, given: dict[str, Any]) -> None:
    if _stops.get():
        raise _ReachedError(given)


def last_layer(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
    """The forward pass of a language model's last layer; what nobody wants behind its attention isn't computed."""
    columns = _last_columns.get()
    if columns is None:
        whole: Tensor = type(self).forward(self, hidden_states, **given)
        return whole
    attended, *_ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **given)
    states_BPD = (hidden_states + attended)[:, -columns:]
    wanted: Tensor = states_BPD + self.mlp(self.post_attention_layernorm(states_BPD))
    return wanted


class _LaidOutLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """Keys and values (B, H, L, D) of a layer in memory for a whole prompt: nothing is copied as they grow."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self._columns = columns

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device, self.dtype = key_states.device, key_states.dtype
        rows, heads, _, head_dim = key_states.shape
        self._memory = key_states.new_empty(2, rows, heads, self._columns, head_dim)
        self.keys, self.values = self._memory[:, :, :, :0]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write those of a piece behind the others; all of them so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.shape[2]
        end = start + key_states.shape[2]
        self._memory[0, :, :, start:end], self._memory[1, :, :, start:end] = key_states, value_states
        self.keys, self.values = self._memory[:, :, :, :end]
        return self.keys, self.values


class _Unmasked(TorchFunctionMode):
    """While it lasts, a prompt's last columns attend without a mask: to all before them, and causally to themselves.

    With a mask a CPU's kernel takes half as long again, and the mask more memory than all else. Of one prompt alone,
    without padding. Parts of a soft-max are joined by their logarithms (Dao et al. 2022, FlashAttention).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        start, scale = key.shape[2] - query.shape[2], (kwargs or {}).get("scale")
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        before, own = slice(None, start), slice(start, None)
        first, first_sum = attend(query, key[:, :, before], value[:, :, before], 0.0, False, scale=scale)
        last, last_sum = attend(query, key[:, :, own], value[:, :, own], 0.0, True, scale=scale)
        share = torch.sigmoid(first_sum - last_sum)[..., None]
        return torch.lerp(last.float(), first.float(), share).to(query.dtype)


def piece_ends(columns: int, longest: int = LONGEST_PIECE) -> Iterator[int]:
    """Where the pieces of so many columns end."""
    end = 0
    while end < columns:
        size = min(longest, MOST_LOOKS // min(end + longest, columns))
        end = min(columns, end + max(min(SHORTEST_PIECE, longest), size))
        yield end


@dataclass(frozen=True)
class Prompts:
    """A padded batch for a Qwen-VL model of transformers.

    Attributes:
        mask_BL: 1 of what isn't padding.
        positions_3BL: M-RoPE positions.
        inputs: token ids and what else the model takes, by its own names.
    """

    mask_BL: Tensor
    positions_3BL: Tensor
    inputs: dict[str, Tensor]


def read_in_pieces(
    model: Any, prompts: Prompts, past: DynamicCache | None, longest: int = LONGEST_PIECE, wanted: int | None = None
) -> Pieces[Tensor]:
    """States (B, L, D) of the last `wanted` columns, after the final norm.

    Args:
        past: takes keys and values; `None`: nobody wants them afterwards.
        longest: columns of a piece at most.
        wanted: `None`: states of all columns.
    """
    columns = prompts.mask_BL.shape[1]
    ends = list(piece_ends(columns, longest))
    if len(ends) == 1:
        with _only_last(wanted):
            states_BLD = states_of(model, prompts.mask_BL, prompts.positions_3BL, past, **prompts.inputs)
        return states_BLD[:, -(wanted or columns) :]
    given = _given(model, prompts)
    past = DynamicCache(config=model.config.get_text_config()) if past is None else past
    past.layers = [_LaidOutLayer(columns) for _ in past.layers]
    visual_BL, deep = given.get("visual_pos_masks"), given.get("deepstack_visual_embeds")
    one_alone = len(prompts.mask_BL) == 1 and model.device.type == "cpu"
    needs_mask = not one_alone or model.config.get_text_config()._attn_implementation != "sdpa"
    start, states = 0, list[Tensor]()
    for end in ends:
        if start:
            yield
        masked = needs_mask or not start
        piece: dict[str, Any] = {}
        if visual_BL is not None and deep is not None:
            column_V = visual_BL.nonzero()[:, 1]
            inside_V = (start <= column_V) & (column_V < end)
            piece["visual_pos_masks"] = visual_BL[:, start:end]
            piece["deepstack_visual_embeds"] = [states_VD[inside_V] for states_VD in deep]
        with _only_last(wanted), contextlib.nullcontext() if masked else _Unmasked():
            states_BPD = model.model.language_model(
                inputs_embeds=given["inputs_embeds"][:, start:end],
                # Of four dimensions one is handed on as it is: nobody looks at it.
                attention_mask=prompts.mask_BL[:, :end] if masked else prompts.mask_BL.new_ones(1, 1, 1, 1),
                position_ids=prompts.positions_3BL[:, :, start:end],
                use_cache=True,
                **{cache_argument(type(model.model.language_model).forward): past},
                **piece,
            ).last_hidden_state
        states.append(states_BPD)
        start = end
    return torch.cat(states, dim=1)[:, -(wanted or columns) :]


def at_once(pieces: Pieces[ResultT]) -> ResultT:
    """The result, without a stop."""
    try:
        while True:
            next(pieces)
    except StopIteration as end:
        result: ResultT = end.value
        return result


def states_of(
    model: Any, mask: Tensor, positions_3BL: Tensor, past: DynamicCache | None = None, **inputs: Tensor
) -> Tensor:
    """States (B, L, D) of a pass, after the final norm.

    Args:
        model: Qwen2-VL or Qwen3-VL of transformers.
        mask: (B, L) over everything fed so far, or (B, 1, L, L): where a token may look.
        positions_3BL: of the new tokens.
        past: what was fed before; it takes the new tokens, too.
        inputs: token ids and what else the model takes, by its own names.
    """
    cache = {} if past is None else {cache_argument(type(model.model).forward): past}
    hidden_BLD: Tensor = model.model(
        **inputs, attention_mask=mask, position_ids=positions_3BL, use_cache=past is not None, **cache
    ).last_hidden_state
    return hidden_BLD


@contextlib.contextmanager
def _only_last(columns: int | None) -> Iterator[None]:
    before = _last_columns.set(columns)
    try:
        yield
    finally:
        _last_columns.reset(before)


def _given(model: Any, prompts: Prompts) -> dict[str, Any]:
    """What the language model is given for whole prompts: their tokens as vectors, pictures in their places."""
    stops = _stops.set(True)
    try:
        states_of(model, prompts.mask_BL, prompts.positions_3BL, **prompts.inputs)
    except _ReachedError as reached:
        return reached.given
    finally:
        _stops.reset(stops)
    raise RuntimeError("the language model was never called; call `stop_at_language_models` first")
