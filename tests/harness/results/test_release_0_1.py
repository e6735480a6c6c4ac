"""What release 0.1 wrote is read: a run's folder, a shard, a lock file, a store's description, a configuration."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmeb_harness import Frames, ModelInfo, Profile
from mmeb_harness.api.config import RunConfig, make_config, read_config
from mmeb_harness.cli import cli
from mmeb_harness.core.errors import ResultError
from mmeb_harness.data.lock import hub_file, read_lock, write_lock
from mmeb_harness.results.files import expected_fingerprint, model_fingerprint
from mmeb_harness.results.folder import RunFolder
from mmeb_harness.results.outcome import load_run
from mmeb_harness.results.scores import load_scores, read_run, save_scores, scores_of_run
from mmeb_harness.spread.shards import load_shards, save_shard
from mmeb_harness.store.description import check_description, read_description

RELEASE = Path(__file__).parents[2] / "golden" / "release_0_1"
RUN = RELEASE / "run"
#: Fields that were added since; of what that release wrote they are empty, or at their default.
SINCE = (
    *("checksum", "checksums", "content", "tables", "media", "max_text_tokens", "audio_seconds", "pages"),
    *("rule", "unsupported", "query_settings", "state_dimensions", "keep_states", "shared", "candidate_profile"),
)


def stored(path: Path) -> object:
    return json.loads(path.read_text())


def as_json(value: object) -> object:
    """A dataclass as it would stand in a file of that release; whole numbers, numbers and booleans kept apart."""
    return without_later_fields(json.loads(json.dumps(dataclasses.asdict(value))))  # type: ignore[call-overload]


def without_later_fields(values: object) -> object:
    """What a file of that release would have held of these."""
    defaults = (
        dataclasses.asdict(Profile()) | dataclasses.asdict(Frames()) | {"media": list(ModelInfo("", "", 1).media)}
    )
    if isinstance(values, list):
        return [without_later_fields(inner) for inner in values]
    if not isinstance(values, dict):
        return values
    return {
        name: without_later_fields(inner)
        for name, inner in values.items()
        if name not in SINCE or (inner and inner != defaults.get(name))
    }


def same(one: object, other: object) -> bool:
    return json.dumps(one) == json.dumps(other)


def called(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def as_written_then(path: Path) -> str:
    """A file as that release would have written it."""
    values = json.loads(path.read_text())
    assert values.pop("checksum")
    return json.dumps(without_later_fields(values), indent=2, ensure_ascii=False) + "\n"


def test_a_runs_folder() -> None:
    run, results = read_run(RUN)
    assert same(as_json(run), stored(RUN / "run.json"))
    assert [result.name for result in results] == ["DocVQA", "MSR-VTT"]
    for result in results:
        assert same(as_json(result), stored(RunFolder(RUN).task_file(result.name)))
        assert result.fingerprint == expected_fingerprint(run, result)
    identity = (run.model, run.model_revision, run.model_dimensions, run.model_settings, run.profile)
    assert run.model_fingerprint == model_fingerprint(*identity)


def test_a_run_is_verified_compared_and_shown(tmp_path: Path) -> None:
    assert "all is as its rankings say" in called("verify", str(RUN))
    compared = called("compare", str(RUN))
    assert "limited to the first queries of each task; incomplete: 2 of 78 tasks" in compared
    shown = called("show", str(RUN), "--tasks")
    assert "overall │ 2 of 78 │  75.0" in shown
    assert "MSR-VTT │  66.7 │ hit@1  │    4.2 │       6 │         24 │     50.0" in shown
    printed = json.loads(called("show", str(RUN), "--json"))
    results = printed.pop("results")
    assert same(without_later_fields(printed), stored(RUN / "run.json"))
    assert [result["name"] for result in results] == ["DocVQA", "MSR-VTT"]
    called("report", str(RUN), "--output", str(tmp_path / "page.html"))
    assert "MSR-VTT" in (tmp_path / "page.html").read_text()
    save_scores(tmp_path / "scores.json", scores_of_run(RUN))
    assert load_scores(tmp_path / "scores.json") == scores_of_run(RUN)


def test_an_unfinished_run_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(RUN, folder)
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "status": "running", "aggregates": []}))
    RunFolder(folder).task_file("MSR-VTT").unlink()
    with pytest.raises(ResultError, match="is not finished"):
        load_run(folder)
    left = load_run(folder, unfinished=True)
    assert [task.result.name for task in left.tasks] == ["DocVQA"]
    assert (left.result.aggregates[0].tasks, left.result.aggregates[0].score) == (1, left.tasks[0].result.score)
    assert left.result.queries == left.tasks[0].result.queries
    assert "not finished: 1 of 2 tasks; the same command goes on" in called("show", str(folder))
    RunFolder(folder).task_file("DocVQA").unlink()
    assert called("show", str(folder)).splitlines()[-2:] == ["not finished: 0 of 2 tasks; the same command goes on", ""]


def test_a_shard(tmp_path: Path) -> None:
    shards = RELEASE / "sharded" / "shards"
    for number in (1, 2):  # of two, one was kept; the other differs in its number alone
        text = (shards / "1-of-2.json").read_text().replace('"shard": 1', f'"shard": {number}')
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / f"{number}-of-2.json").write_text(text)
    shard = load_shards(tmp_path)[0]
    assert same(as_json(shard), stored(shards / "1-of-2.json"))
    info = shard.model
    fingerprint = model_fingerprint(info.name, info.revision, info.dimensions, info.settings, info.profile)
    assert shard.identity["model fingerprint"] == fingerprint
    save_shard(tmp_path / "again", shard)
    assert as_written_then(tmp_path / "again" / "shards" / "1-of-2.json") == (shards / "1-of-2.json").read_text()


def test_a_lock_file(tmp_path: Path) -> None:
    path = RELEASE / "mmeb-data.lock.json"
    lock = read_lock(path)
    assert "TIGER-Lab/MMEB-V2" in lock
    for repo, locked in lock.items():
        for name in locked.files:
            file = hub_file(repo, locked, name)
            assert (type(file.size), file.digest.partition(":")[0] in ("git", "sha256")) == (int, True)
    write_lock(tmp_path / "lock.json", lock)
    again = json.loads((tmp_path / "lock.json").read_text())
    assert again.pop("checksum")
    assert same(again, stored(path))


def test_a_stores_description() -> None:
    folder = RELEASE / "vectors"
    described = read_description(folder)
    assert described is not None
    assert dataclasses.astuple(described) == (2, "bag_of_features", "1", 512, "dot")
    check_description(folder, "dot")


def test_a_configuration() -> None:
    config = make_config(read_config(RELEASE / "config.yaml"), {"limit": 6})
    assert config == RunConfig(
        model="bag_of_features",
        tasks=("DocVQA",),
        limit=6,
        batch_tokens=4096,
        quantize="binary",
        model_args={"dimensions": "64"},
    )
