"""Own runs, imported scores and published ones in one ranking, with how certain each place is.

`leaderboard` is a pure function of its entries; what it returns is all that any format shows (see
`leaderboard_formats`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mmeb_harness.core.benchmark import MMEB_V3, benchmark_of, level_of, means_of
from mmeb_harness.core.errors import OptionError, ResultError, leading
from mmeb_harness.core.registry import RegisteredTask, benchmark_edition
from mmeb_harness.results.files import Aggregate, unsupported_text
from mmeb_harness.results.published import SAME_MODEL
from mmeb_harness.results.scores import Origin, Scores, check_comparable, main_score, means_over
from mmeb_harness.show.compare import remarks
from mmeb_harness.show.contests import Contest, Entry, benchmark_contest, contests_of
from mmeb_harness.show.names import distinct_names, plain
from mmeb_harness.show.tables import NONE, UNSUPPORTED, milliseconds, percent, text_limit
from mmeb_harness.stats.places import Contender, Place, places
from mmeb_harness.stats.resampling import RESAMPLES

Value = str | float | int | None
Kind = Literal["score", "share", "tokens", "seconds", "count", "text"]
Block = Literal["overall", "groups", "tasks", "about"]

#: So many tasks that are not the benchmark's are all shown.
MOST_TASKS = 12
#: No count of parameters is a multiple of it by chance.
_ROUNDED = 10_000_000
#: Stands by the name of a model whose scores are of another edition than the table's.
OTHER_EDITION = "†"


@dataclass(frozen=True)
class Column:
    """What stands in one column.

    Attributes:
        key: in CSV and JSON.
        title: for people.
    """

    key: str
    title: str
    kind: Kind
    block: Block


@dataclass(frozen=True)
class Cell:
    """One model's value in one column.

    Attributes:
        value: a fraction, seconds, a count or text; `None` where there is none. Never rounded.
        best: whether no ranked model shows a better one, and some show a worse one.
        rank: among the ranked models, equal ones sharing the better; of scores only.
    """

    value: Value
    best: bool = False
    rank: int | None = None


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        rank: by the mean over all tasks; `None` of what must not be ranked.
        rank_interval: best and worst rank that 95 % of the resamples leave.
        ties: letters; models that share one can't be told apart by that mean.
        unranked: why it has no rank.
        tasks: how many of the benchmark's were scored.
        other_edition: than the table's.
        cells: a cell a column.
    """

    name: str
    rank: int | None
    rank_interval: tuple[int, int] | None
    ties: str
    unranked: str
    tasks: int
    edition: str
    other_edition: bool
    origin: Origin
    source: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Leaderboard:
    """What `mmeb-eval leaderboard` shows.

    Attributes:
        columns: of `Row.cells`.
        rows: the ranked ones, best first, then the others.
        notes: what a reader must know, a line each.
        part_of: column of a group or task → the group or modality that it is a part of.
    """

    title: str
    edition: str
    synthetic: bool
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    part_of: Mapping[str, str]

    @property
    def ranked(self) -> list[Row]:
        """Rows that have a rank."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def apart(self) -> list[Row]:
        """Rows that have none."""
        return [row for row in self.rows if row.rank is None]


def all_published(published: Sequence[Scores], edition: str) -> list[Scores]:
    """One published set of each model in an edition: its leaderboard row or only set, else the first there is.

    Of MMEB-V3 all: a model's values by several sources are several experiments.
    """
    of_edition: dict[str, list[Scores]] = {}
    for scores in published:
        if scores.edition == edition:
            apart = scores.name if benchmark_of(edition) == MMEB_V3 else scores.name.partition("@")[0]
            of_edition.setdefault(apart, []).append(scores)
    return [
        next((scores for scores in sets if scores.name == model), sets[0])
        for model, sets in of_edition.items()
        if SAME_MODEL.get(model) not in of_edition
    ]


def leaderboard(
    entries: Sequence[Entry],
    registered: Mapping[str, RegisteredTask],
    *,
    edition: str | None = None,
    allow_editions: bool = False,
    with_tasks: bool = False,
) -> Leaderboard:
    """Rank entries by their mean over all of the benchmark's tasks.

    Args:
        edition: of the table; default: that of `registered`.

    Raises:
        ResultError: they must not stand in one table, or a run's queries can't be read.
        OptionError: nothing to rank, or one of them twice.
    """
    edition = edition or benchmark_edition(registered.values())
    contest = benchmark_contest(entries, registered, edition)
    return _ranked(contest, allow_editions=allow_editions, with_tasks=with_tasks)


def leaderboards(
    entries: Sequence[Entry], *, editions: Sequence[str] = (), allow_editions: bool = False, with_tasks: bool = False
) -> tuple[Leaderboard, ...]:
    """A table for each edition, real data before made-up ones, then one for each data set of other tasks.

    Args:
        editions: the benchmark's; default: those that the entries have.
        allow_editions: rank all of them in one table, of the first edition, and mark the others.

    Raises:
        ResultError, OptionError: as `leaderboard`, or as `contests_of`.
        UnknownNameError: no such edition.
    """
    contests = contests_of(entries, editions, together=allow_editions)
    _check_any(entries)
    return tuple(_ranked(contest, allow_editions=allow_editions, with_tasks=with_tasks) for contest in contests)


def _ranked(contest: Contest, *, allow_editions: bool, with_tasks: bool) -> Leaderboard:
    contest = dataclasses.replace(contest, entries=tuple(_named_apart(contest.entries)))
    _check(contest, allow_editions=allow_editions)
    standings = [_standing(entry, contest) for entry in contest.entries]
    columns = _columns(contest, with_tasks=with_tasks)
    if not any(own.entry.scores.tasks for own in standings):  # published means are of a few things, never of all groups
        columns = [column for column in columns if column.block == "about" or _anybody_has(column, standings)]
    ranked = sorted((own for own in standings if not own.unranked), key=lambda own: (-_level(own.overall), own.name))
    apart = sorted((own for own in standings if own.unranked), key=lambda own: (-own.tasks, own.name))
    known = places([_contender(own, contest) for own in ranked], list(contest.members))
    cells = zip(*(_ranked_cells(column, ranked) for column in columns), strict=True)
    return Leaderboard(
        title=contest.title,
        edition=contest.edition,
        synthetic=contest.synthetic,
        columns=tuple(columns),
        rows=(
            *(_row(own, of_model, contest, place) for own, of_model, place in zip(ranked, cells, known, strict=True)),
            *(_row(own, [Cell(own.values[column.key]) for column in columns], contest) for own in apart),
        ),
        notes=tuple(_notes(contest, columns, ranked, known, apart)),
        part_of=_part_of(contest),
    )


@dataclass(frozen=True)
class _Standing:
    """An entry, what stands in its columns, and why it must not be ranked; `overall` is that by which it is."""

    entry: Entry
    values: Mapping[str, Value]
    mean: float | None
    tasks: int
    unranked: str

    @property
    def name(self) -> str:
        return self.entry.scores.name

    @property
    def overall(self) -> float:
        assert self.mean is not None  # of what may be ranked
        return self.mean


def _standing(entry: Entry, contest: Contest) -> _Standing:
    scores = entry.scores
    metrics = {task: member.metric for task, member in contest.members.items()}
    means = {mean.name: mean for mean in means_over(scores, contest.rows)}
    overall = means[contest.overall]
    return _Standing(
        entry=entry,
        values={
            **{
                _task_key(task, contest): UNSUPPORTED
                if task in scores.unsupported
                else main_score(scores, task, metric)
                for task, metric in metrics.items()
            },
            **{name: _mean_value(mean) for name, mean in means.items()},
            **_costs(entry),
            "edition": scores.edition or None,
            "profile": None if scores.profile is None else plain(scores.profile.name),
            "data_revision": scores.data_revision,
        },
        mean=overall.score,
        tasks=overall.tasks - overall.unsupported,
        unranked=_why_unranked(scores, overall),
    )


def _anybody_has(column: Column, standings: Iterable[_Standing]) -> bool:
    return any(own.values[column.key] is not None for own in standings)


def _mean_value(mean: Aggregate) -> Value:
    if not mean.complete:
        return None
    return UNSUPPORTED if 0 < mean.tasks == mean.unsupported else mean.score


def _costs(entry: Entry) -> dict[str, Value]:
    """How large the model is and what a run's queries took; `None` where nobody wrote it down."""
    run = entry.run
    if run is None:
        return {**dict.fromkeys(column.key for column in _COSTS), "parameters": entry.parameters}
    queries, latency = run.queries, run.latency_seconds.get("queries", {})
    return {
        "parameters": run.model_parameters,
        "reasoning_rate": queries.reasoning_rate if queries.items else None,
        "rationale_tokens": queries.tokens_per_reasoned if queries.reasoned else None,
        "latency_p50_seconds": latency.get("p50"),
        "latency_p95_seconds": latency.get("p95"),
    }


