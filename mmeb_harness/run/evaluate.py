"""One evaluation, top to bottom: read every task, encode window by window, then rank, score and write each task.

    plan → samples → windows of chunks → vectors in the store → ranks and scores → files, and the same as a `Run`

Each step takes values and gives values. What is done already is kept: tasks with a result of the same fingerprint,
and vectors that the store has.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeAlias

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder, in_modes
from mmeb_harness.core.errors import HarnessError, ResultError
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.progress import Prefixed, Reporter, label
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.core.waiting import heartbeat, progress_of
from mmeb_harness.data.folder import check_as_made, query_labels
from mmeb_harness.encode.chunks import plan_chunks
from mmeb_harness.encode.local import Encoder, LocalEncoder, Sink
from mmeb_harness.encode.windows import ROLES, ReadTask, Window, one_ahead, windows
from mmeb_harness.ranking.corpus import require_faiss
from mmeb_harness.results.files import TaskResult
from mmeb_harness.results.folder import locked, started_over
from mmeb_harness.results.outcome import FinishedTask, Run
from mmeb_harness.run.earlier import Earlier, earlier_results, media_list, take_over
from mmeb_harness.run.foresight import Foresight
from mmeb_harness.run.plan import Plan
from mmeb_harness.run.read import read_tasks, with_keys
from mmeb_harness.run.record import EncodedTask, Start, finish_task, save_run
from mmeb_harness.store.media import MEDIA_FOLDER, MediaHashes
from mmeb_harness.store.modes import ModesSink
from mmeb_harness.store.vectors import VectorStore

#: Who encodes a run: given its plans, one a mode, an encoder for as long as there is something to encode. Where several
#: processes share a run, they agree before it opens that they compute parts of the same.
OpenEncoder: TypeAlias = Callable[[Sequence[Plan]], AbstractContextManager[Encoder]]


@dataclass
class _ModeRun:
    """The run of one mode, while it goes on."""

    plan: Plan
    earlier: Earlier
    reporter: Reporter
    finished: dict[str, FinishedTask] = field(default_factory=dict)

    @classmethod
    def begin(cls, plan: Plan, reporter: Reporter) -> _ModeRun:
        earlier = earlier_results(plan)
        known = dataclasses.replace(plan, unsupported={**earlier.unsupported, **plan.unsupported})
        return cls(
            dataclasses.replace(known, pending=not plan.tasks.keys() <= earlier.finished.keys()), earlier, reporter
        )

    def take_over(self, hashes: MediaHashes) -> None:
        self.finished = take_over(self.plan, self.earlier, hashes, self.reporter)

    def is_unchanged(self, name: str, content: str) -> bool:
        """Whether a task has a result that counts, or one of media that turn out to be the same."""
        doubtful = self.earlier.doubtful.get(name)
        return name in self.earlier.finished or (doubtful is not None and doubtful.result.content == content)

    def finish(self, encoded: EncodedTask, hashes: MediaHashes, rank: Rank) -> None:
        """Rank a task, unless its result is there."""
        name, content = encoded.read.task.name, encoded.read.content
        if name in self.finished:
            return  # it was read only since later tasks' items meet its own in batches
        is_kept = self.is_unchanged(name, content)
        self.finished[name] = self.earlier.doubtful[name] if is_kept else rank(self.plan, encoded)
        _remember_media(self.plan, encoded.read, hashes)
        told = "" if name not in self.earlier.doubtful else _KEPT if is_kept else _AGAIN
        self.reporter.finish_task(_task_line(self.finished[name].result) + told)


#: What a look at a finished task's media has found.
_KEPT, _AGAIN = "  (media unchanged: kept)", "  (media changed: computed again)"
Rank: TypeAlias = Callable[[Plan, EncodedTask], FinishedTask]


def evaluate(
    plans: Sequence[Plan], embedder: Embedder, open_encoder: OpenEncoder, reporter: Reporter
) -> tuple[Run, ...]:
    """Encode and rank what is asked for, and write everything below the plans' folders.

    Tasks that a folder holds already, of the same model, settings and data, stay part of its run: a run of all 78
    may be put together from several invocations.

    Args:
        plans: one; or several of the same tasks, data and settings, of modes in which a model embeds queries at once.
        embedder: says what items cost, which decides what is encoded together.
        open_encoder: who encodes.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    require_faiss()
    start, (first, *_) = Start.now(), plans
    with ExitStack() as at_the_end:
        for plan in plans:
            at_the_end.enter_context(locked(plan.folder))
        at_the_end.callback(reporter.stop)
        runs = _begin(plans, reporter)
        with progress_of("reading tasks", len(first.tasks)) as advance:
            readings = read_tasks(first, _finished_in_all(runs), advance)
        foresight = Foresight(embedder, reporter.time_left, reporter.note)
        foresight.expect(readings, len(runs))
        reporter.start_run(len(first.tasks) * len(runs))
        with _media_hashes(first, reporter) as hashes:
            for run in runs:
                run.take_over(hashes)
                save_run(run.plan, run.finished, "running", start)
            rank = partial(_ranked, query_labels(first.data), foresight, reporter)
            pending = [run for run in runs if run.plan.pending]
            with open_encoder([run.plan for run in runs]) as encoder:
                tasks = with_keys(readings, hashes, _unchanged(runs))
                encoded = _encoded_tasks([run.plan for run in pending], embedder, encoder, tasks, foresight, reporter)
                for of_modes in encoded:
                    for run, of_mode in zip(pending, of_modes, strict=True):
                        run.finish(of_mode, hashes, rank)
        return tuple(save_run(run.plan, run.finished, "finished", start) for run in runs)


