"""A task and embedders small enough to know every answer, for tests of the harness itself."""

from __future__ import annotations

import functools
import hashlib
import json
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmeb_harness import (
    DataError,
    Embedder,
    EncodeResult,
    Frames,
    Item,
    ModelInfo,
    Role,
    Samples,
    Task,
    TokenVectors,
    Trace,
)
from mmeb_harness.core.progress import Reporter
from mmeb_harness.core.registry import BENCHMARK, RegisteredTask
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.results.files import RunResult
from mmeb_harness.run.evaluate import evaluate, this_process
from mmeb_harness.run.plan import RunSettings, make_plan


def read_toy(name: str, folder: Path, frames: Frames) -> Samples:
    """Reads `<folder>/<name>.json`: {"queries": [[text, answer], …], "candidates": [text, …], "pooled": bool}."""
    path = folder / f"{name}.json"
    if not path.is_file():
        raise DataError(f"{name}: {path} is missing")
    stored = json.loads(path.read_text())
    queries = tuple(Item(f"q{i}", text=text) for i, (text, _) in enumerate(stored["queries"]))
    candidates = tuple(Item(text, text=text) for text in stored["candidates"])
    gains = {f"q{i}": {answer: 1.0} for i, (_, answer) in enumerate(stored["queries"])}
    pools = {query.id: tuple(stored["candidates"]) for query in queries} if stored["pooled"] else None
    return Samples(queries, candidates, gains, pools)


def write_toy(folder: Path, name: str, num_queries: int = 6, num_candidates: int = 12, pooled: bool = True) -> None:
    candidates = [f"{name} answer {i}" for i in range(num_candidates)]
    queries = [[f"{name} question {i}", candidates[i % num_candidates]] for i in range(num_queries)]
    stored = {"queries": queries, "candidates": candidates, "pooled": pooled}
    (folder / f"{name}.json").write_text(json.dumps(stored))


def toy_task(name: str, num_queries: int | None = None) -> Task:
    return Task(
        name=name,
        modality="image",
        group="I-CLS",
        metric="hit@1",
        load=functools.partial(read_toy, name),
        annotations=(f"{name}.json",),
        num_queries=num_queries,
    )


def registered(*tasks: Task) -> dict[str, RegisteredTask]:
    return {task.name: RegisteredTask(task, BENCHMARK) for task in tasks}


def evaluated(
    embedder: Embedder,
    tasks: Sequence[RegisteredTask],
    registered: Mapping[str, RegisteredTask],
    data: DataInfo,
    settings: RunSettings,
    reporter: Reporter | None = None,
) -> RunResult:
    """A run in this process, from what is asked for to what run.json says."""
    reporter = reporter or QuietReporter()
    plan = make_plan(tasks, registered, data, embedder.info, settings)
    return evaluate([plan], embedder, this_process(embedder, reporter.note), reporter)[0].result


def info_of(folder: Path, synthetic: bool = False) -> DataInfo:
    return DataInfo(folder, synthetic=synthetic)


class HashEmbedder:
    """Deterministic vectors by text; counts what it was asked for; every third text "reasons"."""

    def __init__(self, dimensions: int = 16, revision: str = "1") -> None:
        self.info = ModelInfo("hash", revision, dimensions, settings={"reasoning": "adaptive"}, reasons=True)
        self.texts: list[str] = []

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self.texts += [item.text for item in items]
        return EncodeResult(
            np.stack([self.vector(item.text) for item in items]), tuple(self.trace(item.text) for item in items)
        )

    def vector(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        vector = np.random.default_rng(seed).normal(size=self.info.dimensions)
        return (vector / np.linalg.norm(vector)).astype(np.float32)

    def trace(self, text: str) -> Trace:
        if len(text) % 3:
            return Trace(gate=0.25, seconds=0.001)
        return Trace("reasoned", 0.75, f"because {text}", reasoning_tokens=4, truncated=len(text) % 2 == 0)


class WordsEmbedder:
    """Late interaction: a vector a word and a medium, hashed from it; counts what it was asked for."""

    def __init__(self, dimensions: int = 16) -> None:
        self.info = ModelInfo("words", "1", dimensions, similarity="max_sim")
        self.keys: list[tuple[Role, Item]] = []

    def encode(self, items: Sequence[Item], role: Role) -> EncodeResult:
        self.keys += [(role, item) for item in items]
        return EncodeResult(TokenVectors.of_items([self.vectors(item) for item in items]))

    def vectors(self, item: Item) -> np.ndarray:
        tokens = [word.encode() for word in f"{item.instruction} {item.text}".split()]
        tokens += [path.read_bytes() for path in item.media]
        seeds = [int.from_bytes(hashlib.sha256(token).digest()[:8]) for token in tokens or [b""]]
        vectors = np.stack([np.random.default_rng(seed).normal(size=self.info.dimensions) for seed in seeds])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def press_ctrl_c_twice() -> None:
    """Stop at once, in the middle of what is under way."""
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


class QuietReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.finished: list[str] = []
        self.stops = 0

    def start_run(self, tasks: int) -> None: ...
    def read_media(self, files: int) -> None: ...
    def start_encoding(self, tasks: Sequence[str], items: int) -> None: ...
    def advance(self, items: int) -> None: ...
    def time_left(self, seconds: float) -> None: ...
    def skip_tasks(self, tasks: int) -> None: ...

    def stop(self) -> None:
        self.stops += 1

    def finish_task(self, line: str) -> None:
        self.finished.append(line)

    def note(self, line: str) -> None:
        self.notes.append(line)
