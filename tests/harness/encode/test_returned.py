"""What a model returned becomes the harness's own, converted where that is exact, or is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmeb_harness import EncodeResult, Item, ModelError, ModelInfo, TokenVectors, Trace
from mmeb_harness.encode.returned import own_result

INFO = ModelInfo("odd", "1", 2)
KEYED = [("key a", Item("q0", text="what is it?")), ("key b", Item("q1", text="x" * 60))]
UNIT = np.array([[0.6, 0.8], [0.0, 1.0]], dtype=np.float32)
EYE = np.eye(2)


def owned(vectors: Any, traces: Any = None) -> EncodeResult:
    return own_result(INFO, EncodeResult(vectors, traces), KEYED, "query")


class Tensor:
    """As torch's, on an accelerator, of a type that numpy lacks."""

    dtype = "torch.bfloat16"

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> np.ndarray:
        return self._values


@pytest.mark.parametrize(
    "vectors",
    [
        UNIT.tolist(),
        list(UNIT),
        UNIT.astype(">f4"),
        np.asfortranarray(UNIT),
        UNIT.astype(np.float64),
        UNIT.astype(np.longdouble),
        np.ma.array(UNIT),
        UNIT.view(np.recarray),
        Tensor(UNIT),
    ],
)
def test_what_float32_holds_exactly_is_converted(vectors: Any) -> None:
    converted = owned(vectors).vectors
    assert type(converted) is np.ndarray
    assert converted.dtype == np.float32
    assert converted.flags.c_contiguous
    assert np.array_equal(converted, UNIT)


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.int64, np.uint64, bool])
def test_numbers_of_other_kinds_are_exact_where_they_are(kind: type) -> None:
    assert np.array_equal(owned(EYE.astype(kind)).vectors, EYE)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (
            np.array([[0.6, 0.8], [0.0, 1.0]]),
            r"of float64 that float32 doesn't hold exactly for query 'q0' \('what is it",
        ),
        (
            [[0.6, 0.8], [0.0, 1.0]],
            r"a list that float32 doesn't hold exactly for query 'q0'.*; return float32",
        ),
        (np.array([[0, 1], [2**24 + 1, 0]]), r"of int64 that float32 doesn't hold exactly for query 'q1'"),
        (np.array([[1e300, 0], [0, 1.0]]), r"of float64 that float32 doesn't hold exactly for query 'q0'"),
        (UNIT.astype(complex), "no array of numbers, numpy.ndarray of complex128, for 2 queries"),
        (UNIT.astype(object), "no array of numbers, numpy.ndarray of object, for 2 queries, the first 'q0'"),
        (UNIT.astype("U8"), "no array of numbers, numpy.ndarray of <U8"),
        (UNIT.astype("M8[s]"), "no array of numbers, numpy.ndarray of datetime64"),
        (np.ma.array(UNIT, mask=[[0, 1], [0, 0]]), "no array of numbers, numpy.*MaskedArray of float32"),
        ([[1.0], [1.0, 2.0]], "no array of numbers, a list, for 2 queries"),
        (None, "no array of numbers, None, for 2 queries"),
        ({"vectors": 1}, "no array of numbers, a dict"),
        (UNIT[0], r"shape \(2,\) for 2 queries"),
        (UNIT[None], r"shape \(1, 2, 2\) for 2 queries"),
        (UNIT[:0], r"shape \(0, 2\) for 2 queries"),
        (UNIT * [[1], [0]], r"a vector of length 0\.0000 for query 'q1' \('x{40}…'\); vectors must be of unit"),
        (UNIT * np.float32(np.inf), "NaN or infinity for query 'q0'"),
    ],
)
def test_the_rest_is_refused_with_model_item_and_kind(vectors: Any, message: str) -> None:
    with pytest.raises(ModelError, match=rf"^model 'odd' returned .*{message}"):
        owned(vectors)


def test_an_error_knows_the_key_of_its_item() -> None:
    with pytest.raises(ModelError) as refused:
        owned(UNIT * [[1], [np.nan]])
    assert refused.value.keys == ("key b",)


@pytest.mark.parametrize("several", [False, True])
def test_no_memory_is_shared_with_the_model(several: bool) -> None:
    given = TokenVectors.of_items([UNIT, UNIT]) if several else UNIT.copy()
    info = ModelInfo("odd", "1", 2, similarity="max_sim" if several else "dot")
    mine = own_result(info, EncodeResult(given), KEYED, "query").vectors
    pairs = [(mine.flat, given.flat), (mine.offsets, given.offsets)] if several else [(mine, given)]  # type: ignore[union-attr]
    assert not any(np.shares_memory(own, other) for own, other in pairs)


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        (Trace("guessed"), "a trace of path 'guessed' for query 'q1'"),  # type: ignore[arg-type]
        (Trace(gate=1.5), "a trace of gate 1.5, which is no probability"),
        (Trace(gate=float("nan")), "a trace of gate nan"),
        (Trace(gate="0.5"), "a trace of gate '0.5'"),  # type: ignore[arg-type]
        (Trace(rationale=b"so"), "a trace of rationale b'so', which is no text"),  # type: ignore[arg-type]
        (Trace(reasoning_tokens=-1), "a trace of -1 reasoning tokens"),
        (Trace(reasoning_tokens=1.5), "a trace of 1.5 reasoning tokens"),  # type: ignore[arg-type]
        (Trace(truncated="no"), "a trace whose `truncated` is 'no'"),  # type: ignore[arg-type]
        (Trace(seconds=-0.1), "a trace of -0.1 seconds"),
        (Trace(seconds=float("inf")), "a trace of inf seconds"),
        ({"path": "direct"}, "a trace that is a dict"),
    ],
    ids=str,
)
def test_traces_that_cannot_be_are_refused(trace: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        owned(UNIT, (Trace(seconds=0.0), trace))


def test_traces_are_a_tuple_of_the_harness_s_own() -> None:
    given = [Trace(), Trace(gate=0.5)]
    assert owned(UNIT, given).traces == tuple(given)
    with pytest.raises(ModelError, match="a generator as traces for 2 queries"):
        owned(UNIT, (trace for trace in given))


def test_work_is_work() -> None:
    with pytest.raises(ModelError, match="model 'odd' returned a float as the work for 2 queries, the first 'q0'"):
        own_result(INFO, EncodeResult(UNIT, None, 3.0), KEYED, "query")  # type: ignore[arg-type]