def _begin(plans: Sequence[Plan], reporter: Reporter) -> list[_ModeRun]:
    if len(plans) == 1:
        return [_ModeRun.begin(plans[0], reporter)]
    return [_ModeRun.begin(plan, Prefixed(reporter, f"{plan.model.mode}: ")) for plan in plans]


def _finished_in_all(runs: Sequence[_ModeRun]) -> set[str]:
    return set.intersection(*({*run.earlier.finished} for run in runs))


def _unchanged(runs: Sequence[_ModeRun]) -> Callable[[str, str], bool]:
    return lambda name, content: all(run.is_unchanged(name, content) for run in runs)


def _ranked(
    labels: Mapping[str, Mapping[str, str]],
    foresight: Foresight,
    reporter: Reporter,
    plan: Plan,
    encoded: EncodedTask,
) -> FinishedTask:
    """A task with its result, and foresight told what that took."""
    began, name = time.monotonic(), encoded.read.task.name
    with heartbeat(f"{name}: ranking", reporter.note):
        finished = finish_task(plan, encoded, labels.get(name, {}))
    foresight.ranked(time.monotonic() - began)
    return finished


def encode_share(plans: Sequence[Plan], embedder: Embedder, open_encoder: OpenEncoder, reporter: Reporter) -> None:
    """Encode what is asked for, or a share of it; somebody else ranks.

    Raises:
        HarnessError: as `evaluate`.
    """
    with ExitStack() as at_the_end:
        at_the_end.callback(reporter.stop)
        runs = _begin(plans, reporter)
        plans = [run.plan for run in runs]
        encoder = at_the_end.enter_context(open_encoder(plans))
        hashes = at_the_end.enter_context(_media_hashes(plans[0], reporter))
        readings = read_tasks(plans[0], _finished_in_all(runs))
        foresight = Foresight(embedder, reporter.time_left, reporter.note)
        foresight.expect(readings, len(runs))
        tasks = with_keys(readings, hashes, _unchanged(runs))
        pending = [plan for plan in plans if plan.pending]
        for _ in _encoded_tasks(pending, embedder, encoder, tasks, foresight, reporter):
            pass


@contextmanager
def _media_hashes(plan: Plan, reporter: Reporter) -> Iterator[MediaHashes]:
    """What is remembered of the media; in the end, so is what was read."""
    check = partial(check_as_made, plan.data)
    folder = plan.settings.vectors_folder / MEDIA_FOLDER
    hashes = MediaHashes(folder, plan.data.root, reporter.note, check, reporter.read_media)
    try:
        yield hashes
    finally:
        hashes.save()
    if hashes.problem is not None:
        reporter.note(f"hashes of media are not remembered: {hashes.problem}")


def _remember_media(plan: Plan, read: ReadTask, hashes: MediaHashes) -> None:
    """So that the next run needs no more than a look at the files."""
    items = (*read.samples.queries, *read.samples.candidates)
    try:
        media_list(plan, plan.tasks[read.task.name]).write(items, read.content)
    except ResultError as error:  # costs time, not correctness, as with the hashes
        hashes.problem = hashes.problem or error


