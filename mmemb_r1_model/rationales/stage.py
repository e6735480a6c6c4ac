"""`mmemb-r1 rationales`: every worker writes of every side of every pair. Out: rationales.jsonl, beside its config.

Worker after worker, so that one model is loaded at a time; within a worker in the order of the pairs. What is written
stays: a second start does what is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from mmemb_r1_model.data.pairs import Item, Pair, PairSet, Side, item_of
from mmemb_r1_model.disk.errors import DataError, ModelError, OptionError
from mmemb_r1_model.disk.files import lock_file, write_json
from mmemb_r1_model.disk.jsonl import RowWriter
from mmemb_r1_model.rationales.config import RationaleConfig, WorkerConfig, check_config, differences
from mmemb_r1_model.rationales.leak import leaks_verbatim
from mmemb_r1_model.rationales.rows import (
    RATIONALES,
    RationaleRow,
    Written,
    drop_failures,
    read_rationales,
    row_key,
    scan,
)
from mmemb_r1_model.rationales.summary import RationaleSummary, summarise
from mmemb_r1_model.rationales.text import is_loop
from mmemb_r1_model.rationales.workers import Answer, Ask, Worker, WorkerPrompt, row_seed

__all__ = ["RATIONALES", "OnProgress", "Progress", "RationaleConfig", "WorkerConfig", "write_rationales"]

CONFIG = "config.json"
SUMMARY = "summary.json"
#: So many failed answers one after the other are no bad luck: nothing more is asked.
FAILURES_IN_A_ROW = 25


@dataclass(frozen=True)
class Progress:
    """Where a worker is. `total` is what was missing when the run began."""

    worker: str
    done: int
    total: int
    failed: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Job:
    """An ask, and what its worker must not see."""

    ask: Ask
    unseen: Item


@dataclass
class _Census:
    """What there is to do, counted before anybody is asked."""

    pair_sides: int = 0
    skipped_short: int = 0
    missing: Counter[str] = dataclasses.field(default_factory=Counter)  # by worker


def write_rationales(
    pair_sets: Sequence[PairSet],
    config: RationaleConfig,
    folder: Path,
    *,
    root: Path = Path(),
    progress: OnProgress = lambda _: None,
) -> RationaleSummary:
    """Write the rationales that `folder` doesn't have yet, its config.json and its summary.json.

    Args:
        root: recorded workers' folders are relative to it.
        progress: told of every answer.

    Raises:
        OptionError: a configuration that makes no sense, or whose rows can't be mixed with those in the folder.
        DataError: a pair without its media, before any worker is called; or another run is writing to the folder.
        ModelError: a worker that can't go on. What it wrote is kept, the same command goes on from there.
    """
    check_config(config)
    with _lock(folder):
        written = scan(folder)
        _refuse_mixing(folder, config, written)
        # Opened, not yet loaded: a missing key shows before the first worker has worked for a day.
        workers = [(worker, _open_worker(worker, config, root)) for worker in config.workers]
        census = _take_census(pair_sets, config, written)
        write_json(folder / CONFIG, dataclasses.asdict(config))
        if written.failures:
            drop_failures(folder)
        absent: dict[str, int] = {}
        with RowWriter(folder / RATIONALES) as out:
            for worker_config, worker in workers:
                written.settle()
                jobs = _jobs(pair_sets, config, worker_config, written)
                run = _Run(worker_config, config, written, out, census.missing[worker_config.name], progress)
                absent[worker_config.name] = run.write(worker, jobs)
        summary = summarise(read_rationales(folder), config, census.pair_sides, census.skipped_short, absent)
        write_json(folder / SUMMARY, dataclasses.asdict(summary))
        return summary


class _Run:
    """One worker's part of a run."""

    def __init__(
        self,
        worker: WorkerConfig,
        config: RationaleConfig,
        written: Written,
        out: RowWriter,
        total: int,
        progress: OnProgress,
    ) -> None:
        self._worker, self._config, self._written, self._out = worker, config, written, out
        self._total, self._progress = total, progress
        self._done = self._failed = self._failed_in_a_row = self._absent = 0

    def write(self, worker: Worker, jobs: Iterator[_Job]) -> int:
        """Ask for all jobs and write what comes; returns how many a recorded worker has nothing for."""
        asked: deque[_Job] = deque()

        def asks() -> Iterator[Ask]:
            for job in jobs:
                asked.append(job)
                yield job.ask

        with contextlib.closing(worker.answers(asks())) as answers:
            for answer in answers:
                self._take(asked.popleft(), answer)
        if self._absent and not self._written.rows_of[self._worker.name]:
            raise DataError(
                f"worker {self._worker.name!r}: {self._worker.model or 'the pairs'} has no rationale for any of "
                f"{self._absent} samples asked for; is it the data of these pairs?"
            )
        return self._absent

    def _take(self, job: _Job, answer: Answer | None) -> None:
        self._done += 1
        if answer is None:
            self._absent += 1
        else:
            self._keep(_row(job, answer, self._worker.name, self._config))
        self._progress(Progress(self._worker.name, self._done, self._total, self._failed))

    def _keep(self, row: RationaleRow) -> None:
        if row.is_whole:
            row = dataclasses.replace(row, duplicate_of=self._written.first_writer(row))
        self._out.write(dataclasses.asdict(row))
        self._written.add(row)
        self._failed += row.failed
        self._failed_in_a_row = self._failed_in_a_row + 1 if row.failed else 0
        if self._failed_in_a_row >= FAILURES_IN_A_ROW:
            raise ModelError(
                f"worker {self._worker.name!r}: {FAILURES_IN_A_ROW} requests in a row failed, the last one with "
                f"{row.finish!r}; nothing more is asked. Once that is mended the same command goes on"
            )


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
    )


