"""Official results as they stand on disk: score files, rankings and submission files of the benchmark's own code.

<path>/[<modality>/]<task>_score.json    means over a task's queries: its metrics, num_pred, num_data
<path>/[<modality>/]<task>_pred.jsonl    a line a query: {"prediction": ids, best first, "label": id or ids,
                                         "rel_scores": null, or a grade a label}; MMEB-V3's also "prediction_scores"
<file>.json                              a submission: {"metadata": …, "metrics": {modality: {task: metrics}}}

A / in the name of one of MMEB-V3's tasks is a folder (text/BRIGHT/aops_score.json); in a folder by modality, and in a
submission, it goes by the last part of its name (text/aops_score.json). Metrics this release doesn't know are left
aside; whatever else is odd is refused, by file, task and key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb_harness.core.benchmark import PAGE_FIXED, V3
from mmeb_harness.core.errors import ResultError
from mmeb_harness.core.files import matching, parse_json, read_json, regular_file
from mmeb_harness.core.items import MODALITIES
from mmeb_harness.core.tasks import Task
from mmeb_harness.ranking.metrics import METRIC_NAMES, edition_metrics, metric_names, set_order_gains
from mmeb_harness.results.files import fraction
from mmeb_harness.results.official_names import AGENT, MISSING_MARKS, task_of_key
from mmeb_harness.results.scores import TaskScore

SCORE_SUFFIX = "_score.json"
RANKING_SUFFIX = "_pred.jsonl"
_SUFFIXES = (SCORE_SUFFIX, RANKING_SUFFIX)
#: A score file and the rankings beside it say the same if they differ by no more.
TOLERANCE = 1e-6
#: Of any edition.
KNOWN_METRICS = tuple(dict.fromkeys((*METRIC_NAMES, *metric_names(V3))))

_AGAIN = "get the file again"
_ANEW = "score them again (the official code keeps an old score file when it encodes anew)"
#: Of a relevance: gains of a ranking are summed up.
_HIGHEST_GRADE = 1e9


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
        entries: key → scores. It is as spelled there, but a task that goes by the last part of its name has all of it.
        by_last_part: keys of those.
        modality_of: key → the modality it stands under, where the files say so.
        missing: key → the mark that stands in place of scores.
        undefined, first_labels: key → see `Rankings`.
    """

    name: str
    is_submission: bool
    entries: dict[str, TaskScore] = field(default_factory=dict)
    by_last_part: set[str] = field(default_factory=set)
    modality_of: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    undefined: dict[str, int] = field(default_factory=dict)
    first_labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Of all that has scores or lacks them."""
        return [*self.entries, *self.missing]


def read_official(path: Path, tasks: Mapping[str, Task]) -> OfficialResults:
    """Read a folder, one task's score file or rankings, or a submission file.

    Args:
        tasks: all that may be in it, by name.

    Raises:
        ResultError: as `read_folder` and `read_submission`.
    """
    if path.is_dir():
        return read_folder(path, tasks)
    if path.name.endswith(_SUFFIXES):
        results = OfficialResults(_key_of(path), is_submission=False)
        _add_task(results, path.parent, results.name, _whole_names(tasks).get(results.name, results.name), tasks)
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
    modalities, names = _modalities_of(tasks), _whole_names(tasks)
    for modality, entries in metrics.items():
        if entries in MISSING_MARKS:
            results.missing[modality] = entries
            continue
        if modality not in modalities or not isinstance(entries, dict):
            raise ResultError(f"{path}: metrics: {modality!r} is not one of {', '.join(modalities)} with its tasks")
        for spelled, scores in entries.items():
            key = names.get(str(spelled), str(spelled))
            if key != spelled:
                results.by_last_part.add(key)
            if other := results.modality_of.get(key):
                raise ResultError(f"{path}: {key} is there twice, under {other} and {modality}; keep one")
            results.modality_of[key] = modality
            if scores in MISSING_MARKS:
                results.missing[key] = scores
            else:
                results.entries[key] = _task_score(scores, f"{path}: {key}", tasks.get(task_of_key(key)))
    return results


def read_folder(path: Path, tasks: Mapping[str, Task]) -> OfficialResults:
    """Read a folder of score files and rankings, flat or by modality, in folders by name or by its last part.

    Raises:
        ResultError: there are none, one of them is broken, a task is there twice, or a score file and the
            rankings beside it disagree.
    """
    results = OfficialResults(path.resolve().name, is_submission=False)
    names = _whole_names(tasks)
    for folder, modality, inner in _folders(path, tasks):
        for file in sorted({_key_of(file) for suffix in _SUFFIXES for file in matching(folder, f"*{suffix}")}):
            spelled = f"{inner}/{file}" if inner else file
            key = names.get(spelled, spelled)
            if key in results.entries:
                raise ResultError(f"{path}: {key} is there twice; keep one of its files")
            _add_task(results, folder, file, key, tasks)
            if modality:
                results.modality_of[key] = modality
            if key in names.values() and not inner:
                results.by_last_part.add(key)
    if not results.entries:
        raise ResultError(
            f"no *{SCORE_SUFFIX} or *{RANKING_SUFFIX} in {path} or its folders {', '.join(_modalities_of(tasks))}; "
            "name the folder that official results were written to"
        )
    return results


def _folders(path: Path, tasks: Mapping[str, Task]) -> Iterable[tuple[Path, str, str]]:
    """Where files may lie: (folder, the modality that it stands under or "", what it is of the names of its tasks)."""
    inside = {"/".join(parts[start:]) for parts in _parents(tasks) for start in range(len(parts))}
    seen: set[Path] = set()
    for modality in ("", *_modalities_of(tasks)):
        for inner in ("", *sorted(inside)):
            folder = path / modality / inner
            if folder.is_dir() and folder not in seen:
                seen.add(folder)
                yield folder, modality, inner


def _parents(tasks: Iterable[str]) -> set[tuple[str, ...]]:
    return {tuple(name.split("/")[:-1]) for name in tasks if "/" in name}


def _whole_names(tasks: Iterable[str]) -> dict[str, str]:
    """Last parts of names → those of tasks: "BRIGHT/aops" and "aops" → "text/BRIGHT/aops"."""
    parts = {name: name.split("/") for name in tasks}
    return {"/".join(of_it[start:]): name for name, of_it in parts.items() for start in range(1, len(of_it))}


def _modalities_of(tasks: Mapping[str, Task]) -> list[str]:
    """Those of the tasks, in the order of submission files, and what three of them are together."""
    there = {task.modality for task in tasks.values()}
    own: list[str] = [modality for modality in MODALITIES if modality in there]
    return [*own, AGENT] if there & {"tool", "gui", "memory"} else own


def _key_of(file: Path) -> str:
    return file.name.removesuffix(SCORE_SUFFIX).removesuffix(RANKING_SUFFIX)


def _add_task(results: OfficialResults, folder: Path, file: str, key: str, tasks: Mapping[str, Task]) -> None:
    results.entries[key], rankings = _read_task(folder, file, key, tasks.get(task_of_key(key)))
    if rankings is not None:
        results.first_labels[key] = rankings.first_labels
        results.undefined[key] = 0 if (folder / f"{file}{SCORE_SUFFIX}").is_file() else rankings.undefined


def _read_task(folder: Path, file: str, key: str, task: Task | None) -> tuple[TaskScore, Rankings | None]:
    """One task's scores, and its rankings if they are there."""
    score_file, ranking_file = folder / f"{file}{SCORE_SUFFIX}", folder / f"{file}{RANKING_SUFFIX}"
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
        if name not in rankings.official:
            raise ResultError(
                f"{key}: {name} in {score_file} is of another release than the rankings beside it; {_ANEW}"
            )
        if abs(value - rankings.official[name]) > TOLERANCE:
            raise ResultError(
                f"{key}: {name} is {value} in {score_file}, but {rankings.official[name]} by the rankings beside it; "
                f"{_ANEW}"
            )


