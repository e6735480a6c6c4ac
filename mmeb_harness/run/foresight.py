"""How long a run will still take, by the cost of what is left; and an early word on rationales that never end.

All tasks are read before the first item is encoded, so all items are known then. What a unit of cost takes is learned
for each kind of item, its role and its media, from what was encoded: loading weights and warming up don't count.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from mmeb_harness.core.embedder import BudgetedEmbedder, Embedder, Encoded
from mmeb_harness.core.errors import HarnessError
from mmeb_harness.core.items import Item, Role
from mmeb_harness.encode.chunks import Chunk, media_kind, plan_batches
from mmeb_harness.encode.local import Sink
from mmeb_harness.encode.windows import ROLES, Window
from mmeb_harness.run.read import Reading

Kind: TypeAlias = tuple[Role, str]
Units: TypeAlias = defaultdict[Kind, float]
#: Share of the work that is done before anything is said.
_FIRST_SHARE = 0.05
#: The same while only queries were encoded, or only candidates: one may reason, and the other not.
_ENOUGH = 0.2
#: Ranking a task before one was ranked, and what the first one takes besides, to import FAISS; of the mini suite.
_RANK_SECONDS, _FIRST_BESIDES = 0.03, 0.5
#: What a text and a frame cost a model that can't say, in pictures; measured of `bag_of_features` on the mini suite.
_TEXT, _FRAME = 0.05, 0.5
#: Rationales after which it is odd that none has ended by itself.
_ODD_RATIONALES = 48


class Foresight:
    """What is planned, what is done, and what that took.

    Args:
        tell: told, whenever something is done, how many seconds are left.
        note: told once if no rationale ends by itself.
    """

    def __init__(
        self,
        embedder: Embedder,
        tell: Callable[[float], None],
        note: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedder, self._tell, self._note, self._clock = embedder, tell, note, clock
        self._says_costs = isinstance(embedder, BudgetedEmbedder)  # a look at a protocol, too slow for every item
        self._expected: dict[str, Units] = {}
        self._units: dict[str, tuple[Kind, float]] = {}
        self._left: Units = defaultdict(float)
        self._done: Units = defaultdict(float)
        self._seconds: Units = defaultdict(float)
        self._last: float | None = None
        self._wall = self._shares = 0.0
        self._to_rank = self._ranked = 0
        self._rank_seconds = 0.0
        self._rationales = self._cut = 0

    def expect(self, readings: Iterable[Reading], modes: int = 1) -> None:
        """Estimate the tasks that are to be encoded: each kind of item by the first one of a task.

        Args:
            modes: in how many of them each task is ranked.
        """
        seen: set[int] = set()  # hashes: of a million items the words themselves would take long and much
        for reading in readings:
            units: Units = defaultdict(float)
            firsts: dict[Kind, float] = {}
            for role, items in zip(ROLES, (reading.samples.queries, reading.samples.candidates), strict=True):
                for item in items:
                    same = hash((role, item.text, item.instruction, item.media, item.places, item.sound))
                    if reading.is_finished or same in seen:
                        continue
                    seen.add(same)
                    kind = (role, media_kind(item))
                    if kind not in firsts:
                        firsts[kind] = self._cost(item, role)
                    units[kind] += firsts[kind]
            self._expected[reading.task.name] = units
            for kind, cost in units.items():
                self._left[kind] += cost
            self._to_rank += modes * (not reading.is_finished)

    def begin(self, window: Window, chunks: Sequence[Chunk], sink: Sink) -> Sink:
        """A window's plan takes the place of its estimate. Returns the sink, watched."""
        for task in window.tasks:
            for kind, expected in self._expected.pop(task.task.name).items():
                self._left[kind] -= expected
        self._units = {
            key: ((chunk.role, media_kind(item)), self._planned(batch.tokens / len(batch), item))
            for chunk in chunks
            for batch in chunk.batches
            for key, item in batch.keyed
            if key not in sink
        }
        for kind, units in self._units.values():
            self._left[kind] += units
        return _Watched(sink, self._added)

    def end(self) -> None:
        """The window is encoded: what this process didn't encode others did."""
        for kind, units in self._units.values():
            self._left[kind] -= units
            self._done[kind] += units
        self._units = {}

    def ranked(self, seconds: float) -> None:
        """A task was ranked, in so many seconds."""
        if self._last is not None:
            self._last += seconds
        if not self._ranked:
            seconds = max(_RANK_SECONDS, seconds - _FIRST_BESIDES)
        self._ranked, self._rank_seconds = self._ranked + 1, self._rank_seconds + seconds
        self._say()

    def seconds(self) -> float | None:
        """Until the end of the run; `None` while too little is known."""
        left, done = sum(max(0.0, units) for units in self._left.values()), sum(self._done.values())
        rank = (self._to_rank - self._ranked) * (self._rank_seconds / self._ranked if self._ranked else _RANK_SECONDS)
        if not done:
            return None if left > 0 else rank
        coming = {role for (role, _), units in self._left.items() if units > 0}
        is_known = coming <= {role for (role, _), units in self._done.items() if units > 0}
        if done < (_FIRST_SHARE if is_known else _ENOUGH) * (done + left):
            return None
        # Several processes encode in less time than their items' seconds; to hash media and to write vectors takes some
        # besides.
        pace = self._wall / self._shares if self._shares else 1.0
        return rank + pace * sum(max(0.0, units) * self._rate(kind) for kind, units in self._left.items())

    def _rate(self, kind: Kind) -> float:
        """Seconds a unit; of a kind that hasn't come yet, as of its role's others, else as of all."""
        alike = [kind] if self._done.get(kind) else [other for other in self._done if other[0] == kind[0]]
        known = alike or list(self._done)
        return sum(self._seconds[other] for other in known) / sum(self._done[other] for other in known)

    def _cost(self, item: Item, role: Role) -> float:
        if not self._says_costs:
            return self._planned(0.0, item)
        try:
            return float(plan_batches(self._embedder, [("", item)], role, 1)[0].tokens)
        except HarnessError:
            return 0.0  # raised again where the task's items are planned, which says whose it is

    def _planned(self, tokens: float, item: Item) -> float:
        plain = _TEXT + len(item.images) + _FRAME * len(item.frames) + (item.sound is not None)
        return tokens if self._says_costs else plain

    def _added(self, keys: Sequence[str], encoded: Encoded) -> None:
        self._watch(encoded)
        for key, seconds in zip(keys, encoded.share_seconds, strict=True):
            if key in self._units:
                kind, units = self._units.pop(key)
                self._left[kind] -= units
                self._done[kind] += units
                self._seconds[kind] += float(seconds)
        now = self._clock()
        if self._last is not None:
            self._wall, self._shares = self._wall + now - self._last, self._shares + float(encoded.share_seconds.sum())
        self._last = now
        self._say()

    def _say(self) -> None:
        if (seconds := self.seconds()) is not None:
            self._tell(seconds)

    def _watch(self, encoded: Encoded) -> None:
        if self._rationales > self._cut or self._cut >= _ODD_RATIONALES:
            return
        traces = (trace for mode in (encoded, *encoded.others) for trace in mode.traces)
        reasoned = [trace for trace in traces if trace.path == "reasoned"]
        self._rationales += len(reasoned)
        self._cut += sum(trace.truncated for trace in reasoned)
        if self._rationales == self._cut >= _ODD_RATIONALES:
            self._note(f"none of {self._cut} rationales ended by itself, all were cut: is this checkpoint trained?")


class _Watched:
    """A sink, and who is told of what it gets."""

    def __init__(self, sink: Sink, added: Callable[[Sequence[str], Encoded], None]) -> None:
        self._sink, self._added = sink, added

    def __contains__(self, key: str) -> bool:
        return key in self._sink

    def check_writable(self) -> None:
        self._sink.check_writable()

    def add(self, keys: Sequence[str], encoded: Encoded, role: Role) -> None:
        self._sink.add(keys, encoded, role)
        self._added(keys, encoded)

    def flush(self) -> None:
        self._sink.flush()

    def refresh(self) -> None:
        self._sink.refresh()
