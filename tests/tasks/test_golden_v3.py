"""MMEB-V3's additions against what the official code makes of small files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from mmeb_baselines.official_text import official_text, official_text_without_media_tokens
from mmeb_tasks import EDITIONS

from mmeb_harness import DataError, Frames
from tests.tasks.golden_v3 import CASES, ERROR_CASES, write_file, write_files
from tests.tasks.test_golden import compare_candidates, compare_queries, compare_scores

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
#: "TASK|gme" is the task as another backbone is shown it.
READ = [name for name in CASES if BY_NAME[name.partition("|")[0]].modality != "audio"]
#: A screenshot that this case lacks. Officially its path stays in the record, and the item is embedded without it.
MISSING = {"GAE-GUIAct_t2s": "gui-tasks/GUIAct/missing.png"}


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
    compare_scores(task, case, samples, tmp_path, written)


@pytest.mark.parametrize("case", ERROR_CASES, ids=lambda case: case["name"])
def test_what_fails_officially_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    write_files(case, tmp_path)
    name = re.escape(case["task"])
    with pytest.raises(
        DataError, match=rf"^{name}: .*mmeb-eval data (get|check) --data .* --edition v3 --tasks {name}$"
    ):
        BY_NAME[case["task"]].load(tmp_path, Frames())
