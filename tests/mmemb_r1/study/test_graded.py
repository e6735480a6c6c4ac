"""Equal tokens in closed form: what mixtures of a binary gate's points reach, and what a report says of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mmemb_r1_model.study.graded import PRIMARY, Run, attainable, graded_section, runs_of
from mmemb_r1_model.study.plan import BASE, Variant, read_study
from mmemb_r1_model.study.results import Group


def test_mixtures_reach_what_lies_between_points_and_never_more() -> None:
    tokens = [np.array(at) for at in (0.0, 2.0, 6.0, 4.0)]
    scores = [np.array(at) for at in (0.5, 0.8, 0.9, 0.7)]  # the last one is worth less than a mixture of others
    reached = [float(attainable(np.array(at), tokens, scores)) for at in (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 60.0)]
    assert reached == pytest.approx([0.5, 0.65, 0.8, 0.825, 0.85, 0.9, 0.9])
    # Fewer tokens at the same score, or more at a worse one, need no mixture; resamples are done side by side.
    worse = [np.array([0.0, 0.0]), np.array([3.0, 1.0])], [np.array([0.5, 0.5]), np.array([0.4, 0.7])]
    assert attainable(np.array([2.0, 0.5]), *worse).tolist() == pytest.approx([0.5, 0.6])


def variant(name: str, *assignments: str, **settings: Any) -> Variant:
    return Variant(name, assignments, **{"shares": "train", **settings})


def test_runs_are_told_apart_by_their_settings() -> None:
    variants = [
        variant("c", "adapt.reward.length_cost=3"),
        variant("s", "adapt.short_tokens=4", "adapt.reward.length_cost=6"),
        variant("g", "adapt.token_weight=0", "adapt.short_tokens=3"),
        variant("trained anew", "train.loop.steps=9", shares="select"),
        variant("stage 1", checkpoint="joint"),
    ]
    assert runs_of(1.0, variants) == [
        Run(BASE, 0, 1.0),
        Run("c", 0, 3.0),
        Run("s", 4, 6.0),
        Run("g", 3, 1.0, ("adapt.token_weight=0",)),
    ]


def test_the_study_asks_the_question() -> None:
    runs = runs_of(1.0, read_study("graded").variants)
    costs = {short: {run.cost for run in runs if run.short == short and not run.rest} for short in (0, PRIMARY)}
    assert costs[0] == costs[PRIMARY] == {0.3, 1.0, 3.0, 6.0}
    assert {run.short for run in runs} >= {0, 3, 4, 6}


def frame(tokens: list[int], right: list[int]) -> pd.DataFrame:
    """Of a caption, a chain of one hop and one of two, whose whole rationales have 6 tokens."""
    return pd.DataFrame(
        {
            "query_id": ["a", "b", "c"],
            "kind": ["look", "chain", "chain"],
            "hops": [0, 1, 2],
            "never": [1.0, 0.0, 0.0],
            "adaptive": [float(one) for one in right],
            "reasoned_adaptive": [float(one > 0) for one in tokens],
            "tokens_adaptive": [float(one) for one in tokens],
            "tokens_always": [6.0, 6.0, 6.0],
        }
    )


def test_a_report_says_who_is_better_at_equal_tokens() -> None:
    frames = {
        BASE: frame([0, 6, 6], [1, 1, 1]),  # 4 tokens a query, all right
        "dear": frame([0, 0, 0], [1, 0, 0]),
        "short": frame([0, 4, 6], [1, 1, 1]),  # 10 / 3 tokens, all right: a mixture gets 1/3 + 2/3 * 10/12
        "bad": frame([0, 4, 4], [1, 0, 1]),  # 8 / 3 tokens, 2/3 right: a mixture gets 7/9
    }
    variants = [
        variant("dear", "adapt.reward.length_cost=9"),
        variant("short", "adapt.short_tokens=4"),
        variant("bad", "adapt.short_tokens=3"),
    ]
    results = SimpleNamespace(
        config=SimpleNamespace(tasks=["t"]),
        seeds=(1, 2),
        seeds_of=lambda name: (1, 2),
        groups=lambda name: {"t": Group((1, 2), (frames[name], frames[name].iloc[::-1].reset_index(drop=True)))},
        json=lambda name: [{"adapt": {"reward": {"length_cost": 1.0}}}],
    )
    numbers: dict[str, Any] = {}
    text = graded_section(results, variants, numbers)  # type: ignore[arg-type]
    own = numbers["graded"]["t"][""]
    assert own["short"]["gain"]["value"] == pytest.approx(1 - (1 / 3 + 2 / 3 * 10 / 12))
    assert own["bad"]["gain"]["value"] == pytest.approx(2 / 3 - 7 / 9)
    assert own["answer"]["value"] == own["short"]["gain"]["value"]
    assert own["answer"]["each"] == pytest.approx([1 / 9, 1 / 9])
    assert (own["short"]["direct"], own["short"]["closed"]) == pytest.approx((1 / 3, 1 / 3))
    assert "| t |  | short | 4 | 1 | 33.3 | 33.3 | 33.3 | 3.3 | 100.0 | 88.9 | 11.1 " in text
    assert "| t | short | chain of 1 | 0.0 | 100.0 | 0.0 | 4.0 | 100.0 |" in text
    assert "| t | base | caption | 100.0 | 0.0 | 0.0 | 0.0 | 100.0 |" in text
    verdict = "beats" if own["answer"]["beats"] else "does not beat"
    assert "- t: 11.1 points" in text
    assert f"{verdict} the binary gate at equal tokens" in text
    assert own["answer"]["beats"] == (own["answer"]["queries"][0] > 0)
    numbers = {}
    assert graded_section(results, variants[:1], numbers) == ""  # type: ignore[arg-type]
    assert not numbers
