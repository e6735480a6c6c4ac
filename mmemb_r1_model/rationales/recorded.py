"""Rationales that exist already: carried by the pairs, or written beside a synthetic suite's data."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path

from mmemb_r1_model.data.pairs import SIDES
from mmemb_r1_model.data.suite import QUERY, SAMPLE, SIDE, TASK, TEXT, WORKER, WORKER_RATIONALES, worker_rows
from mmemb_r1_model.disk.errors import DataError, UnknownNameError
from mmemb_r1_model.rationales.config import WorkerConfig
from mmemb_r1_model.rationales.text import clean, thoughts_in
from mmemb_r1_model.rationales.workers import Answer, Ask

_Key = tuple[str, str, str, int]  # data set, pair, side, sample


class RecordedWorker:
    """Gives rationales that are looked up."""

    def __init__(self, text_of: Callable[[Ask], str | None]) -> None:
        self._text_of = text_of

    def answers(self, asks: Iterable[Ask]) -> Generator[Answer | None, None, None]:
        """`None` where nothing is recorded."""
        for ask in asks:
            text = self._text_of(ask)
            yield None if text is None else _answer(text)


def open_recorded(config: WorkerConfig, root: Path) -> RecordedWorker:
    """The pairs' own rationales (no `model`), or those of the folders' tables whose worker has this name.

    Raises:
        DataError: no table, or not its columns.
        UnknownNameError: the table has no such worker.
    """
    if config.is_carried:  # a pair carries one sample of a side
        return RecordedWorker(lambda ask: None if ask.sample else ask.carried)
    texts: dict[_Key, str] = {}
    for folder in config.model.split(","):
        texts |= _read_table(root / folder.strip(), config.name)
    return RecordedWorker(lambda ask: texts.get((ask.dataset, ask.pair, ask.side, ask.sample)))


def _read_table(folder: Path, worker: str) -> dict[_Key, str]:
    path = folder / WORKER_RATIONALES
    if not path.is_file():
        raise DataError(f"worker {worker!r}: {path} is missing; model must name a folder that has recorded rationales")
    texts: dict[_Key, str] = {}
    workers: set[str] = set()
    for row in worker_rows(folder, TASK, QUERY, SIDE, WORKER, SAMPLE, TEXT):
        workers.add(row[WORKER])
        if row[WORKER] == worker:
            if row[SIDE] not in SIDES:
                raise row.unfit(SIDE, " or ".join(SIDES))
            texts[row[TASK], row[QUERY], row[SIDE], row[SAMPLE]] = row[TEXT]
    if not texts:
        raise UnknownNameError(f"worker in {path}", worker, workers)
    return texts


def _answer(text: str) -> Answer:
    """Whole texts, or thoughts between their markers."""
    words, is_whole = thoughts_in(text) or (text, True)
    return Answer(clean(words), None, None, "stop" if is_whole else "length")
