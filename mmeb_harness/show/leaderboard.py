"""Own runs, imported scores and published ones in one ranking, with how certain each place is.

`leaderboard` is a pure function of its entries; what it returns is all that any format shows (see
`leaderboard_formats`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mmeb_harness.core.errors import OptionError, ResultError, UnknownNameError, leading
from mmeb_harness.core.items import MODALITIES
from mmeb_harness.core.registry import RegisteredTask, benchmark_edition, benchmark_rows, load_tasks
from mmeb_harness.results.files import Aggregate, RunResult, benchmark_members
from mmeb_harness.results.official_names import OFFICIAL_EDITIONS
from mmeb_harness.results.scores import (
    Origin,
    Scores,
    check_comparable,
    load_scores,
    main_score,
    means,
    read_run,
    scores_of_results,
)
from mmeb_harness.show.compare import distinct_names, remarks
from mmeb_harness.stats.places import Contender, Place, places
from mmeb_harness.stats.queries import QueryScores, has_queries, read_queries
from mmeb_harness.stats.resampling import RESAMPLES

Value = str | float | int | None
Kind = Literal["score", "share", "tokens", "seconds", "count", "text"]
Block = Literal["overall", "groups", "tasks", "about"]

#: Stands by the name of a model whose scores are of another edition than the table's.
OTHER_EDITION = "†"
#: Published means, to the tenth of a point, of models that have a set of all tasks under another name;
#: tests/test_published.py holds the two against each other.
SAME_MODEL: Mapping[str, str] = {
    "VLM2Vec-V2": "VLM2Vec-V2.0-Qwen2VL-2B",
    "VLM2Vec-2B": "VLM2Vec-V1-Qwen2VL-2B",
    "GME-2B": "gme-Qwen2-VL-2B-Instruct",
    "GME-7B": "gme-Qwen2-VL-7B-Instruct",
}


@dataclass(frozen=True)
class Entry:
    """What wants a row.

    Attributes:
        run: what it was and took, if it is one.
        queries: reads a task's queries; `None` where they are not known.
    """

    scores: Scores
    run: RunResult | None = None
    queries: Callable[[str], QueryScores] | None = None


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
        best: whether no ranked model has a better one.
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
    """

    title: str
    edition: str
    synthetic: bool
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def ranked(self) -> list[Row]:
        """Rows that have a rank."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def apart(self) -> list[Row]:
        """Rows that have none."""
        return [row for row in self.rows if row.rank is None]


def load_entry(path: Path) -> Entry:
    """A run's folder, or a file that `mmeb-eval import` wrote.

    Raises:
        ResultError: it is neither, or the run isn't finished.
    """
    if not path.is_dir():
        return Entry(load_scores(path))
    run, results = read_run(path)
    by_name = {result.name: result for result in results}
    return Entry(
        scores=scores_of_results(path, run, results),
        run=run,
        queries=(lambda task: read_queries(path, by_name[task])) if has_queries(path) else None,
    )


def tasks_of_edition(edition: str | None) -> dict[str, RegisteredTask]:
    """The tasks that a leaderboard of an edition covers.

    Raises:
        UnknownNameError: no such edition.
    """
    try:
        return load_tasks(edition)
    except UnknownNameError:
        if edition not in OFFICIAL_EDITIONS:
            raise
    # v2.0.1 was never run here; its 78 tasks have as many queries as the default edition's.
    return load_tasks()


def all_published(published: Sequence[Scores], edition: str) -> list[Scores]:
    """One published set of each model in an edition: its leaderboard row or only set, else the first there is."""
    of_edition: dict[str, list[Scores]] = {}
    for scores in published:
        if scores.edition == edition:
            of_edition.setdefault(scores.name.partition("@")[0], []).append(scores)
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
    entries = _named_apart(entries)
    _check(entries, edition, allow_editions=allow_editions)
    standings = [_standing(entry, registered) for entry in entries]
    ranked = sorted((own for own in standings if not own.unranked), key=lambda own: (-own.overall, own.name))
    apart = sorted((own for own in standings if own.unranked), key=lambda own: (-own.tasks, own.name))
    known = places([_contender(own, registered) for own in ranked], _names(registered))
    columns = _columns(registered, with_tasks=with_tasks)
    cells = zip(*(_ranked_cells(column, ranked) for column in columns), strict=True)
    return Leaderboard(
        title=_title(entries, edition),
        edition=edition,
        synthetic=entries[0].scores.synthetic,
        columns=tuple(columns),
        rows=(
            *(_row(own, of_model, edition, place) for own, of_model, place in zip(ranked, cells, known, strict=True)),
            *(_row(own, [Cell(own.values[column.key]) for column in columns], edition) for own in apart),
        ),
        notes=tuple(_notes(ranked, known, apart, edition)),
    )


@dataclass(frozen=True)
class _Standing:
    """An entry, what stands in its columns, and why it must not be ranked."""

    entry: Entry
    values: Mapping[str, Value]
    tasks: int
    unranked: str

    @property
    def name(self) -> str:
        return self.entry.scores.name

    @property
    def overall(self) -> float:
        overall = self.values["overall"]
        assert isinstance(overall, float)  # of what may be ranked
        return overall


def _standing(entry: Entry, registered: Mapping[str, RegisteredTask]) -> _Standing:
    by_name = {mean.name: mean for mean in means(entry.scores, registered.values())}
    overall = by_name["overall"]
    return _Standing(
        entry=entry,
        values={
            **{name: main_score(entry.scores, registered[name].task) for name in _names(registered)},
            **{name: mean.score if mean.complete else None for name, mean in by_name.items()},
            **_costs(entry.run),
            "edition": entry.scores.edition or None,
            "profile": None if entry.scores.profile is None else plain(entry.scores.profile.name),
            "data_revision": entry.scores.data_revision,
        },
        tasks=overall.tasks,
        unranked=_why_unranked(entry.scores, overall),
    )


def _costs(run: RunResult | None) -> dict[str, Value]:
    """What a run's queries took; `None` where nobody wrote it down."""
    if run is None:
        return dict.fromkeys(column.key for column in _COSTS)
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
    """What the ranked models have in a column, and which value is the best, where one is better than another."""
    values = [standing.values[column.key] for standing in ranked]
    if column.kind != "score" and not (column.kind == "seconds" and _one_machine(ranked)):
        return [Cell(value) for value in values]
    sign = -1 if column.kind == "seconds" else 1
    levels = [sign * value for value in values if isinstance(value, float)]  # the larger the better

    def cell(value: Value) -> Cell:
        if not isinstance(value, float):
            return Cell(value)
        rank = 1 + sum(level > sign * value for level in levels)
        return Cell(value, best=rank == 1 and len(levels) > 1, rank=rank if column.kind == "score" else None)

    return [cell(value) for value in values]


