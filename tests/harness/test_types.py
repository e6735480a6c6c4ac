"""Samples refuse what would be a silently wrong score."""

from typing import Any

import pytest

from mmeb_harness import DataError, Item, Samples

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
