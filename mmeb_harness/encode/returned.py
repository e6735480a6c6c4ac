"""What a model returned for a batch: made the harness's own, in its own kind, or refused by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, NoReturn, get_args

import numpy as np
from numpy.typing import NDArray

from mmeb_harness.core.embedder import UNIT_TOLERANCE, EncodePath, EncodeResult, ModelInfo, TokenVectors, Trace, Work
from mmeb_harness.core.errors import ModelError, counted, one_line
from mmeb_harness.core.files import is_plain
from mmeb_harness.core.items import Role, Vectors, described
from mmeb_harness.core.plugins import plugin_code
from mmeb_harness.encode.chunks import Keyed

_PATHS = get_args(EncodePath)


def own_results(infos: Sequence[ModelInfo], result: object, keyed: Sequence[Keyed], role: Role) -> EncodeResult:
    """The same of a batch in each of a model's modes; of several the traces of queries say that they are shared.

    Raises:
        ModelError: as `own_result`, or results of another number of modes.
    """
    own = own_result(infos[0], result, keyed, role)
    given = result.others if isinstance(result, EncodeResult) else ()
    expected = len(infos) if role == "query" else 1
    if not isinstance(given, tuple) or len(given) + 1 != expected:
        modes = 1 + len(given) if isinstance(given, tuple) else kind_of(given)
        raise ModelError(
            f"model {infos[0].name!r} returned results of {modes} modes for {_batch(keyed, role)}, not of {expected}"
        )
    if not given:
        return own
    others = tuple(own_result(info, other, keyed, role) for info, other in zip(infos[1:], given, strict=True))
    return dataclasses.replace(_shared(own), others=tuple(map(_shared, others)))


def _shared(result: EncodeResult) -> EncodeResult:
    traces = result.traces or (Trace(),) * len(result.vectors)
    return dataclasses.replace(result, traces=tuple(dataclasses.replace(trace, shared=True) for trace in traces))


def own_result(info: ModelInfo, result: object, keyed: Sequence[Keyed], role: Role) -> EncodeResult:
    """A batch's result in memory of its own, which no later call can write into; one vector an item as float32.

    Numbers of another kind (lists, tensors, integers, float16 …) are converted where float32 holds each exactly.

    Args:
        result: what the model returned for these items.

    Raises:
        ModelError: whose ranking would be nonsense: of the wrong kind, number or width, not exact in float32, NaN or
            infinity, not of unit length, an item without a vector, traces that can't be, a query without the state that
            the model says it gives. The item is named. States of candidates are dropped.
    """
    if not isinstance(result, EncodeResult):
        raise ModelError(
            f"model {info.name!r} returned {kind_of(result)} for {_batch(keyed, role)}, not an EncodeResult"
        )
    if not _is_work(result.work):
        what = f"{result.work!r:.80}" if isinstance(result.work, Work) else kind_of(result.work)
        raise ModelError(f"model {info.name!r} returned {what} as the work for {_batch(keyed, role)}")
    several = isinstance(result.vectors, TokenVectors)
    if several != (info.similarity == "max_sim"):
        kind = "several vectors an item" if several else "one vector an item"
        raise ModelError(f"model {info.name!r} returned {kind}, but declares similarity {info.similarity!r}")
    if isinstance(result.vectors, TokenVectors):
        tokens = TokenVectors(np.array(result.vectors.flat, order="C"), np.array(result.vectors.offsets))
        _check_vectors(info, tokens.flat, _item_of(info, tokens, keyed, role), keyed, role)
        return EncodeResult(tokens, _traces(info, result.traces, keyed, role), result.work)
    vectors = _own_vectors(info, result.vectors, keyed, role)
    _check_vectors(info, vectors, np.arange(len(vectors)), keyed, role)
    return EncodeResult(vectors, _traces(info, result.traces, keyed, role), result.work)


def _own_vectors(info: ModelInfo, returned: Any, keyed: Sequence[Keyed], role: Role) -> Vectors:
    kind, of = kind_of(returned), f"for {_batch(keyed, role)}"
    no_array = f"model {info.name!r} returned vectors that are no array of numbers, {kind}, {of}"
    with plugin_code(no_array):  # its own class may say how it becomes one
        if hasattr(returned, "detach"):  # a tensor of torch, perhaps on an accelerator
            returned = returned.detach().cpu()
            returned = returned.float() if str(returned.dtype) == "torch.bfloat16" else returned  # numpy has none
        try:
            array = np.asarray(returned)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{no_array}: {one_line(error)}") from error
    if array.dtype.kind not in "fiub" or np.ma.is_masked(returned):
        raise ModelError(no_array)
    if array.ndim != 2 or len(array) != len(keyed):
        raise ModelError(f"model {info.name!r} returned vectors of shape {array.shape} {of}")
    with np.errstate(all="ignore"):
        vectors: Vectors = np.array(array, dtype=np.float32, order="C")
    if array.dtype.itemsize > 2 and array.dtype.newbyteorder("=") != np.float32:
        inexact = ((vectors != array) & ~(np.isnan(vectors) & np.isnan(array))).any(axis=1)
        if inexact.any():
            _refuse(
                info,
                f"{kind} that float32 doesn't hold exactly",
                keyed,
                int(np.argmax(inexact)),
                role,
                "return float32",
            )
    return vectors


def _item_of(info: ModelInfo, tokens: TokenVectors, keyed: Sequence[Keyed], role: Role) -> NDArray[np.int64]:
    """Of which item each vector is (t,)."""
    if len(tokens) != len(keyed):
        raise ModelError(
            f"model {info.name!r} returned token vectors of {counted(len(tokens), 'item')} for {_batch(keyed, role)}"
        )
    counts = np.diff(tokens.offsets)
    if not counts.all():
        _refuse(info, "no vector", keyed, int(np.argmin(counts)), role)
    return np.repeat(np.arange(len(keyed), dtype=np.int64), counts)


def _check_vectors(
    info: ModelInfo,
    vectors: NDArray[np.floating[Any]],
    item_of: NDArray[np.int64],
    keyed: Sequence[Keyed],
    role: Role,
) -> None:
    """Width, finiteness and length of (t, d) vectors."""
    if vectors.shape[1] != info.dimensions:
        raise ModelError(
            f"model {info.name!r} returned vectors of width {vectors.shape[1]}, but declares {info.dimensions}"
        ).about(key for key, _ in keyed)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)  # NaN or infinity of a vector that has one
    if (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
        return
    if not np.isfinite(lengths).all():
        _refuse(info, "NaN or infinity", keyed, int(item_of[np.argmin(np.isfinite(lengths))]), role)
    worst = int(np.argmax(np.abs(lengths - 1)))
    what = f"a vector of length {lengths[worst]:.4f}"
    _refuse(info, what, keyed, int(item_of[worst]), role, "vectors must be of unit length")


def _traces(
    info: ModelInfo, traces: Sequence[Trace] | None, keyed: Sequence[Keyed], role: Role
) -> tuple[Trace, ...] | None:
    if traces is None:
        traces = (Trace(),) * len(keyed) if info.state_dimensions and role == "query" else None
    if traces is None:
        return None
    if not isinstance(traces, (tuple, list)) or len(traces) != len(keyed):
        number = counted(len(traces), "trace") if isinstance(traces, (tuple, list)) else f"{kind_of(traces)} as traces"
        raise ModelError(f"model {info.name!r} returned {number} for {_batch(keyed, role)}")
    for place, trace in enumerate(traces):
        if problem := _problem_of(trace):
            _refuse(info, f"a trace {problem}", keyed, place, role)
    return tuple(_with_own_state(info, traces, keyed, role))


def _with_own_state(info: ModelInfo, traces: Sequence[Trace], keyed: Sequence[Keyed], role: Role) -> Iterator[Trace]:
    """The same, with states of queries as float16 in memory of their own."""
    for place, trace in enumerate(traces):
        state = None
        if role == "query":
            if problem := _problem_of_state(info.state_dimensions, trace.state):
                _refuse(info, f"a trace {problem}", keyed, place, role, "see `info.state_dimensions`")
            state = None if trace.state is None else trace.state.astype(np.float16)
        yield trace if state is trace.state else dataclasses.replace(trace, state=state)


def _problem_of_state(dimensions: int | None, state: object) -> str | None:
    if (dimensions is None) != (state is None):
        return f"whose `state` is {kind_of(state)}, though its `info` declares {dimensions} dimensions of states"
    if state is None:
        return None
    if not isinstance(state, np.ndarray) or state.dtype.kind != "f" or state.shape != (dimensions,):
        of = f" of shape {state.shape}" if isinstance(state, np.ndarray) else ""
        return f"whose `state` is {kind_of(state)}{of}, not ({dimensions},) floats"
    if not (np.abs(state) <= np.finfo(np.float16).max).all():
        return "whose `state` holds NaN, infinity or more than float16 does"
    return None


def _problem_of(trace: object) -> str | None:
    """What can't be true of how a vector came about."""
    if not isinstance(trace, Trace):
        return f"that is {kind_of(trace)}"
    if trace.path not in _PATHS:
        return f"of path {trace.path!r}"
    if trace.gate is not None and not (_is_number(trace.gate) and 0 <= trace.gate <= 1):
        return f"of gate {trace.gate!r}, which is no probability"
    if not (trace.rationale is None or (isinstance(trace.rationale, str) and is_plain(trace.rationale))):
        return f"of rationale {trace.rationale!r:.60}, which is no text"
    if not isinstance(trace.reasoning_tokens, Integral) or not 0 <= trace.reasoning_tokens < 1 << 31:
        return f"of {trace.reasoning_tokens!r} reasoning tokens"
    if not isinstance(trace.truncated, bool | np.bool_):
        return f"whose `truncated` is {trace.truncated!r}"
    if trace.seconds is not None and not (_is_number(trace.seconds) and 0 <= trace.seconds < math.inf):
        return f"of {trace.seconds!r} seconds"
    if not (isinstance(trace.left_out, str) and is_plain(trace.left_out)):
        return f"whose `left_out` is {trace.left_out!r:.60}, which is no text"
    return None


def _is_work(work: object) -> bool:
    """Numbers that add up, or nothing."""
    if not isinstance(work, Work):
        return work is None
    counts = [value for name, value in vars(work).items() if name != "seconds"]
    stages = work.seconds.values() if isinstance(work.seconds, Mapping) else [None]
    return all(_is_number(value) and 0 <= value < math.inf for value in (*stages, *counts))


def _is_number(value: object) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))


def _refuse(info: ModelInfo, what: str, keyed: Sequence[Keyed], place: int, role: Role, way_out: str = "") -> NoReturn:
    key, item = keyed[place]
    message = f"model {info.name!r} returned {what} for {described([item], role)}"
    raise ModelError(f"{message}; {way_out}" if way_out else message).about([key])


def _batch(keyed: Sequence[Keyed], role: Role) -> str:
    return described([item for _, item in keyed], role)


def kind_of(value: object) -> str:
    """A value's type, of an array with its numbers' type: "numpy.ndarray of float64"."""
    module, name = type(value).__module__, type(value).__qualname__
    kind = name if module == "builtins" else f"{module.split('.')[0]}.{name}"
    dtype = getattr(value, "dtype", None)
    return "None" if value is None else f"{kind} of {dtype}" if dtype is not None else f"a {kind}"