def _why_unranked(scores: Scores, overall: Aggregate) -> str:
    reasons = ["first queries of each task only"] if scores.limited else []
    if not overall.complete:
        of = overall.tasks + len(overall.missing)
        reasons.append(f"{overall.tasks} of {of} tasks, without {leading(overall.missing, most=3)}")
    return "; ".join(reasons)


def _ranked_cells(column: Column, ranked: Sequence[_Standing]) -> list[Cell]:
    """What the ranked models have in a column; the best are those whose digits, as shown, no other's are better than.

    Where all show the same, none is.
    """
    values = [standing.values[column.key] for standing in ranked]
    if column.kind != "score" and not (column.kind == "seconds" and _one_machine(ranked)):
        return [Cell(value) for value in values]
    sign = -1 if column.kind == "seconds" else 1
    levels = [sign * _level(value) for value in values if isinstance(value, float)]  # the larger the better
    texts = {shown(column.kind, value) for value in values if isinstance(value, float)}

    def cell(value: Value) -> Cell:
        if not isinstance(value, float):
            return Cell(value)
        rank = 1 + sum(level > sign * _level(value) for level in levels)
        best = len(texts) > 1 and shown(column.kind, value) == shown(column.kind, sign * max(levels))
        return Cell(value, best=best, rank=rank if column.kind == "score" else None)

    return [cell(value) for value in values]