def _encoded_tasks(
    plans: Sequence[Plan],
    embedder: Embedder,
    encoder: Encoder,
    tasks: Iterator[ReadTask],
    foresight: Foresight,
    reporter: Reporter,
) -> Iterator[tuple[EncodedTask, ...]]:
    """The tasks, one a plan, each when the encoder has seen to it that its vectors are stored; finished ones too."""
    if (first := next(tasks, None)) is None:
        return
    stores = open_stores(plans, reporter.note)
    plan_items = partial(plan_chunks, embedder, batch_tokens=plans[0].settings.batch_tokens)
    # Media of large tasks take minutes to hash, in which the accelerator needn't wait.
    for window in one_ahead(windows(_looked_through(chain([first], tasks), stores), plan_items)):
        waiting = [task for task in window.tasks if not task.is_finished]
        queries, candidates = ({key for task in waiting for key in task.keys[role]} for role in ROLES)
        for task in waiting:
            for keys, store in _places(task, stores):
                store.settle(keys)
        of_candidates = {key for key in candidates if key in stores[0]}
        stored = [of_candidates | {key for key in queries if key in store} for store in stores]
        sink: Sink = stores[0] if len(stores) == 1 else ModesSink(stores, candidates)
        needed = queries | candidates
        reporter.start_encoding([task.task.name for task in waiting], sum(key not in sink for key in needed))
        # Chunks of which nothing is needed keep their place: shares are given out by it.
        with _naming_tasks(window):
            chunks = [chunk.only(needed.__contains__) for chunk in window.chunks]
            encoder.encode(chunks, foresight.begin(window, chunks, sink), reporter.advance)
            foresight.end()
        for task in window.tasks:
            yield tuple(EncodedTask(task, store, stores[0], keys) for store, keys in zip(stores, stored, strict=True))
            for there in stored:
                there.update(*task.keys.values())


def _places(task: ReadTask, stores: Sequence[VectorStore]) -> Iterator[tuple[Sequence[str], VectorStore]]:
    """A task's keys, and where their vectors are."""
    yield task.candidate_keys, stores[0]
    for store in stores:
        yield task.query_keys, store


@contextmanager
def _naming_tasks(window: Window) -> Iterator[None]:
    """An error that is about some items says which tasks have them."""
    try:
        yield
    except HarnessError as error:
        about = frozenset(error.keys)
        tasks = [
            task.task.name for task in window.tasks if any(not about.isdisjoint(keys) for keys in task.keys.values())
        ]
        if tasks:
            error.args = (f"{label(tasks)}: {error}",)
        raise


def _looked_through(tasks: Iterator[ReadTask], stores: Sequence[VectorStore]) -> Iterator[ReadTask]:
    """The same; what is stored of each begins to be verified while others are read and planned."""
    for task in tasks:
        if not task.is_finished:
            for keys, store in _places(task, stores):
                store.look_through(keys)
        yield task


def this_process(
    embedder: Embedder,
    note: Callable[[str], None],
    spec: ModelSpec | None = None,
    workers: int = 0,
) -> OpenEncoder:
    """This process encodes; a thread prepares or, where it is told how the model is made, further processes.

    Args:
        note: told what the user should know.
        workers: further processes; see `encoding_parts`.
    """

    @contextmanager
    def opened(plans: Sequence[Plan]) -> Iterator[Encoder]:
        modes = [plan.model.mode for plan in plans if plan.pending] or [plans[0].model.mode]
        encoding, preparation = in_modes(embedder, modes), None
        recipe = spec if spec is None or encoding is embedder else spec.in_modes(modes)
        if isinstance(encoding, BudgetedEmbedder):
            from mmeb_harness.encode.whole_workers import encoding_parts

            encoding, preparation = encoding_parts(encoding, recipe, workers, note)
        with preparation or nullcontext():
            yield LocalEncoder(encoding, preparation, plans[0].settings.batch_tokens, note, Interrupts(note))

    return opened


def open_stores(plans: Sequence[Plan], note: Callable[[str], None] = lambda _: None) -> list[VectorStore]:
    """The vectors of a model's modes, but for those from before a run was started over; the first has the candidates.

    Raises:
        ResultError: those that are there can't be used.
    """
    stores: list[VectorStore] = []
    for plan in plans:
        started = started_over(plan.folder)
        after = (started.nanoseconds, plan.model, started.chunks, note)
        candidates = None if stores else plan.candidate_vectors
        states = plan.settings.keep_states
        stores.append(
            VectorStore(plan.vectors, plan.model.similarity, *after, candidates=candidates, with_states=states)
        )
    return stores


def _task_line(result: TaskResult) -> str:
    reasoned = f", {100 * result.queries.reasoning_rate:.0f} % of queries reasoned" if result.queries.reasoned else ""
    notes = "".join(f", {count} {name}" for name, count in result.notes.items())
    return (
        f"{result.name}: {result.metric} {100 * result.score:.1f} % (chance {100 * result.chance:.1f} %)"
        f"{reasoned}{notes}"
    )
