"""Official results, read back: score files, rankings and submission files of the benchmark's own code.

<path>/[<modality>/]<task>_score.json    means over a task's queries: 24 metrics, num_pred, num_data
<path>/[<modality>/]<task>_pred.jsonl    a line a query: {"prediction": ids, best first, "label": id or ids,
                                         "rel_scores": null, or a grade a label}
<file>.json                              a submission: {"metadata": …, "metrics": {modality: {task: metrics}}}

Metrics this release doesn't know are left aside; whatever else is odd is refused, by file, task and key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb_harness.core.errors import ResultError, UnknownNameError, shortened
from mmeb_harness.core.files import matching, parse_json, read_json, regular_file
from mmeb_harness.core.items import MODALITIES, Item, Modality, Samples
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.metrics import METRIC_NAMES, query_metrics, set_order_gains
from mmeb_harness.results.files import fraction
from mmeb_harness.results.official_names import (
    FIXED_SUFFIX,
    MISSING_MARKS,
    MOMENT_SEEKER,
    MOMENT_SEEKER_QUERIES,
    OFFICIAL_EDITIONS,
    OLD_MOMENT_SEEKER,
    PAGE_FIXED,
    PAGE_TASKS,
    V2_0_0,
    V2_0_1,
    is_fixed_key,
    task_of_key,
)
from mmeb_harness.results.scores import Scores, TaskScore

SCORE_SUFFIX = "_score.json"
RANKING_SUFFIX = "_pred.jsonl"
_SUFFIXES = (SCORE_SUFFIX, RANKING_SUFFIX)
#: Entries that a note names; the others are counted.
NAMED = 8
#: A score file and the rankings beside it say the same if they differ by no more.
TOLERANCE = 1e-6
#: How a reason begins that is less than a proof.
ASSUMED = "assumed"

_AGAIN = "get the file again"
#: Of a relevance: gains of a ranking are summed up.
_HIGHEST_GRADE = 1e9
#: Tasks behind which editions have other rows.
_DIFFERING = {*PAGE_TASKS, MOMENT_SEEKER, OLD_MOMENT_SEEKER}


@dataclass(frozen=True)
class Rankings:
    """What a `_pred.jsonl` amounts to: means over its queries.

    Attributes:
        official: as the official code computes them, with grades in the order of a Python set.
        corrected: with every grade on its own label.
        undefined: queries whose official nDCG depends on PYTHONHASHSEED (unequal grades on string ids). It was
            some value that can't be had again: in `official` their grades stay on their labels.
        first_labels: of the first query.
    """

    num_queries: int
    official: Mapping[str, float]
    corrected: Mapping[str, float]
    undefined: int
    first_labels: tuple[str, ...] = ()


@dataclass
class OfficialResults:
    """Official files as they stand, before their names are the benchmark's.

    Attributes:
        is_submission: whether it is one file of all tasks, whose keys say more than those of a folder.
        entries: key, as spelled there → scores.
        modality_of: key → the modality it stands under, where the files say so.
        missing: key → the mark that stands in place of scores.
        undefined, first_labels: key → see `Rankings`.
    """

    name: str
    is_submission: bool
    entries: dict[str, TaskScore] = field(default_factory=dict)
    modality_of: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    undefined: dict[str, int] = field(default_factory=dict)
    first_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Of all that has scores or lacks them."""
        return [*self.entries, *self.missing]


def import_scores(
    path: Path, registered: Iterable[RegisteredTask], *, name: str | None = None, edition: str | None = None
) -> Scores:
    """Read a folder of official results, or a submission file.

    Args:
        registered: the tasks known; those of the benchmark are taken, any other entry is named in the notes.
        name: of the model; default: the submission's own, or the folder's name.
        edition: of the data, where the files can't tell.

    Raises:
        ResultError: files are missing, broken or contradict one another, or the edition can't be told.
    """
    tasks = {row.task.name: row.task for row in registered if row.collection == BENCHMARK}
    results = _read(path, tasks)
    own_edition, reasons = edition_of(results, edition, str(path), tasks)
    chosen = _chosen_keys(results, own_edition)
    _check_modalities(results, chosen, tasks)
    scored = {task: results.entries[chosen[task]] for task in tasks if task in chosen}
    odd = odd_counts(scored, tasks, own_edition)
    return Scores(
        name=name or results.name,
        edition=own_edition,
        origin="imported",
        source=str(path),
        tasks={task: score for task, score in scored.items() if task not in odd},
        notes=tuple(_notes(results, chosen, scored, odd, own_edition, None if edition else reasons)),
    )


