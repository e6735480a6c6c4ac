"""Which entries stand in one table: those of an edition of the benchmark, or those of other tasks on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmeb_harness.core.benchmark import (
    MMEB_V2,
    MMEB_V3,
    V3,
    V3_SOURCES,
    Benchmark,
    BenchmarkRow,
    benchmark_of,
    level_of,
    means_of,
)
from mmeb_harness.core.errors import ResultError, UnknownNameError, leading
from mmeb_harness.core.items import Modality
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask, load_tasks
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.results.files import RunResult, TaskResult
from mmeb_harness.results.published import published_sizes
from mmeb_harness.results.scores import Scores, load_scores, read_run, scores_of_results
from mmeb_harness.stats.queries import QueryScores, has_queries, read_queries

#: What the benchmark's own data are called.
BENCHMARK_DATA = DataInfo.name


@dataclass(frozen=True)
class Entry:
    """What wants a row.

    Attributes:
        run: what it was and took, if it is one.
        queries: reads a task's queries; `None` where they are not known.
        results: of a run's tasks, by name.
        parameters: of the model, where they are known and no run says so.
    """

    scores: Scores
    run: RunResult | None = None
    queries: Callable[[str], QueryScores] | None = None
    results: Mapping[str, TaskResult] | None = None
    parameters: int | None = None


@dataclass(frozen=True)
class Member:
    """A task of a table.

    Attributes:
        metric: the main one.
        num_queries: where declared.
        edition: of the benchmark; "" for a task of none.
    """

    modality: Modality
    group: str
    metric: str
    num_queries: int | None
    edition: str


@dataclass(frozen=True)
class Contest:
    """What one table is about, and who takes part.

    Attributes:
        edition: of the benchmark; "" if these are not its tasks.
        data: what the tasks' data are called.
        members: task → what it is, in the table's order.
    """

    edition: str
    data: str
    members: Mapping[str, Member]
    entries: tuple[Entry, ...]

    @property
    def of_benchmark(self) -> bool:
        """Whether these are the benchmark's tasks."""
        return bool(self.edition)

    @property
    def synthetic(self) -> bool:
        """Whether the data are made up."""
        return any(entry.scores.synthetic for entry in self.entries)

    @property
    def title(self) -> str:
        """What stands over the table."""
        if not self.of_benchmark:
            name = self.data if self.data not in ("", BENCHMARK_DATA) else f"Tasks that are not {BENCHMARK_DATA}'s"
            return f"{name}, synthetic" if self.synthetic else name
        if self.synthetic:
            return f"Synthetic data, edition {self.edition}: these are not {self.benchmark.name} scores"
        return f"{self.benchmark.name}, edition {self.edition}"

    @property
    def benchmark(self) -> Benchmark:
        """What the edition is of."""
        return benchmark_of(self.edition)

    @cached_property
    def rows(self) -> list[BenchmarkRow]:
        """All its tasks, as means are made of them."""
        return rows_of(self.members)

    @cached_property
    def means(self) -> Mapping[str, Sequence[str]]:
        """Those over all tasks, the modalities, the groups → names of their tasks."""
        return {over.name: list(over.metrics) for over in means_of(self.rows)}

    @cached_property
    def overall(self) -> str:
        """Name of the mean by which models are ranked: the first; of published means alone the first that they have."""
        wide = [name for name in self.means if level_of(name) == "overall"]
        published = [entry.scores.means for entry in self.entries if not entry.scores.tasks]
        whole = len(published) < len(self.entries)
        return next((name for name in wide if whole or any(name in means for means in published)), wide[0])


def rows_of(members: Mapping[str, Member]) -> list[BenchmarkRow]:
    """The tasks of a table, as means are made of them."""
    return [
        BenchmarkRow(name, member.modality, member.group, member.metric, member.edition)
        for name, member in members.items()
    ]


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
        results=by_name,
    )


def published_entry(scores: Scores) -> Entry:
    """A published set, with the size of its model where somebody says it."""
    return Entry(scores, parameters=published_sizes().get(scores.name.partition("@")[0]))


def tasks_of_edition(edition: str | None) -> dict[str, RegisteredTask]:
    """The tasks that a leaderboard of an edition covers.

    Raises:
        UnknownNameError: no such edition.
    """
    try:
        return load_tasks(edition)
    except UnknownNameError:
        if edition not in (*MMEB_V2.editions, *MMEB_V3.editions):
            raise
    # v2.0.1 was never run here; its 78 tasks have as many queries as the default edition's. Nor were published means.
    return load_tasks(V3 if edition in V3_SOURCES else None)


def benchmark_contest(entries: Sequence[Entry], registered: Mapping[str, RegisteredTask], edition: str) -> Contest:
    """All of these entries, on the benchmark's tasks."""
    return Contest(edition, BENCHMARK_DATA, benchmark_tasks(registered), tuple(entries))


def benchmark_tasks(registered: Mapping[str, RegisteredTask]) -> dict[str, Member]:
    """Those of the benchmark, by name, in its order."""
    return {name: _member(row) for name, row in registered.items() if row.collection == BENCHMARK}


