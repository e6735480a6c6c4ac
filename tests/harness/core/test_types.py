"""Values refuse what would be a silently wrong score."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmeb_harness import DataError, Item, ModelError, Samples, Sound, TokenVectors

QUERIES = (Item("q1"), Item("q2"))
CANDIDATES = (Item("a"), Item("b"))
GAINS = {"q1": {"a": 1.0}, "q2": {"b": 2.0}}


def test_good_samples_pass() -> None:
    Samples(QUERIES, CANDIDATES, GAINS, {"q1": ("a", "b", "a"), "q2": ("b",)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": ()}, "no queries"),
        ({"queries": (Item("q1"), Item("q1"))}, "duplicate query id 'q1'"),
        ({"candidates": (Item("a"), Item("b"), Item("b"))}, "duplicate candidate id 'b'"),
        ({"gains": {"q1": {"a": 1.0}, "q2": {}}}, "query 'q2' has no relevant candidate"),
        ({"gains": {"q1": {"a": 1.0}}}, "query 'q2' has no relevant candidate"),
        ({"gains": GAINS | {"q1": {"img_9.jpg": 1.0}}}, "relevant candidate 'img_9.jpg' is not in the candidate set"),
        ({"gains": GAINS | {"q1": {"a": 0.0}}}, "gain 0.0, expected > 0"),
        ({"gains": GAINS | {"q1": {"a": 1e300}}}, r"gain 1e\+300, expected > 0, at most 1,000"),
        ({"gains": GAINS | {"q9": {"a": 1.0}}}, "gains name a query 'q9' that does not exist"),
        ({"pools": {"q1": ("a",), "q2": ()}}, "query 'q2' has an empty candidate pool"),
        ({"pools": {"q1": ("a",), "q2": ("c",)}}, "pool candidate 'c' is not in the candidate set"),
        ({"pools": {"q1": ("a",), "q2": ("b",), "q3": ("b",)}}, "pools name a query 'q3'"),
    ],
)
def test_bad_samples_are_refused(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"queries": QUERIES, "candidates": CANDIDATES, "gains": GAINS}
    with pytest.raises(DataError, match=message):
        Samples(**(good | changes))


def test_a_query_may_lack_answers_that_its_data_does_not_have() -> None:
    without = frozenset(("q1", "q2"))
    Samples(QUERIES, CANDIDATES, {"q1": {}, "q2": {"b": 2.0, "gone": 1.0}}, incomplete=without)
    with pytest.raises(DataError, match="query 'q2' has no relevant candidate"):
        Samples(QUERIES, CANDIDATES, {"q1": {}, "q2": {}}, incomplete=frozenset(("q1",)))


@pytest.mark.parametrize("places", [(0,), (2, 1), (0, 4), (-1, 2), (0, 1, 2)])
def test_pictures_stand_inside_their_text_and_in_order(places: tuple[int, ...]) -> None:
    images = (Path("a.png"), Path("b.png"))
    Samples((Item("q1", "abc", images, places=(1, 3)),), CANDIDATES, {"q1": {"a": 1.0}})
    with pytest.raises(DataError, match=r"item 'q1': places .* of 2 images in a text of 3 letters"):
        Samples((Item("q1", "abc", images, places=places),), CANDIDATES, {"q1": {"a": 1.0}})


def test_an_item_says_what_a_model_has_to_take() -> None:
    shown = Item("q", images=(Path("a.png"),), sound=Sound(Path("a.wav"), 1.0, 2.0))
    assert shown.kinds == {"image", "audio"}
    assert shown.media == (Path("a.png"), Path("a.wav"))
    assert Item("q", frames=(Path("a.png"),)).kinds == {"video"}
    assert Item("q", "words").kinds == frozenset()


def test_token_vectors_are_found_by_item() -> None:
    flat = np.arange(10, dtype=np.float16).reshape(5, 2)
    tokens = TokenVectors(flat, np.array([0, 2, 5]))
    assert len(tokens) == 2
    assert [tokens[i].tolist() for i in (0, 1)] == [flat[:2].tolist(), flat[2:].tolist()]
    assert TokenVectors.of_items([tokens[0], tokens[1]]).offsets.tolist() == [0, 2, 5]


@pytest.mark.parametrize(
    ("flat", "offsets", "message"),
    [
        (np.zeros(4, np.float32), [0, 4], r"must be \(t, d\), float32 or float16, not \(4,\) float32"),
        (np.zeros((4, 2)), [0, 4], "not .* float64"),
        (np.zeros((4, 2), np.float32), [[0, 4]], r"must be \(n \+ 1,\) int64, not \(1, 2\) int64"),
        (np.zeros((4, 2), np.float32), [0.0, 4.0], "int64, not .* float64"),
        (np.zeros((4, 2), np.float32), [1, 4], "rise from 0 to the 4 vectors there are; they go from 1 to 4"),
        (np.zeros((4, 2), np.float32), [0, 5], "from 0 to 5"),
        (np.zeros((4, 2), np.float32), [0, 3, 2, 4], "must rise"),
    ],
)
def test_token_vectors_that_do_not_fit_their_offsets_are_refused(flat: Any, offsets: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TokenVectors(flat, np.array(offsets))