def _level(value: float) -> float:
    """A value without what the order of a sum leaves in its last digits: that makes nobody better."""
    return round(value, 12)


def shown(kind: Kind, value: Value) -> str:
    """A value as all formats for people show it."""
    if not isinstance(value, (int, float)):
        return value or NONE
    if kind in ("score", "share"):
        return percent(value)
    if kind == "seconds":
        return milliseconds(value)
    return f"{value:,}" if kind == "count" else f"{value:.1f}"


def name_text(row: Row) -> str:
    """A model's name, with a mark where its scores are of another edition than the table's."""
    return f"{row.name} {OTHER_EDITION}" if row.other_edition else row.name


def interval_text(row: Row) -> str:
    """The ranks that other queries might have given it."""
    if row.rank_interval is None:
        return NONE
    best, worst = row.rank_interval
    return str(best) if best == worst else f"{best}–{worst}"


def _row(standing: _Standing, cells: Sequence[Cell], contest: Contest, place: Place | None = None) -> Row:
    scores = standing.entry.scores
    return Row(
        name=standing.name,
        rank=cells[0].rank,
        rank_interval=place.interval if place else None,
        ties=place.ties if place else "",
        unranked=standing.unranked,
        tasks=standing.tasks,
        edition=scores.edition,
        other_edition=_of_another_edition(scores, contest),
        origin=scores.origin,
        source=scores.source,
        cells=tuple(cells),
    )


def _of_another_edition(scores: Scores, contest: Contest) -> bool:
    return contest.of_benchmark and scores.edition != contest.edition


def _named_apart(entries: Sequence[Entry]) -> list[Entry]:
    shown = [
        dataclasses.replace(
            entry.scores,
            name=plain(entry.scores.name),
            source=plain(entry.scores.source),
            data_revision=None if entry.scores.data_revision is None else plain(entry.scores.data_revision),
            notes=tuple(plain(note) for note in entry.scores.notes),
        )
        for entry in entries
    ]
    return [
        dataclasses.replace(entry, scores=scores) for entry, scores in zip(entries, distinct_names(shown), strict=True)
    ]


def _check_any(entries: Sequence[Entry]) -> None:
    if not entries:
        raise OptionError(
            "nothing to rank; name a run's folder, a scores file, a --published model, or --all-published"
        )


def _check(contest: Contest, *, allow_editions: bool) -> None:
    entries = contest.entries
    _check_any(entries)
    twice = [name for name, count in Counter(entry.scores.name for entry in entries).items() if count > 1]
    if twice:
        raise OptionError(f"{', '.join(twice)}: the same scores are named twice; name them once")
    allowed = allow_editions or not contest.of_benchmark
    check_comparable([entry.scores for entry in entries], allow_editions=allowed)
    odd = {entry.scores.edition or "none" for entry in entries if _of_another_edition(entry.scores, contest)}
    if odd and not allowed:
        raise ResultError(
            f"these scores are of edition {', '.join(sorted(odd))}, this leaderboard is of {contest.edition}; "
            "choose --edition, or go on with --allow-editions"
        )