def benchmark_to_compare(entries: Sequence[Entry]) -> dict[str, Member]:
    """The benchmark's tasks, of the edition of the first entry that has a score of it."""
    registered = _tasks_of_all_editions()
    first = next((entry.scores for entry in entries if _on_benchmark(entry, registered)), None)
    return benchmark_tasks(tasks_of_edition((first and first.edition) or None))


def tasks_to_compare(entries: Sequence[Entry]) -> dict[str, Member]:
    """The benchmark's, if one of the entries has a score of it; else all that the entries have."""
    registered = _tasks_of_all_editions()
    if any(_on_benchmark(entry, registered) for entry in entries):
        return benchmark_to_compare(entries)
    return {name: member for entry in entries for name, member in _other_members(entry, registered)}


def _tasks_of_all_editions() -> dict[str, RegisteredTask]:
    """What a name stands for, whatever the edition: those of the default one as they are there."""
    return load_tasks(V3) | load_tasks()


def contests_of(entries: Sequence[Entry], editions: Sequence[str], *, together: bool) -> list[Contest]:
    """Entries by what they can be ranked on: made-up data apart, each edition, each data set of other tasks.

    One that has tasks of several kinds takes part in several.

    Args:
        editions: of which the benchmark's tables are to be; none: those that the entries have.
        together: all editions in one table, of the first of them.

    Raises:
        ResultError: an entry of none of the editions that are asked for, or of tasks that nobody knows.
        UnknownNameError: no such edition.
    """
    registered = _tasks_of_all_editions()
    whole = [entry for entry in entries if _on_benchmark(entry, registered)]
    default = next(row.task.edition for row in registered.values() if row.collection == BENCHMARK)
    own = dict.fromkeys(entry.scores.edition or default for entry in whole)
    shown = list(editions) or sorted(own, key=lambda edition: (edition != default, edition)) or [default]
    contests = []
    for edition in shown[:1] if together else shown:
        tasks = tasks_of_edition(edition)
        for synthetic in (False, True):
            fits = [
                entry
                for entry in whole
                if entry.scores.synthetic == synthetic and (together or (entry.scores.edition or default) == edition)
            ]
            contests += [benchmark_contest(fits, tasks, edition)] if fits else []
    if not together and (odd := [entry for entry in whole if (entry.scores.edition or default) not in shown]):
        raise ResultError(
            f"{leading([entry.scores.name for entry in odd])}: of edition "
            f"{', '.join(dict.fromkeys(entry.scores.edition for entry in odd))}, this leaderboard is of "
            f"{', '.join(shown)}; choose --edition, or go on with --allow-editions"
        )
    others = _other_contests(entries, registered)
    if unknown := [entry for entry in entries if not any(entry in contest.entries for contest in contests + others)]:
        raise ResultError(
            f"{unknown[0].scores.name}: no installed package has its tasks ({leading(list(unknown[0].scores.tasks))}), "
            "so what they are ranked by isn't known; install what brings them"
        )
    return sorted(contests, key=lambda contest: contest.synthetic) + others


def other_metrics(entries: Sequence[Entry]) -> dict[str, str]:
    """Tasks of these entries that are not the benchmark's → main metric."""
    registered = _tasks_of_all_editions()
    return {task: own.metric for entry in entries for task, own in _other_members(entry, registered)}


def _member(registered: RegisteredTask) -> Member:
    task = registered.task
    return Member(task.modality, task.group, task.metric, task.num_queries, task.edition)


def _on_benchmark(entry: Entry, registered: Mapping[str, RegisteredTask]) -> bool:
    """Whether it has a score of the benchmark; what has none at all lacks all of its tasks."""
    tasks = entry.scores.tasks
    of_it = any(name in registered and registered[name].collection == BENCHMARK for name in tasks)
    return of_it or bool(entry.scores.means) or not tasks


def _other_contests(entries: Sequence[Entry], registered: Mapping[str, RegisteredTask]) -> list[Contest]:
    """A table for each data set whose tasks are not the benchmark's."""
    members: dict[tuple[bool, str], dict[str, Member]] = {}
    who: dict[tuple[bool, str], list[Entry]] = {}
    for entry in entries:
        if own := dict(_other_members(entry, registered)):
            key = entry.scores.synthetic, BENCHMARK_DATA if entry.run is None else entry.run.data
            members.setdefault(key, {}).update(own)
            who.setdefault(key, []).append(entry)
    return [Contest("", key[1], members[key], tuple(who[key])) for key in sorted(who)]


def _other_members(entry: Entry, registered: Mapping[str, RegisteredTask]) -> Iterable[tuple[str, Member]]:
    for name in entry.scores.tasks:
        known = registered.get(name)
        if known is not None and known.collection == BENCHMARK:
            continue
        result = (entry.results or {}).get(name)
        if result is not None:
            yield name, Member(result.modality, result.group, result.metric, None, result.edition)
        elif known is not None:
            yield name, _member(known)
