"""How the official evaluation spells tasks and editions in its files, in one place.

Its score files are named by task; its submission file renames the two page tasks when they are of the fixed
data; its listings carry entries that are no tasks of the benchmark (27 visdoc and 19 video ones; 24 and 18 count).
"""

from __future__ import annotations

from mmeb_harness.core.benchmark import MMEB_V2, PAGE_FIXED, V2_0_0, V2_0_1, V3, V3_EDITIONS, V3_UNFIXED

#: What other people's results may be of.
IMPORTED_EDITIONS = (*MMEB_V2.editions, *V3_EDITIONS)

#: The tasks behind which the fixed data stand.
PAGE_TASKS = ("ViDoSeek-page", "MMLongBench-page")
FIXED_SUFFIX = "-fixed"

MOMENT_SEEKER = "MomentSeeker"
#: MomentSeeker with its duplicates, beside the newer one in the files of v2.0.1.
OLD_MOMENT_SEEKER = "MomentSeeker_1k8"
MOMENT_SEEKER_QUERIES = {PAGE_FIXED: 1602, V2_0_1: 1602, V2_0_0: 1800, V3: 1602, V3_UNFIXED: 1602}

#: What tool, gui and memory are together, in some submissions.
AGENT = "agent"

#: What stands in a submission instead of a task's (or a modality's) metrics if there are none.
MISSING_MARKS = ("FILE_N/A", "DIR_N/A", "JSON_ERROR", "READ_ERROR")

_ALIASES = {"Kinetics-700": "K700", **{task + FIXED_SUFFIX: task for task in PAGE_TASKS}}


def submission_key(task: str, edition: str) -> str:
    """The key of a task in a submission file: what is after the last / of its name."""
    return task + FIXED_SUFFIX if task in PAGE_TASKS and edition in (PAGE_FIXED, V3) else task.rpartition("/")[2]


def task_of_key(key: str) -> str:
    """The benchmark's name for what an official file calls `key`; most names are the same."""
    return _ALIASES.get(key, key)


def is_fixed_key(key: str) -> bool:
    """Whether the key itself says that the page data are the fixed ones."""
    return key in {task + FIXED_SUFFIX for task in PAGE_TASKS}
