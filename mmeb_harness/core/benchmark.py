"""The benchmark of an edition: MMEB-V2 or MMEB-V3. What is said of it, and what is made of its tasks' scores.

MMEB-V3 has three "overall" values in circulation (paper, model cards and leaderboard): each is a mean of its own here,
with the rule that makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mmeb_harness.core.items import MODALITIES, MetricName, Modality

#: Page labels corrected (2025-11-03): MMEB-V2's leaderboard.
PAGE_FIXED = "page-fixed"
#: As first released: page labels one page late, MomentSeeker with 1,800 rows.
V2_0_0 = "v2.0.0"
#: As v2.0.0, but MomentSeeker without its duplicates; its files hold both.
V2_0_1 = "v2.0.1"
#: MMEB-V3 with the corrected page labels, or with those of its bundle, as first released.
V3, V3_UNFIXED = V3_EDITIONS = ("v3", "v3-unfixed")
#: Published means of MMEB-V3 whose page labels nobody states, each comparable with its own source alone: the table of a
#: model's README, the leaderboard of 2026-08-19, a model's card.
V3_SOURCES = ("v3-wemm", "v3-board", "v3-card")


class BenchmarkRow(NamedTuple):
    """One of the tasks that means are over; `edition` is "" for a task of no benchmark."""

    task: str
    modality: Modality
    group: str
    metric: str
    edition: str


@dataclass(frozen=True)
class MeanRule:
    """A mean over tasks of several modalities.

    Attributes:
        rule: in words, where it isn't the plain mean of main metrics over all tasks.
        modalities: whose tasks it is over; empty: all.
        without: a group whose tasks it leaves out.
        text_metric: by which texts count; `None`: by their main metric.
    """

    name: str
    rule: str = ""
    modalities: tuple[Modality, ...] = ()
    without: str = ""
    text_metric: MetricName | None = None

    def covers(self, row: BenchmarkRow) -> bool:
        """Whether a task belongs to it."""
        return row.modality in (self.modalities or MODALITIES) and row.group != self.without

    def metric_of(self, row: BenchmarkRow) -> str:
        """By which a task counts in it."""
        return self.text_metric if self.text_metric and row.modality == "text" else row.metric


@dataclass(frozen=True)
class Benchmark:
    """What the editions of one benchmark have in common.

    Attributes:
        editions: their names; of MMEB-V3 also those of published means whose page labels nobody states.
        scores: what its tasks' scores are, in words.
        overall: the means over all that it has; models are ranked by the first.
        unions: further means over one or several modalities.
        spreads_frames: clips that have fewer frames than asked for are shown with as many, whatever the model says.
        whole_ranking: one reciprocal rank over the whole ranking instead of three within cut-offs, and a query without
            relevant candidates has a recall of 0 instead of 1.
        unsupported_count: a task that a model can't take counts 0 in every mean over it, as officially.
    """

    name: str
    editions: tuple[str, ...]
    scores: str
    overall: tuple[MeanRule, ...]
    unions: tuple[MeanRule, ...] = ()
    spreads_frames: bool = False
    whole_ranking: bool = False
    unsupported_count: bool = False


_ADDED: tuple[Modality, ...] = ("audio", "text", "tool", "gui", "memory")
MMEB_V2 = Benchmark(
    "MMEB-V2",
    editions=(PAGE_FIXED, V2_0_0, V2_0_1),
    scores="hit@1 (image, video) and ndcg_linear@5 (visdoc)",
    overall=(MeanRule("overall"),),
)
MMEB_V3 = Benchmark(
    "MMEB-V3",
    editions=(*V3_EDITIONS, *V3_SOURCES),
    scores="hit@1, but ndcg_linear@5 (visdoc, text)",
    overall=(
        MeanRule("V3-All", "190 tasks, text by nDCG@5, as the model cards have it"),
        MeanRule(
            "Overall-189",
            "189 tasks, all but MCMR, text by hit@1, as the leaderboard's Overall",
            without="I-MCR",
            text_metric="hit@1",
        ),
        MeanRule(
            "Overall-111",
            "111 tasks of text, audio and agent, text by hit@1, as the leaderboard's Overall-V3",
            modalities=_ADDED,
            text_metric="hit@1",
        ),
    ),
    unions=(
        MeanRule("text hit@1", "53 tasks by hit@1, as on the leaderboard", ("text",), text_metric="hit@1"),
        MeanRule("agent", "47 tasks of tool, gui and memory, not the mean of the three", ("tool", "gui", "memory")),
    ),
    spreads_frames=True,
    whole_ranking=True,
    unsupported_count=True,
)


Level = Literal["overall", "modality", "group"]


def level_of(mean: str) -> Level:
    """How wide a mean is, by its name."""
    rules = [rule for benchmark in (MMEB_V2, MMEB_V3) for rule in benchmark.overall]
    if mean in {rule.name for rule in rules}:
        return "overall"
    return "modality" if mean in {*MODALITIES, *(union.name for union in MMEB_V3.unions)} else "group"


def benchmark_of(edition: str) -> Benchmark:
    """The benchmark that an edition is of: MMEB-V3, or MMEB-V2, also for tasks of no edition."""
    return MMEB_V3 if edition in MMEB_V3.editions else MMEB_V2


@dataclass(frozen=True)
class MeanOver:
    """A mean and its tasks.

    Attributes:
        metrics: task → metric by which it counts.
        rule: in words, where it isn't the plain mean of main metrics over a group, a modality or all tasks.
        of_main_metrics: whether all tasks count by theirs.
        unsupported_count: a task that a model can't take counts 0.
    """

    name: str
    metrics: Mapping[str, str]
    rule: str
    of_main_metrics: bool
    unsupported_count: bool


def means_of(rows: Sequence[BenchmarkRow]) -> list[MeanOver]:
    """All means over these tasks: overall, modalities (and what they are together), groups, in the tasks' order."""
    benchmark = benchmark_of(rows[0].edition if rows else "")
    members: dict[str, list[BenchmarkRow]] = {}
    rules = {rule.name: rule for rule in (*benchmark.overall, *benchmark.unions)}
    for rule in benchmark.overall:
        members[rule.name] = [row for row in rows if rule.covers(row)]
    for row in rows:
        wider = [union.name for union in benchmark.unions if union.covers(row)]
        for name in (*wider, row.modality):
            members.setdefault(name, []).append(row)
    # MCMR stands last among the tasks, its group with the other images.
    by_modality = sorted(rows, key=lambda row: MODALITIES.index(row.modality)) if benchmark == MMEB_V3 else rows
    for row in by_modality:
        members.setdefault(row.group, []).append(row)
    return [_mean_over(rules.get(name, MeanRule(name)), of_it, benchmark) for name, of_it in members.items()]


def _mean_over(rule: MeanRule, rows: Sequence[BenchmarkRow], benchmark: Benchmark) -> MeanOver:
    return MeanOver(
        rule.name,
        {row.task: rule.metric_of(row) for row in rows},
        rule.rule,
        rule.text_metric is None,
        benchmark.unsupported_count,
    )
