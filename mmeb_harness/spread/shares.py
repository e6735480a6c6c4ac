"""A run's chunks, shared out among processes: by place, since the plan is the same in each.

Nobody has to talk to anybody: what the others have encoded is found in the store.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mmeb_harness.core.errors import OptionError, ResultError
from mmeb_harness.encode.chunks import Chunk
from mmeb_harness.encode.local import Encoder, Progress, Sink
from mmeb_harness.run.identity import Identity, difference

#: How often to look for what others have encoded.
POLL_SECONDS = 0.5
#: So long nothing new may come: longer than the slowest chunk of a large reasoning model.
PATIENCE_SECONDS = 3600.0
#: What to do about processes of one run that aren't alike.
MAKE_EQUAL = "parts of one run have to be computed alike; make the nodes equal"


def refuse_difference(mine: Identity, theirs: Identity, whose_mine: str, whose_theirs: str, way_out: str) -> None:
    """Let only what is alike compute parts of one run.

    Args:
        whose_mine, whose_theirs: who has it, with the verb: "rank 1 has", "rank 0".

    Raises:
        ResultError: the first thing that isn't the same.
    """
    if differing := difference(mine, theirs):
        what, own, other = differing
        raise ResultError(f"{whose_mine} {what} {own!r}, {whose_theirs} {other!r}: {way_out}")


def processors_remarks(who: str, processors: Collection[str]) -> list[str]:
    """What a user should know of processes whose processors, by kind, are not all the same."""
    listed = ", ".join(sorted(processors))
    remark = f"the {who} have different processors ({listed}): their vectors may differ in the last digits"
    return [remark] if len(processors) > 1 else []


@dataclass(frozen=True)
class Share:
    """One of `count` equal parts; `index` counts from 0, what people write from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def parse_share(text: str) -> Share:
    """A share as people write it: "2/8" is the second of eight.

    Raises:
        OptionError: it is none.
    """
    written = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    number, count = (int(written[1]), int(written[2])) if written else (0, 0)
    if not 1 <= number <= count:
        raise OptionError(
            f"--shard {text!r} is no share; write I/N with I from 1 to N, e.g. 2/8 "
            "(a job array from 1: --shard $SLURM_ARRAY_TASK_ID/8)"
        )
    return Share(number - 1, count)


class ShareEncoder:
    """Encodes the share's chunks, every `count`-th of all windows', and leaves the others."""

    def __init__(self, encoder: Encoder, share: Share) -> None:
        self._encoder, self._share, self._place = encoder, share, 0

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress) -> None:
        """Encode the own ones."""
        places = range(self._place, self._place + len(chunks))
        self._place += len(chunks)
        index, count = self._share.index, self._share.count
        mine = [chunk for place, chunk in zip(places, chunks, strict=True) if place % count == index]
        self._encoder.encode(mine, sink, on_progress)


class GatheringEncoder:
    """Encodes its share, then waits until the store has the others'.

    Args:
        whose: says who may be late, for the message.
    """

    def __init__(
        self, encoder: ShareEncoder, whose: Callable[[], str], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._encoder, self._whose, self._patience = encoder, whose, patience_seconds

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress) -> None:
        """Encode the own ones; afterwards the sink has all.

        Raises:
            ResultError: the others' don't come.
        """
        self._encoder.encode(chunks, sink, on_progress)
        missing = {key for chunk in chunks for key, _ in chunk.keyed if key not in sink}
        last = time.monotonic()
        while missing:
            sink.refresh()
            came = {key for key in missing if key in sink}
            missing -= came
            on_progress(len(came))
            if came:
                last = time.monotonic()
            elif time.monotonic() - last > self._patience:
                raise ResultError(
                    f"{len(missing)} items of other processes have no vector, and none came for {self._patience:.0f} s "
                    f"({self._whose()}); the same command goes on from what is there"
                )
            else:
                time.sleep(POLL_SECONDS)


class StoredOnly:
    """Encodes nothing: what isn't there is missing."""

    def __init__(self, hint: str) -> None:
        self._hint = hint

    def encode(self, chunks: Sequence[Chunk], sink: Sink, on_progress: Progress) -> None:
        """See whether all is there.

        Raises:
            ResultError: it isn't.
        """
        keys = [key for chunk in chunks for key, _ in chunk.keyed]
        if missing := sum(key not in sink for key in keys):
            raise ResultError(f"{missing} of {len(keys)} items have no vector: {self._hint}")
