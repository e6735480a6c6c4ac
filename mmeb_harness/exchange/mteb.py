"""Scores as files of mteb, written and read: the layout of its results, as version 2.26 has it.

<folder>/<org>__<name>/<revision>/<Task>.json                      scores by split and subset
<folder>/<org>__<name>/<revision>/model_meta.json                  the model
<folder>/<org>__<name>/<revision>/experiments/<settings>/…         the same of a variant of it

mteb has 15 of the benchmark's tasks, of the same rows, scored the same way; they bear its names. Any other task bears
the name of its collection as well: mteb's SUN397, UCF101 and VOC2007 are other tasks than those called so here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mmeb_harness.core.benchmark import PAGE_FIXED, V3, benchmark_of
from mmeb_harness.core.errors import ResultError, UnknownNameError, shortened
from mmeb_harness.core.files import matching, read_json, write_json
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.core.tasks import Task
from mmeb_harness.exchange.handed import Handed, refuse_existing, variant_settings
from mmeb_harness.results.files import TaskResult, fraction
from mmeb_harness.results.official import NAMED, odd_counts
from mmeb_harness.results.official_files import KNOWN_METRICS
from mmeb_harness.results.official_names import IMPORTED_EDITIONS
from mmeb_harness.results.scores import Scores, TaskScore

META = "model_meta.json"
SPLIT, SUBSET = "test", "default"
#: What mteb calls ndcg_linear@5: trec_eval's nDCG, each grade on its own label.
MAIN = "ndcg_at_5"
_VIDORE_V2 = ("english", "french", "german", "spanish")
_AGAIN = "get the file again"

#: Task → mteb's name and the subsets that together have its rows: mteb 2.26.24, mteb/tasks, by data set, number of
#: queries and number of pages. Its Imagenet1k, SUN397, HMDB51 … are other tasks, of other rows.
MTEB_TASKS: Mapping[str, tuple[str, Sequence[str]]] = {
    "ViDoRe_arxivqa": ("VidoreArxivQARetrieval", (SUBSET,)),
    "ViDoRe_docvqa": ("VidoreDocVQARetrieval", (SUBSET,)),
    "ViDoRe_infovqa": ("VidoreInfoVQARetrieval", (SUBSET,)),
    "ViDoRe_tabfquad": ("VidoreTabfquadRetrieval", (SUBSET,)),
    "ViDoRe_tatdqa": ("VidoreTatdqaRetrieval", (SUBSET,)),
    "ViDoRe_shiftproject": ("VidoreShiftProjectRetrieval", (SUBSET,)),
    "ViDoRe_syntheticDocQA_artificial_intelligence": ("VidoreSyntheticDocQAAIRetrieval", (SUBSET,)),
    "ViDoRe_syntheticDocQA_energy": ("VidoreSyntheticDocQAEnergyRetrieval", (SUBSET,)),
    "ViDoRe_syntheticDocQA_government_reports": ("VidoreSyntheticDocQAGovernmentReportsRetrieval", (SUBSET,)),
    "ViDoRe_syntheticDocQA_healthcare_industry": ("VidoreSyntheticDocQAHealthcareIndustryRetrieval", (SUBSET,)),
    "ViDoRe_esg_reports_human_labeled_v2": ("Vidore2ESGReportsHLRetrieval", (SUBSET,)),
    # One score a language there, over equally many queries and the same pages: their mean is the task's score.
    "ViDoRe_biomedical_lectures_v2_multilingual": ("Vidore2BioMedicalLecturesRetrieval", _VIDORE_V2),
    "ViDoRe_economics_reports_v2_multilingual": ("Vidore2EconomicsReportsRetrieval", _VIDORE_V2),
    "ViDoRe_esg_reports_v2_multilingual": ("Vidore2ESGReportsRetrieval", _VIDORE_V2),
    "MMLongBench-doc": ("MMLongBenchDocRetrieval", (SUBSET,)),
}
_TASK_OF_MTEB = {name: (task, subsets) for task, (name, subsets) in MTEB_TASKS.items()}
_BENCHMARKS = tuple(benchmark_of(edition).name.lower() for edition in (PAGE_FIXED, V3))
_BENCHMARK_PREFIX = re.compile(f"^({'|'.join(_BENCHMARKS)})-")


@dataclass(frozen=True)
class WrittenToMteb:
    """What was written.

    Attributes:
        known: tasks under mteb's own names.
        unknown: the others, which mteb reads but ranks nowhere.
    """

    folder: Path
    known: tuple[str, ...]
    unknown: tuple[str, ...]


def mteb_name(task: str, collection: str) -> str:
    """What a task is called in files of mteb. Of the three that it splits by language, no language is known of a query
    here.
    """
    own = MTEB_TASKS.get(task)
    if own is not None and collection in _BENCHMARKS and own[1] == (SUBSET,):
        return own[0]
    return f"{collection}-{task}"


def export_mteb(handed: Handed, output: Path) -> WrittenToMteb:
    """Write a run's results as mteb would have written them.

    Raises:
        ResultError: a file is there already, or can't be written.
    """
    variant = variant_settings(handed.run)
    revision = _as_file(handed.run.model_revision or "no_revision_available")
    folder = output / _as_file(handed.model_name.replace("/", "__")) / revision
    if variant:
        folder = folder / "experiments" / "__".join(f"{name}_{value}" for name, value in variant.items())
    names = {result.name: mteb_name(result.name, handed.others_collection(result.name)) for result in handed.results}
    files = {name: folder / f"{_as_file(name)}.json" for name in names.values()}
    refuse_existing((*files.values(), folder / META))
    for result in handed.results:
        name = names[result.name]
        write_json(files[name], _task_file(handed, result, name))
    write_json(folder / META, _model_file(handed, variant))
    known = tuple(task for task, name in names.items() if name in _TASK_OF_MTEB)
    return WrittenToMteb(folder, known, tuple(task for task in names if task not in known))


def _as_file(name: str) -> str:
    return re.sub(r'[\s<>:"|?*\\/\0]', "_", name)


def _task_file(handed: Handed, result: TaskResult, name: str) -> dict[str, Any]:
    """One task's file; what mteb doesn't ask for stands beside, by our names, so that it can be read back whole."""
    known = {MAIN: result.corrected_score} if name in _TASK_OF_MTEB else {}
    scores = {
        **result.metrics,
        **known,
        "main_score": known.get(MAIN, result.score),
        "hf_subset": SUBSET,
        "languages": ["eng-Latn"],
        "corrected_score": result.corrected_score,
        "num_queries": result.num_queries,
        "edition": result.edition,
        "profile": result.profile.name,
        "mmeb_harness": result.versions.get("mmeb-harness", ""),
    }
    started = handed.run.started
    return {
        "dataset_revision": result.data_revision,
        "task_name": name,
        "mteb_version": None,  # it wasn't mteb that computed this
        "scores": {SPLIT: [scores]},
        "evaluation_time": result.queries.seconds + result.candidates.seconds,
        "kg_co2_emissions": None,
        "date": datetime.fromisoformat(started).timestamp() if started else None,
        "evaluation_phases": None,
    }


def _model_file(handed: Handed, variant: Mapping[str, Any]) -> dict[str, Any]:
    """What mteb wants to know of a model; null where a run doesn't say."""
    shown = {result.modality for result in handed.results}
    unstated = (
        *("loader", "release_date", "languages", "n_active_parameters_override", "n_embedding_parameters"),
        *("memory_usage_mb", "max_tokens", "license", "open_weights", "public_training_code"),
        *("public_training_data", "reference", "similarity_fn_name", "training_datasets", "adapted_from"),
        *("superseded_by", "citation", "contacts", "output_dtypes", "extra_requirements_groups"),
    )
    return {
        "name": handed.model_name,
        "revision": handed.run.model_revision or "no_revision_available",
        "n_parameters": handed.run.model_parameters,
        "embed_dim": handed.run.profile.dimensions or handed.run.model_dimensions,
        "use_instructions": handed.run.profile.instruction not in ("none", "unstated"),
        "modalities": ["text", *(["image"] if shown - {"video"} else []), *(["video"] if "video" in shown else [])],
        "model_type": ["dense"],
        "framework": [],
        "loader_kwargs": {},
        "experiment_kwargs": dict(variant) or None,
        **dict.fromkeys(unstated),
    }


