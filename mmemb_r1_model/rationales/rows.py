"""`rationales.jsonl`: one row a (data set, pair, side, worker, sample)."""

from __future__ import annotations

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmemb_r1_model.data.pairs import Side
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.hashing import hash64
from mmemb_r1_model.disk.jsonl import read_rows, rewrite
from mmemb_r1_model.rationales.text import normal_form

Number = TypeVar("Number", np.uint32, np.uint64)

RATIONALES = "rationales.jsonl"
ERROR = "error: "


@dataclass(frozen=True, slots=True)
class RationaleRow:
    """What one worker wrote of one side of a pair, once.

    Attributes:
        pair: its id within the data set.
        tokens: that the worker generated, thoughts and answer, as its server or tokenizer counts; `None`: unknown.
        seconds: of the attempt that succeeded (a local worker's: its batch's time, shared out); `None`: unknown.
        finish: stop | length (cut off, or thoughts never closed) | empty | loop | leak (only with `drop_leaks`) |
            error: and the reason. Selection uses "stop" alone; errors are tried again at the next start.
        duplicate_of: "worker/sample" of an earlier row of this pair side with the same words. The row is kept: it
            counts in its worker's statistics, and selection must not weigh one path twice.
        leaks: contains the text of the side that the worker didn't see, and that its own side lacks.
    """

    dataset: str
    pair: str
    side: Side
    worker: str
    sample: int
    text: str
    tokens: int | None
    seconds: float | None
    finish: str
    duplicate_of: str | None = None
    leaks: bool = False

    @property
    def failed(self) -> bool:
        """No answer was got."""
        return self.finish.startswith(ERROR)

    @property
    def is_whole(self) -> bool:
        """A text that came to its end, be it a duplicate."""
        return self.finish == "stop"

    @property
    def usable(self) -> bool:
        """A candidate for selection: whole, and the first with its words."""
        return self.is_whole and self.duplicate_of is None


def row_of(fields: dict[str, Any], source: str) -> RationaleRow:
    """A row from JSON.

    Raises:
        DataError: not this schema; `source` is named.
    """
    try:
        return RationaleRow(**fields)
    except TypeError as error:
        raise DataError(f"{source}: a row is no rationale ({error}); was it written by another version?") from error


def read_rationales(folder: Path) -> Iterator[RationaleRow]:
    """All rows of a folder, in the order of writing: worker after worker.

    Raises:
        DataError: not there, or no such file; named.
    """
    path = folder / RATIONALES
    for fields in read_rows(path):
        yield row_of(fields, str(path))


def side_key(dataset: str, pair: str, side: str) -> int:
    """64 bits that stand for a pair side."""
    return hash64(dataset, pair, side)


def row_key(dataset: str, pair: str, side: str, worker: str, sample: int) -> int:
    """64 bits that stand for a row."""
    return hash64(dataset, pair, side, worker, str(sample))


class Written:
    """What is written already: which rows are done, and who wrote a text first.

    About 20 bytes a row (50 while `settle` sorts), by 64-bit hashes: of 20 million rows two share one with a chance of
    about 1 in 100,000.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.rows_of: Counter[str] = Counter()
        self._done, self._texts = np.empty(0, np.uint64), np.empty(0, np.uint64)  # sorted
        self._writers = np.empty(0, np.uint32)  # of each text
        self._new_done, self._new_texts, self._new_writers = array("Q"), array("Q"), array("I")
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._side: int | None = None
        self._recent: dict[int, str] = {}

    def add(self, row: RationaleRow) -> None:
        """Take note of a row, from the file or just written to it."""
        if row.failed:
            self.failures += 1
            return
        self.rows_of[row.worker] += 1
        self._new_done.append(row_key(row.dataset, row.pair, row.side, row.worker, row.sample))
        if not row.usable:
            return
        text, writer = _text_key(row), f"{row.worker}/{row.sample}"
        self._new_texts.append(text)
        self._new_writers.append(self._number(writer))
        side = side_key(row.dataset, row.pair, row.side)
        if side != self._side:
            self._side, self._recent = side, {}
        self._recent.setdefault(text, writer)

    def settle(self) -> None:
        """Sort what was noted, so that it can be looked up: before each worker's rows."""
        self._done = _joined(self._done, self._new_done)
        self._done.sort()
        texts, writers = _joined(self._texts, self._new_texts), _joined(self._writers, self._new_writers)
        order = np.argsort(texts, kind="stable")
        self._texts, self._writers = texts[order], writers[order]
        self._new_done, self._new_texts, self._new_writers = array("Q"), array("Q"), array("I")

    def has(self, key: int) -> bool:
        """Whether a row was done when `settle` was called last."""
        return _find(self._done, key) is not None

    def first_writer(self, row: RationaleRow) -> str | None:
        """ "worker/sample" of an earlier row with the same words of the same pair side.

        Rows of one pair side and worker come one after the other: those since `settle` are remembered for the
        current pair side only.
        """
        text = _text_key(row)
        if (place := _find(self._texts, text)) is not None:
            return self._names[int(self._writers[place])]
        if self._side == side_key(row.dataset, row.pair, row.side):
            return self._recent.get(text)
        return None

    def _number(self, writer: str) -> int:
        if writer not in self._numbers:
            self._numbers[writer] = len(self._names)
            self._names.append(writer)
        return self._numbers[writer]


def scan(folder: Path) -> Written:
    """Take note of all rows of a folder, if it has some."""
    written = Written()
    if (folder / RATIONALES).is_file():
        for row in read_rationales(folder):
            written.add(row)
    written.settle()
    return written


def drop_failures(folder: Path) -> None:
    """Rewrite the rows without those that failed, so that they are tried again; the old file stays until it is done."""
    kept = (dataclasses.asdict(row) for row in read_rationales(folder) if not row.failed)
    rewrite(folder / RATIONALES, kept)


def _text_key(row: RationaleRow) -> int:
    return hash64(row.dataset, row.pair, row.side, normal_form(row.text))


def _joined(old: NDArray[Number], new: array[int]) -> NDArray[Number]:
    return np.concatenate([old, np.array(new, dtype=old.dtype)])


def _find(keys: NDArray[np.uint64], key: int) -> int | None:
    """Place of the first such key among sorted ones."""
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place if place < len(keys) and int(keys[place]) == key else None
