"""`rationales.jsonl`: what is written already, and what failed."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path

from mmemb_r1_model.data.pairs import Pair, Side
from mmemb_r1_model.data.rationales import RATIONALES, RationaleRow, read_rationales
from mmemb_r1_model.disk.hashing import hash64
from mmemb_r1_model.disk.jsonl import rewrite
from mmemb_r1_model.rationales.text import normal_form


class Written:
    """What is written already: which rows are done, and who wrote a text first.

    Some 230 bytes a row, by 64-bit hashes: of 20 million rows two share one with a chance of about 1 in 100,000.
    """

    def __init__(self) -> None:
        self.failures = 0
        self.rows_of: Counter[str] = Counter()
        self._done: dict[int, int] = {}  # by row: the content that it is about, 0 where it doesn't say
        self._writers: dict[int, str] = {}  # by text

    def add(self, row: RationaleRow) -> None:
        """Take note of a row, from the file or just written to it."""
        if row.failed:
            self.failures += 1
            return
        self.rows_of[row.worker] += 1
        self._done[_row_key(row)] = _content_hash(row.content)
        if row.usable:
            self._writers.setdefault(_text_key(row), sys.intern(row.name))

    def missing(self, pair: Pair, side: Side, content: str, worker: str, samples: int) -> list[int]:
        """The samples of a pair side that a worker still has to write, be it because the side has changed."""
        known = (0, _content_hash(content))
        keys = _keys(pair, side, worker, samples)
        return [sample for sample, key in enumerate(keys) if self._done.get(key) not in known]

    def changed(self, pair: Pair, side: Side, content: str, worker: str, samples: int) -> set[int]:
        """Keys of a worker's rows that are about another content of this side."""
        known = (0, _content_hash(content))
        return {key for key in _keys(pair, side, worker, samples) if self._done.get(key, 0) not in known}

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


def drop_rows(folder: Path, changed: AbstractSet[int]) -> None:
    """Rewrite the rows without those that failed or changed, which are tried again; the old file stays until then.

    Args:
        changed: keys, see `Written.changed`.
    """
    kept = (row for row in read_rationales(folder) if not row.failed and not (changed and _row_key(row) in changed))
    rewrite(folder / RATIONALES, map(dataclasses.asdict, kept))


def _row_key(row: RationaleRow) -> int:
    return hash64(row.dataset, row.pair, row.side, row.worker, str(row.sample))


def _keys(pair: Pair, side: Side, worker: str, samples: int) -> Iterator[int]:
    return (hash64(pair.dataset, pair.id, side, worker, str(sample)) for sample in range(samples))


def _content_hash(content: str) -> int:
    return hash64(content) if content else 0


def _text_key(row: RationaleRow) -> int:
    return hash64(row.dataset, row.pair, row.side, normal_form(row.text))
