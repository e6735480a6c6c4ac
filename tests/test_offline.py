"""An evaluation never opens a connection: not even one that fails, is caught and forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.data.test_data_check import breakfast

EVAL = str(Path(sys.executable).parent / "mmeb-eval")

#: Runs at the start of the interpreter: every attempt is written down, then refused.
BLOCK = """
import os, socket

def refuse(*arguments, **keywords):
    with open(os.environ["ATTEMPTS"], "a") as file:
        file.write(repr(arguments) + "\\n")
    raise OSError("the network is blocked")

class Socket(socket.socket):
    def connect(self, address):
        return refuse(address)
    def connect_ex(self, address):
        return refuse(address)
    def sendto(self, *arguments):
        return refuse(*arguments)

socket.socket = Socket
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
"""


@pytest.fixture
def blocked(tmp_path: Path, cache: Path) -> dict[str, str]:
    folder = tmp_path / "block"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder),
        "ATTEMPTS": str(tmp_path / "attempts"),
        "MMEB_CACHE": str(cache),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }


def call(blocked: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([EVAL, *arguments], env=blocked, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_block_blocks(blocked: dict[str, str], tmp_path: Path) -> None:
    done = call(blocked, tmp_path, "data", "plan", "--tasks", "Breakfast")
    assert done.returncode == 2
    assert "huggingface" in (tmp_path / "attempts").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tasks"),
    [
        ("mmemb_r1", ["HatefulMemes", "Breakfast", "ViDoRe_tabfquad"]),
        ("bag_of_features", ["VOC2007", "HMDB51", "MomentSeeker", "ViDoRe_tabfquad", "VisRAG_ChartQA"]),
    ],
)
def test_no_run_opens_a_connection(model: str, tasks: list[str], blocked: dict[str, str], tmp_path: Path) -> None:
    done = call(blocked, tmp_path, "run", "--model", model, "--tasks", ",".join(tasks), "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert f"[{len(tasks)}/{len(tasks)}]" in done.stdout
    assert not (tmp_path / "attempts").exists()


@pytest.mark.slow
def test_no_run_on_real_data_opens_a_connection(blocked: dict[str, str], tmp_path: Path) -> None:
    breakfast(tmp_path / "data")
    for arguments in (
        ("data", "check", "--tasks", "Breakfast"),
        ("run", "--model", "random", "--data", "data", "--tasks", "Breakfast", "--output", "out"),
        ("verify", "out"),
    ):
        done = call(blocked, tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not (tmp_path / "attempts").exists()
