"""A text task over half a million documents, by the real command: seconds and peak memory of each stage.

python -m tests.benchmarks.large_corpus FOLDER [--documents N] [--queries N] [--words N] [--model NAME]

FOLDER gets the task's files, in the format of MMEB-V3, if it hasn't them, and a run of its own each time. A document is
words drawn by how often words are; a query is some words of its relevant document.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

import mmeb_harness.run.evaluate as run
from mmeb_harness.cli.commands import main as command
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.run.foresight import Foresight
from mmeb_harness.store.vectors import KeyedSamples, VectorStore

TASK, ROOT = "text/R2MED/Biology", "text-tasks/R2MED/Biology"
VOCABULARY, QUERY_WORDS = 50_000, 12
_BLOCK = 10_000


@dataclass
class Stage:
    """What a part of the run took: seconds, those of all processors, and the most memory in use meanwhile."""

    seconds: float = 0.0
    processor: float = 0.0
    gigabytes: float = 0.0


def write_task(folder: Path, documents: int, queries: int, words: int) -> None:
    """The three files of the task."""
    draw = np.random.default_rng(0)
    vocabulary = np.array([f"word{number}" for number in range(VOCABULARY)])
    chances = 1.0 / np.arange(1, VOCABULARY + 1)
    ends = np.cumsum(chances / chances.sum())
    relevant = np.sort(draw.choice(documents, queries, replace=False))
    folder.mkdir(parents=True)
    with (
        (folder / "corpus.jsonl").open("w") as corpus,
        (folder / "query.jsonl").open("w") as asked,
        (folder / "qrels.jsonl").open("w") as labels,
    ):
        for start in range(0, documents, _BLOCK):
            count = min(_BLOCK, documents - start)
            # The last one's sum may be a little less than 1.
            rows = vocabulary[np.searchsorted(ends[:-1], draw.random((count, words)))]
            for number, row in enumerate(rows.tolist(), start=start):
                corpus.write(json.dumps({"id": f"d{number}", "text": " ".join(row)}) + "\n")
            for number in relevant[(relevant >= start) & (relevant < start + count)].tolist():
                text = " ".join(draw.choice(rows[number - start], min(QUERY_WORDS, words)).tolist())
                asked.write(json.dumps({"id": f"q{number}", "text": text}) + "\n")
                labels.write(json.dumps({"q_id": f"q{number}", "p_id": f"d{number}", "score": 1}) + "\n")


def watch(stages: dict[str, Stage], name: str, place: Any, attribute: str) -> None:
    """Have a function's calls counted as a stage."""
    original: Callable[..., Any] = getattr(place, attribute)
    inner = original.__func__ if (is_class_method := hasattr(original, "__self__")) else original  # type: ignore[attr-defined]

    @wraps(inner)
    def watched(*values: Any, **named: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is in use now
        began, processor = time.monotonic(), time.process_time()
        try:
            return inner(*values, **named)
        finally:
            stage = stages.setdefault(name, Stage())
            stage.seconds += time.monotonic() - began
            stage.processor += time.process_time() - processor
            stage.gigabytes = max(stage.gigabytes, peak_gigabytes())

    setattr(place, attribute, classmethod(watched) if is_class_method else watched)


def peak_gigabytes() -> float:
    held = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert held is not None
    return int(held[1]) * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--model", default="random")
    options = parser.parse_args()
    data = options.folder / f"{options.documents}-{options.queries}-{options.words}"
    if not data.is_dir():
        with tempfile.TemporaryDirectory(dir=options.folder) as made:
            write_task(Path(made) / ROOT, options.documents, options.queries, options.words)
            shutil.copytree(made, data)
    stages: dict[str, Stage] = {}
    watch(stages, "reading", run, "read_tasks")
    watch(stages, "foresight", Foresight, "expect")
    watch(stages, "content keys", KeyedSamples, "of")
    watch(stages, "batches planned", run, "plan_chunks")
    watch(stages, "encoding", LocalEncoder, "encode")
    watch(stages, "vectors read", VectorStore, "get")
    watch(stages, "ranking and writing", run, "finish_task")
    with tempfile.TemporaryDirectory(dir=options.folder) as output:
        sys.argv = ["mmeb-eval", "run", "--model", options.model, "--data", str(data), "--edition", "v3"]
        sys.argv += ["--tasks", TASK, "--output", f"{output}/run", "--vectors", f"{output}/vectors"]
        began, processor = time.monotonic(), time.process_time()
        try:
            command()
        except SystemExit as ended:
            if ended.code:
                raise
        whole = Stage(time.monotonic() - began, time.process_time() - processor, peak_gigabytes())
    print(f"{options.documents:,} documents of {options.words} words, {options.queries:,} queries, {options.model}")
    for name, stage in (stages | {"all": whole}).items():
        print(f"{name:20} {stage.seconds:7.1f} s ({stage.processor:.1f} s of processor time), {stage.gigabytes:.2f} GB")


if __name__ == "__main__":
    main()
