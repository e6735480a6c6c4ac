"""`rationales.jsonl`: one row a (data set, pair, side, worker, sample)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmemb_r1_model.data.pairs import Pair, PairSet, Side
from mmemb_r1_model.disk.jsonl import read_records

RATIONALES = "rationales.jsonl"
WAY_OUT = "delete that line, then `mmemb-r1 rationales` writes what it was again"
ERROR = "error: "
#: Of a data set, to see whether rationales are of it, or in it.
_SOME_PAIRS = 200


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
        content: of the side when it was written, see `side_content`; "": written by a release that didn't say.
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
    content: str = ""

    @property
    def name(self) -> str:
        """Who wrote it, among those of its pair side: "worker/sample"."""
        return f"{self.worker}/{self.sample}"

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


@dataclass(frozen=True)
class CarriedRationales:
    """Those that the pairs themselves carry, unselected: what is learnt where no workers write."""

    fingerprint: str

    @staticmethod
    def of(sets: Sequence[PairSet]) -> CarriedRationales:
        """Of these data sets; the fingerprint says whether they carry any, as some of their pairs show."""
        looked = [pair for pairs in sets for pair in some_of(pairs)]
        reasoned = sum(bool(pair.rationales) for pair in looked)
        if not reasoned:
            return CarriedRationales("the direct path alone is trained, by plain contrast")
        share = f"{reasoned} of {len(looked)} pairs that were looked at"
        return CarriedRationales(f"the pairs' own are learnt as they are, unselected ({share} have some)")

    def draw(self, pair: Pair, side: Side, rng: Callable[[], np.random.Generator]) -> str | None:
        """The side's own; `None`: it is direct-only."""
        return pair.rationales.get(side)


def some_of(pairs: PairSet) -> list[Pair]:
    """Pairs of a data set, evenly spaced: all of a small one."""
    return [pairs[place] for place in range(0, len(pairs), -(-len(pairs) // _SOME_PAIRS))]


def read_rationales(folder: Path) -> Iterator[RationaleRow]:
    """All rows of a folder, in the order of writing: worker after worker.

    Raises:
        DataError: not there, or a line that is no rationale; named.
    """
    return read_records(folder / RATIONALES, RationaleRow, WAY_OUT)
