"""`mmemb-r1 rationales`: every worker writes of every side of every pair. Out: rationales.jsonl, beside its config.

Worker after worker, so that one model is loaded at a time; within a worker in the order of the pairs. What is written
stays: a second start does what is missing. Only what is about a side that has changed since is written again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from mmemb_r1_model.data.pairs import OTHER_SIDE, Item, Pair, PairSet, Side, item_of, side_content
from mmemb_r1_model.data.rationales import RATIONALES, RationaleRow, read_rationales
from mmemb_r1_model.disk.errors import DataError, ModelError, OptionError, progress_of, say
from mmemb_r1_model.disk.files import lock_file, make_folder, read_object, write_json
from mmemb_r1_model.disk.jsonl import RowWriter
from mmemb_r1_model.rationales.config import RationaleConfig, WorkerConfig, check_config, differences
from mmemb_r1_model.rationales.leak import leaks_verbatim
from mmemb_r1_model.rationales.rows import Written, drop_rows, scan
from mmemb_r1_model.rationales.summary import RationaleSummary, summarise
from mmemb_r1_model.rationales.text import is_loop
from mmemb_r1_model.rationales.workers import Answer, Ask, Worker, WorkerPrompt, row_seed

CONFIG = "config.json"
SUMMARY = "summary.json"
#: So many failed answers one after the other are no bad luck: nothing more is asked.
FAILURES_IN_A_ROW = 25


@dataclass(frozen=True, slots=True)
class _Job:
    """An ask, what its worker must not see, and the content that the row will be about."""

    ask: Ask
    unseen: Item
    content: str


def write_rationales(
    pair_sets: Sequence[PairSet],
    config: RationaleConfig,
    folder: Path,
    *,
    root: Path = Path(),
    on_units: Callable[[str, int], None] = lambda *_: None,
) -> RationaleSummary:
    """Write the rationales that `folder` doesn't have yet, its config.json and its summary.json.

    Args:
        root: recorded workers' folders are relative to it.
        on_units: told of a worker and how many answers it has given, one at a time.

    Raises:
        OptionError: a configuration that makes no sense, or whose rows can't be mixed with those in the folder.
        DataError: a pair without its media, before any worker is called; or another run is writing to the folder.
        ModelError: a worker that can't go on. What it wrote is kept, the same command goes on from there.
    """
    check_config(config)
    with _lock(folder):
        with progress_of("rationales, reading what is there"):
            written = scan(folder)
            _refuse_mixing(folder, config, written)
            # Opened, not yet loaded: a missing key shows before the first worker has worked for a day.
            workers = [(worker, _open_worker(worker, config, root)) for worker in config.workers]
        census = _take_census(pair_sets, config, written)
        write_json(folder / CONFIG, dataclasses.asdict(config))
        if changed := census.changed:
            say(f"rationales: {len(changed):,} rationales of pairs that changed since are written again")
        if changed or written.failures:
            drop_rows(folder, changed)
        if changed:  # their words are no longer the first of their pair side
            with progress_of("rationales, reading what is left"):
                written = scan(folder)
        with RowWriter(folder / RATIONALES) as out:
            kept = _Kept(config, written, out, on_units)
            absent = {
                worker.name: kept.write(
                    worker, opened, _jobs(pair_sets, config, worker, written), census.missing[worker.name]
                )
                for worker, opened in workers
            }
        with progress_of("rationales, counting"):
            summary = summarise(read_rationales(folder), config, census.pair_sides, census.skipped_short, absent)
        write_json(folder / SUMMARY, dataclasses.asdict(summary))
        return summary


@dataclass(frozen=True)
class _Kept:
    """What workers write, as it goes to the file."""

    config: RationaleConfig
    written: Written
    out: RowWriter
    on_units: Callable[[str, int], None]

    def write(self, worker: WorkerConfig, opened: Worker, jobs: Iterator[_Job], total: int) -> int:
        """Ask one worker for all jobs and write what comes; returns how many a recorded worker has nothing for.

        Args:
            total: how many jobs there are.
        """
        failed_in_a_row = absent = 0
        jobs, asked = itertools.tee(jobs)
        with (
            contextlib.closing(opened.answers(job.ask for job in asked)) as answers,
            progress_of(f"rationales, {worker.name} writes", total) as advance,
        ):
            for answer, job in zip(answers, jobs, strict=True):
                if answer is None:
                    absent += 1
                else:
                    row = self._keep(_row(job, answer, worker.name, self.config))
                    failed_in_a_row = failed_in_a_row + 1 if row.failed else 0
                    if failed_in_a_row >= FAILURES_IN_A_ROW:
                        raise ModelError(
                            f"worker {worker.name!r}: {FAILURES_IN_A_ROW} requests in a row failed, the last one with "
                            f"{row.finish!r}; nothing more is asked. Once that is mended the same command goes on"
                        )
                self.on_units(worker.name, 1)
                advance()
        if absent and not self.written.rows_of[worker.name]:
            raise DataError(
                f"worker {worker.name!r}: {worker.model or 'the pairs'} has no rationale for any of {absent} samples "
                "asked for; is it the data of these pairs?"
            )
        return absent

    def _keep(self, row: RationaleRow) -> RationaleRow:
        if row.is_whole:
            row = dataclasses.replace(row, duplicate_of=self.written.first_writer(row))
        self.out.write(dataclasses.asdict(row))
        self.written.add(row)
        return row


def _row(job: _Job, answer: Answer, worker: str, config: RationaleConfig) -> RationaleRow:
    ask, finish = job.ask, answer.finish
    leaks = leaks_verbatim(answer.text, ask.item, job.unseen, config.min_leak_characters)
    if finish in ("stop", "length"):
        if not answer.text:
            finish = "empty"
        elif is_loop(answer.text):
            finish = "loop"
        elif leaks and config.drop_leaks:
            finish = "leak"
    return RationaleRow(
        dataset=ask.dataset,
        pair=ask.pair,
        side=ask.side,
        worker=worker,
        sample=ask.sample,
        text=answer.text,
        tokens=answer.tokens,
        seconds=None if answer.seconds is None else round(answer.seconds, 4),
        finish=finish,
        leaks=leaks,
        content=job.content,
    )


def _pairs(pair_sets: Sequence[PairSet], limit: int | None) -> Iterator[Pair]:
    for pairs in pair_sets:
        for index in range(len(pairs) if limit is None else min(limit, len(pairs))):
            yield pairs[index]


def sides_to_reason(pair: Pair, config: RationaleConfig) -> list[Side]:
    """The sides of a pair that get rationales."""
    is_short = not pair.positive.media and len(pair.positive.text) < config.skip_short_texts
    return [side for side in config.sides if not (side == "positive" and is_short)]


def _content(pair: Pair, side: Side, worker: WorkerConfig) -> str:
    return side_content(pair, side, carried=worker.is_carried)


def _jobs(
    pair_sets: Sequence[PairSet], config: RationaleConfig, worker: WorkerConfig, written: Written
) -> Iterator[_Job]:
    """What this worker still has to write."""
    for pair in _pairs(pair_sets, config.pairs_per_set):
        for side in sides_to_reason(pair, config):
            content = _content(pair, side, worker)
            for sample in written.missing(pair, side, content, worker.name, config.samples):
                ask = Ask(
                    dataset=pair.dataset,
                    pair=pair.id,
                    side=side,
                    sample=sample,
                    seed=row_seed(worker.seed, pair.dataset, pair.id, side, sample),
                    item=item_of(pair, side),
                    carried=pair.rationales.get(side),
                )
                yield _Job(ask, item_of(pair, OTHER_SIDE[side]), content)


@dataclass(frozen=True)
class _Census:
    """Sides of pairs to reason about, those that are too short, and how many texts each worker still has to write.

    Attributes:
        changed: keys of rows that are among them because the side is another one now.
    """

    pair_sides: int
    skipped_short: int
    missing: Counter[str]
    changed: set[int]


def _take_census(pair_sets: Sequence[PairSet], config: RationaleConfig, written: Written) -> _Census:
    """Count what there is to do, and look for the media.

    Raises:
        DataError: a file that isn't there; no worker was called.
    """
    pair_sides = skipped_short = 0
    missing, changed = Counter[str](), set[int]()
    limit = config.pairs_per_set
    total = sum(len(pairs) if limit is None else min(limit, len(pairs)) for pairs in pair_sets)
    with progress_of("rationales, pairs counted", total) as advance:
        for pair in _pairs(pair_sets, limit):
            sides = sides_to_reason(pair, config)
            pair_sides += len(sides)
            skipped_short += len(config.sides) - len(sides)
            for side in sides:
                for worker in config.workers:
                    about = pair, side, _content(pair, side, worker), worker.name, config.samples
                    missing[worker.name] += len(written.missing(*about))
                    changed |= written.changed(*about)
            advance()
    return _Census(pair_sides, skipped_short, missing, changed)


def _refuse_mixing(folder: Path, config: RationaleConfig, written: Written) -> None:
    """Refuse to write rows beside others that were made differently."""
    path = folder / CONFIG
    if not written.rows_of:
        return
    before = read_object(path, f"what made the rows of {folder / RATIONALES} isn't known; write to another folder")
    if changes := differences(before, config, written.rows_of):
        raise OptionError(
            f"{folder} has {written.rows_of.total()} rationales of another configuration ({'; '.join(changes)}): set "
            f"it back, or write to another folder; {path} has what they were made with"
        )


def _lock(folder: Path) -> BinaryIO:
    """Keep a second run out of the folder: it would ask, and pay, for the same rows."""

    def refuse() -> NoReturn:
        raise DataError(f"another run is writing to {folder}; wait for it, or end it")

    make_folder(folder)
    return lock_file(folder / ".lock", refuse)


def _open_worker(worker: WorkerConfig, config: RationaleConfig, root: Path) -> Worker:
    """The worker of a configuration. What it needs is opened later, at its first ask.

    Args:
        root: recorded data folders are relative to it.

    Raises:
        OptionError: its key's environment variable isn't set.
        DataError, UnknownNameError: recorded rationales that aren't there.
    """
    prompt = WorkerPrompt(config.system_prompt, config.request)
    match worker.backend:
        case "endpoint":
            from mmemb_r1_model.rationales.endpoint import EndpointWorker

            return EndpointWorker(worker, prompt)
        case "local":
            from mmemb_r1_model.rationales.local import LocalWorker

            return LocalWorker(worker, prompt)
        case "recorded":
            from mmemb_r1_model.rationales.recorded import open_recorded

            return open_recorded(worker, root)
