"""`python -m tests.benchmarks.read`: time and peak memory to read the two largest shapes of task.

An image task of 1,000 queries, each with 1,000 of 20,000 texts; a corpus of 10,000 pages, first as `mmeb-eval data get`
leaves it (pages are files), then as the hub has it (pages inside the table, written to disk on first use).
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mmeb_tasks import TASKS
from PIL import Image

from mmeb_harness import Frames

IMAGE_TASK, PAGE_TASK = "OK-VQA", "VisRAG_PlotQA"
NUM_QUERIES, NUM_CANDIDATES, NUM_TEXTS, NUM_PAGES = 1000, 1000, 20_000, 10_000


def png(side: int, seed: int = 0) -> bytes:
    """A square picture of noise."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_table(root: Path, task: str, rows: list[dict[str, Any]], config: str = "") -> None:
    """The task's table (of three the one named `config`)."""
    patterns = next(one for one in TASKS if one.name == task).annotations
    path = root / next(one for one in patterns if "-of-" not in one and config in one)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)


def make_image_task(root: Path) -> None:
    """1,000 x 1,000 texts."""
    draw = np.random.default_rng(0)
    texts = [f"an answer of some length, number {index}" for index in range(NUM_TEXTS)]
    shared = {"qry_inst": "<|image_1|>\nRepresent the given image with the following question:", "tgt_inst": ""}
    rows = [
        {
            **shared,
            "qry_text": f"question {row}?",
            "qry_img_path": "OK-VQA/a.png",
            "tgt_text": [texts[index] for index in draw.choice(NUM_TEXTS, NUM_CANDIDATES, replace=False)],
            "tgt_img_path": [""] * NUM_CANDIDATES,
        }
        for row in range(NUM_QUERIES)
    ]
    write_table(root, IMAGE_TASK, rows)
    (root / "image-tasks/OK-VQA").mkdir(parents=True)
    (root / "image-tasks/OK-VQA/a.png").write_bytes(png(32))


def make_corpus(root: Path) -> None:
    """10,000 pages of 30 kB inside their table."""
    ids = [f"page_{index}.png" for index in range(NUM_PAGES)]
    pages = [png(100, seed) for seed in range(8)]
    stored = [{"bytes": pages[index % len(pages)], "path": None} for index in range(NUM_PAGES)]
    rows = [{"corpus-id": one, "image": image} for one, image in zip(ids, stored, strict=True)]
    write_table(root, PAGE_TASK, rows, "corpus")
    write_table(root, PAGE_TASK, [{"query-id": str(i), "query": f"q {i}"} for i in range(863)], "queries")
    write_table(root, PAGE_TASK, [{"query-id": str(i), "corpus-id": ids[i], "score": 1} for i in range(863)], "qrels")


def peak_mb() -> float:
    """Of this process (getrusage's would count the parent's, from before exec)."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1000


def read(root: Path, name: str) -> str:
    """Read a task once, in this process."""
    task = next(one for one in TASKS if one.name == name)
    before = peak_mb()
    started = time.perf_counter()
    samples = task.load(root, Frames())
    seconds = time.perf_counter() - started
    size = f"{len(samples.queries):,} queries, {len(samples.candidates):,} candidates"
    return f"{name}: {size}: {seconds:.2f} s, peak {peak_mb():.0f} MB ({peak_mb() - before:.0f} above the start)"


def main() -> None:
    """Make the data in a temporary folder; read each in a process of its own."""
    if len(sys.argv) > 1:
        print(read(Path(sys.argv[1]), sys.argv[2]))
        return
    with tempfile.TemporaryDirectory(prefix="mmeb-bench-") as folder:
        make_image_task(Path(folder))
        make_corpus(Path(folder))
        for what, name in (("", IMAGE_TASK), ("pages written on first use, ", PAGE_TASK), ("", PAGE_TASK)):
            command = [sys.executable, "-m", "tests.benchmarks.read", folder, name]
            print(what + subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
