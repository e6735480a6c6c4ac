"""Traces that can't be: against the mode, against the rationale, against the clock."""

from __future__ import annotations

import pytest

from mmeb_harness import ModelInfo, Trace
from mmeb_harness.encode.plausible import early_problem, late_problem, mode_problem, trace_problem

REASONS = ModelInfo("reasons", "1", 8, {"reasoning": "adaptive"}, reasons=True)
WORDS = "a rationale of twelve words that are written one after another here"


@pytest.mark.parametrize(
    ("trace", "mode", "problem"),
    [
        (Trace(), None, None),
        (Trace(gate=0.2), "never", None),
        (Trace(reasoning_tokens=2), "never", None),  # <think></think>
        (Trace(rationale="what was read off the picture"), "adaptive", None),
        (Trace("reasoned", 0.9, WORDS, 14), "adaptive", None),
        (Trace("reasoned", None, WORDS, 3), "always", None),  # words of several a token
        (Trace("reasoned", None, None, 500), "always", None),  # a text that isn't kept
        (Trace("reasoned", None, "", 512, truncated=True), "always", None),  # nothing but spaces
        (Trace("vetoed", 0.9, "a rationale", 3), "adaptive", None),
        (Trace("vetoed", 0.9, "a rationale", 3), "always", 'path "vetoed", though reasoning is "always"'),
        (Trace("vetoed", 0.9, ""), "adaptive", 'no reasoning tokens on the path "vetoed"'),
        (Trace("reasoned", 0.9, WORDS, 14), "never", 'path "reasoned", though reasoning is "never"'),
        (Trace(gate=0.9), "always", 'path "direct", though reasoning is "always"'),
        (Trace(reasoning_tokens=70), "adaptive", '70 reasoning tokens on the path "direct"'),
        (Trace(truncated=True), "adaptive", 'a truncated rationale on the path "direct"'),
        (Trace("reasoned", None, WORDS), "always", 'no reasoning tokens on the path "reasoned"'),
        (Trace("reasoned", None, WORDS, 1), "always", "1 reasoning tokens for a rationale of 12 words"),
        (Trace("reasoned", None, WORDS, 900), "always", "900 reasoning tokens .* are those of the prompt counted"),
    ],
)
def test_a_trace_against_the_mode_and_the_rationale(trace: Trace, mode: str | None, problem: str | None) -> None:
    assert_says(trace_problem(trace, mode, REASONS), problem)


def test_a_model_that_never_reasons_or_hides_its_mode() -> None:
    plain = ModelInfo("plain", "1", 8)
    assert_says(trace_problem(Trace("reasoned", None, WORDS, 14), None, plain), "its `info` doesn't say reasons=True")
    assert mode_problem(REASONS, "query", None) is None
    assert mode_problem(REASONS, "query", "adaptive") is None
    assert_says(
        mode_problem(REASONS, "query", "always"), "has 'adaptive' as the setting 'reasoning' under --reasoning a"
    )
    assert_says(mode_problem(REASONS, "candidate", "never"), "None as the setting .* under --candidate-reasoning never")


@pytest.mark.parametrize(
    ("seconds", "wall", "late", "early"),
    [
        ((0.1, 0.9), 1.0, None, None),
        ((0.1, None), 1.0, None, None),  # the rest with the batch
        ((0.0003, 0.0004), 0.001, None, None),  # little is much of so little
        ((0.1, 1.1), 1.0, "Trace.seconds of second is 1.1, in a call that took 1.0000 s; it is from the start", None),
        ((0.0, 0.9), 1.0, "of first is 0, in", None),
        ((0.1, 0.1), 1.0, None, "the largest Trace.seconds is 0.1, in a call that took 1.0000 s until the last"),
        ((1e-6, 1e-6), 0.001, None, "is 1e-06, in a call"),
    ],
)
def test_seconds_against_the_calls(
    seconds: tuple[float | None, ...], wall: float, late: str | None, early: str | None
) -> None:
    traces = [Trace(seconds=value) for value in seconds]
    assert_says(late_problem(traces, ("first", "second"), wall), late)
    assert_says(early_problem(traces, wall), early)


def assert_says(problem: str | None, expected: str | None) -> None:
    if expected is None:
        assert problem is None
    else:
        with pytest.raises(ValueError, match=expected):
            raise ValueError(problem)
