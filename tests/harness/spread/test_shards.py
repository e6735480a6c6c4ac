"""A run in shards, one of which is killed and begun again; and what can't be put together."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from mmeb_harness import OptionError, ResultError
from mmeb_harness.results.folder import RunFolder, locked
from mmeb_harness.spread.shards import load_shards
from mmeb_harness.spread.shares import Share, parse_share
from tests.harness.processes import Place, kill


@pytest.fixture(scope="module")
def sharded(place: Place) -> Place:
    """Folder "shards": both are finished, the first after it was killed."""
    words = place.run("shards", held=True)
    process = place.start(*words, "--shard", "1/2")
    place.wait_for_workers("shards", 1, process)
    kill(process.pid)
    place.end(process)
    assert not list((place.folder / "shards" / "run").glob("shards/*"))
    for shard in ("1/2", "2/2"):
        done = place.call(*place.run("shards"), "--shard", shard)
        assert done.returncode == 0, done.stderr
        assert "when all are: mmeb-eval merge shards/run" in done.stdout
    return place


@pytest.fixture
def copy(sharded: Place, tmp_path: Path) -> Path:
    """The shards' files and vectors, not merged, to be spoiled."""
    merged = shutil.ignore_patterns("tasks", "queries", "candidates", "run.json")
    shutil.copytree(sharded.folder / "shards", tmp_path / "copy", ignore=merged)
    return tmp_path / "copy"


def refusal(place: Place, *words: str) -> str:
    done = place.call(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def change(path: Path, **values: object) -> None:
    there = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
    path.write_text(json.dumps({**there, **values}))


@pytest.mark.slow
def test_a_killed_shard_goes_on_and_merging_needs_no_model(sharded: Place) -> None:
    done = sharded.call("merge", "shards/run")
    assert done.returncode == 0, done.stderr
    assert sharded.rankings("shards") == sharded.rankings("alone")
    assert len(list(sharded.marks("shards").iterdir())) == 3
    times = sharded.encoded("shards")
    assert set(times) == set(sharded.encoded("alone"))
    assert sum(times.values()) - len(times) <= 1
    assert "3 of 3 tasks finished before" in sharded.call("merge", "shards/run").stdout


def test_other_batches_would_be_other_rankings(sharded: Place) -> None:
    """Or the tests that compare them could not fail."""
    assert sharded.call(*sharded.run("other"), "--batch-tokens", "200").returncode == 0
    assert sharded.rankings("other") != sharded.rankings("alone")


def test_merging_without_the_vectors_says_where_they_should_be(sharded: Place, copy: Path) -> None:
    shutil.rmtree(copy / ".vectors")
    text = refusal(sharded, "merge", str(copy / "run"))
    assert f"items have no vector: they should be in {copy}/.vectors" in text


def test_merging_says_which_shards_are_missing(copy: Path) -> None:
    (copy / "run" / "shards" / "2-of-2.json").unlink()
    with pytest.raises(ResultError, match=r"1 of 2 shards are not finished: 2; .* --shard 2/2"):
        load_shards(copy / "run")
    with pytest.raises(ResultError, match=r"has no finished shard; mmeb-eval run .* --shard 1/N"):
        load_shards(copy / "nothing")


def test_shards_of_several_partitions_are_not_mixed(copy: Path) -> None:
    shutil.copy(copy / "run" / "shards" / "2-of-2.json", copy / "run" / "shards" / "2-of-3.json")
    change(copy / "run" / "shards" / "2-of-3.json", shards=3)
    with pytest.raises(ResultError, match="holds shards of 2 and of 3; delete the files of those"):
        load_shards(copy / "run")


def test_a_shards_file_that_was_changed_is_not_believed(copy: Path) -> None:
    path = copy / "run" / "shards" / "1-of-2.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 8}))
    with pytest.raises(ResultError, match=r"1-of-2\.json was changed since it was written .*; encode the shard again"):
        load_shards(copy / "run")


def test_a_shard_of_another_release_is_not_read(copy: Path) -> None:
    change(copy / "run" / "shards" / "1-of-2.json", schema_version=0)
    with pytest.raises(ResultError, match=r"\(schema version 0, this one writes 1\); encode the shard again"):
        load_shards(copy / "run")


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--batch-tokens", "200"), "batch tokens 200, shard 1 with 100"),
        (("--limit", "3"), "limit 3, shard 1 with None"),
        (("--tasks", "SUN397"), "tasks "),
    ],
)
def test_shards_of_different_settings_are_no_parts_of_one_run(
    sharded: Place, copy: Path, more: tuple[str, str], what: str
) -> None:
    words = [word.replace("shards/run", str(copy / "run")) for word in sharded.run("shards")]
    done = sharded.call(*words, *more, "--shard", "2/2")
    assert done.returncode == 0, done.stderr
    with pytest.raises(ResultError, match=f"shard 2 was computed with {what}.*no parts of one run"):
        load_shards(copy / "run")


def test_what_the_model_is_told_counts_too(copy: Path, sharded: Place) -> None:
    shards = load_shards(copy / "run")
    assert [shard.model_args["marks"] for shard in shards] == [str(sharded.marks("shards"))] * 2
    assert dataclasses.replace(shards[0], shard=2, seconds=0, processors="") == dataclasses.replace(
        shards[1], seconds=0, processors=""
    )


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(OptionError, match="is no share; write I/N with I from 1 to N"):
        parse_share(text)
    assert parse_share(" 2/8 ") == Share(1, 8)


def test_options_that_a_shard_can_not_have(place: Place) -> None:
    assert "--shard can't be combined with --fresh" in refusal(place, *place.run("x"), "--shard", "1/2", "--fresh")
    assert "--ray and --shard both share a run out" in refusal(place, *place.run("x"), "--shard", "1/2", "--ray")


def test_two_processes_of_one_shard_do_not_meet(place: Place) -> None:
    folder = place.folder / "twice" / "run"
    with locked(RunFolder(folder), ".lock-1-of-2"):
        assert "another run is writing to" in refusal(place, *place.run("twice"), "--shard", "1/2")