def _read(path: Path, tasks: Mapping[str, Task]) -> OfficialResults:
    """A folder, one task's score file or rankings, or a submission file."""
    if path.is_dir():
        return read_folder(path, tasks)
    if path.name.endswith(_SUFFIXES):
        results = OfficialResults(_key_of(path), is_submission=False)
        _add_task(results, path.parent, results.name, tasks)
        return results
    return read_submission(path, tasks)


def read_submission(path: Path, tasks: Mapping[str, Task]) -> OfficialResults:
    """Read what a submission file holds.

    Raises:
        ResultError: it isn't one, or a value in it is no score.
    """
    values = read_json(path, way_out=_AGAIN)
    metrics = values.get("metrics") if isinstance(values, dict) else None
    if not isinstance(metrics, dict):
        raise ResultError(f"{path} is no submission file (no metrics); name such a file, or a folder of score files")
    metadata = values.get("metadata")
    name = metadata.get("model_name") if isinstance(metadata, dict) else None
    results = OfficialResults(name if isinstance(name, str) else path.stem, is_submission=True)
    modalities = _modalities_of(tasks)
    for modality, entries in metrics.items():
        if entries in MISSING_MARKS:
            results.missing[modality] = entries
            continue
        if modality not in modalities or not isinstance(entries, dict):
            raise ResultError(f"{path}: metrics: {modality!r} is not one of {', '.join(modalities)} with its tasks")
        for key, scores in entries.items():
            if other := results.modality_of.get(key):
                raise ResultError(f"{path}: {key} is there twice, under {other} and {modality}; keep one")
            results.modality_of[key] = modality
            if scores in MISSING_MARKS:
                results.missing[key] = scores
            else:
                results.entries[key] = _task_score(scores, f"{path}: {key}", tasks.get(task_of_key(key)))
    return results


def read_folder(path: Path, tasks: Mapping[str, Task]) -> OfficialResults:
    """Read a folder of score files and rankings, flat or by modality.

    Raises:
        ResultError: there are none, one of them is broken, a task is there twice, or a score file and the
            rankings beside it disagree.
    """
    results = OfficialResults(path.resolve().name, is_submission=False)
    modalities = _modalities_of(tasks)
    for folder in (path, *(path / modality for modality in modalities)):
        for key in sorted({_key_of(file) for suffix in _SUFFIXES for file in matching(folder, f"*{suffix}")}):
            if key in results.entries:
                raise ResultError(f"{path}: {key} is there twice; keep one of its files")
            _add_task(results, folder, key, tasks)
            if folder != path:
                results.modality_of[key] = folder.name
    if not results.entries:
        raise ResultError(
            f"no *{SCORE_SUFFIX} or *{RANKING_SUFFIX} in {path} or its folders {', '.join(modalities)}; name the "
            "folder that official results were written to"
        )
    return results


def _modalities_of(tasks: Mapping[str, Task]) -> list[Modality]:
    """Those of an edition's tasks, in the order of its submission files."""
    there = {task.modality for task in tasks.values()}
    return [modality for modality in MODALITIES if modality in there]


def _key_of(file: Path) -> str:
    return file.name.removesuffix(SCORE_SUFFIX).removesuffix(RANKING_SUFFIX)


def _add_task(results: OfficialResults, folder: Path, key: str, tasks: Mapping[str, Task]) -> None:
    results.entries[key], rankings = _read_task(folder, key, tasks.get(task_of_key(key)))
    if rankings is not None:
        results.first_labels[key] = rankings.first_labels
        results.undefined[key] = 0 if (folder / f"{key}{SCORE_SUFFIX}").is_file() else rankings.undefined


def _read_task(folder: Path, key: str, task: Task | None) -> tuple[TaskScore, Rankings | None]:
    """One task's scores, and its rankings if they are there."""
    score_file, ranking_file = folder / f"{key}{SCORE_SUFFIX}", folder / f"{key}{RANKING_SUFFIX}"
    if not ranking_file.is_file():
        return _task_score(read_json(score_file, way_out=_AGAIN), f"{score_file}: {key}", task), None
    rankings = read_rankings(ranking_file)
    corrected = rankings.corrected[task.metric] if task is not None else None
    if not score_file.is_file():
        return TaskScore(rankings.official, rankings.num_queries, corrected), rankings
    stored = _task_score(read_json(score_file, way_out=_AGAIN), f"{score_file}: {key}", task)
    _check_agreement(key, stored, rankings, score_file)
    return TaskScore(stored.metrics, rankings.num_queries, corrected), rankings


