"""A model whose vectors depend on everything that is encoded together: other chunks would be other scores.

Installed by `install` as a plugin of its own, since several processes have to find it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmeb_harness import DataError, EncodeResult, Item, ModelInfo, Role

Texts = list[str]


class CompanyEmbedder:
    """Streams.

    Args:
        seconds: that a batch takes.
        marks: a folder in which each process writes a line a chunk, into a file named by its number. One that torchrun
            has started again has a file even if nothing is left for it.
        gate: a file that each process waits for once it has begun its third chunk.
        trouble: "data": can't read anything; "bug": breaks; "death": takes the process along; "stillborn": does so at
            once, and leaves its mark; "hang"; "memory": has none for more than 8 items; "other": is another model in
            each process.
    """

    def __init__(
        self, seconds: float = 0.0, marks: str | None = None, trouble: str = "", gate: str | None = None
    ) -> None:
        settings = {"process": os.getpid()} if trouble == "other" else {}
        self.info = ModelInfo("company", "1", 16, settings)
        self._seconds, self._marks, self._trouble, self._gate = seconds, marks, trouble, gate
        self._begun = 0
        if marks and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
            (Path(marks) / str(os.getpid())).touch()
        if trouble == "stillborn":
            self._mark([])
            os._exit(1)

    def cost(self, item: Item, role: Role) -> int:
        return 1 + len(item.text) // 4

    def prepare(self, items: Sequence[Item], role: Role) -> Texts:
        if self._trouble == "data":
            raise DataError(f"{items[0].id} can't be opened")
        return [f"{role} {item.text} {[path.name for path in item.media]}" for item in items]

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        return self.encode_prepared(self.prepare(items, role))

    def encode_prepared(self, prepared: Texts) -> EncodeResult:
        return next(self.encode_stream(iter([prepared])))

    def encode_stream(self, prepared: Iterator[Texts]) -> Iterator[EncodeResult]:
        batches = list(prepared)
        self._mark(batches)
        self._wait()
        self._get_into_trouble(batches)
        for texts in batches:
            time.sleep(self._seconds)
            vectors = np.stack([self._vector(text, batches) for text in texts])
            yield EncodeResult((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))

    def _vector(self, text: str, batches: list[Texts]) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(f"{text} among {batches}".encode()).digest()[:8])
        return np.random.default_rng(seed).normal(size=16)

    def _mark(self, batches: list[Texts]) -> None:
        if self._marks:
            with (Path(self._marks) / str(os.getpid())).open("a") as file:
                file.write(f"{hashlib.sha256(str(batches).encode()).hexdigest()}\n")

    def _wait(self) -> None:
        self._begun += 1
        end = time.monotonic() + 600  # a test that failed opens no gate
        while self._gate and self._begun >= 3 and not Path(self._gate).exists() and time.monotonic() < end:
            time.sleep(0.01)

    def _get_into_trouble(self, batches: list[Texts]) -> None:
        if self._trouble == "bug":
            raise KeyError("no such thing")
        if self._trouble == "death":
            os._exit(1)
        if self._trouble == "hang":
            time.sleep(60)
        if self._trouble == "memory" and max(map(len, batches)) > 8:
            raise MemoryError("all gone")


def install(folder: Path) -> str:
    """Make a folder that, on PYTHONPATH, brings the model `company`; returns its path."""
    metadata = folder / "company-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: company\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[mmeb_harness.models]\ncompany = company_model:CompanyEmbedder\n")
    (folder / "company_model.py").write_text(Path(__file__).read_text())
    return str(folder)
