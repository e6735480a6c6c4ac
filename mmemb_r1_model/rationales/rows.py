"""`rationales.jsonl`: one row a (data set, pair, side, worker, sample)."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmemb_r1_model.data.pairs import Pair, Side
from mmemb_r1_model.disk.errors import DataError
from mmemb_r1_model.disk.hashing import hash64
from mmemb_r1_model.disk.jsonl import read_rows, rewrite
from mmemb_r1_model.rationales.text import normal_form

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


def read_rationales(folder: Path) -> Iterator[RationaleRow]:
    """All rows of a folder, in the order of writing: worker after worker.

    Raises:
        DataError: not there, or rows of another schema; named.
    """
    path = folder / RATIONALES
    for fields in read_rows(path):
        try:
            yield RationaleRow(**fields)
        except TypeError as error:
            raise DataError(f"{path}: a row is no rationale ({error}); was it written by another version?") from error


class Written:
    """What is written already: which rows are done, and who wrote a text first.

    Some 170 bytes a row, by 64-bit hashes: of 20 million rows two share one with a chance of about 1 in 100,000.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.rows_of: Counter[str] = Counter()
        self._done: set[int] = set()
        self._writers: dict[int, str] = {}  # by text

    def add(self, row: RationaleRow) -> None:
        """Take note of a row, from the file or just written to it."""
        if row.failed:
            self.failures += 1
            return
        self.rows_of[row.worker] += 1
        self._done.add(hash64(row.dataset, row.pair, row.side, row.worker, str(row.sample)))
        if row.usable:
            self._writers.setdefault(_text_key(row), sys.intern(f"{row.worker}/{row.sample}"))

    def missing(self, pair: Pair, side: Side, worker: str, samples: int) -> list[int]:
        """The samples of a pair side that a worker still has to write."""
        keys = (hash64(pair.dataset, pair.id, side, worker, str(sample)) for sample in range(samples))
        return [sample for sample, key in enumerate(keys) if key not in self._done]

    def first_writer(self, row: RationaleRow) -> str | None:
        """ "worker/sample" of an earlier row with the same words of the same pair side."""
        return self._writers.get(_text_key(row))


def scan(folder: Path) -> Written:
    """Take note of all rows of a folder, if it has some."""
    written = Written()
    if (folder / RATIONALES).is_file():
        for row in read_rationales(folder):
            written.add(row)
    return written


def drop_failures(folder: Path) -> None:
    """Rewrite the rows without those that failed, so that they are tried again; the old file stays until it is done."""
    kept = (dataclasses.asdict(row) for row in read_rationales(folder) if not row.failed)
    rewrite(folder / RATIONALES, kept)


def _text_key(row: RationaleRow) -> int:
    return hash64(row.dataset, row.pair, row.side, normal_form(row.text))
