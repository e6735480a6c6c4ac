"""What a result says of its circumstances."""

from __future__ import annotations

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
