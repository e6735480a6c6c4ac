"""The metrics against values that the official code gave, and against closed forms."""

import itertools

import numpy as np
import pytest

from mmeb_harness.ranking.metrics import (
    METRIC_NAMES,
    V3_METRIC_NAMES,
    chance,
    edition_metrics,
    ndcg_linear,
    official_gains,
    query_metric,
    query_metrics,
    set_order_gains,
)
from tests.tasks.golden import read_golden

GOLDEN = read_golden("metrics_golden")
CASES = [case for case in GOLDEN["cases"] if "error" not in case]


def labels_of(case: dict) -> list[str]:
    label = case["label"]
    return [str(one) for one in (label if isinstance(label, list) else [label])]


def gains_of(case: dict) -> dict[str, float]:
    grades = case["rel_scores"] if case["rel_scores"] is not None else [1.0] * len(labels_of(case))
    return dict(zip(labels_of(case), grades, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['id']}-{case['category']}")
def test_every_golden_case(case: dict) -> None:
    gains, ranked = gains_of(case), [str(one) for one in case["prediction"]]
    official = set_order_gains(gains)
    # Unequal grades on string ids have no defined official nDCG: it depends on PYTHONHASHSEED.
    assert (official is None) == case["depends_on_PYTHONHASHSEED"]
    corrected = query_metrics(ranked, gains)
    found = query_metrics(ranked, official) if official is not None else corrected
    compared = [name for name in METRIC_NAMES if official is not None or not name.startswith("ndcg")]
    assert {name: found[name] for name in compared} == pytest.approx(
        {name: case["metrics"][name] for name in compared}, abs=1e-12
    )
    for name, value in case.get("ndcg_if_grades_stay_with_their_label", {}).items():
        assert corrected[name] == pytest.approx(value, abs=1e-12)


def test_every_golden_case_of_mmeb_v3() -> None:
    """All that its golden file doesn't name keeps its value of MMEB-V2."""
    changed = {case["id"]: case for case in read_golden("metrics_golden_v3")["cases"] if "error" not in case}
    assert [case["id"] for case in CASES] == list(changed)
    unlabelled = 0
    for case in CASES:
        gains, ranked = gains_of(case), [str(one) for one in case["prediction"]]
        official = set_order_gains(gains)
        first = next((place for place, candidate in enumerate(ranked, start=1) if candidate in gains), None)
        found = edition_metrics("v3", ranked, official or gains, first)
        of_case = {name: value for name, value in changed[case["id"]].items() if name != "id"}
        wanted = {name: {**case["metrics"], **of_case}[name] for name in V3_METRIC_NAMES}
        compared = [name for name in V3_METRIC_NAMES if official is not None or not name.startswith("ndcg")]
        assert [found[name] for name in compared] == pytest.approx([wanted[name] for name in compared], abs=1e-12)
        assert edition_metrics("page-fixed", ranked, gains, first) == query_metrics(ranked, gains)
        unlabelled += not gains
    assert unlabelled == sum("recall@1" in case for case in changed.values()) == 2


def test_the_golden_file_is_the_whole_of_it() -> None:
    assert len(GOLDEN["cases"]) == 100
    assert list(METRIC_NAMES) == GOLDEN["metric_keys_in_order"]
    assert list(V3_METRIC_NAMES) == read_golden("metrics_golden_v3")["metric_keys_in_order"]


def test_set_order_follows_the_effective_order_of_the_official_code() -> None:
    cases = [case for case in CASES if "effective_label_order" in case]
    assert cases
    for case in cases:
        official = set_order_gains(gains_of(case))
        assert official == dict(zip(map(str, case["effective_label_order"]), case["rel_scores"], strict=True))


def test_grades_of_a_task_of_no_edition_stay_on_their_labels() -> None:
    gains = {"35": 2.0, "7": 1.0, "16": 1.0}  # in a set of these numbers 16 comes first
    assert official_gains("page-fixed", "visdoc", gains) == set_order_gains(gains) != gains
    assert official_gains("", "visdoc", gains) == gains
    assert official_gains("v3", "text", gains) == gains
    assert official_gains("page-fixed", "visdoc", {"p35": 2.0, "p7": 1.0}) == {"p35": 2.0, "p7": 1.0}


@pytest.mark.parametrize(("metric", "gains"), [("hit@1", {"a": 1.0}), ("ndcg_linear@5", {"a": 3.0, "d": 2.0})])
def test_chance_is_the_mean_over_all_rankings(metric: str, gains: dict[str, float]) -> None:
    pool = list("abcdef")
    exact = np.mean([query_metrics(order, gains)[metric] for order in itertools.permutations(pool)])
    assert chance(metric, gains, pool) == pytest.approx(exact, abs=1e-12)


def test_gain_is_linear_not_exponential() -> None:
    # Ideal [3, 1]; found [1, 3]: (1 + 3 / log2(3)) / (3 + 1 / log2(3)).
    discount = 1 / np.log2(3)
    assert ndcg_linear(["b", "a"], {"a": 3.0, "b": 1.0}, 5) == pytest.approx((1 + 3 * discount) / (3 + discount))


def test_one_metric_is_that_of_all() -> None:
    ranked, gains = ["a", "b", "c", "d", "e", "f"], {"b": 2.0, "f": 1.0}
    every = query_metrics(ranked, gains)
    assert query_metric("hit@1", ranked, gains) == every["hit@1"]
    assert query_metric("ndcg_linear@5", ranked, gains) == every["ndcg_linear@5"] > 0
