"""MMEB-V3's additions against what the official code makes of small files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mmeb_baselines.official_text import official_text, official_text_without_media_tokens
from mmeb_tasks import EDITIONS
from mmeb_tasks.readers import builder, corpus, memory, tools

from mmeb_harness import DataError, Frames
from tests.tasks.golden_v3 import CASES, ERROR_CASES, write_file, write_files
from tests.tasks.test_golden import compare_candidates, compare_queries, compare_scores

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
#: "TASK|gme" is the task as another backbone is shown it.
READ = [name for name in CASES if BY_NAME[name.partition("|")[0]].modality != "audio"]
#: A screenshot that this case lacks. Officially its path stays in the record, and the item is embedded without it.
MISSING = {"GAE-GUIAct_t2s": "gui-tasks/GUIAct/missing.png"}

EMPTY = {corpus.EMPTY_QUERIES: 1, corpus.EMPTY_DOCUMENTS: 1}
BRIGHT = {**EMPTY, corpus.REPEATED_CANDIDATES: 1, corpus.STILL_IN_POOL: 5, corpus.UNLABELLED: 1}
MISMATCHED = {builder.MISMATCHED: 7}
#: What is dropped or kept as officially, without a word there, and counted here.
NOTES: dict[str, dict[str, int]] = {
    "text/NanoBEIR/NanoDBPedia": {
        **EMPTY,
        corpus.REPEATED_CANDIDATES: 1,
        corpus.UNLABELLED: 1,
        corpus.NOT_IN_POOL: 2,
        corpus.GRADES_KEPT: 1,
    },
    "text/BRIGHT/biology": BRIGHT,
    "text/BRIGHT/leetcode": {**BRIGHT, corpus.NOT_IN_POOL: 2},
    "text/InfoSearch/Audience-v1": {
        corpus.UNINSTRUCTED: 1,
        corpus.EMPTY_DOCUMENTS: 1,
        corpus.STRANGE_SCORES: 2,
        corpus.CHANGED_INSTRUCTIONS: 4,
    },
    "text/MultiConIR/Books": {**EMPTY, corpus.USELESS_QRELS: 2, corpus.GRADES_KEPT: 4, builder.MISMATCHED: 1},
    "toolde/web/apibank": {
        corpus.EMPTY_QUERIES: 1,
        corpus.REPEATED_CANDIDATES: 1,
        corpus.UNLABELLED: 1,
        corpus.NOT_IN_POOL: 1,
        tools.ESCAPED: 1,
        "queries of nothing but their instruction": 1,
    },
    "toolde/code/toolink": {tools.BLANK: 1, tools.LABELS_IN_LISTS: 2, corpus.UNLABELLED: 2},
    "GAE-GUIAct_q2t": MISMATCHED,
    "GAE-Mind2Web_s2s": MISMATCHED,
    "GAE-GUIAct_t2s": {builder.MISMATCHED: 3},
    "MCMR": {
        **EMPTY,
        corpus.REPEATED_CANDIDATES: 1,
        corpus.UNLABELLED: 2,
        "queries of nothing but their instruction": 1,
    },
    "memory/REALTALK": {
        corpus.EMPTY_QUERIES: 3,
        corpus.EMPTY_DOCUMENTS: 1,
        corpus.REPEATED_CANDIDATES: 1,
        corpus.UNLABELLED: 3,
        corpus.STRANGE_SCORES: 3,  # the headers of three tables
        memory.UNINSTRUCTED: 12,
    },
}


@pytest.mark.parametrize("name", READ)
def test_golden(name: str, tmp_path: Path) -> None:
    case, task = CASES[name], BY_NAME[name.partition("|")[0]]
    write_files(case, tmp_path)
    if missing := MISSING.get(name):
        with pytest.raises(DataError, match=f"^{name}: media file .*{missing} is missing"):
            task.load(tmp_path, Frames())
        write_file(tmp_path, missing, {"kind": "image"})
    written = official_text_without_media_tokens if name.endswith("|gme") else official_text
    samples = task.load(tmp_path, Frames())
    compare_candidates(case, samples, tmp_path, written)
    compare_queries(case, samples, tmp_path, written)
    if name in NOTES:
        assert {what: count for what, count in samples.notes.items() if count} == NOTES[name]
    compare_scores(task, case, samples, tmp_path, written)


@pytest.mark.parametrize("case", ERROR_CASES, ids=lambda case: case["name"])
def test_what_fails_officially_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    write_files(case, tmp_path)
    name = re.escape(case["task"])
    with pytest.raises(
        DataError, match=rf"^{name}: .*mmeb-eval data (get|check) --data .* --edition v3 --tasks {name}$"
    ):
        BY_NAME[case["task"]].load(tmp_path, Frames())
