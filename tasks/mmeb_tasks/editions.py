"""The benchmark's editions: MMEB-V2's are the same 78 names, with other rows behind three of them; MMEB-V3's add 112.

Scores of ViDoSeek-page and MMLongBench-page differ by up to 60 points between the two (VLM2Vec-V2.0 on
ViDoSeek-page: 21.9 and 80.3): never compare across editions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from mmeb_harness import Medium, Samples

T = TypeVar("T")

#: Page labels corrected (2025-11-03), MomentSeeker without its duplicates: today's leaderboard.
PAGE_FIXED = "page-fixed"
#: As first released (June 2025): page labels one page late, MomentSeeker with 1,800 rows.
V2_0_0 = "v2.0.0"
#: MMEB-V3 with the corrected page labels, as its hub fallback and its leaderboard have them.
V3 = "v3"
#: MMEB-V3 with the page labels of its bundle as first released, as most rows of its paper have them.
V3_UNFIXED = "v3-unfixed"
V2_EDITIONS = (PAGE_FIXED, V2_0_0)
V3_EDITIONS = (V3, V3_UNFIXED)
EDITION_NAMES = (*V2_EDITIONS, *V3_EDITIONS)


def _by_edition(fixed: T, first: T, v3_unfixed: T) -> Mapping[str, T]:
    return {PAGE_FIXED: fixed, V2_0_0: first, V3: fixed, V3_UNFIXED: v3_unfixed}


_SEEKER, _SEEKER_1K8 = "VLM2Vec/MomentSeeker", "VLM2Vec/MomentSeeker_1k8"

#: task → edition → repository, where editions differ.
REPOS: Mapping[str, Mapping[str, str]] = {
    "MomentSeeker": _by_edition(_SEEKER, _SEEKER_1K8, _SEEKER),
    **{
        name: _by_edition(f"VLM2Vec/{name}-fixed", f"VLM2Vec/{name}", f"VLM2Vec/{name}")
        for name in ("ViDoSeek-page", "MMLongBench-page")
    },
}

#: task → edition → number of queries, where editions differ.
NUM_QUERIES: Mapping[str, Mapping[str, int]] = {"MomentSeeker": _by_edition(1602, 1800, 1602)}

#: task → edition → the relevant page of query 0, by which the page sets are told apart.
_PAGE_OF_QUERY_0 = {"ViDoSeek-page": _by_edition("3", "4", "4"), "MMLongBench-page": _by_edition("4", "5", "5")}


def media_of(edition: str, *media: Medium) -> tuple[Medium, ...]:
    """What a model has to take for one of the 78 tasks: in MMEB-V3, where a task that it can't take counts 0."""
    return media if edition in V3_EDITIONS else ()


def other_editions(task: str, edition: str) -> list[str]:
    """The editions of a task that have other rows."""
    repos = REPOS.get(task, {})
    return [known for known in repos if repos[known] != repos[edition]]


def recognise(task: str, expected: str, samples: Samples) -> str | None:
    """The edition that real samples are of, where their number or a known row tells: `expected` if it fits."""
    num_queries, pages = len(samples.queries), samples.gains.get("0", {})
    fitting = [edition for edition, count in NUM_QUERIES.get(task, {}).items() if count == num_queries]
    if not fitting:
        fitting = [edition for edition, page in _PAGE_OF_QUERY_0.get(task, {}).items() if page in pages]
        if len({REPOS[task][edition] for edition in fitting}) > 1:
            return None  # both pages are relevant
    return expected if expected in fitting else next(iter(fitting), None)
