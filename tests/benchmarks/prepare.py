"""Pages a second a core from their files to the process that encodes them: hashed, decoded, resized, cut, handed over.

python -m tests.benchmarks.prepare [--pages N] [--workers N] [--rounds N] [--beside FOLDER]

JPEG pages of 1,500 x 1,000 pixels, for a tiny Qwen3-VL-Embedding (its pictures are of the real size), in batches of 8.
Counted are the processor's seconds of this process and its workers, which are warm, so that other work on the machine
moves little. `--beside` measures another checkout of this project in turn with this one, e.g. an earlier commit's.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MODEL, BATCH_ITEMS = "qwen3_vl_embedding", 8
#: Where names are, and where they were before the harness had rooms.
PLACES = {
    "ModelSpec": ("mmeb_harness.core.registry", "mmeb_harness.registry"),
    "WorkerPreparation": ("mmeb_harness.encode.supervisor", "mmeb_harness.prepare"),
    "InlinePreparation": ("mmeb_harness.encode.prepare", "mmeb_harness.prepare"),
    "MediaHashes": ("mmeb_harness.store.media", "mmeb_harness.media"),
    "content_keys": ("mmeb_harness.store.vectors", "mmeb_harness.store"),
}
HERE = Path(__file__).parents[2]


def make_pages(folder: Path, number: int) -> None:
    """Smooth noise, of some 300 kB."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for place in range(number):
        coarse = Image.fromarray(draw.integers(0, 256, (100, 150, 3), dtype=np.uint8))
        coarse.resize((1500, 1000), Image.Resampling.BICUBIC).save(folder / f"{place:04d}.jpg", quality=90)


def named(name: str) -> Any:
    """A name of the harness, of whichever checkout this process has."""
    now, before = PLACES[name]
    try:
        return getattr(importlib.import_module(now), name)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(before), name)


def processor_seconds() -> float:
    """Of this process and its workers, since each was started."""
    spent = time.process_time()
    for worker in multiprocessing.active_children():
        fields = Path(f"/proc/{worker.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system
    return spent


def measure(folder: Path, checkpoint: Path, workers: int) -> float:
    """Processor milliseconds a page."""
    from mmeb_harness import Item

    paths = sorted(folder.iterdir())
    items = [Item(path.name, images=(path,)) for path in paths]
    spec = named("ModelSpec")(MODEL, {"path": str(checkpoint)}, {"device": "cpu"})
    embedder = spec.load()
    batches = []
    for start in range(0, len(items), BATCH_ITEMS):
        some = items[start : start + BATCH_ITEMS]
        batches.append((some, "candidate", sum(embedder.cost(item, "candidate") for item in some)))
    preparation = named("WorkerPreparation")(spec, workers) if workers else named("InlinePreparation")(embedder)
    with preparation, tempfile.TemporaryDirectory() as hashes:
        for _ in preparation.run(batches[: 2 + 2 * workers]):
            pass
        started = processor_seconds()
        named("content_keys")(items, "candidate", named("MediaHashes")(Path(hashes), folder))
        for _ in preparation.run(batches):
            pass
        return 1000 * (processor_seconds() - started) / len(items)


def measure_apart(checkout: Path, folder: Path, checkpoint: Path, workers: int) -> float:
    """The same, in a process that has a checkout's packages."""
    paths = os.pathsep.join(map(str, (checkout, checkout / "baselines", checkout / "tasks")))
    command = [sys.executable, __file__, "--one", str(folder), str(checkpoint), str(workers)]
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2, help="processes that prepare; 0: a thread")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, checkpoint, workers = options.one
        print(measure(Path(folder), Path(checkpoint), int(workers)))
        return
    from tests.baselines.tiny_checkpoints import save_checkpoint

    checkouts = [HERE] if options.beside is None else [options.beside.resolve(), HERE]
    found: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    with tempfile.TemporaryDirectory(prefix="mmeb-bench-") as name:
        folder, checkpoint = Path(name) / "pages", save_checkpoint(MODEL, Path(name) / MODEL)
        make_pages(folder, options.pages)
        for _ in range(options.rounds):
            for checkout in checkouts:
                spent = measure_apart(checkout, folder, checkpoint, options.workers)
                found[checkout].append(spent)
                print(
                    f"{checkout}: {spent:.1f} ms of a core a page, {1000 / spent:.1f} pages a second a core", flush=True
                )
    if options.beside is not None:
        before, now = (sum(found[checkout]) for checkout in checkouts)
        print(f"{before / now:.2f} times as many pages a second a core")


if __name__ == "__main__":
    main()