def mteb_folder(path: Path) -> list[Path]:
    """Files of mteb's results at `path`: one file, a model's revision, or a folder with one such; none if it holds
    something else.

    Raises:
        ResultError: several models, revisions or variants.
    """
    if path.is_file():
        return [path] if path.suffix == ".json" and _is_task_file(path) else []
    folders = sorted(
        {file.parent for depth in ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/") for file in path.glob(f"{depth}{META}")}
    )
    if len(folders) > 1:
        listed = shortened((str(folder.relative_to(path)) for folder in folders), NAMED)
        raise ResultError(f"{path} holds results of several models, revisions or variants ({listed}); name one of them")
    return [file for folder in folders for file in matching(folder, "*.json") if file.name != META]


def _is_task_file(path: Path) -> bool:
    values = read_json(path, way_out=_AGAIN)
    return isinstance(values, dict) and {"task_name", "scores"} <= values.keys()


def import_mteb(
    files: Sequence[Path],
    registered: Iterable[RegisteredTask],
    *,
    name: str | None = None,
    edition: str | None = None,
) -> Scores:
    """Scores of one model from its files.

    Args:
        files: of `mteb_folder`.
        registered: the tasks known; the files of any other are named in the notes.
        name: of the model; default: that of its model_meta.json.
        edition: of the data, where the files don't say.

    Raises:
        ResultError: a file is broken or no result of mteb's, a task is there twice, the editions differ, or none of the
            files is of the benchmark.
        UnknownNameError: an edition that is none.
    """
    if edition is not None and edition not in IMPORTED_EDITIONS:
        raise UnknownNameError("edition", edition, IMPORTED_EDITIONS)
    tasks = {row.task.name: row.task for row in registered if row.collection == BENCHMARK}
    scored: dict[str, TaskScore] = {}
    editions: set[str] = set()
    others: list[str] = []
    for file in files:
        task_name, entries = _entries(file)
        task, subsets = _TASK_OF_MTEB.get(task_name, (_BENCHMARK_PREFIX.sub("", task_name), (SUBSET,)))
        if task not in tasks or (task == task_name and task_name not in _TASK_OF_MTEB):
            others.append(task_name)
            continue
        if task in scored:
            raise ResultError(f"{file}: {task} is there twice; keep one of its files")
        if missing := [subset for subset in subsets if subset not in entries]:
            raise ResultError(f"{file}: no subset {', '.join(missing)}; a score over some of them is none: {_AGAIN}")
        chosen = [entries[subset] for subset in subsets]
        scored[task] = _score(chosen, tasks[task], str(file), mteb_s_own=task_name in _TASK_OF_MTEB)
        editions |= {str(entry["edition"]) for entry in chosen if entry.get("edition")}
    where = files[0].parent if len(files) > 1 else files[0]
    own_edition, assumed = _edition(editions, edition, where)
    return _as_scores(where, name, own_edition, assumed, scored, others, tasks)


def _entries(file: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """A task's name, and subset → its scores on the test split.

    Raises:
        ResultError: the file isn't a result of mteb's.
    """
    values = read_json(file, way_out=_AGAIN)
    splits = values.get("scores") if isinstance(values, dict) else None
    rows = splits.get(SPLIT) if isinstance(splits, dict) else None
    if not isinstance(values, dict) or not isinstance(values.get("task_name"), str) or not isinstance(rows, list):
        raise ResultError(f"{file} is no result of mteb's (no task_name, or no scores of the split {SPLIT}); {_AGAIN}")
    entries: dict[str, dict[str, Any]] = {}
    for row in rows:
        subset = row.get("hf_subset") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(subset, str) or subset in entries:
            raise ResultError(f"{file}: scores without a subset, or of {subset!r} twice; {_AGAIN}")
        entries[subset] = row
    return values["task_name"], entries


def _score(entries: Sequence[Mapping[str, Any]], task: Task, where: str, *, mteb_s_own: bool) -> TaskScore:
    """A task's scores: the mean over subsets. Of mteb's own files the main metric alone is ours by definition."""
    main = sum(fraction(entry.get("main_score"), f"{where}: main_score") for entry in entries) / len(entries)
    only = entries[0] if len(entries) == 1 else {}
    metrics = {name: fraction(only[name], f"{where}: {name}") for name in KNOWN_METRICS if name in only}
    if task.metric not in metrics:
        if not mteb_s_own:
            raise ResultError(f"{where}: {task.metric} is missing, the task's main metric; {_AGAIN}")
        metrics = {task.metric: main}
    queries = only.get("num_queries")
    if queries is not None and (type(queries) is not int or queries < 1):
        raise ResultError(f"{where}: num_queries is {queries!r}, expected a number of queries; {_AGAIN}")
    corrected = only.get("corrected_score", main)
    return TaskScore(metrics, queries, fraction(corrected, f"{where}: corrected_score"))


def _edition(said: set[str], wanted: str | None, where: Path) -> tuple[str, bool]:
    """The edition, and whether it is only assumed."""
    if strange := sorted(said - {*IMPORTED_EDITIONS}):
        raise ResultError(f"{where}: edition {strange[0]!r} is none of {', '.join(IMPORTED_EDITIONS)}; {_AGAIN}")
    if len(said) > 1:
        raise ResultError(f"{where} holds scores of several editions: {', '.join(sorted(said))}; keep one's files")
    if said and wanted not in (None, *said):
        raise ResultError(f"{where} is of edition {said.pop()}, not {wanted}; leave out --edition")
    return (said.pop(), False) if said else (wanted or PAGE_FIXED, wanted is None)


def _as_scores(
    where: Path,
    name: str | None,
    edition: str,
    assumed: bool,
    scored: Mapping[str, TaskScore],
    others: Sequence[str],
    tasks: Mapping[str, Task],
) -> Scores:
    if not scored:
        names = ", ".join(mteb for mteb, _ in MTEB_TASKS.values())
        raise ResultError(
            f"{where}: none of its {len(others)} results is of a task of the benchmark ({shortened(others, NAMED)}); "
            f"of mteb's own tasks these are: {names}"
        )
    odd = odd_counts(scored, tasks, edition)
    unstated = [task for task, score in scored.items() if score.num_queries is None]
    notes = {
        "kept out, no tasks of the benchmark": others,
        "number of queries unstated": unstated,
        "left out, not over the declared number of queries": list(odd.values()),
    }
    lines = [f"{what}: {shortened(names, NAMED)}" for what, names in notes.items() if names]
    if assumed:
        lines.append(f"edition {edition} assumed: mteb's files don't say")
    return Scores(
        name=name or _model_name(where if where.is_dir() else where.parent),
        edition=edition,
        origin="imported",
        source=str(where),
        tasks={task: scored[task] for task in tasks if task in scored and task not in odd},
        notes=tuple(lines),
    )


def _model_name(folder: Path) -> str:
    """By its model_meta.json, else by its folder."""
    if not (folder / META).is_file():
        return folder.resolve().parent.name.replace("__", "/")
    values = read_json(folder / META, way_out=_AGAIN)
    named = values.get("name") if isinstance(values, dict) else None
    if not isinstance(named, str):
        raise ResultError(f"{folder / META} names no model; give --name, or {_AGAIN}")
    return named
