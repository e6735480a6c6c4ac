"""`python -m tests.benchmarks.prepare [WORKERS]`: pages a second that a thread prepares, and that worker processes do.

200 JPEG pages of 1,500 x 1,000 pixels, for a tiny Qwen3-VL-Embedding (its pictures are of the real size), in batches of
8. Workers are warm. What this process spends itself bounds how fast workers could feed it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mmeb_harness import BudgetedEmbedder, Item
from mmeb_harness.core.registry import ModelSpec
from mmeb_harness.encode.local import Preparation, Unprepared
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.encode.supervisor import WorkerPreparation
from tests.baselines.tiny_checkpoints import save_checkpoint

MODEL, NUM_PAGES, BATCH_ITEMS = "qwen3_vl_embedding", 200, 8


def make_pages(folder: Path) -> list[Item]:
    """Smooth noise, of some 300 kB."""
    draw = np.random.default_rng(0)
    paths = [folder / f"{place}.jpg" for place in range(NUM_PAGES)]
    for path in paths:
        coarse = Image.fromarray(draw.integers(0, 256, (100, 150, 3), dtype=np.uint8))
        coarse.resize((1500, 1000), Image.Resampling.BICUBIC).save(path, quality=90)
    return [Item(path.name, images=(path,)) for path in paths]


def measure(name: str, preparation: Preparation, batches: list[Unprepared]) -> str:
    """Pages a second, once everything has started."""
    with preparation:
        for _ in preparation.run(batches[:4]):
            pass
        started, own = time.perf_counter(), time.process_time()
        for _ in preparation.run(batches):
            pass
        seconds, own = time.perf_counter() - started, time.process_time() - own
    return (
        f"{name}: {NUM_PAGES / seconds:.1f} pages a second; CPU of this process {1000 * own / NUM_PAGES:.1f} ms a page"
    )


def main() -> None:
    """Twice each, in turn: the machine may have other things to do."""
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory(prefix="mmeb-bench-") as place:
        folder = Path(place)
        spec = ModelSpec(MODEL, {"path": str(save_checkpoint(MODEL, folder / MODEL))}, {"device": "cpu"})
        embedder, pages = spec.load(), make_pages(folder)
        assert isinstance(embedder, BudgetedEmbedder)
        batches: list[Unprepared] = []
        for start in range(0, NUM_PAGES, BATCH_ITEMS):
            items = pages[start : start + BATCH_ITEMS]
            batches.append((items, "candidate", sum(embedder.cost(item, "candidate") for item in items)))
        for _ in range(2):
            print(measure("a thread", InlinePreparation(embedder), batches))
            print(measure(f"{workers} workers", WorkerPreparation(spec, workers), batches))


if __name__ == "__main__":
    main()
