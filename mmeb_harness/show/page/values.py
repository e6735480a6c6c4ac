"""What the page shows, as plain values. A JSON key is the field's name; report.js reads them by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmeb_harness.core.benchmark import MMEB_V2
from mmeb_harness.core.items import Medium, MetricName, Modality, Scalar
from mmeb_harness.results.files import EncodeStats
from mmeb_harness.show.compare import Row

#: Bits of `TaskQueries.flags`.
HELPED, HURT, DIFFER, PICTURED = 1, 2, 4, 8


@dataclass(frozen=True)
class InlinePicture:
    """A figure to show among the summary.

    Attributes:
        alt: what it shows, for those who can't see it.
        png: the file's bytes.
    """

    title: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class RunCard:
    """What one run is.

    Attributes:
        name: distinct among the page's runs.
        marks: what keeps its scores from being compared: synthetic, limited, incomplete.
        latency_seconds: "queries" and "candidates" → percentiles, as in a run's result.
        details: label → value, of what else decides a score.
        unsupported: as in a run's result.
    """

    name: str
    model: str
    edition: str
    data: str
    profile: str
    marks: tuple[str, ...]
    queries: EncodeStats
    candidates: EncodeStats
    latency_seconds: Mapping[str, Mapping[str, float]]
    details: Mapping[str, str]
    settings: Mapping[str, Scalar]
    unsupported: Mapping[str, tuple[Medium, ...]]


@dataclass(frozen=True)
class TaskCell:
    """One run's outcome in one task; `latency_seconds`: the median over its queries."""

    score: float
    corrected: float
    random_ties: float
    queries: EncodeStats
    tied: int
    latency_seconds: float | None
    notes: Mapping[str, int]


@dataclass(frozen=True)
class TaskRow:
    """One task, with a cell a run; `None` for a run that lacks it.

    Attributes:
        helped, hurt: queries that reasoning moved up or down (see `collect.effect_of_reasoning`).
        differ: queries whose scores differ between the runs.
    """

    name: str
    modality: Modality
    group: str
    metric: MetricName
    num_queries: int
    num_candidates: int
    chance: float
    cells: tuple[TaskCell | None, ...]
    helped: int
    hurt: int
    differ: int


@dataclass(frozen=True)
class Summary:
    """All that the page shows before a task is opened.

    Attributes:
        means: blocks of rows (groups, modalities, overall) with a cell a run; the first run is the reference.
        remarks: what makes a comparison of these runs doubtful, and what the page lacks.
        reasoning_pairs: whether some model ran in several reasoning modes, so that "helped" means something.
        overall: name of the mean over all tasks.
        metrics: what scores are, in words.
        rules: of means that aren't plain ones, a line each.
        warning: of made-up data, or "".
        flags: name → bit, of `TaskQueries.flags`.
    """

    runs: tuple[RunCard, ...]
    means: tuple[tuple[Row, ...], ...]
    tasks: tuple[TaskRow, ...]
    remarks: tuple[str, ...]
    reasoning_pairs: bool
    written: str
    overall: str = "overall"
    metrics: str = MMEB_V2.scores
    rules: tuple[str, ...] = ()
    warning: str = ""
    flags: Mapping[str, int] = field(
        default_factory=lambda: {"helped": HELPED, "hurt": HURT, "differ": DIFFER, "pictured": PICTURED}
    )


@dataclass(frozen=True)
class RunQueries:
    """One run's queries of a task, a column each, in the order of `TaskQueries.ids`; `None` for one it lacks.

    Attributes:
        rank: of the first relevant candidate, 1-based.
        ranked: length of the ranked list.
        tied: neighbours in the first places that only the tie rule ordered.
        rationale: positions in `TaskQueries.rationales`.
        top: positions in `TaskQueries.candidates`, best first.
    """

    score: Sequence[float | None]
    rank: Sequence[int | None]
    ranked: Sequence[int | None]
    tied: Sequence[int | None]
    reasoned: Sequence[bool | None]
    gate: Sequence[float | None]
    reasoning_tokens: Sequence[int | None]
    truncated: Sequence[bool | None]
    latency_seconds: Sequence[float | None]
    rationale: Sequence[int | None]
    top: Sequence[Sequence[int] | None]
    top_scores: Sequence[Sequence[float | None] | None]


@dataclass(frozen=True)
class QueryItems:
    """The queries themselves, a column each; `None` for one that the data lacks.

    Attributes:
        media: how many images or frames.
    """

    texts: Sequence[str | None]
    instructions: Sequence[str | None]
    media: Sequence[int]


@dataclass(frozen=True)
class ShownCandidates:
    """The candidates that the page shows; `texts` where they say more than the id, `None` without data."""

    ids: Sequence[str]
    texts: Sequence[str | None] | None
    media: Sequence[int] | None


@dataclass(frozen=True)
class ShownSound:
    """A sound, or a part of it from and to a second.

    Attributes:
        seconds: of the whole file; `None` if it can't be opened.
        uri: position in `Thumbnails.uris`; `None` for a file that is too large for a page.
    """

    name: str
    seconds: float | None
    start: float
    end: float | None
    uri: int | None


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of some queries and candidates, and their sounds.

    Attributes:
        uris: data URIs; `queries` (by row) and `candidates` (by position) have positions in it.
        query_sounds, candidate_sounds: by row and by position.
        missing: files that could not be opened, relative to the data folder.
    """

    uris: Sequence[str]
    queries: Mapping[int, Sequence[int]]
    candidates: Mapping[int, Sequence[int]]
    query_sounds: Mapping[int, ShownSound]
    candidate_sounds: Mapping[int, ShownSound]
    missing: Sequence[str]


@dataclass(frozen=True)
class TaskQueries:
    """One task's queries, as columns: what the page decodes when the task is opened.

    Attributes:
        note: why texts are missing or doubtful; "" if nothing is.
        flags: sums of HELPED, HURT, DIFFER, PICTURED.
        relevant: positions in `candidates`: those in any run's first places, and a few more of the `num_relevant`.
        rationales: all distinct ones: an adaptive run writes what "always" writes.
        items, thumbnails: `None` without data.
    """

    name: str
    note: str
    ids: Sequence[str]
    items: QueryItems | None
    difficulty: Sequence[str | None] | None
    flags: Sequence[int]
    relevant: Sequence[Sequence[int]]
    num_relevant: Sequence[int]
    candidates: ShownCandidates
    rationales: Sequence[str]
    thumbnails: Thumbnails | None
    runs: Sequence[RunQueries | None]
