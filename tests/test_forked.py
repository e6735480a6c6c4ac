"""What a forked command prints, knows and ends with is what a started one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forked import EVAL, Forks

SCRIPT = """
import os, sys
print(sys.argv[1:], os.getcwd(), os.environ.get("MINE"), os.environ.get("HOME"))
print(sys.path[:2], __name__, sys.stdin.read())
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("words", [["tasks", "--groups", "I-VG"], ["run", "--modle", "random"]])
def test_commands(words: list[str], forks: Forks, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "90"}
    command = [EVAL, *words]
    started = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    forked = forks.call(command, cwd=tmp_path, env=environment)
    assert forked.returncode == started.returncode
    assert (forked.stdout, forked.stderr) == (started.stdout, started.stderr)


def test_a_process_of_its_own(forks: Forks, tmp_path: Path) -> None:
    script, environment = tmp_path / "script.py", {"MINE": "yes", "PYTHONPATH": str(tmp_path / "plugin")}
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), "3"]
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    forked = forks.call(command[1:], cwd=tmp_path, env=environment)
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout) == (3, started.stdout)


def test_one_that_is_killed(forks: Forks, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, signal\nprint('here', flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n")
    killed = forks.call([str(script)], cwd=tmp_path, env={})
    assert (killed.returncode, killed.stdout) == (-9, "here\n")
    script.write_text("1 / 0\n")
    broken = forks.call([str(script)], cwd=tmp_path, env={})
    assert (broken.returncode, broken.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