def _check_agreement(key: str, stored: TaskScore, rankings: Rankings, score_file: Path) -> None:
    if stored.num_queries not in (None, rankings.num_queries):
        raise ResultError(
            f"{key}: {score_file.name} is over {stored.num_queries} queries, the rankings beside it over "
            f"{rankings.num_queries}; score them again"
        )
    for name, value in stored.metrics.items():
        if rankings.undefined and name.startswith("ndcg"):
            continue
        if abs(value - rankings.official[name]) > TOLERANCE:
            raise ResultError(
                f"{key}: {name} is {value} in {score_file}, but {rankings.official[name]} by the rankings beside it; "
                "score them again (the official code keeps an old score file when it encodes anew)"
            )


def read_rankings(path: Path) -> Rankings:
    """Recompute all metrics of a `_pred.jsonl`.

    Raises:
        ResultError: a line isn't a ranking as the official code writes and scores it.
    """
    official = dict.fromkeys(METRIC_NAMES, 0.0)
    corrected = dict(official)
    queries = undefined = 0
    first_labels: tuple[str, ...] = ()
    for where, ranked, labels, grades in _ranking_lines(path):
        gains = _gains(labels, grades, where)
        first_labels = first_labels if queries else tuple(gains)
        in_set_order = _official_gains(labels, gains)
        own, theirs = query_metrics(ranked, gains), query_metrics(ranked, in_set_order or gains)
        for name in METRIC_NAMES:
            official[name] += theirs[name]
            corrected[name] += own[name]
        undefined += in_set_order is None
        queries += 1
    if not queries:
        raise ResultError(f"{path} is empty: no rankings")
    own, theirs = ({name: total / queries for name, total in totals.items()} for totals in (corrected, official))
    return Rankings(queries, theirs, own, undefined, first_labels)


def _ranking_lines(path: Path) -> Iterable[tuple[str, list[str], list[int | str], list[float] | None]]:
    """(where, ranked ids, labels as they stand, grades) of each line; a file can be hundreds of MB."""
    try:
        with regular_file(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, *_ranking(_parsed(line, where), where)
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"can't read {path}: {error}") from error


def _ranking(values: object, where: str) -> tuple[list[str], list[int | str], list[float] | None]:
    if not isinstance(values, dict) or "prediction" not in values or "label" not in values:
        raise ResultError(f"{where} is no ranking: expected prediction, label and rel_scores")
    prediction, label, grades = values["prediction"], values["label"], values.get("rel_scores")
    labels = label if isinstance(label, list) else [label]
    if not isinstance(prediction, list):
        raise ResultError(f"{where}: prediction is {prediction!r}, expected a list of ids")
    if grades is not None and not _are_numbers(grades):
        raise ResultError(f"{where}: rel_scores is {grades!r}, expected null or a number a label")
    return [str(_id(value, where)) for value in prediction], [_id(value, where) for value in labels], grades


def _are_numbers(values: object) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int | float) and 0 <= value < _HIGHEST_GRADE for value in values
    )


def _id(value: object, where: str) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ResultError(f"{where}: {value!r} is no id; ids are text or integers")
    return value


def _gains(labels: Sequence[int | str], grades: Sequence[float] | None, where: str) -> dict[str, float]:
    """Grades on their own labels, or 1 for each."""
    if grades is None:
        return {str(label): 1.0 for label in labels}
    if len({str(label) for label in labels}) != len(grades) or len(labels) != len(grades):
        raise ResultError(
            f"{where}: {len(labels)} labels ({len(set(labels))} distinct) with {len(grades)} rel_scores; the official "
            "code refuses that too"
        )
    return {str(label): float(grade) for label, grade in zip(labels, grades, strict=True)}


def _official_gains(labels: Sequence[int | str], gains: Mapping[str, float]) -> dict[str, float] | None:
    """Gains after the official detour through a set; digits in a *string* id are hashed as a string."""
    if len(set(gains.values())) <= 1 or all(isinstance(label, int) for label in labels):
        return set_order_gains(gains)
    return None


