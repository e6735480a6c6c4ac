"""The benchmark's ranking metrics, for one query: pure functions over ranked gains.

Source: the official evaluation (VLM2Vec at 6e1e1d42). All logarithms are base 2, k = 1, 5, 10. A ranked
list may repeat an id (some image rows list a candidate twice); repeats count each time, as officially.
MMEB-V3 (44f991d) has one reciprocal rank, over the whole ranking, and another recall of a query without labels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

from mmeb_harness.core.benchmark import benchmark_of
from mmeb_harness.core.items import MetricName, Modality

CUTOFFS = (1, 5, 10)
MAX_CUTOFF = max(CUTOFFS)

Gains = Mapping[str, float]


def hit(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """1 if a relevant candidate is among the first k."""
    return float(any(candidate in gains for candidate in ranked[:k]))


def precision(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """Distinct relevant candidates among the first k, over k (even if fewer than k were ranked)."""
    return _distinct_hits(ranked, gains, k) / k if gains else 0.0


def recall(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """Share of the relevant candidates among the first k; 1 by definition if there are none."""
    return _distinct_hits(ranked, gains, k) / len(gains) if gains else 1.0


def f1(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """Harmonic mean of precision and recall at k, 0 if both are 0."""
    p, r = precision(ranked, gains, k), recall(ranked, gains, k)
    return 2 * p * r / (p + r) if p + r > 0 else 0.0


def average_precision(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """Sum of precision at each relevant position up to k, over min(relevant, k)."""
    hits, total = 0, 0.0
    for position, candidate in enumerate(ranked[:k], start=1):
        if candidate in gains:
            hits += 1
            total += hits / position
    return total / min(len(gains), k) if hits else 0.0


def reciprocal_rank(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """1 / rank of the first relevant candidate within k, else 0."""
    places = enumerate(ranked[:k], start=1)
    return next((1 / position for position, candidate in places if candidate in gains), 0.0)


def ndcg_linear(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """nDCG with gain = relevance (not 2**relevance - 1), as MMEB reports for visual documents."""
    return _ndcg(ranked, gains, k, lambda gain: gain)


def ndcg_exponential(ranked: Sequence[str], gains: Gains, k: int) -> float:
    """nDCG with gain = 2**relevance - 1."""
    return _ndcg(ranked, gains, k, lambda gain: 2.0**gain - 1)


#: In the order of the official score files.
METRICS: Mapping[str, Callable[[Sequence[str], Gains, int], float]] = {
    "hit": hit,
    "ndcg_linear": ndcg_linear,
    "ndcg_exponential": ndcg_exponential,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "map": average_precision,
    "mrr": reciprocal_rank,
}

METRIC_NAMES: tuple[str, ...] = tuple(f"{name}@{k}" for name in METRICS for k in CUTOFFS)
#: Of MMEB-V3, in the order of its score files.
V3_METRIC_NAMES: tuple[str, ...] = (*(name for name in METRIC_NAMES if not name.startswith("mrr@")), "mrr")


def metric_names(edition: str) -> tuple[str, ...]:
    """The metrics of a task of an edition, in the official order."""
    return V3_METRIC_NAMES if benchmark_of(edition).whole_ranking else METRIC_NAMES


def query_metrics(ranked: Sequence[str], gains: Gains) -> dict[str, float]:
    """All 24 metrics of one query, of MMEB-V2 and of tasks of no edition.

    Args:
        ranked: candidate ids, best first; the first 10 are enough.
        gains: relevance of each relevant candidate.
    """
    return {f"{name}@{k}": metric(ranked, gains, k) for name, metric in METRICS.items() for k in CUTOFFS}


def query_metric(metric: MetricName, ranked: Sequence[str], gains: Gains) -> float:
    """One of them by its name, such as "hit@1"."""
    name, _, k = metric.partition("@")
    return METRICS[name](ranked, gains, int(k))


def edition_metrics(edition: str, ranked: Sequence[str], gains: Gains, first_relevant: int | None) -> dict[str, float]:
    """All metrics of one query, as an edition has them.

    Args:
        ranked, gains: as `query_metrics`.
        first_relevant: 1-based rank of the best relevant candidate in the whole ranking; `None`: there is none.
    """
    metrics = query_metrics(ranked, gains)
    if not benchmark_of(edition).whole_ranking:
        return metrics
    if not gains:
        metrics |= {f"recall@{k}": 0.0 for k in CUTOFFS}
    metrics["mrr"] = 0.0 if first_relevant is None else 1 / first_relevant
    return {name: metrics[name] for name in V3_METRIC_NAMES}


def set_order_gains(gains: Gains) -> dict[str, float] | None:
    """The gains as the official code pairs them, after a detour through a Python set.

    The official evaluator turns the labels into a set and back into a list before it pairs them with
    their grades by position, so unequal grades can land on other labels (ViDoSeek-doc, MMLongBench-doc,
    ViDoRe_esg_reports_human_labeled_v2). For integer ids CPython's set order is deterministic, and this
    runs the same detour; equal grades are immune.

    Returns:
        `None` where the official value is undefined: unequal grades on ids that are not integers, whose
        order depends on PYTHONHASHSEED.
    """
    if len(set(gains.values())) <= 1:
        return dict(gains)
    if not all(map(_is_integer, gains)):
        return None
    in_set_order = list({int(label) for label in gains})
    return {str(label): gain for label, gain in zip(in_set_order, gains.values(), strict=True)}


def official_gains(edition: str, modality: Modality, gains: Gains) -> Gains:
    """The gains that a task's metrics are computed with: those of `set_order_gains` where there are such.

    Where the official value depends on PYTHONHASHSEED there is none to reproduce, and a task of no benchmark's edition
    has no official value: grades stay on their labels. Officially the ids of pages alone may be integers: those of
    documents that look like such are text.
    """
    return (set_order_gains(gains) if edition and modality == "visdoc" else None) or gains


def chance(metric: str, gains: Gains, pool: Sequence[str]) -> float:
    """Expected hit@1 or ndcg_linear@5 of a uniformly random ranking of `pool`, in closed form."""
    return chance_among(metric, gains, [candidate for candidate in pool if candidate in gains], len(pool))


def chance_among(metric: str, gains: Gains, relevant: Sequence[str], num_listed: int) -> float:
    """`chance` of a list of so many candidates, given the relevant ones in it (repeats kept): the rest may be long."""
    if metric == "hit@1":
        return len(relevant) / num_listed
    if metric == "ndcg_linear@5":
        if not gains:
            return 0.0
        mean_gain = sum(gains[candidate] for candidate in relevant) / num_listed
        return mean_gain * sum(_discounts(min(5, num_listed))) / _ideal(list(gains.values()), 5)
    raise ValueError(f"no chance level is defined for {metric!r}")


def ndcg_of_gains(gained: Sequence[float], gains: Gains, k: int) -> float:
    """nDCG with linear gain, given the gain (or expected gain) at each of the first k places; 0 if none is relevant."""
    return _discounted(gained) / _ideal(list(gains.values()), k) if gains else 0.0


def _ndcg(ranked: Sequence[str], gains: Gains, k: int, gain_of: Callable[[float], float]) -> float:
    ideal = _ideal([gain_of(gain) for gain in gains.values()], k)
    if ideal == 0:
        return 0.0
    return _discounted([gain_of(gains[label]) if label in gains else 0.0 for label in ranked[:k]]) / ideal


def _ideal(gains: list[float], k: int) -> float:
    return _discounted(sorted(gains, reverse=True)[:k])


def _discounted(gained: Sequence[float]) -> float:
    return sum(gain * discount for gain, discount in zip(gained, _discounts(len(gained)), strict=True))


@functools.cache  # of few lengths, and several times a query
def _discounts(n: int) -> tuple[float, ...]:
    return tuple(1 / math.log2(position + 1) for position in range(1, n + 1))


def _distinct_hits(ranked: Sequence[str], gains: Gains, k: int) -> int:
    return len(set(ranked[:k]) & gains.keys())


def _is_integer(text: str) -> bool:
    return text.lstrip("-").isdecimal() and str(int(text)) == text
