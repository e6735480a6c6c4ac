"""Commands in processes forked from one that has imported what they all import, which takes longer than most of them.

A forked process is as much apart as one that was started: it has an environment, a folder, output and an exit code of
its own. What reads the environment while it is imported, like huggingface_hub, it imports by itself, unless it was
forked from a process with that environment.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(sys.executable).parent
EVAL = str(PROGRAMS / "mmeb-eval")
#: What takes long to import, directly or for `datasets`; what isn't installed is left to who needs it.
PRELOADED = (
    *("numpy", "pandas", "pyarrow.dataset", "pyarrow.parquet", "faiss", "PIL.Image", "click", "rich.progress", "yaml"),
    "scipy.special",
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
    "tests.warm",
)


class Forks:
    """Calls commands: Python scripts with their arguments. SIGALRM ends what hangs."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self._server, self._folder = server, folder
        self._numbers, self._asking = itertools.count(), threading.Lock()

    def call(self, command: Iterable[str], *, cwd: Path, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Like `subprocess.run`, its output captured."""
        words, paths = list(command), [self._folder / "out", self._folder / "err"]
        code = self.ask(end=self._begin(words, cwd, env, paths, session=False), block=True)
        assert code is not None
        return subprocess.CompletedProcess(words, code, *(path.read_text() for path in paths))

    def start(self, command: Iterable[str], *, cwd: Path, env: Mapping[str, str]) -> Forked:
        """Like `subprocess.Popen` in a session of its own, its output in pipes."""
        words, number = list(command), next(self._numbers)
        paths = [self._folder / f"{name}{number}" for name in ("out", "err")]
        for path in paths:
            os.mkfifo(path)
        pid = self._begin(words, cwd, env, paths, session=True)
        return Forked(words, pid, paths[0].open(), paths[1].open(), self)

    def _begin(self, words: list[str], cwd: Path, env: Mapping[str, str], output: list[Path], session: bool) -> int:
        place = {"cwd": str(cwd), "env": dict(env), "output": [str(path) for path in output]}
        pid = self.ask(command=words, **place, session=session, seconds=int(PATIENCE))
        assert pid is not None
        return pid

    def ask(self, **request: object) -> int | None:
        """The server's answer to one request."""
        requests, answers = _pipes(self._server)
        with self._asking:
            print(json.dumps(request), file=requests, flush=True)
            answer: int | None = json.loads(answers.readline())
        return answer


@dataclass
class Forked:
    """A command that runs."""

    args: list[str]
    pid: int
    stdout: IO[str]
    stderr: IO[str]
    forks: Forks
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.forks.ask(end=self.pid, block=False)
        return self.returncode

    def wait(self) -> int:
        wait_until(lambda: self.poll() is not None)
        assert self.returncode is not None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """What it printed, to its end."""
        with ThreadPoolExecutor(1) as pool, self.stdout, self.stderr:
            errors = pool.submit(self.stderr.read)
            printed = self.stdout.read(), errors.result()
        self.wait()
        return printed

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


@contextmanager
def open_forks(*more: str, env: Mapping[str, str] | None = None) -> Iterator[Forks]:
    """Start the process that the others are forked from; it ends with the context, or with this process.

    Args:
        more: modules to import besides.
        env: while importing them; by default this process's.
    """
    command, pipe = [sys.executable, "-m", "tests.forked", *more], subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, cwd=ROOT, env=env, stdin=pipe, stdout=pipe, text=True) as server,
    ):
        yield Forks(server, Path(folder))


def _pipes(server: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert server.stdin is not None
    assert server.stdout is not None
    return server.stdin, server.stdout


def _serve() -> None:
    """Answer what to run with the number of the process that does, and its number with its exit code."""
    for name in (*PRELOADED, *sys.argv[1:]):
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "end" in request:
            pid, status = os.waitpid(request["end"], 0 if request["block"] else os.WNOHANG)
            print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
        elif child := os.fork():
            print(child, flush=True)
        else:
            return _run(**request)
    return None


def _run(command: list[str], cwd: str, env: dict[str, str], output: list[str], session: bool, seconds: int) -> None:
    if session:
        os.setsid()
    signal.alarm(seconds)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(output, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command
    sys.path[:1] = [str(Path(command[0]).parent), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    code: int | None = 0
    try:
        runpy.run_path(command[0], run_name="__main__")
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        code = ended.code
    _end(code or 0)


def _end(code: int) -> None:
    """As Python ends, except that it takes no module apart: that takes longer than many a command."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(code)  # which tries once more, and says it
    os._exit(code)


if __name__ == "__main__":
    _serve()
