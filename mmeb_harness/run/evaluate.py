"""One evaluation, top to bottom: read every task, encode window by window, then rank, score and write each task.

    plan → samples → windows of chunks → vectors in the store → ranks and scores → files, and the same as a `Run`

Each step takes values and gives values. What is done already is kept: tasks with a result of the same fingerprint,
and vectors that the store has.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import TypeAlias

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder
from mmeb_harness.core.errors import HarnessError, ResultError
from mmeb_harness.core.interrupt import Interrupts
from mmeb_harness.core.progress import Reporter, label
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.core.waiting import heartbeat, progress_of
from mmeb_harness.data.folder import check_as_made, query_labels
from mmeb_harness.encode.chunks import plan_chunks
from mmeb_harness.encode.local import Encoder, LocalEncoder
from mmeb_harness.encode.windows import ReadTask, Window, one_ahead, windows
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
from mmeb_harness.store.vectors import VectorStore

#: Who encodes a run: given its plan, an encoder for as long as there is something to encode. Where several processes
#: share a run, they agree before it opens that they compute parts of the same.
OpenEncoder: TypeAlias = Callable[[Plan], AbstractContextManager[Encoder]]


def evaluate(plan: Plan, embedder: Embedder, open_encoder: OpenEncoder, reporter: Reporter) -> Run:
    """Encode and rank what is asked for, and write everything below the plan's folder.

    Tasks that the folder holds already, of the same model, settings and data, stay part of the run: a run of all 78
    may be put together from several invocations.

    Args:
        embedder: says what items cost, which decides what is encoded together.
        open_encoder: who encodes.

    Raises:
        HarnessError: on the first thing a user has to mend. Results written until then stay valid.
    """
    require_faiss()
    start = Start.now()
    with locked(plan.folder), ExitStack() as at_the_end:
        at_the_end.callback(reporter.stop)
        earlier = earlier_results(plan)
        plan = dataclasses.replace(plan, unsupported={**earlier.unsupported, **plan.unsupported})
        with progress_of("reading tasks", len(plan.tasks)) as advance:
            readings = read_tasks(plan, earlier.finished, advance)
        foresight = Foresight(embedder, reporter.time_left, reporter.note)
        foresight.expect(readings)
        reporter.start_run(len(plan.tasks))
        with _media_hashes(plan, reporter) as hashes:
            finished = take_over(plan, earlier, hashes, reporter)
            save_run(plan, finished, "running", start)
            rank = partial(_ranked, plan, query_labels(plan.data), foresight, reporter)
            with open_encoder(plan) as encoder:
                tasks = with_keys(readings, hashes, earlier.doubtful)
                for encoded in _encoded_tasks(plan, embedder, encoder, tasks, reporter, foresight):
                    read, name = encoded.read, encoded.read.task.name
                    if name in finished:
                        continue  # it was read only since later tasks' items meet its own in batches
                    finished[name] = earlier.doubtful[name] if read.is_finished else rank(encoded)
                    _remember_media(plan, read, hashes)
                    reporter.finish_task(_task_line(finished[name].result) + _told(name, read, earlier))
        return save_run(plan, finished, "finished", start)


def _ranked(
    plan: Plan,
    labels: Mapping[str, Mapping[str, str]],
    foresight: Foresight,
    reporter: Reporter,
    encoded: EncodedTask,
) -> FinishedTask:
    """A task with its result, and foresight told what that took."""
    began, name = time.monotonic(), encoded.read.task.name
    with heartbeat(f"{name}: ranking", reporter.note):
        finished = finish_task(plan, encoded, labels.get(name, {}))
    foresight.ranked(time.monotonic() - began)
    return finished


def encode_share(plan: Plan, embedder: Embedder, open_encoder: OpenEncoder, reporter: Reporter) -> None:
    """Encode what is asked for, or a share of it; somebody else ranks.

    Raises:
        HarnessError: as `evaluate`.
    """
    with open_encoder(plan) as encoder, _media_hashes(plan, reporter) as hashes:
        earlier = earlier_results(plan)
        readings = read_tasks(plan, earlier.finished)
        foresight = Foresight(embedder, reporter.time_left, reporter.note)
        foresight.expect(readings)
        tasks = with_keys(readings, hashes, earlier.doubtful)
        for _ in _encoded_tasks(plan, embedder, encoder, tasks, reporter, foresight):
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
    plan: Plan,
    embedder: Embedder,
    encoder: Encoder,
    tasks: Iterator[ReadTask],
    reporter: Reporter,
    foresight: Foresight,
) -> Iterator[EncodedTask]:
    """The tasks, each when the encoder has seen to it that the store has what the task needs; finished ones as well."""
    if (first := next(tasks, None)) is None:
        return
    store = open_store(plan, reporter.note)
    plan_items = partial(plan_chunks, embedder, batch_tokens=plan.settings.batch_tokens)
    # Media of large tasks take minutes to hash, in which the accelerator needn't wait.
    for window in one_ahead(windows(_looked_through(chain([first], tasks), store), plan_items)):
        waiting = [task for task in window.tasks if not task.is_finished]
        needed = {key for task in waiting for keys in task.keys.values() for key in keys}
        for task in waiting:
            for keys in task.keys.values():
                store.settle(keys)
        stored = {key for key in needed if key in store}
        reporter.start_encoding([task.task.name for task in waiting], len(needed) - len(stored))
        # Chunks of which nothing is needed keep their place: shares are given out by it.
        with _naming_tasks(window):
            chunks = [chunk.only(needed.__contains__) for chunk in window.chunks]
            encoder.encode(chunks, foresight.begin(window, chunks, store), reporter.advance)
            foresight.end()
        for task in window.tasks:
            yield EncodedTask(task, store, stored)
            stored.update(*task.keys.values())


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


def _looked_through(tasks: Iterator[ReadTask], store: VectorStore) -> Iterator[ReadTask]:
    """The same; what is stored of each begins to be verified while others are read and planned."""
    for task in tasks:
        if not task.is_finished:
            for keys in task.keys.values():
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
    def opened(plan: Plan) -> Iterator[Encoder]:
        encoding, preparation = embedder, None
        if isinstance(embedder, BudgetedEmbedder):
            from mmeb_harness.encode.whole_workers import encoding_parts

            encoding, preparation = encoding_parts(embedder, spec, workers, note)
        with preparation or nullcontext():
            yield LocalEncoder(encoding, preparation, plan.settings.batch_tokens, note, Interrupts(note))

    return opened


def open_store(plan: Plan, note: Callable[[str], None] = lambda _: None) -> VectorStore:
    """The model's vectors, but for those from before the run was started over.

    Raises:
        ResultError: those that are there can't be used.
    """
    started = started_over(plan.folder)
    after = (started.nanoseconds, plan.model, started.chunks, note)
    states = plan.settings.keep_states
    candidates = plan.candidate_vectors
    return VectorStore(plan.vectors, plan.model.similarity, *after, candidates=candidates, with_states=states)


def _told(name: str, read: ReadTask, earlier: Earlier) -> str:
    """What a look at a finished task's media has found."""
    if name not in earlier.doubtful:
        return ""
    return "  (media unchanged: kept)" if read.is_finished else "  (media changed: computed again)"


def _task_line(result: TaskResult) -> str:
    reasoned = f", {100 * result.queries.reasoning_rate:.0f} % of queries reasoned" if result.queries.reasoned else ""
    notes = "".join(f", {count} {name}" for name, count in result.notes.items())
    return (
        f"{result.name}: {result.metric} {100 * result.score:.1f} % (chance {100 * result.chance:.1f} %)"
        f"{reasoned}{notes}"
    )
