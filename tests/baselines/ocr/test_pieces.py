"""A long text in pieces: none longer than what is read at once, no word lost, none twice."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmeb_baselines.ocr.model import joined
from mmeb_baselines.ocr.pieces import pieces_of


def spans(text: str) -> list[tuple[int, int]]:
    """A token for each three letters of a word, and for each sign of a script without spaces."""
    return [token.span() for token in re.finditer(r"[a-z]{1,3}|[^\sa-z]", text)]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text("abc 東京\n\t", max_size=120), st.integers(2, 12))
def test_no_token_is_lost_and_no_piece_too_long(text: str, most: int) -> None:
    pieces = pieces_of(text, most, spans)
    assert all(len(spans(piece)) <= most for piece in pieces)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)
    assert pieces == [text] or all(piece.strip() for piece in pieces)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [""]),
        ("  a b\n\nc ", ["  a b\n\nc "]),  # what fits stays as it is
        ("a b\nc d\ne f", ["a b", "c d", "e f"]),  # two lines and the breaks are more than five
        ("a\nb\nc d e f", ["a\nb", "c d e f"]),
        ("abcdef abcdef abcdef", ["abcdef abcdef", "abcdef"]),  # between words
        ("abcdefghijklmnopqrst", ["abcdefghijkl", "mnopqrst"]),  # no word ends there
        ("東京都庁舎駅", ["東京都庁", "舎駅"]),
    ],
)
def test_lines_stay_whole_where_they_fit(text: str, pieces: list[str]) -> None:
    assert pieces_of(text, 5, spans) == pieces


def test_a_line_that_several_frames_show_is_read_once() -> None:
    assert joined(["one\ntwo\none"]) == "one\ntwo\none"
    assert joined(["one\ntwo", "", "two\nthree"]) == "one\ntwo\nthree"
    assert joined([]) == ""
