"""What earlier invocations have left in a run's folder, and what of it still counts.

A result counts if it is of the same data, model and settings (its fingerprint), and if its items are by content what
they were. A look at the media files settles that; where one was replaced, or nobody remembers them, the task is read
and hashed again before it is believed.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmeb_harness.core.errors import ResultError, counted, leading
from mmeb_harness.core.files import fingerprint
from mmeb_harness.core.items import Medium
from mmeb_harness.core.progress import Reporter
from mmeb_harness.data.folder import load_samples
from mmeb_harness.results.files import RunResult, load_run_result, load_task_result, save_task_result
from mmeb_harness.results.folder import RunFolder, clear, start_over, started_over
from mmeb_harness.results.outcome import FinishedTask, has_states, kept_task, table_checksums
from mmeb_harness.run.plan import Plan, PlannedTask, unsupported_tasks
from mmeb_harness.store.chunk_files import chunk_files
from mmeb_harness.store.media import MEDIA_FOLDER, MediaHashes
from mmeb_harness.store.media_lists import MediaList
from mmeb_harness.store.vectors import KeyedSamples


@dataclass(frozen=True)
class Earlier:
    """Results of the planned data, model and settings, by task.

    Attributes:
        finished: those that count.
        doubtful: of which media files were changed, or aren't remembered: they count if their content is the same.
        unknown: names of those that don't say what their items were; an earlier release wrote them.
        damaged: task → what is wrong with its files.
        unsupported: as in `RunResult`, of tasks that the model still doesn't take.
    """

    finished: Mapping[str, FinishedTask] = field(default_factory=dict)
    doubtful: Mapping[str, FinishedTask] = field(default_factory=dict)
    unknown: Sequence[str] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    unsupported: Mapping[str, tuple[Medium, ...]] = field(default_factory=dict)


def earlier_results(plan: Plan) -> Earlier:
    """Of the tasks that are asked for, and of others in the folder, what was left; nothing for a run that starts over.

    Raises:
        ResultError: the folder holds a run of another model or on other data, or a result of another release.
    """
    if plan.settings.fresh:
        return Earlier()
    unsupported: Mapping[str, tuple[Medium, ...]] = {}
    if plan.folder.run_file.exists():
        run = load_run_result(plan.folder.run_file)
        _check_same_run(run, plan)
        tasks = [plan.registered[name].task for name in run.unsupported if name in plan.registered]
        unsupported = unsupported_tasks(tasks, plan.model)
    planned = {**plan.tasks, **plan.others}
    kept, damaged = _kept_results(plan, planned)
    doubtful = {
        name: task
        for name, task in kept.items()
        if task.result.content and media_list(plan, planned[name]).content() != task.result.content
    }
    finished = {name: task for name, task in kept.items() if name not in doubtful}
    unknown = [name for name, task in finished.items() if not task.result.content]
    return Earlier(finished, doubtful, unknown, damaged, unsupported)


def take_over(plan: Plan, earlier: Earlier, hashes: MediaHashes, reporter: Reporter) -> dict[str, FinishedTask]:
    """Those that count, by task, and what a user should know of the others; a run that starts over forgets all.

    Called when all that is asked for could be read: until then nothing is deleted and nothing told.

    Raises:
        ResultError: files that can't be read, or deleted.
        DataError: data of another task in the folder, whose media have to be looked at, can't be read.
    """
    if plan.settings.fresh:
        clear(plan.folder, _stored_chunks(plan))
    _trust_no_future(plan, reporter)
    if damaged := next((name for name in plan.others if name in earlier.damaged), None):
        raise ResultError(f"{earlier.damaged[damaged]}; this command doesn't ask for {damaged}: ask for it, too")
    asked_again = [name for name in plan.tasks if name in earlier.doubtful]
    if asked_again:
        tasks = counted(len(asked_again), "finished task")
        reporter.note(
            f"media of {tasks} were changed, or aren't remembered, and are looked at anew: {leading(asked_again)}"
        )
    unchanged = {
        name: task
        for name, task in earlier.doubtful.items()
        if name in plan.others and _content_now(plan, plan.others[name], hashes) == task.result.content
    }
    finished = {name: _sealed(plan.folder, task) for name, task in {**earlier.finished, **unchanged}.items()}
    _tell(plan, earlier, finished, reporter)
    return finished


def _tell(plan: Plan, earlier: Earlier, finished: Mapping[str, FinishedTask], reporter: Reporter) -> None:
    left_out = [name for name in plan.others if name not in finished]
    if left_out:
        reporter.note(
            f"{counted(len(left_out), 'earlier result')} of other settings or data left out of the run: "
            f"{leading(left_out)}"
        )
    kept = [name for name in plan.tasks if name in finished]
    if kept:
        tasks = counted(len(plan.tasks), "task")
        reporter.note(f"{len(kept)} of {tasks} finished before and kept (--fresh starts over)")
        reporter.skip_tasks(len(kept))
    if earlier.unknown:
        reporter.note(
            f"{len(earlier.unknown)} of them are of a release that didn't record of which media they were, and are "
            "kept unlooked at; --fresh makes sure"
        )
    for name, problem in earlier.damaged.items():
        reporter.note(f"{name} is computed again: {problem}")
    known = {*finished, *earlier.damaged, *earlier.doubtful}
    stale = [name for name in plan.tasks if name not in known and plan.folder.task_file(name).is_file()]
    if stale:
        results = counted(len(stale), "earlier result")
        what = "of another model, setting or data revision"
        what += ", or without states" if plan.settings.keep_states else ""
        reporter.note(f"{results} {what}: computed again")


def media_list(plan: Plan, planned: PlannedTask) -> MediaList:
    """Where the media files of a task are remembered, as this plan reads it; runs of other models share it."""
    read = (str(plan.data.root), planned.task.name, planned.data_revision, dataclasses.asdict(plan.profile.frames))
    return MediaList(plan.settings.vectors_folder / MEDIA_FOLDER, fingerprint(*read, plan.settings.limit))


def _content_now(plan: Plan, planned: PlannedTask, hashes: MediaHashes) -> str:
    samples = load_samples(planned.task, plan.data, plan.profile, plan.settings.limit)
    return KeyedSamples.of(samples, hashes).content


def _trust_no_future(plan: Plan, reporter: Reporter) -> None:
    """A run that an earlier release started over remembers when; all it encodes would be older than a time ahead."""
    if started_over(plan.folder).nanoseconds > time.time_ns():
        reporter.note(
            f"{plan.folder.fresh_file} is of a time that is yet to come (was a clock set back?): what is stored by now "
            "is encoded again, once"
        )
        start_over(plan.folder, _stored_chunks(plan))


def _stored_chunks(plan: Plan) -> list[str]:
    stored = [
        path.name for folder in dict.fromkeys((plan.vectors, plan.candidate_vectors)) for path in chunk_files(folder)
    ]
    forgets = plan.settings.forgets
    return stored if forgets is None else [name for name in stored if name in forgets]


def _check_same_run(earlier: RunResult, plan: Plan) -> None:
    """Refuse to take over another model's folder; another revision or setting of the same one is computed again."""
    for what, there, now in (("model", earlier.model, plan.model.name), ("data", earlier.data, plan.data.name)):
        if there != now:
            raise ResultError(
                f"{plan.folder.root} holds a run of {what} {there!r}, not {now!r}; choose another --output, or start "
                "it over with --fresh"
            )


def _kept_results(plan: Plan, planned: Mapping[str, PlannedTask]) -> tuple[dict[str, FinishedTask], dict[str, str]]:
    """By task, what has the planned fingerprint and the states asked for; and what is wrong with files, if they are."""
    folder = plan.folder
    tasks: dict[str, FinishedTask] = {}
    damaged: dict[str, str] = {}
    for name in planned:
        if folder.task_file(name).exists():
            try:
                result = load_task_result(folder.task_file(name))
                if result.fingerprint == planned[name].fingerprint:
                    task = kept_task(folder, result)
                    if name in plan.others or not plan.settings.keep_states or has_states(folder, result):
                        tasks[name] = task
            except ResultError as error:
                if error.other_release:
                    raise
                damaged[name] = str(error)
    return tasks, damaged


def _sealed(folder: RunFolder, task: FinishedTask) -> FinishedTask:
    """A task of a release without checksums, which was recomputed, with them from now on."""
    if task.result.checksum:
        return task
    result = dataclasses.replace(task.result, tables=table_checksums(folder, task.result.name))
    return dataclasses.replace(task, result=save_task_result(folder.task_file(result.name), result))