def read_rankings(path: Path) -> Rankings:
    """Recompute all metrics of a `_pred.jsonl`.

    Raises:
        ResultError: a line isn't a ranking as the official code writes and scores it.
    """
    official: defaultdict[str, float] = defaultdict(float)
    corrected: defaultdict[str, float] = defaultdict(float)
    editions: set[str] = set()
    queries = undefined = 0
    first_labels: tuple[str, ...] = ()
    for where, ranking in _ranking_lines(path):
        editions.add(ranking.edition)
        if len(editions) > 1:
            raise ResultError(f"{where}: prediction_scores stand in some lines only; {_AGAIN}")
        gains = _gains(ranking.labels, ranking.grades, where)
        first_labels = first_labels if queries else tuple(gains)
        in_set_order = _official_gains(ranking.labels, gains)
        for totals, used in ((corrected, gains), (official, in_set_order or gains)):
            for name, value in _metrics(ranking, used).items():
                totals[name] += value
        undefined += in_set_order is None
        queries += 1
    if not queries:
        raise ResultError(f"{path} is empty: no rankings")
    own, theirs = ({name: total / queries for name, total in totals.items()} for totals in (corrected, official))
    return Rankings(queries, theirs, own, undefined, first_labels)


@dataclass(frozen=True)
class _Ranking:
    """A line of a `_pred.jsonl`.

    Attributes:
        edition: one of the benchmark whose code writes such lines.
        ranked: ids, best first.
    """

    edition: str
    ranked: Sequence[str]
    labels: Sequence[int | str]
    grades: Sequence[float] | None


def _metrics(ranking: _Ranking, gains: Mapping[str, float]) -> dict[str, float]:
    first_rank = next((rank for rank, candidate in enumerate(ranking.ranked, start=1) if candidate in gains), None)
    return edition_metrics(ranking.edition, ranking.ranked, gains, first_rank)


def _ranking_lines(path: Path) -> Iterable[tuple[str, _Ranking]]:
    """(where, ranking) of each line; a file can be hundreds of MB."""
    try:
        with regular_file(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, _ranking(_parsed(line, where), where)
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"can't read {path}: {error}") from error


def _ranking(values: object, where: str) -> _Ranking:
    if not isinstance(values, dict) or "prediction" not in values or "label" not in values:
        raise ResultError(f"{where} is no ranking: expected prediction, label and rel_scores")
    edition = V3 if "prediction_scores" in values else PAGE_FIXED
    prediction, label, grades = values["prediction"], values["label"], values.get("rel_scores")
    labels = label if isinstance(label, list) else [] if label is None and edition == V3 else [label]
    if not isinstance(prediction, list):
        raise ResultError(f"{where}: prediction is {prediction!r}, expected a list of ids")
    if grades is not None and not _are_numbers(grades):
        raise ResultError(f"{where}: rel_scores is {grades!r}, expected null or a number a label")
    ranked = [str(_id(value, where)) for value in prediction]
    return _Ranking(edition, ranked, [_id(value, where) for value in labels], grades)


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


def _task_score(values: object, where: str, task: Task | None) -> TaskScore:
    if not isinstance(values, dict):
        raise ResultError(f"{where} is {values!r}, expected its metrics")
    metrics = {name: fraction(values[name], f"{where}: {name}") for name in KNOWN_METRICS if name in values}
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
