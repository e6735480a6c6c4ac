"""`python -m tests.benchmarks.startup`: what commands take to start, beside importing torch and transformers.

The commands take turns with that import, each in a folder of its own. Prints, as medians of the repeats, the processor
seconds of each, of its children as well, and how many times as long as the import that is. The mini suite is in the
cache first. One thread: on a loaded machine several would wait for each other, and count that as work.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

LIBRARIES = (sys.executable, "-c", "import torch, transformers")
#: What nobody gets below with this model: its class alone, with all that transformers imports for it.
MODEL = (sys.executable, "-c", "from transformers import Qwen3VLForConditionalGeneration")
EVAL = (sys.executable, "-m", "mmeb_harness")
FIRST_RUN = (*EVAL, "run", "--model", "mmemb_r1", "--tasks", "DocVQA")
SUITE = (sys.executable, "-m", "mmeb_tasks.mini", "suite")


def processor_seconds(command: tuple[str, ...]) -> float:
    """Of a command in an empty folder.

    Raises:
        CalledProcessError: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used.ru_utime + used.ru_stime


@click.command(help=__doc__)
@click.option("--repeats", default=3, show_default=True)
@click.option("--run", "finished", type=click.Path(path_type=Path), help="A finished run: `show` and `leaderboard`.")
def main(repeats: int, finished: Path | None) -> None:
    commands = {
        "import torch, transformers": LIBRARIES,
        "the model's class": MODEL,
        "run --model mmemb_r1 --tasks DocVQA": FIRST_RUN,
        "tasks": (*EVAL, "tasks"),
        "models": (*EVAL, "models"),
        "making the mini suite": SUITE,
    }
    if finished is not None:
        commands["show"] = (*EVAL, "show", str(finished.resolve()))
        commands["leaderboard"] = (*EVAL, "leaderboard", str(finished.resolve()))
    processor_seconds(FIRST_RUN)  # makes the suite
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            seconds[name].append(processor_seconds(command))
    reference = statistics.median(seconds["import torch, transformers"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        click.echo(
            f"{name:<38} {median:6.2f} s [{min(taken):.2f}, {max(taken):.2f}]  {median / reference:.2f} of the import"
        )


if __name__ == "__main__":
    main()
