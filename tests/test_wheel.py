"""The package as people install it: the wheel, in a folder of its own, with the checkout off the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from mmeb_harness.results.files import load_run_result

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel, made from the checkout, is installed."""
    wheels, folder = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip"]
    quiet = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", str(wheels), str(ROOT)], check=True)
    subprocess.run([*pip, "install", *quiet, "--target", str(folder), *map(str, wheels.glob("*.whl"))], check=True)
    return folder


def call(site: Path, *arguments: str, cwd: Path, cache: Path) -> str:
    """Without Python's `site` (-S) no .pth file puts the checkout on the path."""
    packages = Path(numpy.__file__).parents[1]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{site}:{packages}", "COLUMNS": "200"}
    environment |= {"MMEB_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", str(site / "bin" / "mmeb-eval"), *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_the_wheel_that_runs(site: Path, cache: Path, tmp_path: Path) -> None:
    code = "import mmeb_harness, mmeb_tasks, mmeb_baselines, mmemb_r1_model as r1\n"
    code += "print(*(package.__file__ for package in (mmeb_harness, mmeb_tasks, mmeb_baselines, r1)))"
    packages = Path(numpy.__file__).parents[1]
    environment = {"PYTHONPATH": f"{site}:{packages}"}
    command = [sys.executable, "-S", "-c", code]
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert all(Path(file).is_relative_to(site) for file in shown.split())
    assert not (site / "tests").exists()


def test_published_scores_and_examples_come_with_it(site: Path, cache: Path, tmp_path: Path) -> None:
    board = call(site, "leaderboard", "--all-published", cwd=tmp_path, cache=cache)
    assert "Qwen3-VL-Embedding-8B" in board
    shown = call(site, "compare", "--published", "Qwen3-VL-Embedding-8B@v3-kit", cwd=tmp_path, cache=cache)
    assert "Qwen3-VL-Embedding-8B@v3-kit: edition v3" in shown
    call(site, "new", "model", "own", cwd=tmp_path, cache=cache)
    assert (tmp_path / "own" / "own.py").read_bytes()


def test_it_runs_the_mini_suite(site: Path, cache: Path, tmp_path: Path) -> None:
    """The tiny checkpoint, labels and configurations are in it, too."""
    few = ("--tasks", "DocVQA,UCF101", "--limit", "4")
    shown = call(site, "run", "--model", "mmemb_r1", *few, "--output", "run", cwd=tmp_path, cache=cache)
    assert "DocVQA" in shown
    run = load_run_result(tmp_path / "run" / "run.json")
    assert (run.status, run.tasks, run.git_commit) == ("finished", ("DocVQA", "UCF101"), None)
