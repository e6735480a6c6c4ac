"""Official results, read back as scores of the benchmark: what they are of, which of them count, what must be said.

How they stand on disk is `official_files`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mmeb_harness.core.benchmark import MMEB_V2, PAGE_FIXED, V2_0_0, V2_0_1, V3, V3_EDITIONS, V3_UNFIXED
from mmeb_harness.core.errors import ResultError, UnknownNameError, shortened
from mmeb_harness.core.items import Item, Samples
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.core.tasks import Task
from mmeb_harness.results.official_files import OfficialResults, read_official
from mmeb_harness.results.official_names import (
    AGENT,
    FIXED_SUFFIX,
    IMPORTED_EDITIONS,
    MOMENT_SEEKER,
    MOMENT_SEEKER_QUERIES,
    OLD_MOMENT_SEEKER,
    PAGE_TASKS,
    is_fixed_key,
    task_of_key,
)
from mmeb_harness.results.scores import Scores, TaskScore

#: Entries that a note names; the others are counted.
NAMED = 8
#: How a reason begins that is less than a proof.
ASSUMED = "assumed"

#: Tasks behind which editions have other rows.
_DIFFERING = {*PAGE_TASKS, MOMENT_SEEKER, OLD_MOMENT_SEEKER}
_MODALITIES_OF_V3 = ("audio", "text", "tool", "gui", "memory", AGENT)


def import_scores(
    path: Path,
    registered: Iterable[RegisteredTask],
    registered_v3: Iterable[RegisteredTask],
    *,
    name: str | None = None,
    edition: str | None = None,
) -> Scores:
    """Read a folder of official results, or a submission file.

    Args:
        registered: the tasks known; those of the benchmark are taken, any other entry is named in the notes.
        registered_v3: the same in an edition of MMEB-V3.
        name: of the model; default: the submission's own, or the folder's name.
        edition: of the data, where the files can't tell.

    Raises:
        ResultError: files are missing, broken or contradict one another, or the edition can't be told.
    """
    if edition is not None and edition not in IMPORTED_EDITIONS:
        raise UnknownNameError("edition", edition, IMPORTED_EDITIONS)
    v2, v3 = (
        {row.task.name: row.task for row in rows if row.collection == BENCHMARK} for rows in (registered, registered_v3)
    )
    results = read_official(path, {**v2, **v3})
    added = v3.keys() - v2.keys()
    of_v3, reasons = _is_of_v3(results, edition, str(path), added)
    tasks = v3 if of_v3 else v2
    own_edition, of_edition = (v3_edition_of if of_v3 else edition_of)(results, edition, str(path), tasks)
    reasons += of_edition
    chosen = _chosen_keys(results, own_edition)
    _check_modalities(results, chosen, tasks)
    scored = {task: results.entries[chosen[task]] for task in tasks if task in chosen}
    odd = odd_counts(scored, tasks, own_edition)
    doubtful = _overwritten(results, scored, tasks)
    notes = [
        *_notes(results, chosen, scored, odd, own_edition, None if edition else reasons),
        *(f"of two evaluations: {both}" for both in [_two_evaluations(results)] if both),
        *(
            f"left out: {task} without {other}; where a file system ignores case, one file of that name overwrites the "
            "other, and which this is can't be told"
            for task, other in doubtful.items()
        ),
    ]
    return Scores(
        name=name or results.name,
        edition=own_edition,
        origin="imported",
        source=str(path),
        tasks={task: score for task, score in scored.items() if task not in odd and task not in doubtful},
        notes=tuple(notes),
    )


def _is_of_v3(
    results: OfficialResults, wanted: str | None, where: str, added: Collection[str]
) -> tuple[bool, list[str]]:
    """Whether files are MMEB-V3's, and what tells so: a task that it added, or its one mrr without a cut-off.

    Raises:
        ResultError: they are of both, or `wanted` is an edition of the other.
    """
    both = _two_evaluations(results)
    if both and wanted is None:
        raise ResultError(
            f"{where} is of two evaluations: {both}. MMEB-V3 shows the tasks of MMEB-V2 in another way; import each by "
            "itself, or give --edition to take it as one"
        )
    signs = [f"it has {key}" for key in results.keys if key in added or key in _MODALITIES_OF_V3]
    signs += [f"{key} has mrr without a cut-off, as its code writes" for key in _with_metric(results, "mrr")]
    against = [f"{key} has mrr@1, as its code writes" for key in _with_metric(results, "mrr@1")]
    of_v3 = bool(signs) or wanted in V3_EDITIONS
    if wanted is not None and not both and (signs or against) and (wanted in V3_EDITIONS) != bool(signs):
        benchmark, told = ("MMEB-V3", signs[0]) if signs else ("MMEB-V2", against[0])
        raise ResultError(f"{where} is of {benchmark} ({told}), {wanted} is not; leave out --edition")
    return wanted in V3_EDITIONS if both else of_v3, signs[:1]


def _with_metric(results: OfficialResults, metric: str) -> list[str]:
    return [key for key, score in results.entries.items() if metric in score.metrics]


def _two_evaluations(results: OfficialResults) -> str:
    """What MMEB-V2's code wrote beside what MMEB-V3's did; "" if only one of them wrote."""
    by_v2, by_v3 = _with_metric(results, "mrr@1"), _with_metric(results, "mrr")
    if not (by_v2 and by_v3):
        return ""
    return f"{shortened(by_v2, NAMED)} with mrr@1, as MMEB-V2's code writes; {shortened(by_v3, NAMED)} with one mrr"


def edition_of(
    results: OfficialResults, wanted: str | None, where: str, tasks: Mapping[str, Task]
) -> tuple[str, list[str]]:
    """The edition that official files are of, and which keys and counts tell that; the default one if they have no task
    that differs between editions.

    A submission spells the page tasks by the data they are of. The files in a folder don't: their rankings tell by a
    known row. Score files alone, with the newer MomentSeeker, may be of either: those of all tasks are taken for what
    the official code wrote with the same list of tasks, which is noted; otherwise somebody has to say so.

    Raises:
        ResultError: `wanted` contradicts the files, or is needed and `None`.
    """
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
    possible, reasons = list(MMEB_V2.editions), []
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


def v3_edition_of(
    results: OfficialResults, wanted: str | None, where: str, tasks: Mapping[str, Task]
) -> tuple[str, list[str]]:
    """The same for files of MMEB-V3, whose two editions differ in the page tasks alone.

    Rankings tell by a known row. The official report calls the page tasks -fixed whatever pages they were on, so that
    is an assumption. Score files alone tell nothing: the official code reads the first pages from the benchmark's
    bundle, and the corrected ones where the bundle isn't there.

    Raises:
        ResultError: as `edition_of`.
    """
    there = [key for key in results.entries if task_of_key(key) in PAGE_TASKS]
    if not there:
        return wanted or V3, [f"{ASSUMED}, since no task is there that differs from {V3_UNFIXED}"]
    told: dict[str, str] = {}
    for key in there:
        labels = results.first_labels.get(key)
        row = _edition_of_row(tasks[key], labels) if labels and key in tasks else None
        if labels and row is not None:
            told[V3 if row == V3 else V3_UNFIXED] = f"the first query of {key} is about page {', '.join(labels)}"
    if len(told) > 1:
        raise ResultError(f"{where} is of two editions ({'; '.join(told.values())}); keep one")
    for edition, because in told.items():
        if wanted not in (None, edition):
            raise ResultError(f"{where} is of edition {edition} ({because}), not {wanted}; leave out --edition")
        return edition, [because]
    if wanted is not None:
        return wanted, []
    if fixed := next(filter(is_fixed_key, there), None):
        return V3, [f"{ASSUMED}, since it has {fixed}: the official report names any pages so; if not, give --edition"]
    if results.is_submission:
        return V3_UNFIXED, [f"a submission with the key {there[0]} is of the unfixed pages"]
    raise ResultError(
        f"can't tell the edition of {where} (score files don't say on which pages {there[0]} is); give --edition: "
        f"{' or '.join(V3_EDITIONS)}"
    )


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
        of_agent = modality == AGENT and task in tasks and tasks[task].modality in ("tool", "gui", "memory")
        if task in tasks and not of_agent and modality not in (None, tasks[task].modality):
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


def _overwritten(results: OfficialResults, scored: Mapping[str, TaskScore], tasks: Iterable[str]) -> dict[str, str]:
    """Tasks by the last part of their names whose namesake but for case lacks among its kin → the namesake."""
    kin = {name.rpartition("/")[0] for name in scored}
    parts = {name: name.rpartition("/") for name in tasks if name not in scored}
    return {
        task: other
        for task in scored
        for other, (folder, _, last) in parts.items()
        if task in results.by_last_part and folder in kin and last.lower() == task.rpartition("/")[2].lower()
    }


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
