"""How much memory a task of 10,000 pages takes beyond the model, from reading it to its result.

python -m tests.benchmarks.memory [--pages N] [--workers N] [--max-pixels N]

The pages are made up: JPEG files of 1,000 x 1,400 pixels, no two the same, a few hundred of them drawn and the others
told apart by a comment inside. They are evaluated as `mmeb-eval run` would do it, by the embedded tiny MMEmb-R1 with
as many visual tokens a page as asked for. Exit code 1 if the most memory of all processes together, less what this one
held once the model was loaded and warm, is 0.6 GB or more. What processes share counts once.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mmeb_harness import Frames, Item, Samples, Task
from mmeb_harness.adapter.memory import held_memory
from mmeb_harness.core.registry import BENCHMARK, ModelSpec, RegisteredTask
from mmeb_harness.data.folder import DataInfo
from mmeb_harness.encode.local import LocalEncoder
from mmeb_harness.encode.prepare import InlinePreparation
from mmeb_harness.encode.supervisor import WorkerPreparation
from mmeb_harness.run.evaluate import evaluate
from mmeb_harness.run.plan import RunSettings, make_plan
from mmemb_r1_model.embed.embedder import MMEmbR1Embedder
from mmemb_r1_model.model import tiny_model as tiny
from mmemb_r1_model.model.settings import read_settings, write_settings
from tests.toy import QuietReporter

MOST_BYTES = 600_000_000
SIZE = (1000, 1400)
DRAWN, QUERIES = 200, 50
#: Between two looks at the memory, which take the system some milliseconds.
LOOK_SECONDS = 0.2


def draw_page(number: int) -> Image.Image:
    """Grey lines of words, and a noisy figure so that a file has the size of a real page's."""
    draw = np.random.default_rng(number)
    page = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(page)
    for top in range(60, 900, 26):
        left = 70
        while left < SIZE[0] - 120:
            width = int(draw.integers(20, 110))
            pen.rectangle((left, top, left + width, top + 12), fill=(int(draw.integers(0, 90)),) * 3)
            left += width + 14
    figure = draw.integers(0, 256, (20, 43, 3), dtype=np.uint8)
    page.paste(Image.fromarray(figure).resize((860, 400)), (70, 940))
    return page


def write_pages(folder: Path, number: int) -> None:
    """`page_00000.jpg` and so on."""
    folder.mkdir(parents=True)
    for first in range(min(DRAWN, number)):
        path = folder / f"page_{first:05d}.jpg"
        draw_page(first).save(path, quality=80)
        jpeg = path.read_bytes()
        for other in range(first + DRAWN, number, DRAWN):
            comment = f"page {other}".encode()
            # After the two bytes that begin a JPEG file: a comment's mark, its length, the comment.
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            (folder / f"page_{other:05d}.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])


def read_pages(folder: Path, frames: Frames) -> Samples:
    """Every query asks for one page among all."""
    paths = sorted((folder / "pages").iterdir())
    pages = tuple(Item(path.stem, images=(path,), instruction="Represent the page.") for path in paths)
    queries = tuple(Item(f"q{i}", text=f"question {i} about a page") for i in range(min(QUERIES, len(pages))))
    return Samples(queries, pages, {query.id: {page.id: 1.0} for query, page in zip(queries, pages, strict=False)})


def copy_tiny(folder: Path, max_pixels: int) -> Path:
    """The embedded checkpoint, with another bound of pixels."""
    shutil.copytree(Path(tiny.__file__).parents[1] / "tiny", folder)
    write_settings(folder, dataclasses.replace(read_settings(folder), max_pixels=max_pixels))
    return folder


@dataclasses.dataclass
class Peak:
    """The most bytes seen."""

    bytes: int = 0


@contextmanager
def watched() -> Iterator[Peak]:
    """Look at the memory all the time."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            peak.bytes = max(peak.bytes, held_memory())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peak
    finally:
        ended.set()
        looking.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare; 0: a thread of this one")
    parser.add_argument("--max-pixels", type=int, default=16_384, help="of a page, after resizing; a token has 256")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmeb-memory-") as name:
        sys.exit(0 if measure(Path(name), options.pages, options.workers, options.max_pixels) else 1)


def measure(folder: Path, pages: int, workers: int, max_pixels: int) -> bool:
    """Whether it takes less than it may."""
    write_pages(folder / "data" / "pages", pages)
    size = sum(path.stat().st_size for path in (folder / "data" / "pages").iterdir())
    print(f"{pages:,} pages, {size / 1e6:,.0f} MB of files; {workers} worker processes; {max_pixels:,} pixels a page")
    task = Task("Pages", "visdoc", "Memory", "ndcg_linear@5", read_pages, annotations=("pages",))
    spec = ModelSpec("mmemb_r1", {"path": str(copy_tiny(folder / "model", max_pixels))}, {"device": "cpu"})
    embedder = spec.load()
    assert isinstance(embedder, MMEmbR1Embedder)
    embedder.warm_up()
    before, started = held_memory(), time.perf_counter()
    registered = {task.name: RegisteredTask(task, BENCHMARK)}
    settings = RunSettings(output=folder / "run", batch_tokens=16_384)
    preparation = WorkerPreparation(spec, workers, note=print) if workers else InlinePreparation(embedder)
    with watched() as peak, preparation:
        encoder = LocalEncoder(embedder, preparation, settings.batch_tokens)
        plan = make_plan([*registered.values()], registered, DataInfo(folder / "data"), embedder.info, settings)
        evaluate([plan], embedder, lambda _: nullcontext(encoder), QuietReporter())
    seconds, beyond = time.perf_counter() - started, peak.bytes - before
    print(
        f"{seconds:.0f} s, {pages / seconds:,.0f} pages/s; with the model warm {before / 1e9:.2f} GB, at most "
        f"{peak.bytes / 1e9:.2f} GB: {beyond / 1e9:.2f} GB beyond it (must be below {MOST_BYTES / 1e9:.1f})"
    )
    return beyond < MOST_BYTES


if __name__ == "__main__":
    main()
