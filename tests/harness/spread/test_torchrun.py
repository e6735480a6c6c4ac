"""A run over torchrun's processes, one of which is killed; and what they agree on before they begin."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmeb_harness import OptionError, ResultError
from mmeb_harness.cli import cli
from mmeb_harness.core import environment
from mmeb_harness.results.files import load_run_result
from mmeb_harness.spread.shares import Share
from mmeb_harness.spread.torchrun import Meeting, Ranks, ranks_from, take_own_gpu
from tests.harness.processes import TORCHRUN, Place, kill
from tests.patience import PATIENCE, wait_until


def rank(index: int, local_index: int = 0) -> Ranks:
    return Ranks(Share(index, 2), local_index, 2, "launch", 0)


@pytest.mark.slow
def test_a_rank_dies_and_nothing_else_happens(place: Place) -> None:
    launcher = [*TORCHRUN, "--max-restarts", "1", "--monitor-interval", "0.2"]
    process = place.start(*place.run("torchrun", held=True), launcher=launcher)
    kill(place.wait_for_workers("torchrun", 2, process)[1])
    place.let_go("torchrun")
    done = place.end(process)
    assert done.returncode == 0, done.stderr
    assert place.rankings("torchrun") == place.rankings("alone")
    assert len(list(place.marks("torchrun").iterdir())) == 4  # both were started again
    times = place.encoded("torchrun")
    assert set(times) == set(place.encoded("alone"))
    assert sum(times.values()) - len(times) <= 2  # each process loses the chunk it was at
    assert not (place.folder / "torchrun" / "run" / ".ranks").exists()


@pytest.mark.slow
def test_ranks_end_with_their_torchrun(place: Place) -> None:
    """Nobody would start again the one that another waits for; and the same command finds the folder free."""
    process = place.start(*place.run("orphans", held=True), launcher=TORCHRUN)
    ranks = place.wait_for_workers("orphans", 2, process)
    kill(process.pid)
    process.communicate(timeout=PATIENCE)
    place.let_go("orphans")
    wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in ranks))
    assert load_run_result(place.folder / "orphans" / "run" / "run.json").status == "running"
    assert place.call(*place.run("orphans", marks=False)).returncode == 0
    assert place.rankings("orphans") == place.rankings("alone")


@pytest.mark.slow
def test_a_finished_run_is_over_at_once_for_all_ranks(place: Place) -> None:
    shutil.copytree(place.folder / "alone", place.folder / "again")
    done = place.call(*place.run("again", marks=False), launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 tasks finished before" in done.stdout


def test_ranks_of_different_settings_are_refused(tmp_path: Path) -> None:
    first, second = (Meeting(tmp_path, rank(index), patience_seconds=0) for index in (0, 1))
    with (
        first.opened({"limit": None}),
        pytest.raises(ResultError, match="rank 1 has limit 5, rank 0 None: parts of one run have to be computed alike"),
    ):
        second.join({"limit": 5})


def test_rank_0_waits_for_the_others(tmp_path: Path) -> None:
    first, second = (Meeting(tmp_path, rank(index), patience_seconds=PATIENCE) for index in (0, 1))
    joining = threading.Thread(target=second.join, args=({"limit": None},))
    with first.opened({"limit": None}):
        assert first.absent() == "ranks that never came: 1"
        joining.start()
    joining.join()
    assert list(tmp_path.iterdir()) == []


def test_a_rank_without_rank_0_says_that_folders_must_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"rank 1 saw no sign of rank 0 .*folders that all nodes see"):
        Meeting(tmp_path, rank(1), patience_seconds=0).join({})


def test_what_a_killed_launch_left_is_not_taken_for_this_one(tmp_path: Path) -> None:
    killed = Meeting(tmp_path, rank(0)).opened({"limit": 7})
    killed.__enter__()
    Meeting(tmp_path, rank(0)).prepare()
    with pytest.raises(ResultError, match="saw no sign"):
        Meeting(tmp_path, rank(1), patience_seconds=0).join({"limit": None})


def test_a_launch_on_one_node_is_told_from_the_next() -> None:
    environ = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
    one_node, two_nodes = ranks_from({**environ, "LOCAL_WORLD_SIZE": "2"}), ranks_from(environ)
    assert one_node is not None
    assert two_nodes is not None
    assert one_node.launch.endswith(f"-{os.getppid()}")
    assert two_nodes.launch == "none--29500-"
    assert ranks_from({"WORLD_SIZE": "1", "RANK": "0"}) is None


def test_each_process_of_a_node_takes_a_gpu_of_those_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpu_names", lambda: ["GPU"] * 4)
    for visible, chosen in (("", "1"), ("2,3", "3")):
        environ = {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
        take_own_gpu(rank(1, local_index=1), environ)
        assert environ["CUDA_VISIBLE_DEVICES"] == chosen
    with pytest.raises(ResultError, match=r"process 3 of its node, which has 2 GPUs: torchrun --nproc-per-node 2"):
        take_own_gpu(rank(1, local_index=2), {"CUDA_VISIBLE_DEVICES": "2,3"})


def test_a_rank_can_not_have_another_ones_gpu(place: Place) -> None:
    ranked = dataclasses.replace(place, environment={**place.environment, "RANK": "1", "WORLD_SIZE": "2"})
    done = ranked.call(*place.run("x"), "--device", "cuda:1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --device cuda:1: each process of torchrun sees one GPU, its own")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--ray"], "--ray and torchrun both share a run out"),
        (["--shard", "1/2"], "--shard is for processes that don't"),
    ],
)
def test_a_run_is_shared_out_in_one_way(option: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=words):
        CliRunner().invoke(cli, ["run", "--model", "random", *option], catch_exceptions=False)


def test_without_gpus_nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "gpu_names", list)
    environ: dict[str, str] = {}
    take_own_gpu(rank(1, local_index=1), environ)
    assert environ == {}


def test_under_a_limit_of_memory_ranks_are_children_of_their_torchrun(place: Place) -> None:
    words = ["import resource", "resource.setrlimit(resource.RLIMIT_AS, (1 << 40,) * 2)", "import sys", "import os"]
    words += ["sys.orig_argv = ['mmeb-eval']", "parent = os.getppid()", "import mmeb_harness"]
    words += ["print(os.getppid() == parent)"]
    environment = {**place.environment, "TORCHELASTIC_RUN_ID": "none"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(words)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