def _pairs(pair_sets: Sequence[PairSet], limit: int | None) -> Iterator[Pair]:
    for pairs in pair_sets:
        for index in range(len(pairs) if limit is None else min(limit, len(pairs))):
            yield pairs[index]


def sides_to_reason(pair: Pair, config: RationaleConfig) -> list[Side]:
    """The sides of a pair that get rationales."""
    return [side for side in config.sides if not _is_short(pair, side, config)]


def _is_short(pair: Pair, side: Side, config: RationaleConfig) -> bool:
    item = item_of(pair, side)
    return side == "positive" and not item.media and len(item.text) < config.skip_short_texts


def _jobs(
    pair_sets: Sequence[PairSet],
    config: RationaleConfig,
    worker: WorkerConfig,
    written: Written,
) -> Iterator[_Job]:
    """What this worker still has to write."""
    for pair in _pairs(pair_sets, config.pairs_per_set):
        for side in sides_to_reason(pair, config):
            for sample in _missing(pair, side, worker.name, config.samples, written):
                ask = Ask(
                    dataset=pair.dataset,
                    pair=pair.id,
                    side=side,
                    sample=sample,
                    seed=row_seed(worker.seed, pair.dataset, pair.id, side, sample),
                    item=item_of(pair, side),
                    carried=pair.rationales.get(side),
                )
                yield _Job(ask, item_of(pair, "positive" if side == "query" else "query"))


def _missing(pair: Pair, side: Side, worker: str, samples: int, written: Written) -> list[int]:
    return [
        sample for sample in range(samples) if not written.has(row_key(pair.dataset, pair.id, side, worker, sample))
    ]


def _take_census(pair_sets: Sequence[PairSet], config: RationaleConfig, written: Written) -> _Census:
    """Count what is missing, and look for the media of it.

    Raises:
        DataError: a file that isn't there; the pair and the path are named.
    """
    census = _Census()
    for pair in _pairs(pair_sets, config.pairs_per_set):
        sides = sides_to_reason(pair, config)
        census.pair_sides += len(sides)
        census.skipped_short += len(config.sides) - len(sides)
        for side in sides:
            missing = {
                worker.name: len(_missing(pair, side, worker.name, config.samples, written))
                for worker in config.workers
            }
            census.missing.update(missing)
            if any(missing.values()):
                _check_media(pair, side)
    return census


def _check_media(pair: Pair, side: Side) -> None:
    for path in item_of(pair, side).media:
        if not path.is_file():
            raise DataError(
                f"{pair.dataset}, pair {pair.id!r}: {path}, of its {side}, is missing; no worker was called. "
                "Fetch the data set's media, or leave the pair out"
            )


def _refuse_mixing(folder: Path, config: RationaleConfig, written: Written) -> None:
    """Refuse to write rows beside others that were made differently."""
    if not written.rows_of:
        return
    if changes := differences(_read_config(folder), config, written.rows_of):
        raise OptionError(
            f"{folder} has {written.rows_of.total()} rationales of another configuration ({'; '.join(changes)}): set "
            f"it back, or write to another folder; {folder / CONFIG} has what they were made with"
        )


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / RATIONALES} has rows, but {path} can't be read ({error}): what made them isn't known; "
            "write to another folder"
        ) from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected an object, found {type(config).__name__}")
    return config


def _lock(folder: Path) -> BinaryIO:
    """Keep a second run out of the folder: it would ask, and pay, for the same rows."""

    def refuse() -> NoReturn:
        raise DataError(f"another run is writing to {folder}; wait for it, or end it")

    folder.mkdir(parents=True, exist_ok=True)
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
