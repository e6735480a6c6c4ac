"""What a result says of its circumstances."""

from __future__ import annotations

import math
import os
import subprocess
from pathlib import Path

import pytest

from mmeb_harness.core import environment


def test_the_commit_is_this_checkouts(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True).stdout
    commit = environment.git_commit()
    assert commit is not None
    assert commit.removesuffix("-dirty") == head.strip()
    monkeypatch.setenv("PATH", "/nowhere")
    assert environment.git_commit() is None


def test_gpus_are_counted_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.gpus() is None
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho NVIDIA H100 80GB HBM3\necho NVIDIA H100 80GB HBM3\n")
    driver.chmod(0o755)
    assert environment.gpus() == "2 x NVIDIA H100 80GB HBM3"


def test_versions_name_what_can_move_a_score() -> None:
    versions = environment.package_versions()
    assert {"python", "numpy", "torch", "transformers", "mmeb-harness"} <= set(versions)
    assert ("faiss-cpu" in versions) != ("faiss-gpu" in versions)


def test_a_process_may_use_at_least_one_cpu() -> None:
    assert 1 <= environment.available_cpus() <= len(os.sched_getaffinity(0))


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("12:cpu,cpuacct:/other\n0::/jobs/one\n")
    folder = tmp_path / "jobs" / "one"
    folder.mkdir(parents=True)
    assert environment.cgroup_cpus(tmp_path, own) == math.inf
    (folder / "cpu.max").write_text("max 100000\n")
    assert environment.cgroup_cpus(tmp_path, own) == math.inf
    (tmp_path / "jobs" / "cpu.max").write_text("250000 100000\n")
    assert environment.cgroup_cpus(tmp_path, own) == 2.5
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert environment.cgroup_cpus(tmp_path, own) == 0.5
    assert environment.cgroup_cpus(tmp_path, tmp_path / "missing") == 0.5