def _row(standing: _Standing, cells: Sequence[Cell], edition: str, place: Place | None = None) -> Row:
    scores = standing.entry.scores
    return Row(
        name=standing.name,
        rank=cells[0].rank,
        rank_interval=place.interval if place else None,
        ties=place.ties if place else "",
        unranked=standing.unranked,
        tasks=standing.tasks,
        edition=scores.edition,
        other_edition=scores.edition != edition,
        origin=scores.origin,
        source=scores.source,
        cells=tuple(cells),
    )


def plain(text: str) -> str:
    """Text from files on one line, without what a terminal or browser would obey rather than show."""
    shown = "".join(" " if mark.isspace() else mark if mark.isprintable() else "\ufffd" for mark in text)
    return " ".join(shown.split()) or "unnamed"


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


def _check(entries: Sequence[Entry], edition: str, *, allow_editions: bool) -> None:
    if not entries:
        raise OptionError(
            "nothing to rank; name a run's folder, a scores file, a --published model, or --all-published"
        )
    twice = [name for name, count in Counter(entry.scores.name for entry in entries).items() if count > 1]
    if twice:
        raise OptionError(f"{', '.join(twice)}: the same scores are named twice; name them once")
    check_comparable([entry.scores for entry in entries], allow_editions=allow_editions)
    odd = sorted({entry.scores.edition or "none" for entry in entries if entry.scores.edition != edition})
    if odd and not allow_editions:
        raise ResultError(
            f"these scores are of edition {', '.join(odd)}, this leaderboard is of {edition}; "
            "choose --edition, or go on with --allow-editions"
        )


def _names(registered: Mapping[str, RegisteredTask]) -> list[str]:
    return [name for name, _, _ in benchmark_rows(registered.values())]


