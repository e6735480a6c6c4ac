"""Commands in processes forked from one that has imported what they all import, which takes longer than most of them.

A forked process is as much apart as one that was started: it has an environment, a folder, output and an exit code of
its own. Our own modules it imports by itself, and what reads the environment while it is imported, like
huggingface_hub.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.patience import PATIENCE

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
EVAL = str(PROGRAMS / "mmeb-eval")
#: What takes long to import, directly or for `datasets`; what isn't installed is left to who needs it.
PRELOADED = (
    *("numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "faiss", "PIL.Image", "click", "rich.progress", "yaml"),
    *(
        "httpx2",
        "trio",
        "dill",
        "multiprocess",
        "fsspec",
        "xxhash",
        "tqdm.auto",
        "asyncio",
        "importlib.metadata",
        "pydantic.type_adapter",
        "pydantic.main",
    ),
)


class Forks:
    """Calls commands, one after the other."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder = server, folder

    def call(self, command: Iterable[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Like `subprocess.run` of a Python script, its output captured; SIGALRM ends what hangs."""
        words = list(command)
        out, err = self._folder / "out", self._folder / "err"
        request = {"command": words, "cwd": str(cwd), "env": dict(env), "output": [str(out), str(err)]}
        requests, answers = _pipes(self._server)
        print(json.dumps(request | {"seconds": int(PATIENCE)}), file=requests, flush=True)
        return subprocess.CompletedProcess(words, int(answers.readline()), out.read_text(), err.read_text())


@contextmanager
def open_forks(*more: str) -> Iterator[Forks]:
    """Start the process that the others are forked from; it ends with the context, or with this process.

    Args:
        more: modules to import besides.
    """
    command, pipe = [sys.executable, "-m", "tests.forked", *more], subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server,
    ):
        yield Forks(server, Path(folder))


def _pipes(server: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert server.stdin is not None
    assert server.stdout is not None
    return server.stdin, server.stdout


def _serve() -> None:
    """Answer each request with the exit code of its process; in the forked ones, run the request."""
    for name in (*PRELOADED, *sys.argv[1:]):
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(**json.loads(line))
            return
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(command: list[str], cwd: str, env: dict[str, str], output: list[str], seconds: int) -> None:
    signal.alarm(seconds)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(output, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command
    sys.path[:1] = [str(Path(command[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _serve()
