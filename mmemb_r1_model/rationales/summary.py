"""`summary.json`: what each worker wrote, in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mmemb_r1_model.data.rationales import ERROR, RationaleRow
from mmemb_r1_model.rationales.config import Kind, RationaleConfig, WorkerConfig

#: Kinds of errors that are named; the rest is in the rows.
_ERRORS_NAMED = 5


@dataclass(frozen=True)
class WorkerSummary:
    """One worker's rows. Shares are of the answered ones; means are `None` where nothing is known.

    Attributes:
        answered: rows without an error.
        failed: rows with one; the next start tries them again.
        absent: a recorded worker has nothing for so many that were asked for; they have no row.
        usable: candidates for selection.
        finish: how the answered rows ended → how many.
        leak_share: rationales with the other side's text in them; an upper bound (see `leak`).
        errors: the most frequent ones.
    """

    worker: str
    kind: Kind
    answered: int
    failed: int
    absent: int
    usable: int
    finish: Mapping[str, int]
    mean_tokens: float | None
    mean_characters: float | None
    seconds: float
    mean_seconds: float | None
    duplicate_share: float
    empty_share: float
    loop_share: float
    leak_share: float
    errors: Mapping[str, int]


@dataclass(frozen=True)
class RationaleSummary:
    """The whole stage.

    Attributes:
        pair_sides: that rationales were wanted for, each `samples` times from every worker.
        skipped_short: positives that were too short for one.
    """

    pair_sides: int
    skipped_short: int
    samples: int
    workers: tuple[WorkerSummary, ...]

    @property
    def usable(self) -> int:
        """Candidates for selection, of all workers."""
        return sum(worker.usable for worker in self.workers)


@dataclass
class _Tally:
    finish: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, row: RationaleRow) -> None:
        if row.failed:
            self.errors[row.finish.removeprefix(ERROR)[:100]] += 1
            return
        self.finish[row.finish] += 1
        self.counts["usable"] += row.usable
        self.counts["duplicates"] += row.duplicate_of is not None
        self.counts["leaks"] += row.leaks
        for name, value in (("tokens", row.tokens), ("seconds", row.seconds), ("characters", len(row.text) or None)):
            if value is not None:
                self.counts[name] += 1
                self.sums[name] += value

    def summary(self, worker: WorkerConfig, absent: int) -> WorkerSummary:
        answered, counts, sums = self.finish.total(), self.counts, self.sums

        def share(count: int) -> float:
            return count / answered if answered else 0.0

        def mean(name: str) -> float | None:
            return sums[name] / counts[name] if counts[name] else None

        return WorkerSummary(
            worker=worker.name,
            kind=worker.kind,
            answered=answered,
            failed=self.errors.total(),
            absent=absent,
            usable=counts["usable"],
            finish=dict(sorted(self.finish.items())),
            mean_tokens=mean("tokens"),
            mean_characters=mean("characters"),
            seconds=sums["seconds"],
            mean_seconds=mean("seconds"),
            duplicate_share=share(counts["duplicates"]),
            empty_share=share(self.finish["empty"]),
            loop_share=share(self.finish["loop"]),
            leak_share=share(counts["leaks"]),
            errors=dict(self.errors.most_common(_ERRORS_NAMED)),
        )


def summarise(
    rows: Iterable[RationaleRow],
    config: RationaleConfig,
    pair_sides: int,
    skipped_short: int,
    absent: Mapping[str, int],
) -> RationaleSummary:
    """Count, in one pass."""
    tallies = {worker.name: _Tally() for worker in config.workers}
    for row in rows:
        if row.worker in tallies:
            tallies[row.worker].add(row)
    workers = tuple(tallies[worker.name].summary(worker, absent.get(worker.name, 0)) for worker in config.workers)
    return RationaleSummary(pair_sides, skipped_short, config.samples, workers)