def _columns(registered: Mapping[str, RegisteredTask], *, with_tasks: bool) -> list[Column]:
    members = list(benchmark_members(benchmark_rows(registered.values())))
    return [
        Column("overall", "All", "score", "overall"),
        *(Column(name, name, "score", "overall") for name in members if name in MODALITIES),
        *(Column(name, name, "score", "groups") for name in members if name not in ("overall", *MODALITIES)),
        *(Column(name, name, "score", "tasks") for name in _names(registered) if with_tasks),
        *_COSTS,
        Column("edition", "edition", "text", "about"),
        Column("profile", "profile", "text", "about"),
        Column("data_revision", "data", "text", "about"),
    ]


_COSTS = (
    Column("parameters", "parameters", "count", "about"),
    Column("reasoning_rate", "reasoned", "share", "about"),
    Column("rationale_tokens", "tokens", "tokens", "about"),
    Column("latency_p50_seconds", "p50 ms", "seconds", "about"),
    Column("latency_p95_seconds", "p95 ms", "seconds", "about"),
)


def _contender(standing: _Standing, registered: Mapping[str, RegisteredTask]) -> Contender:
    names = _names(registered)
    return Contender(
        name=standing.name,
        overall=standing.overall,
        scores={name: score for name in names if isinstance(score := standing.values[name], float)},
        num_queries={name: _num_queries(standing.entry.scores, registered[name]) for name in names},
        queries=standing.entry.queries,
    )


def _num_queries(scores: Scores, registered: RegisteredTask) -> int:
    task = scores.tasks.get(registered.task.name)
    count = (task.num_queries if task else None) or registered.task.num_queries
    if count is None:
        raise ResultError(f"{scores.name}: over how many queries {registered.task.name} was scored is not known")
    return count


def _one_machine(standings: Sequence[_Standing]) -> bool:
    """Whether all that were timed were timed on the same kind of machine."""
    runs = [standing.entry.run for standing in standings if standing.values["latency_p50_seconds"] is not None]
    machines = [run.machine for run in runs if run is not None]
    return all(machine == machines[0] for machine in machines)


def _title(entries: Sequence[Entry], edition: str) -> str:
    if entries[0].scores.synthetic:
        return f"Synthetic data, edition {edition}: these are not MMEB-V2 scores"
    return f"MMEB-V2, edition {edition}"


def _notes(ranked: Sequence[_Standing], known: Sequence[Place], apart: Sequence[_Standing], edition: str) -> list[str]:
    standings = [*ranked, *apart]
    scores = [standing.entry.scores for standing in standings]
    lines = [
        "scores: plain means over tasks of hit@1 (image, video) and ndcg_linear@5 (visdoc), in %.",
        *(_about_places(ranked, known) if len(ranked) > 1 else []),
        *_about_cost(standings),
        *remarks(scores),
    ]
    if odd := [own.name for own in scores if own.edition != edition]:
        lines.append(f"{OTHER_EDITION} of another edition than {edition}: {', '.join(odd)}.")
    noted: dict[str, list[str]] = {}
    for own in scores:
        for note in own.notes:
            noted.setdefault(note, []).append(own.name)
    return lines + [f"{', '.join(names)}: {note}" for note, names in noted.items()]


def _about_places(ranked: Sequence[_Standing], known: Sequence[Place]) -> list[str]:
    lines = [
        f"rank 95 %: best and worst rank by All that 95 % of {RESAMPLES:,} resamples of the queries leave. The tasks "
        "are held fixed, and what another run of the same model would change is not in it.",
        "ties: models that share a letter can't be told apart by All: the 95 % interval of their difference holds "
        "zero, each pair by itself.",
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


def _about_cost(standings: Sequence[_Standing]) -> Iterable[str]:
    if any(standing.values[column.key] is not None for standing in standings for column in _COSTS):
        yield (
            "reasoned, tokens: share of queries that reasoned, in %, and generated tokens of these. "
            "p50, p95: latency of a query in its batch."
        )
    if not _one_machine(standings):
        yield "machines differ: latencies are not compared."


def _listed(some: Sequence[_Standing], ranked: Sequence[_Standing]) -> str:
    return "all models" if len(some) == len(ranked) else ", ".join(standing.name for standing in some)
