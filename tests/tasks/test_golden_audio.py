"""The audio tasks against what the official code makes of small files: ids, order, pools, labels, strings, scores."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmeb_baselines.official_text import official_text
from mmeb_tasks import EDITIONS

from mmeb_harness import Frames, Item
from mmeb_harness.ranking.metrics import V3_METRIC_NAMES
from mmeb_harness.ranking.task import mean_metrics, score_queries
from tests.tasks.golden import toy_vector
from tests.tasks.golden_v3 import CASES, files_of, tone, unhexed, write_files

BY_NAME = {task.name: task for task in EDITIONS["v3"]}
AUDIO = [name for name in CASES if name in BY_NAME and BY_NAME[name].modality == "audio"]
#: What the official parsers left out or made up without a word, counted here.
NOTES = {
    "ESC-50": {"class numbers of no row, which are candidates as text": 3},
    "SpeechCommands": {"class numbers of no row, which are candidates as text": 1},
    "UrbanSound8K": {"class numbers of no row, which are candidates as text": 3},
    "SoundDescs": {"descriptions without a sound": 1},
    "Clotho": {"sounds that are missing, left out with their captions": 1},
    "AVE": {
        "rows without their video, left out": 1,
        "rows without their sound, left out": 1,
        "short clips": 1,
    },
    "TUTSound": {"folds without a file, left out": 2},
    "TUTSound(hard)": {"folds without a file, left out": 2},
}


def stored_names(case: dict[str, Any]) -> dict[str, str]:
    """Hash of bytes in a table → what the official parser calls them."""
    names = {}
    for file in files_of(case).values():
        for row in file.get("rows", []):
            for cell in map(unhexed, row.values()):
                if isinstance(cell, dict):
                    digest = hashlib.sha256(cell["bytes"]).hexdigest()
                    names[digest] = cell["path"] or f"bytes:{digest[:16]}"
    return names


def media_of(item: Item, folder: Path, stored: dict[str, str]) -> list[str] | None:
    part = "" if item.sound is None or item.sound.end is None else f"#{item.sound.start}-{item.sound.end}"
    names = []
    for path in item.media:
        relative = path.relative_to(folder).as_posix()
        is_written = "_cache/" in relative
        names.append(stored.get(hashlib.sha256(path.read_bytes()).hexdigest(), relative) if is_written else relative)
    return [name + part for name in names] or None


def write_named(media: list[str] | None, folder: Path) -> None:
    """Sounds that the official parsers name without looking for them; here a missing one is refused."""
    for path in (folder / name for name in media or [] if name.startswith("audio-tasks/")):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tone(440, 0.2, 16_000))


@pytest.mark.parametrize("name", AUDIO)
def test_golden(name: str, tmp_path: Path) -> None:
    case, task = CASES[name], BY_NAME[name]
    write_files(case, tmp_path)
    for query in case["queries"]:
        write_named(query["media"], tmp_path)
    samples, stored = task.load(tmp_path, Frames(short="spread")), stored_names(case)
    assert [(item.id, official_text(item), media_of(item, tmp_path, stored)) for item in samples.candidates] == [
        (golden["id"], golden["text"], golden["media"]) for golden in case["candidates"]
    ]
    assert len(samples.queries) == len(case["queries"])
    for query, golden in zip(samples.queries, case["queries"], strict=True):
        assert (official_text(query), media_of(query, tmp_path, stored)) == (golden["text"], golden["media"])
        assert list(samples.gains[query.id]) == [label for label in golden["label"] if label is not None]
        if case["eval_type"] == "local":
            assert samples.pools is not None
            assert list(samples.pools[query.id]) == golden["cand_ids"]
        else:
            assert samples.pools is None
    vectors = [
        np.stack([toy_vector(official_text(item), media_of(item, tmp_path, stored)) for item in items])
        for items in (samples.queries, samples.candidates)
    ]
    scored = score_queries(task, samples, *vectors)  # type: ignore[arg-type]
    official = {metric: case["scores"][metric] for metric in V3_METRIC_NAMES}
    assert mean_metrics(scored) == pytest.approx(official, abs=1e-12)
    assert [list(query.top_ids[:10]) for query in scored] == case["top10"]
    assert {what: count for what, count in samples.notes.items() if count} == NOTES.get(name, {})


def test_all_audio_tasks_are_golden() -> None:
    assert sorted(AUDIO) == sorted(task.name for task in EDITIONS["v3"] if task.modality == "audio")
    assert len(AUDIO) == 11
