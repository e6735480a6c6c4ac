"""A vLLM server as a process: started, waited for, ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx

#: A start takes 45 s on an idle machine.
_LONGEST_START_SECONDS = 900.0
_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
#: What the documentation says, for rationales and for rollouts.
DOCUMENTED = (
    *("--max-model-len", "4096", "--trust-request-mm-kwargs"),
    *("--enable-lora", "--max-lora-rank", "64", "--logprobs-mode", "processed_logprobs"),
)


@dataclass
class Vllm:
    """One server; it can be started again at the same address."""

    python: Path
    checkpoint: Path
    options: Sequence[str]
    log: Path
    port: int = field(default_factory=lambda: _free_port())
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self, wait: bool = True) -> None:
        command = [
            *(str(self.python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(self.checkpoint), "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager"),
            *("--host", "127.0.0.1", "--port", str(self.port), *self.options),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, **_ENVIRONMENT}, start_new_session=True
            )
        until = time.monotonic() + _LONGEST_START_SECONDS
        while wait and not self._answers():
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"vLLM didn't start; its last words: {self.log.read_text()[-2000:]}")
            time.sleep(1.0)

    def end(self, seconds: float = 120.0) -> float:
        """SIGTERM; how many seconds it took to end. Later it is killed."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return time.monotonic() - begun

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/models", timeout=5.0).status_code == 200
        except httpx.HTTPError:
            return False


@contextmanager
def serving(python: Path, checkpoint: Path, options: Sequence[str], log: Path) -> Iterator[Vllm]:
    """A server that answers."""
    vllm = Vllm(python, checkpoint, options, log)
    try:
        vllm.start()
        yield vllm
    finally:
        if vllm.process is not None and vllm.process.poll() is None:
            vllm.end()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