def _columns(contest: Contest, *, with_tasks: bool) -> list[Column]:
    """Means, tasks, costs, data. Of a few tasks all are shown, and no mean that another column shows already."""
    means = dict(contest.means)
    first = contest.overall
    with_tasks = with_tasks or (not contest.of_benchmark and len(contest.members) <= MOST_TASKS)
    if not contest.of_benchmark:
        most = len(contest.members)
        means = {name: tasks for name, tasks in means.items() if name == first or 1 < len(tasks) < most}
    return [
        Column(first, "All" if first == "overall" else first, "score", "overall"),
        *(Column(name, name, "score", _block_of(name, contest)) for name in means if name != first),
        *(Column(_task_key(task, contest), task, "score", "tasks") for task in contest.members if with_tasks),
        *_COSTS,
        *(column for column in _ABOUT if contest.of_benchmark or column.key != "edition"),
    ]


def _block_of(mean: str, contest: Contest) -> Block:
    """Modalities that are a mean together stand with the groups."""
    parts = {
        modality for union in contest.benchmark.unions if len(union.modalities) > 1 for modality in union.modalities
    }
    return "groups" if level_of(mean) == "group" or mean in parts else "overall"


def _task_key(task: str, contest: Contest) -> str:
    """A task's column; somebody's own task may bear the name of its group, or of another column."""
    taken = task in contest.means or any(task == column.key for column in (*_COSTS, *_ABOUT))
    return f"{task} (task)" if taken else task


def _part_of(contest: Contest) -> dict[str, str]:
    """Column of a modality, group or task → the wider mean that it is a part of."""
    groups = {member.group: str(member.modality) for member in contest.members.values()}
    groups = {group: modality for group, modality in groups.items() if group != modality}
    several = [union for union in contest.benchmark.unions if len(union.modalities) > 1]
    groups |= {modality: union.name for union in several for modality in union.modalities}
    return groups | {_task_key(task, contest): member.group for task, member in contest.members.items()}


_COSTS = (
    Column("parameters", "parameters", "count", "about"),
    Column("reasoning_rate", "reasoned", "share", "about"),
    Column("rationale_tokens", "tokens", "tokens", "about"),
    Column("latency_p50_seconds", "p50 ms", "seconds", "about"),
    Column("latency_p95_seconds", "p95 ms", "seconds", "about"),
)
_ABOUT = (
    Column("edition", "edition", "text", "about"),
    Column("profile", "profile", "text", "about"),
    Column("data_revision", "data", "text", "about"),
)


def _contender(standing: _Standing, contest: Contest) -> Contender:
    values = {task: standing.values[_task_key(task, contest)] for task in contest.members}
    return Contender(
        name=standing.name,
        overall=standing.overall,
        scores={task: score for task, score in values.items() if isinstance(score, float)},
        num_queries={task: _num_queries(standing.entry.scores, task, contest) for task in contest.members},
        queries=standing.entry.queries,
        unsupported=frozenset(standing.entry.scores.unsupported),
    )


def _num_queries(scores: Scores, name: str, contest: Contest) -> int:
    """Over how many queries a task was scored; where nobody says, over one: no number leaves more to chance."""
    return _stated_queries(scores, name, contest) or 1


def _stated_queries(scores: Scores, name: str, contest: Contest) -> int | None:
    task = scores.tasks.get(name)
    return (task.num_queries if task else None) or contest.members[name].num_queries


def _one_machine(standings: Sequence[_Standing]) -> bool:
    """Whether all that were timed were timed on the same kind of machine."""
    runs = [standing.entry.run for standing in standings if standing.values["latency_p50_seconds"] is not None]
    machines = [run.machine for run in runs if run is not None]
    return all(machine == machines[0] for machine in machines)


def _notes(
    contest: Contest,
    columns: Sequence[Column],
    ranked: Sequence[_Standing],
    known: Sequence[Place],
    apart: Sequence[_Standing],
) -> list[str]:
    standings = [*ranked, *apart]
    scores = [standing.entry.scores for standing in standings]
    lines = [
        *_about_scores(contest),
        *_about_unsupported(standings),
        *_about_experiments(contest),
        *(_about_places(ranked, known, columns[0].title) if len(ranked) > 1 else []),
        *(_about_counts(ranked, contest) if len(ranked) > 1 else []),
        *_about_cost(standings),
        *(line for line in remarks(scores) if contest.of_benchmark or not line.startswith("editions")),
    ]
    if odd := [own.name for own in scores if _of_another_edition(own, contest)]:
        lines.append(f"{OTHER_EDITION} of another edition than {contest.edition}: {', '.join(odd)}.")
    noted: dict[str, list[str]] = {}
    for own in scores:
        for note in own.notes:
            noted.setdefault(note, []).append(own.name)
    return lines + [f"{', '.join(names)}: {note}" for note, names in noted.items()]


