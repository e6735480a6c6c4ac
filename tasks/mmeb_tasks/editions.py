"""The benchmark's editions: same 78 names, other rows behind three of them.

Scores of ViDoSeek-page and MMLongBench-page differ by up to 60 points between the two (VLM2Vec-V2.0 on
ViDoSeek-page: 21.9 and 80.3): never compare across editions.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmeb_harness import Samples

#: Page labels corrected (2025-11-03), MomentSeeker without its duplicates: today's leaderboard.
PAGE_FIXED = "page-fixed"
#: As first released (June 2025): page labels one page late, MomentSeeker with 1,800 rows.
V2_0_0 = "v2.0.0"
EDITION_NAMES = (PAGE_FIXED, V2_0_0)

#: task → edition → repository, where editions differ.
REPOS: Mapping[str, Mapping[str, str]] = {
    "MomentSeeker": {PAGE_FIXED: "VLM2Vec/MomentSeeker", V2_0_0: "VLM2Vec/MomentSeeker_1k8"},
    "ViDoSeek-page": {PAGE_FIXED: "VLM2Vec/ViDoSeek-page-fixed", V2_0_0: "VLM2Vec/ViDoSeek-page"},
    "MMLongBench-page": {PAGE_FIXED: "VLM2Vec/MMLongBench-page-fixed", V2_0_0: "VLM2Vec/MMLongBench-page"},
}

#: task → edition → number of queries, where editions differ.
NUM_QUERIES: Mapping[str, Mapping[str, int]] = {"MomentSeeker": {PAGE_FIXED: 1602, V2_0_0: 1800}}

#: task → edition → the relevant page of query 0, by which the page sets are told apart.
_PAGE_OF_QUERY_0 = {
    "ViDoSeek-page": {PAGE_FIXED: "3", V2_0_0: "4"},
    "MMLongBench-page": {PAGE_FIXED: "4", V2_0_0: "5"},
}


def recognise(task: str, samples: Samples) -> str | None:
    """The edition that real samples are of, where their number or a known row tells."""
    for edition, num_queries in NUM_QUERIES.get(task, {}).items():
        if len(samples.queries) == num_queries:
            return edition
    pages = samples.gains.get("0", {})
    fitting = [edition for edition, page in _PAGE_OF_QUERY_0.get(task, {}).items() if page in pages]
    return fitting[0] if len(fitting) == 1 else None
