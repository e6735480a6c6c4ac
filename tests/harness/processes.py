"""Runs over several processes, for tests that kill some of them: how they are started, watched and compared."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mmeb_harness.core.files import read_parquet
from mmeb_harness.results.files import load_task_result
from mmeb_harness.results.folder import RunFolder
from tests.forked import Forks
from tests.harness.company import install
from tests.patience import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
SMALL_CHUNKS = str(Path(__file__).with_name("small_chunks.py"))
TASKS = ("VOC2007", "MSCOCO_i2t", "ViDoSeek-doc")
RANKING = ["query_id", "top_ids", "top_scores", "first_relevant_rank"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@dataclass(frozen=True)
class Place:
    """Where a test's runs are."""

    folder: Path
    environment: Mapping[str, str]
    forks: Forks

    @classmethod
    def in_folder(cls, folder: Path, cache: Path, forks: Forks) -> Place:
        paths = [install(folder / "plugin"), str(ROOT), str(ROOT / "tasks"), str(ROOT / "baselines")]
        keep = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
        keep["HOME"] = str(folder)  # Ray leaves a token there
        own = {"MMEB_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        return cls(folder, keep | own | {"COLUMNS": "150"}, forks)

    def start(self, *words: str, launcher: list[str] | None = None) -> subprocess.Popen[str]:
        """`mmeb-eval WORDS` in small chunks."""
        return self.start_script(*(launcher or []), SMALL_CHUNKS, *words)

    def start_script(self, *words: str | Path) -> subprocess.Popen[str]:
        """Python with these words."""
        command, pipe = [sys.executable, *map(str, words)], subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=dict(self.environment),
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
        )

    def call(self, *words: str, launcher: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        if launcher is None:
            return self.forks.call([SMALL_CHUNKS, *words], cwd=self.folder, env=self.environment)
        return self.end(self.start(*words, launcher=launcher))

    def end(self, process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, name: str, *more: str, held: bool = False, marks: bool = True) -> list[str]:
        """Words of a run of the model `company` into a folder with vectors of its own.

        Args:
            held: each process waits at its third chunk for `let_go`.
        """
        model = ["--model", "company", "--batch-tokens", "100"]
        if held:
            model += ["--model-arg", f"gate={self.folder / name / 'gate'}"]
        if marks:
            self.marks(name).mkdir(parents=True, exist_ok=True)
            model += ["--model-arg", f"marks={self.marks(name)}"]
        return ["run", *model, "--tasks", ",".join(TASKS), "--output", f"{name}/run", *more]

    def marks(self, name: str) -> Path:
        return self.folder / name / "marks"

    def encoded(self, name: str) -> Counter[str]:
        """How often each chunk was begun."""
        return Counter(line for file in self.marks(name).iterdir() for line in file.read_text().split())

    def rankings(self, name: str) -> dict[str, object]:
        """All that must be the same to the last digit."""
        folder = RunFolder(self.folder / name / "run")
        results = {task: load_task_result(folder.task_file(task)) for task in TASKS}
        tables = {task: read_parquet(folder.queries_file(task), RANKING).to_pylist() for task in TASKS}
        return {task: (one.metrics, one.corrected_score, tables[task]) for task, one in results.items()}

    def wait_for_workers(self, name: str, count: int, process: subprocess.Popen[str]) -> list[int]:
        """Numbers of the processes that encode in a held run, once so many are at their third chunk."""

        def are_there() -> bool:
            assert process.poll() is None, self.end(process)
            begun = [file.read_text().split() for file in self.marks(name).iterdir()]
            return sum(len(chunks) >= 3 for chunks in begun) >= count

        wait_until(are_there)
        return [int(file.name) for file in self.marks(name).iterdir()]

    def let_go(self, name: str) -> None:
        """Let the processes of a held run go on."""
        (self.folder / name / "gate").touch()


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