def _about_scores(contest: Contest) -> list[str]:
    if contest.of_benchmark:
        rules = [f"{over.name}: {over.rule}." for over in means_of(contest.rows) if over.rule]
        limits: dict[str, list[str]] = {}
        for entry in contest.entries if contest.benchmark == MMEB_V3 else ():
            limits.setdefault(text_limit(entry.scores.profile), []).append(entry.scores.name)
        texts = [f"{limit}: {', '.join(names)}." for limit, names in limits.items()]
        return [f"scores: plain means over tasks of {contest.benchmark.scores}, in %.", *rules, *texts]
    metrics: dict[str, list[str]] = {}
    for task, member in contest.members.items():
        metrics.setdefault(member.metric, []).append(task)
    several = len(metrics) > 1
    each = [f"{metric} ({leading(tasks)})" if several else metric for metric, tasks in metrics.items()]
    return [f"scores: plain means over tasks of {' and '.join(each)}, in %."]


def _about_experiments(contest: Contest) -> Iterable[str]:
    if contest.benchmark == MMEB_V3 and any(entry.scores.origin == "published" for entry in contest.entries):
        others = [edition for edition in MMEB_V3.editions if edition != contest.edition]
        yield (
            "published scores of MMEB-V3 are not of one experiment: each row is of the one after its @. Those of other "
            f"pages or sources are in tables of their own: --edition {', '.join(others)}."
        )


def _about_unsupported(standings: Iterable[_Standing]) -> Iterable[str]:
    for standing in standings:
        if unsupported := standing.entry.scores.unsupported:
            counts = ", which count 0" if benchmark_of(standing.entry.scores.edition).unsupported_count else ""
            yield f"{standing.name}: unsupported by the model: {unsupported_text(unsupported)}{counts}."


def _about_places(ranked: Sequence[_Standing], known: Sequence[Place], overall: str) -> list[str]:
    lines = [
        f"rank 95 %: best and worst rank by {overall} that 95 % of {RESAMPLES:,} resamples of the queries leave. The "
        "tasks are held fixed, and what another run of the same model would change is not in it.",
        f"ties: models that share a letter can't be told apart by {overall}: the 95 % interval of their difference "
        "holds zero, each pair by itself.",
    ]
    whole = [own for own in ranked if own.entry.queries is not None]
    alone = [own for own, place in zip(ranked, known, strict=True) if own in whole and not place.clustered]
    bound = [own for own in ranked if own.entry.queries is None]
    means_only = [own for own in bound if not own.entry.scores.tasks]
    if whole:
        lines.append(
            f"{_listed(whole, ranked)}: the queries themselves are resampled, those of one picture, video or page "
            "together, the same draws for all such runs."
        )
    if alone:
        lines.append(
            f"{_listed(alone, ranked)}: results of an earlier release, which don't say what queries show; there each "
            "is resampled by itself, and the intervals may be too narrow."
        )
    if bound:
        lines.append(
            f"{_listed(bound, ranked)}: single queries are not known. Drawn by itself, with the variance of hit@1 over "
            "as many queries as the task has: none is larger while queries are independent, so the intervals are wide "
            "rather than narrow; that several queries share a picture, video or page can't be told."
        )
    if means_only:
        lines.append(f"{_listed(means_only, ranked)}: no scores of tasks either; each is drawn as if at 50 %.")
    return lines


def _about_counts(ranked: Sequence[_Standing], contest: Contest) -> Iterable[str]:
    unstated = {
        task: [
            own for own in ranked if own.entry.queries is None and not _stated_queries(own.entry.scores, task, contest)
        ]
        for task in contest.members
    }
    if tasks := [task for task, of in unstated.items() if of]:
        some = [own for own in ranked if any(own in of for of in unstated.values())]
        yield (
            f"{_listed(some, ranked)}: over how many queries is not known of {leading(tasks, most=3)}; drawn as if "
            "over one, so the intervals are wide."
        )


def _about_cost(standings: Sequence[_Standing]) -> Iterable[str]:
    if sized := [own for own in standings if own.entry.run is None and own.entry.parameters is not None]:
        rounded = [own.name for own in sized if not (own.entry.parameters or 0) % _ROUNDED]
        also = f"; rounded there: {', '.join(rounded)}" if rounded else ""
        yield f"parameters of published models: as their sources say (published/models.csv){also}."
    if any(standing.values[column.key] is not None for standing in standings for column in _COSTS[1:]):
        yield (
            "reasoned, tokens: share of queries that reasoned, in %, and generated tokens of these. "
            "p50, p95: latency of a query in its batch."
        )
    if not _one_machine(standings):
        yield "machines differ: latencies are not compared."


def _listed(some: Sequence[_Standing], ranked: Sequence[_Standing]) -> str:
    return "all models" if len(some) == len(ranked) else ", ".join(standing.name for standing in some)