def edition_of(
    results: OfficialResults, wanted: str | None, where: str, tasks: Mapping[str, Task]
) -> tuple[str, list[str]]:
    """The edition that official files are of, and which keys and counts tell that; the default one if they have no task
    that differs between editions.

    A submission spells the page tasks by the data they are of. The files in a folder don't: their rankings tell by a
    known row. Score files alone, with the newer MomentSeeker, may be of either: those of all tasks are taken for what
    the official code wrote with the same list of tasks, which is noted; otherwise somebody has to say so.

    Raises:
        UnknownNameError: `wanted` is no edition.
        ResultError: `wanted` contradicts the files, or is needed and `None`.
    """
    if wanted is not None and wanted not in OFFICIAL_EDITIONS:
        raise UnknownNameError("edition", wanted, OFFICIAL_EDITIONS)
    possible, reasons = _possible_editions(results, tasks)
    if not _DIFFERING & {task_of_key(key) for key in results.keys}:
        return wanted or PAGE_FIXED, reasons
    because = "; ".join(reasons) or "no key or count tells"
    if wanted is not None and wanted not in possible:
        raise ResultError(
            f"{where} is of edition {' or '.join(possible)} ({because}), not {wanted}; leave out --edition"
        )
    complete = tasks.keys() <= {task_of_key(key) for key in results.entries}
    if wanted is None and possible == [PAGE_FIXED, V2_0_1] and complete:
        has_both = OLD_MOMENT_SEEKER in results.entries
        possible = [V2_0_1 if has_both else PAGE_FIXED]
        beside = f"all {len(tasks)} tasks are there, {'with' if has_both else 'without'} {OLD_MOMENT_SEEKER}"
        reasons.append(f"{ASSUMED}, since {beside}, as the official code then wrote them; if not, give --edition")
    elif wanted is None and len(possible) > 1:
        raise ResultError(f"can't tell the edition of {where} ({because}); give --edition: {' or '.join(possible)}")
    return wanted or possible[0], reasons


def _possible_editions(results: OfficialResults, tasks: Mapping[str, Task]) -> tuple[list[str], list[str]]:
    """The editions that the files may be of, and what tells so."""
    if fixed := next(filter(is_fixed_key, results.keys), None):
        return [PAGE_FIXED], [f"it has {fixed}"]
    possible, reasons = list(OFFICIAL_EDITIONS), []
    plain = [key for key in PAGE_TASKS if key in results.entries]
    if plain and results.is_submission:
        possible.remove(PAGE_FIXED)
        reasons.append(f"a submission with the key {plain[0]} is of the unfixed pages")
    for key in plain:
        labels = results.first_labels.get(key)
        edition = _edition_of_row(tasks[key], labels) if labels and key in tasks else None
        if edition is not None:
            reasons.append(f"the first query of {key} is about page {', '.join(labels or ())}")
            possible = [name for name in possible if (name == PAGE_FIXED) == (edition == PAGE_FIXED)] or possible
    if MOMENT_SEEKER in results.entries:
        count = results.entries[MOMENT_SEEKER].num_queries
        possible = [edition for edition in possible if MOMENT_SEEKER_QUERIES[edition] == count] or possible
        reasons.append(f"{MOMENT_SEEKER} has {count} queries")
    elif OLD_MOMENT_SEEKER in results.entries:
        possible = [V2_0_0]
        reasons.append(f"it has {OLD_MOMENT_SEEKER} alone")
    return possible, reasons


def _edition_of_row(task: Task, labels: Sequence[str]) -> str | None:
    """The edition whose first row has these labels, as the task itself recognises it."""
    if task.recognise is None:
        return None
    pages = tuple(Item(label) for label in labels)
    return task.recognise(Samples((Item("0"),), pages, {"0": dict.fromkeys(labels, 1.0)}))


def _chosen_keys(results: OfficialResults, edition: str) -> dict[str, str]:
    """The benchmark's name → the key that stands for it in this edition.

    Raises:
        ResultError: two keys stand for one task.
    """
    both = [task for task in PAGE_TASKS if {task, task + FIXED_SUFFIX} <= results.entries.keys()]
    chosen: dict[str, str] = {}
    for key in results.entries:
        task = task_of_key(key)
        if edition == V2_0_0 and key == OLD_MOMENT_SEEKER and MOMENT_SEEKER not in results.entries:
            task = MOMENT_SEEKER  # what it was called before the newer one took its name
        if key in both:
            continue  # the old pages beside the fixed ones
        if task in chosen:
            raise ResultError(f"{chosen[task]} and {key} both stand for {task}; keep one of them")
        chosen[task] = key
    halves = [task for task in PAGE_TASKS if task in chosen]
    if any(is_fixed_key(key) for key in results.entries) and not all(is_fixed_key(chosen[task]) for task in halves):
        raise ResultError(
            f"{' and '.join(chosen[task] for task in halves)} are of different editions; keep one edition"
        )
    return chosen


def _check_modalities(results: OfficialResults, chosen: Mapping[str, str], tasks: Mapping[str, Task]) -> None:
    for task, key in chosen.items():
        modality = results.modality_of.get(key)
        if task in tasks and modality not in (None, tasks[task].modality):
            raise ResultError(f"{key} stands under {modality}, but is a {tasks[task].modality} task; move it there")


def _notes(
    results: OfficialResults,
    chosen: Mapping[str, str],
    scored: Mapping[str, TaskScore],
    odd: Mapping[str, str],
    edition: str,
    reasons: Sequence[str] | None,
) -> Iterable[str]:
    """Remarks that must stand beside the scores; `reasons`: what told the edition, `None` if it was given."""
    if reasons and (edition != PAGE_FIXED or any(reason.startswith(ASSUMED) for reason in reasons)):
        yield f"edition {edition}: {'; '.join(reasons)}"
    used = {chosen[task] for task in scored}
    if marked := [f"{key} ({mark})" for key, mark in results.missing.items()]:
        yield f"missing: {shortened(marked, NAMED)}"
    if extra := [key for key in results.entries if key not in used]:
        yield f"kept out, no tasks of the benchmark: {shortened(extra, NAMED)}"
    if unstated := [task for task, score in scored.items() if score.num_queries is None]:
        yield f"number of queries unstated: {shortened(unstated, NAMED)}"
    if reasons == []:
        yield f"edition {edition} assumed: no task is there that differs between editions"
    if odd:
        yield f"left out, not over the declared number of queries: {shortened(list(odd.values()), NAMED)}"
    if edition == PAGE_FIXED and _has_old_moment_seeker(scored):
        old = MOMENT_SEEKER_QUERIES[V2_0_0]
        yield f"{MOMENT_SEEKER} is over the {old} rows of v2.0.0, as in the leaderboard's own rows"
    for key, queries in results.undefined.items():
        if queries:
            yield f"{key}: official nDCG of {queries} queries depends on PYTHONHASHSEED; grades kept on their labels"


def _has_old_moment_seeker(scored: Mapping[str, TaskScore]) -> bool:
    return MOMENT_SEEKER in scored and scored[MOMENT_SEEKER].num_queries == MOMENT_SEEKER_QUERIES[V2_0_0]


def odd_counts(scored: Mapping[str, TaskScore], tasks: Mapping[str, Task], edition: str) -> dict[str, str]:
    """Tasks whose scores are over another number of queries than declared (those are no scores), with both numbers."""
    odd: dict[str, str] = {}
    for name, score in scored.items():
        other = name == MOMENT_SEEKER and tasks[name].edition != edition
        declared = MOMENT_SEEKER_QUERIES[edition] if other else tasks[name].num_queries
        if name == MOMENT_SEEKER and edition == PAGE_FIXED and _has_old_moment_seeker(scored):
            continue  # the leaderboard's own rows are so; it is noted
        if declared is not None and score.num_queries not in (None, declared):
            odd[name] = f"{name} ({score.num_queries}, not {declared})"
    return odd


def _task_score(values: object, where: str, task: Task | None) -> TaskScore:
    if not isinstance(values, dict):
        raise ResultError(f"{where} is {values!r}, expected its metrics")
    metrics = {name: fraction(values[name], f"{where}: {name}") for name in METRIC_NAMES if name in values}
    if task is not None and task.metric not in metrics:
        raise ResultError(f"{where}: {task.metric} is missing, the task's main metric")
    data, predicted = (_count(values.get(key), f"{where}: {key}") for key in ("num_data", "num_pred"))
    if None not in (data, predicted) and data != predicted:
        raise ResultError(f"{where}: {predicted} predictions for {data} queries; a score over fewer is none")
    return TaskScore(metrics, predicted if data is None else data)


def _count(value: object, where: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ResultError(f"{where} is {value!r}, expected a number of queries")
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ResultError(f"{where} is not valid JSON ({error}); {_AGAIN}") from error
